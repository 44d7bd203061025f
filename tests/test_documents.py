"""What the documents tell a reader to run: examples run, commands parse, links lead somewhere."""

import pkgutil
import re
import shlex

import jax
import pytest
from commands import ROOT, few_images, module_of, run

import experiments

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("*.md")))
}


HELPS = {
    name: module_of(name).__doc__
    for name in (m.name for m in pkgutil.iter_modules(experiments.__path__, "experiments."))
    if name != "experiments.common"
}
COMMANDS = sorted(
    {
        line.strip()
        for text in (*DOCUMENTS.values(), *HELPS.values())
        for line in re.findall(r"python -m (experiments\.\w+(?: [^\n`|#]*)?)", text)
    }
)


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where examples write their files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SYNTHETIC DATA")
@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
    "name",
    [name for name, text in DOCUMENTS.items() if "```python" in text],
)
def test_examples_run_from_the_first_to_the_last(name):
    names = {}
    with few_images():
        for example in re.findall(r"```python\n(.*?)```", DOCUMENTS[name], flags=re.DOTALL):
            exec(compile(example, name, "exec"), names)
    if name == "README.md":
        assert names["params"].weights.shape == (10, 3072)
        agree = jax.tree.map(
            lambda a, b: bool(abs(a - b).max() < 1e-6), names["by_hand"], names["by_autodiff"]
        )
        assert all(agree)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_told_of_parses(monkeypatch, command):
    name, *words = shlex.split(command)
    monkeypatch.setattr(module_of(name), "main", lambda argv: 0)
    done = run(name, *words)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_table_are_all_there_are():
    table = re.findall(r"^\| `python -m (experiments\.\w+)`", DOCUMENTS["README.md"], flags=re.M)
    assert sorted(table) == sorted(HELPS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    targets = re.findall(r"\]\(([^)#]+)\)", DOCUMENTS[name])
    assert [t for t in targets if "://" not in t and not (folder / t).exists()] == []


def test_the_readme_is_short():
    assert len(DOCUMENTS["README.md"].splitlines()) <= 150
