"""Axes of tables, as flags give them: lists, ranges, and what is neither."""

import pytest
from commands import run

from experiments.common import axes


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("lam", "0,0.1", [0, 0.1]),
        ("lam", "1e-3:1:4:log", [0.001, 0.01, 0.1, 1]),
        ("lam", "0:1:3", [0, 0.5, 1]),
        ("batch_size", "10,50", [10, 50]),
        ("optimizer", "sgd,adam", ["sgd", "adam"]),
    ],
)
def test_an_axis_is_a_list_or_a_range(name, text, values):
    assert axes.parse(name, text).values == values


@pytest.mark.parametrize(
    ("text", "ends"), [("0.5:2", (0.5, 2)), ("1e-3:1:log", (1e-3, 1)), ("1:2:5", (1, 2))]
)
def test_a_range_can_be_drawn_from(text, ends):
    axis = axes.parse("lam", text)
    assert axis.distribution.support() == pytest.approx(ends)
    assert len(axis.values) == (5 if text == "1:2:5" else 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("lam", text)
            for text in (
                "1:0.1:3",
                "0:1:3:log",
                "x",
                "",
                "1:2:3:4",
                "1:2:lin",
                "1:2:x",
                "1:2:2.7",
                "1:2:inf",
                "1:inf:3",
                "nan:1:3",
                "1e-5:1:1e400",
            )
        ),
        ("batch_size", "1:9:3"),
        ("batch_size", "10.5"),
        ("decay_every", "1:9:3"),
    ],
)
def test_what_is_neither_is_refused(name, text):
    with pytest.raises(ValueError):  # noqa: PT011 (its message is absl's affair)
        axes.parse(name, text)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--lam=1:0.1:3", "another form"),
        ("--learning_rate=0:1:3", "the value 0"),
        ("--batch_size=1:9:3", "another form"),
        ("--optimizer=sdg", "the value sdg"),
        ("--lam=0:1", "a range needs N"),
        ("--lam=nan", "the value nan"),
        ("--lam=1:2:2.7", "another form"),
        ("--lam=1:2:0", "another form"),
        ("--lam=1:2:inf", "another form"),
        ("--lam=1e-5:1:1e400", "another form"),
        ("--momentum=0.5", "isn't read by --optimizer=sgd"),
        ("--coordinator=127.0.0.1:1", "go with --distributed"),
    ],
)
def test_a_bad_axis_is_refused_by_name(tmp_path, flag, message):
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.sweep", "--dataset=synthetic", flag, out)
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_flag_of_a_sweep():
    shown = run("experiments.sweep", "--helpshort").stdout
    for flag in (
        "lam",
        "learning_rate",
        "optimizer",
        "momentum",
        "b1",
        "n_random",
        "n_seeds",
        "select",
        "[no]refit",
        "[no]resume",
        "[no]distributed",
        "coordinator",
        "n_processes",
        "process_id",
        "heartbeat_seconds",
    ):
        assert f"--{flag}:" in shown


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("sweep", ["--lam=1e-5:1:99999999999"], "99,999,999,999 runs"),
        ("sweep", ["--lam=1:2:1000000000:log"], "N of 1:2:1000000000:log"),
        ("sweep", ["--n_seeds=1000000000"], "--n_seeds=1000000000: 1,000,000,000 runs"),
        ("sweep", ["--n_random=100000000"], "12,292 GB"),
        ("sweep", ["--lam=0:1:1000", "--learning_rate=1:2:1000"], "all 1,000,000 combinations"),
        ("sweep", ["--lam=0,1", "--learning_rate=1", "--max_runs=1"], "--max_runs=1 admits no"),
        ("baseline", ["--n_seeds=1000000000"], "122,920 GB"),
        ("report", ["--n_seeds=1000000000"], "1,000,000,000 runs"),
        ("lambda_path", ["--lam=1:2:50000:log", "--n_folds=3"], "50000 λ, 3 folds: 200,000 runs"),
        ("lambda_path", ["--max_passes=99999999999999999999999"], "max_passes"),
        ("baseline", ["--n_epochs=99999999999999999999999"], "n_epochs"),
        ("baseline", ["--decay_every=99999999999999999999999"], "decay_every"),
        ("sweep", ["--decay_every=99999999999999999999999"], "decay_every"),
        ("sweep", ["--batch_size=99999999999999999999999"], "batch_size"),
    ],
)
def test_what_takes_too_much_is_refused_with_what_it_would_take(tmp_path, command, words, message):
    out = f"--output_dir={tmp_path / 'run'}"
    done = run(f"experiments.{command}", "--dataset=synthetic", *words, out)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
