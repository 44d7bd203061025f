"""What surrounds a command: signals, streams that can't be written to, and other folders."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest

from experiments.common.data import load_data
from tests.campaign import kills, small, surroundings
from tests.commands import ROOT, RUN_FILES, environment, files, interrupt, run, run_process
from tests.conftest import undrawn_figures

BASELINE = "experiments.baseline"
FILES = RUN_FILES - {"figures/weights.png"}  # features have no images


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write_data(tmp_path_factory.mktemp("data"))


# Signals.


@pytest.mark.parametrize("number", kills.CODES)
def test_an_interrupted_run_keeps_its_finished_epochs(data, tmp_path, number):
    with undrawn_figures():
        line = small.words(BASELINE, data, tmp_path / "run")
        done = run(*line, "--n_epochs=10", interrupt_at="40 %", by=number)
    assert done.returncode == kills.CODES[number], done.stderr
    assert files(tmp_path) == {f"run/{name}" for name in FILES}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["interrupted"] is True
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 1 + 4


def test_a_run_that_is_interrupted_before_an_epoch_leaves_nothing(data, tmp_path):
    done = run(*small.words(BASELINE, data, tmp_path / "run"), interrupt_at="held out")
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert files(tmp_path) == set()


def test_a_signal_whose_exception_is_lost_ends_the_run_at_its_next_progress(
    data, tmp_path, monkeypatch
):
    """Python drops what a signal's handler raises within a garbage-collection callback."""

    def load_and_lose(*arguments, **settings):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return load_data(*arguments, **settings)

    monkeypatch.setattr(f"{BASELINE}.load_data", load_and_lose)
    done = run(*small.words(BASELINE, data, tmp_path / "run"))
    assert done.returncode == 143
    assert "interrupted" in done.stderr
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_a_signal_during_compilation_has_its_exit_code(data, tmp_path):
    line = small.words(BASELINE, data, tmp_path / "run")
    done = interrupt("held out", *line, by=signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1].startswith("interrupted")
    assert files(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", kills.CODES)
def test_a_process_keeps_its_finished_epochs(data, tmp_path, number):
    line = small.words(BASELINE, data, tmp_path / "run")
    done = interrupt("[", *line, "--n_epochs=1000", "--shuffle", by=number)
    assert done.returncode == kills.CODES[number], done.stderr
    assert files(tmp_path) == {f"run/{name}" for name in FILES}
    assert 1 < len(pd.read_csv(tmp_path / "run" / "history.csv")) < 1001


def test_a_signal_within_exec_has_its_exit_code():
    done = run_process("tests.programs.executing")
    assert done.returncode == 143
    assert done.stderr.startswith("interrupted")


@pytest.mark.slow
def test_a_signal_after_the_end_does_not_say_that_nothing_is_written(data, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    )
    line = small.words(BASELINE, data, tmp_path / "run")
    done = run_process(*line, PYTHONPATH=str(tmp_path))
    assert done.returncode == -signal.SIGINT
    assert "written to" in done.stdout
    assert "interrupted" not in done.stderr


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_can_be_interrupted(tmp_path):
    words = ("--distributed", "--coordinator=127.0.0.1:1", "--n_processes=2", "--process_id=1")
    words += (f"--output_dir={tmp_path / 'run'}",)
    done = interrupt("waiting for", "experiments.sweep", *words, by=signal.SIGTERM)
    assert done.returncode == 143
    assert "interrupted: nothing written\n" in done.stderr  # after it JAX may warn of proxies


# Streams.


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        pytest.param("{} | head -1", 0, marks=pytest.mark.slow),
        ("{} >/dev/full", 1),
        pytest.param("{} | true", 0, marks=pytest.mark.slow),
        pytest.param("{} 2>&-", 0, marks=pytest.mark.slow),
        pytest.param("{} <&- >&- 2>&-", 0, marks=pytest.mark.slow),
    ],
)
def test_output_that_cannot_be_written_costs_no_record(data, tmp_path, stream, code):
    words = small.words(BASELINE, data, tmp_path / "run")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", stream.format(" ".join([sys.executable, "-m", *words]))],
        cwd=ROOT,
        env=environment(PYTHONUNBUFFERED="1"),
        text=True,
        timeout=300,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == code
    assert not any(text in done.stderr for text in ("Traceback", "Exception ignored"))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"] > 0
    assert (tmp_path / "run" / "params.npz").exists()


@pytest.mark.slow
def test_a_terminal_without_greek_letters_has_others(data, tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_process(*small.words(BASELINE, data, tmp_path / "run"), **ascii_only)
    assert done.returncode == 0, done.stderr
    assert r"\u03bb=" in done.stdout
    assert files(tmp_path / "run") == FILES


# Names, devices, and other folders.


@pytest.mark.parametrize("name", ["$x^$.npz", surroundings.NO_TEXT + ".npz"])
def test_the_data_may_have_any_name(data, tmp_path, name):
    shutil.copy(data, tmp_path / name)
    line = small.words(BASELINE, tmp_path / name, tmp_path / "run")
    done = run(*line)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "run") == FILES


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["nonsense", "cuda"])  # JAX raises different errors
def test_a_missing_device_is_one_line(data, tmp_path, platform):
    done = run_process(*small.words(BASELINE, data, tmp_path / "run"), JAX_PLATFORMS=platform)
    assert small.error_in(done) is None
    assert platform in done.stderr
    assert files(tmp_path) == set()


def test_research_code_can_have_its_own_experiments_beside_it(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("MINE = True\n")
    shutil.copy(ROOT / "tests" / "programs" / "user.py", tmp_path / "main.py")
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(2, 4)\n")
