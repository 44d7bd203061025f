"""The wheel: the library, its types, and nothing else."""

import ast
import importlib.util
import shutil
import subprocess
import sys
import zipfile

import pytest

import linear_cifar
from tests.commands import ROOT


def shell(*words, cwd):
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, text=True, capture_output=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_version_is_that_of_the_project():
    assert f"version = {linear_cifar.__version__}\n" in (ROOT / "setup.cfg").read_text()


def imported(path):
    """The names of the library that a file imports, with their modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=str)
def test_commands_import_only_public_names_of_the_library(path):
    for module, name in imported(path):
        if module.split(".")[0] != "linear_cifar":
            continue
        assert module.count(".") <= 1, f"{module} is deeper than the public packages"
        public = getattr(importlib.import_module(module), "__all__", None)
        if name is not None and public is not None:
            known = name in public or importlib.util.find_spec(f"{module}.{name}")
            assert known, f"{module} doesn't export {name}"
        assert not (name or "").startswith("_")


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_brings_the_library_alone_and_its_types(tmp_path):
    pytest.importorskip("mypy")
    source = tmp_path / "source"
    source.mkdir()
    for name in (
        "linear_cifar",
        "experiments",
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    code, text = shell(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", source, cwd=tmp_path
    )
    assert code == 0, text
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"linear_cifar"}
    assert "linear_cifar/py.typed" in names

    assert shell(sys.executable, "-m", "venv", "fresh", cwd=tmp_path)[0] == 0
    python = tmp_path / "fresh" / "bin" / "python"
    code, text = shell(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
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
