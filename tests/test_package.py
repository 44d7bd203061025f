"""The wheel: the library and its types alone; commands use what the library exports."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.commands import ROOT


def exports(module):
    """A module's own names, and those that it imports `as` themselves or lists in `__all__`."""
    place = ROOT / module.replace(".", "/")
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    names = {path.stem for path in place.glob("*")}  # submodules
    for node in ast.parse(source.read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname for alias in aliases}
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names |= set(ast.literal_eval(value))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_commands_import_only_what_the_library_exports():
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("linear_cifar.") for alias in node.names), path
            if isinstance(node, ast.ImportFrom) and node.module.startswith("linear_cifar"):
                names = {alias.name for alias in node.names}
                assert node.module.count(".") <= 1, f"{path} reaches deeper than public packages"
                assert names <= exports(node.module), path
                assert not any(name.startswith("_") for name in names), path


def test_the_library_needs_no_package_that_it_does_not_install():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = set(re.findall(r"^(\w+)>=", config["options"]["install_requires"], re.MULTILINE))
    allowed = required | sys.stdlib_module_names | {"linear_cifar"}
    for path in (ROOT / "linear_cifar").rglob("*.py"):
        extra = {"sklearn"} if path.parent.name == "estimators" else set()
        at_top = r"^(?:import (?=\w)|from (?=[\w.]+ import ))(\w+)"
        assert {*re.findall(at_top, path.read_text(), re.MULTILINE)} <= allowed | extra, path


@pytest.mark.slow
def test_a_wheel_brings_the_library_alone_and_its_types(tmp_path):
    source, site, user = (tmp_path / name for name in ("source", "site", "user"))
    (user / "experiments").mkdir(parents=True)
    (user / "experiments" / "__init__.py").write_text("MINE: bool = True\n")
    shutil.copy(ROOT / "tests" / "programs" / "user.py", user / "main.py")
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("linear_cifar", "experiments"):
        shutil.copytree(ROOT / name, source / name)

    def python(*words, **settings):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, text=True, capture_output=True, check=False, **settings)
        return done.returncode, done.stdout + done.stderr

    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    assert python("-c", build, cwd=source)[0] == 0
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"linear_cifar"}
    assert (site / "linear_cifar" / "py.typed").exists()
    paths = os.environ | {"PYTHONPATH": str(site), "MYPYPATH": str(site)}
    version = wheel.name.split("-")[1]
    assert python("main.py", cwd=user, env=paths) == (0, f"{version} (2, 4)\n")
    only_ours = "[mypy]\nfollow_imports=skip\n[mypy-linear_cifar.*]\nfollow_imports=silent\n"
    (user / "mypy.ini").write_text(only_ours)  # JAX's types would take most of the time
    _, text = python("-m", "mypy", "--strict", "main.py", cwd=user, env=paths)
    last = (user / "main.py").read_text().count("\n")
    assert text.startswith(f"main.py:{last}: error: Incompatible types"), text
    assert "Found 1 error in 1 file" in text
