"""The commands' flags: lists, ranges, help, and one line for a flag that can't be used."""

import json
import pkgutil
import re

import numpy as np
import pytest

import experiments
from tests.commands import module_of, only_line, run, run_process

pytestmark = pytest.mark.usefixtures("undrawn")
COMMANDS = sorted({module.name for module in pkgutil.iter_modules(experiments.__path__)})
COMMANDS = [name for name in COMMANDS if name not in ("common", "__main__")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Features of so few examples that every batch size of 10 or more is one batch."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    inputs = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(path, inputs=inputs, labels=np.arange(12) % 2)
    return f"--features={path}"


def refusal(tmp_path, command, *words):
    """The one line with which a command refuses its flags; it leaves no folder."""
    done = run(f"experiments.{command}", *words, f"--output_dir={tmp_path / 'run'}")
    assert list(tmp_path.iterdir()) == []
    return only_line(done)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_module_is_a_command_that_explains_itself_and_refuses_other_flags(name):
    assert f"python -m experiments.{name}" in module_of(f"experiments.{name}").__doc__
    for word, named in (("--bogus=1", "--bogus"), ("bogus", "'bogus'"), ("--seed=-1", "--seed")):
        assert named in only_line(run(f"experiments.{name}", word))
    shown = run(f"experiments.{name}", "--helpshort").stdout
    groups = re.findall(r"^\w.*:$", shown, re.MULTILINE)
    assert {"Data:", "Output:"} <= set(groups) or name == "benchmark"
    assert re.search(r"--seed=0\n +Seed of ", shown)
    for choice in ("cifar10", "synthetic") if "--dataset" in shown else ():
        assert choice in shown.split("--dataset=auto")[1].split("--data_dir")[0]


def test_the_list_of_commands_has_them_all():
    shown = run_process("experiments").stdout
    assert [line.split()[2] for line in shown.splitlines() if "-m" in line] == [
        f"experiments.{name}" for name in COMMANDS
    ]


@pytest.mark.parametrize("name", ["baseline", "sweep"])
def test_help_shows_defaults_and_choices_of_single_values_and_axes(name):
    shown = run(f"experiments.{name}", "--helpshort").stdout
    help_of = dict(re.findall(r"^  --(\w+).*\n((?: {6}.*\n?)+)", shown, re.MULTILINE))
    for flag, choices in {
        "loss": ("softmax", "multi_bce"),
        "optimizer": ("sgd", "momentum", "adam"),
        "figure_format": ("png", "pdf", "svg"),
    }.items():
        assert all(choice in help_of[flag] for choice in choices)
    for default in ("batch_size=100", "loss=softmax", "momentum=0.9", "figure_format=png"):
        assert f"--{default}\n" in shown
    if name == "sweep":
        assert "Several processes:" in shown
        assert all(form in help_of["table"] for form in ("markdown", "latex", "csv"))
        assert "LOW:HIGH:N:log" in shown


@pytest.mark.parametrize(
    ("command", "word", "suggestion"),
    [
        ("baseline", "--lr=0.1", "--learning_rate"),
        ("baseline", "--lambda=0.1", "--lam"),
        ("baseline", "--epochs=3", "--n_epochs"),
        ("baseline", "--learning_rte=1", "--learning_rate"),
        ("lambda_path", "--tol=1e-3", "--tolerance"),
        ("lambda_path", "--cv=5", "--n_folds"),
        ("baseline", "--lam=0,1", "experiments.sweep"),
        ("baseline", "--batch_size=10:50:3", "experiments.sweep"),
    ],
)
def test_a_likely_mistake_gets_a_suggestion(tmp_path, command, word, suggestion):
    assert re.search(rf"{suggestion}\b", refusal(tmp_path, command, word))


def test_a_list_and_a_range_give_their_values(tmp_path, tiny):
    words = ("--batch_size=10:100:10", "--loss=softmax,multi_bce", "--lam=1e-3:1:4:log")
    words += ("--learning_rate=0.5:1.5:3", "--decay_every=5,10", "--n_epochs=1")
    done = run("experiments.sweep", tiny, *words, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    axes = json.loads((tmp_path / "run" / "result.json").read_text())["axes"]
    assert axes["batch_size"] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert axes["loss"] == ["softmax", "multi_bce"]
    assert axes["lam"] == [0.001, 0.01, 0.1, 1.0]
    assert axes["learning_rate"] == [0.5, 1.0, 1.5]
    assert axes["decay_every"] == [5, 10]


@pytest.mark.parametrize(
    "word",
    [
        *("--lam=1:0.1:3", "--lam=0:1:3:log", "--lam=x", "--lam=", "--lam=1:2:3:4", "--lam=1:2:x"),
        *("--lam=1:2:2.7", "--lam=1:2:0", "--lam=1:2:inf", "--lam=1:inf:3", "--lam=nan:1:3"),
        *("--lam=1e-5:1:1e400", "--batch_size=1:9", "--batch_size=10.5", "--optimizer=a:b:3"),
        "--lam=0:1",
    ],
)
def test_an_axis_of_another_form_is_one_line_with_the_form_to_give(tmp_path, word):
    line = refusal(tmp_path, "sweep", word)
    assert word.split("=")[0] in line
    assert "LOW:HIGH:N" in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "baseline",
            "--learning_rate=-1 --learning_rate=nan --learning_rate=inf --learning_rate=0 "
            "--learning_rate=1e-60 --lam=-0.1 --lam=nan --lam=much --n_epochs=0 --batch_size=0 "
            "--n_epochs=99999999999999999999999 --decay_factor=0.1 --decay_every=0 --momentum=1 "
            "--b1=-0.1 --b2=1 --eps=0 --loss=hinge --optimizer=newton --dataset=mnist "
            "--n_seeds=0 --figure_format=gif --standardize=none --momentum=0.5",
        ),
        (
            "sweep",
            "--lam=0,-1 --lam=nan --learning_rate=0:1:3 --learning_rate=0.01,1e-60 "
            "--optimizer=sdg --batch_size=0 --batch_size=1.5 --momentum=0.5 --table=markdown,html "
            "--batch_size=99999999999999999999999 --coordinator=127.0.0.1:1 --n_random=0",
        ),
        ("grid_search", "--learning_rate=0.1,x --batch_size=0 --momentum=0.5"),
        ("lambda_path", "--max_passes=99999999999999999999999 --n_folds=1 --lam=-1 --C=0"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_that_names_its_flag(tmp_path, command, words):
    for word in words.split():
        flag = word.split("=")[0].strip("-").replace("standardize", "standardise")
        assert flag in refusal(tmp_path, command, "--dataset=synthetic", word)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grid_search", "--batch_size=1:2000:2000 --learning_rate=1:2:2000 --lam=0:1:2000"),
        ("sweep", "--lam=1e-5:1:99999999999"),
        ("sweep", "--lam=1:2:1000000000:log"),
        ("sweep", "--n_random=100000000"),
        ("sweep", "--lam=0,1 --learning_rate=1 --max_runs=1"),
        ("sweep", "--lam=0,1 --learning_rate=1 --n_seeds=2 --max_runs=3"),
        ("baseline", "--n_seeds=1000000000"),
        ("lambda_path", "--lam=1:2:50000:log --n_folds=3"),
    ],
)
def test_more_runs_than_allowed_are_refused_at_once(tmp_path, command, words):
    assert "--max_runs" in refusal(tmp_path, command, "--dataset=synthetic", *words.split())


def test_american_spellings_mean_the_same(tmp_path, tiny):
    words = {
        "british": ("--standardise=none", "--normalise_rows"),
        "american": ("--standardize=none", "--normalize_rows"),
        "neither": (),
    }
    weights = {}
    for name, spelling in words.items():
        out = tmp_path / name
        done = run("experiments.baseline", tiny, *spelling, "--n_epochs=1", f"--output_dir={out}")
        assert done.returncode == 0, done.stderr
        weights[name] = np.load(out / "params.npz")["weights"]
    np.testing.assert_array_equal(weights["american"], weights["british"])
    assert not np.array_equal(weights["neither"], weights["british"])
