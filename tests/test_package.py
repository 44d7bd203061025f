"""The wheel: the library, its types, and nothing else; commands use what the library exports."""

import ast
import configparser
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

import linear_cifar
from tests.commands import ROOT

SOURCES = ("linear_cifar", "experiments", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def shell(*words, cwd):
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, text=True, capture_output=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_version_is_the_projects():
    assert f"version = {linear_cifar.__version__}\n" in (ROOT / "setup.cfg").read_text()


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
            if module.split(".")[0] != "linear_cifar":
                continue
            assert module.count(".") <= 1, f"{module} is deeper than the public packages"
            public = getattr(importlib.import_module(module), "__all__", None)
            if name is not None and public is not None:
                exported = name in public or importlib.util.find_spec(f"{module}.{name}")
                assert exported, f"{module} doesn't export {name}"
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
    """In a fresh environment that shares only the other packages."""
    pytest.importorskip("mypy")
    source = tmp_path / "source"
    source.mkdir()
    for path in map(ROOT.joinpath, SOURCES):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / path.name)
    pip = (sys.executable, "-m", "pip")
    code, text = shell(*pip, "wheel", "-q", "--no-deps", source, cwd=tmp_path)
    assert code == 0, text
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"linear_cifar"}
    assert "linear_cifar/py.typed" in names

    assert shell(sys.executable, "-m", "venv", "--without-pip", "fresh", cwd=tmp_path)[0] == 0
    python = tmp_path / "fresh" / "bin" / "python"
    (packages,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib"))  # what the library needs
    words = ("install", "-q", "--no-deps", "--target", packages, wheel)
    code, text = shell(*pip, *words, cwd=tmp_path)
    assert code == 0, text
    user = tmp_path / "user"
    (user / "experiments").mkdir(parents=True)
    (user / "experiments" / "__init__.py").write_text("MINE: bool = True\n")
    shutil.copy(ROOT / "tests" / "programs" / "user.py", user / "main.py")
    code, text = shell(python, "main.py", cwd=user)
    assert code == 0, text
    assert text == f"{linear_cifar.__version__} (2, 4)\n"
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python)
    code, text = shell(*mypy, "main.py", cwd=user)
    last = len((user / "main.py").read_text().splitlines())
    assert text.splitlines()[0].startswith(f"main.py:{last}: error: Incompatible types"), text
    assert "Found 1 error in 1 file" in text
