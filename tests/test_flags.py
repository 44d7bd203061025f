"""Flags: any text gives a value or one line; lists, ranges, suggestions and limits."""

import json
import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from linear_cifar import OPTIMIZERS
from tests import tiny
from tests.commands import few_examples, only_line, parsing, run

pytestmark = pytest.mark.usefixtures("undrawn")
stop_before_training = mock.patch("experiments.sweep.train", side_effect=KeyboardInterrupt)


def refusal(tmp_path, command, *words):
    """The one line with which a command refuses its flags; it leaves no folder."""
    done = run(f"experiments.{command}", *words, f"--output_dir={tmp_path / 'run'}")
    assert list(tmp_path.iterdir()) == []
    return only_line(done)


WORDS = st.sampled_from(
    [
        *("0", "1", "-1", "0.5", "1e-3", "2147483648", "1e300", "nan", "inf", "1e400", "10", "41"),
        *("", "a", " ", "0x10", "1_0", "λ", "١", "sgd", "true", "log", "\n", "9" * 5000, "\ud800"),
    ]
)
TEXT = st.builds(
    str.join, st.sampled_from([",", ":", ""]), st.lists(WORDS | st.text(max_size=4), max_size=4)
)


@few_examples(60)
@given(command=st.sampled_from(sorted(tiny.COMMANDS)), number=st.integers(0), text=st.none() | TEXT)
@example("sweep", 0, "1:2:1e400")
@example("baseline", 3, "9" * 5000)
@example("lambda_path", 7, "\ud800")
def test_any_text_of_a_flag_is_a_value_or_one_line_that_names_the_flag(command, number, text):
    with parsing(f"experiments.{command}") as parsed:
        name = sorted(parsed)[number % len(parsed)]
        done = run(f"experiments.{command}", f"--{name}" if text is None else f"--{name}={text}")
    if done.returncode:
        assert name.replace("ize", "ise") in only_line(done).replace("ize", "ise")  # an alias
    else:
        assert not isinstance(parsed[name], float) or np.isfinite(parsed[name])


@few_examples(20)
@given(TEXT)
@example("0:1:3")
@example("1:")
@example("0.1,\ud800")
def test_any_text_of_an_axis_is_values_or_one_line(tmp_path_factory, text):
    with stop_before_training:
        done = run(*tiny.words("sweep", tmp_path_factory.mktemp("out")), f"--lam={text}")
    if done.returncode != 130:
        assert "lam" in only_line(done)


def test_a_list_and_a_range_give_their_values(tmp_path):
    words = ("--batch_size=10:100:10", "--loss=softmax,multi_bce", "--lam=1e-3:1:4:log")
    with stop_before_training:
        run(*tiny.words("sweep", tmp_path), *words, "--learning_rate=0.5:1.5:3")
    axes = json.loads((tmp_path / "started.json").read_text())
    assert axes["batch_size"] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert axes["loss"] == ["softmax", "multi_bce"]
    assert axes["lam"] == [0.001, 0.01, 0.1, 1.0]
    assert axes["learning_rate"] == [0.5, 1.0, 1.5]


def test_a_malformed_axis_is_one_line_that_shows_the_form(tmp_path):
    words = "--lam= --lam=x --lam=0:1 --lam=1:0.1:3 --lam=0:1:3:log --lam=1:2:3:4 --lam=1:2:2.7"
    words += " --lam=1:2:0 --lam=nan:1:3 --batch_size=1:9 --batch_size=10.5 --optimizer=a:b:3"
    for word in words.split():
        line = refusal(tmp_path, "sweep", word)
        assert word.split("=")[0] in line
        assert "LOW:HIGH:N" in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("baseline", "--learning_rate=nan --learning_rate=1e-60 --lam=much --momentum=0.5 word"),
        ("baseline", "--n_epochs=99999999999999999999999 --figure_format=gif --standardize=none"),
        ("sweep", "--lam=0,-1 --learning_rate=0:1:3 --learning_rate=0.01,1e-60 --optimizer=sdg"),
        ("sweep", "--momentum=0.5 --table=markdown,html --n_random=0 --coordinator=127.0.0.1:1"),
        ("lambda_path", "--n_folds=1 --C=0,1"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_that_names_its_flag(tmp_path, command, words):
    for word in words.split():
        flag = word.split("=")[0].strip("-").replace("standardize", "standardise")
        assert flag in refusal(tmp_path, command, "--dataset=synthetic", word)


@pytest.mark.parametrize(
    ("word", "other"), [("--resume", "--output_dir"), ("--distributed", "--n_processes")]
)
def test_a_flag_that_needs_another_one_names_it(word, other):
    assert other in only_line(run("experiments.sweep", word))


def test_lambda_has_one_flag(tmp_path):
    line = refusal(tmp_path, "lambda_path", "--dataset=synthetic", "--lam=0.1", "--C=1")
    assert "--lam or --C" in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("grid_search", "--batch_size=1:2000:2000 --learning_rate=1:2:2000 --lam=0:1:2000"),
        ("sweep", "--n_random=100000000"),
        ("sweep", "--lam=0,1 --learning_rate=1 --n_seeds=2 --max_runs=3"),
        ("lambda_path", "--lam=1:2:50000:log --n_folds=3"),
    ],
)
def test_more_runs_than_allowed_are_refused_at_once(tmp_path, command, words):
    assert "--max_runs" in refusal(tmp_path, command, "--dataset=synthetic", *words.split())


def test_as_many_runs_as_allowed_are_started(tmp_path):
    with stop_before_training:
        done = run(*tiny.words("sweep", tmp_path), "--lam=0,1", "--n_seeds=2", "--max_runs=4")
    assert done.returncode == 130, done.stderr


@pytest.mark.parametrize(
    ("command", "word", "suggestion"),
    [
        ("baseline", "--Weight-decay=0.1", "--lam"),
        ("baseline", "--learning_rte=1", "--learning_rate"),
        ("baseline", "--batch_size=10:50:3", "experiments.sweep"),
    ],
)
def test_a_likely_mistake_gets_a_suggestion(tmp_path, command, word, suggestion):
    assert re.search(rf"{suggestion}\b", refusal(tmp_path, command, word))


def test_help_shows_the_defaults_and_the_choices_of_the_library():
    text = run("experiments.baseline", "--helpshort").stdout
    for line in ("--batch_size=100\n", "--momentum=0.9\n", f"<{'|'.join(OPTIMIZERS)}>"):
        assert line in text


def test_american_spellings_mean_the_same():
    with parsing("experiments.baseline") as parsed:
        run("experiments.baseline", "--standardize=none", "--normalize_rows")
    assert (parsed["standardise"], parsed["normalise_rows"]) == ("none", True)
