"""What the documents tell a reader to run: examples run, commands parse, links resolve."""

import re
import shlex
import subprocess
import sys

import pytest
from sklearn import datasets

from experiments.__main__ import summaries
from tests.commands import ROOT, few_images, module_of, run

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")))
}
HELPS = {name: module_of(f"experiments.{name}").__doc__ for name in summaries()}
COMMANDS = sorted(
    {
        line.strip()
        for text in (*DOCUMENTS.values(), *HELPS.values())
        for line in re.findall(r"python -m (experiments\.\w+(?: [^\n`|#]*)?)", text)
    }
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SYNTHETIC DATA")
@pytest.mark.parametrize("name", [name for name, text in DOCUMENTS.items() if "```python" in text])
def test_python_blocks_run_from_the_first_to_the_last(name, monkeypatch, tmp_path):
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # examples write their files here
    digits = datasets.load_digits()
    digits.data, digits.target = digits.data[::4], digits.target[::4]
    monkeypatch.setattr(datasets, "load_digits", lambda: digits)
    variables = {}
    with few_images():
        for block in re.findall(r"```python\n(.*?)```", DOCUMENTS[name], flags=re.DOTALL):
            exec(compile(block, name, "exec"), variables)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(monkeypatch, command):
    name, *words = shlex.split(command)
    monkeypatch.setattr(module_of(name), "main", lambda argv: 0)
    done = run(name, *words)
    assert done.returncode == 0, done.stderr


def test_documents_name_every_command():
    named = {re.match(r"experiments\.(\w+)", command)[1] for command in COMMANDS}
    assert named == set(HELPS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name):
    text, folder = DOCUMENTS[name], (ROOT / name).parent
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert [t for t in targets if "://" not in t and not (folder / t).exists()] == []
    files = re.findall(r"`((?:docs|experiments|linear_cifar|tests)/[\w./]+)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_recipe_for_features_is_a_part_of_its_script():
    (recipe,) = re.findall(r"```py\n(weights.*?)```", DOCUMENTS["docs/probes.md"], flags=re.DOTALL)
    assert recipe in (ROOT / "docs" / "examples" / "image_features.py").read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra 'docs' isn't installed")
    words = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short():
    assert len(DOCUMENTS["README.md"].splitlines()) <= 150
