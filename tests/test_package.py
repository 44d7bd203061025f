"""The wheel: the library and its types alone; commands use what the library exports."""

import ast
import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import linear_cifar
from tests.commands import ROOT

SOURCES = ("linear_cifar", "experiments", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def imports(nodes):
    """The names that statements import, with their modules."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def test_commands_import_only_public_names_of_the_library():
    for path in (ROOT / "experiments").rglob("*.py"):
        for module, name in imports(ast.walk(ast.parse(path.read_text()))):
            if module.split(".")[0] == "linear_cifar":
                assert module.count(".") <= 1, f"{module} is deeper than the public packages"
                public = getattr(importlib.import_module(module), "__all__", [name])
                exported = name in public or importlib.util.find_spec(f"{module}.{name}")
                assert exported or name is None, f"{module} doesn't export {name}"
                assert not (name or "").startswith("_")


def test_the_library_needs_no_package_that_it_does_not_install():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = set(re.findall(r"^(\w+)>=", config["options"]["install_requires"], re.MULTILINE))
    allowed = required | sys.stdlib_module_names | {"linear_cifar"}
    for path in (ROOT / "linear_cifar").rglob("*.py"):
        extra = {"sklearn"} if path.parent.name == "estimators" else set()
        names = {module.split(".")[0] for module, _ in imports(ast.parse(path.read_text()).body)}
        assert names <= allowed | extra, path


@pytest.mark.slow
def test_a_wheel_brings_the_library_alone_and_its_types(tmp_path):
    pytest.importorskip("mypy")
    source, site, user = (tmp_path / name for name in ("source", "site", "user"))
    (user / "experiments").mkdir(parents=True)
    (user / "experiments" / "__init__.py").write_text("MINE: bool = True\n")
    shutil.copy(ROOT / "tests" / "programs" / "user.py", user / "main.py")
    source.mkdir()
    for path in map(ROOT.joinpath, SOURCES):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / path.name)

    def python(*words, **settings):
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, text=True, capture_output=True, check=False, **settings)
        return done.returncode, done.stdout + done.stderr

    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    code, text = python("-c", build, cwd=source)
    assert code == 0, text
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"linear_cifar"}
    assert (site / "linear_cifar" / "py.typed").exists()
    paths = os.environ | {"PYTHONPATH": str(site), "MYPYPATH": str(site)}
    expected = f"{linear_cifar.__version__} (2, 4)\n"
    assert python("main.py", cwd=user, env=paths) == (0, expected)
    only_ours = "[mypy]\nfollow_imports=skip\n[mypy-linear_cifar.*]\nfollow_imports=silent\n"
    (user / "mypy.ini").write_text(only_ours)  # JAX's types would take most of the time
    code, text = python("-m", "mypy", "--strict", "main.py", cwd=user, env=paths)
    last = len((user / "main.py").read_text().splitlines())
    assert text.splitlines()[0].startswith(f"main.py:{last}: error: Incompatible types"), text
    assert "Found 1 error in 1 file" in text
    assert f"-{linear_cifar.__version__}-" in wheel.name
