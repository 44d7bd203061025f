"""A command's surroundings: signals, closed or full streams, variables, limits, odd names."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, strategies as st

from experiments.common.data import load_data
from tests import tiny
from tests.commands import ROOT, check_every_file, environment, few_examples, files, interrupt, run
from tests.conftest import undrawn_figures


def test_an_interrupted_run_keeps_its_finished_epochs(tmp_path):
    with undrawn_figures():
        line = tiny.words("baseline", tmp_path / "run")
        done = run(*line, "--n_epochs=10", interrupt_at="40 %")
    assert done.returncode == 130, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 1 + 4
    assert "interrupted" in done.stdout


def test_a_terminal_shows_a_bar_that_ends_with_all_epochs(tmp_path):
    done = run(*tiny.words("baseline", tmp_path / "run"), is_terminal=True)
    assert done.returncode == 0, done.stderr
    assert "100%|" in done.stderr
    assert "2/2" in done.stderr
    assert "epoch 2 of 2" in done.stderr
    assert "[100 %]" not in done.stderr  # the line for files


def test_a_signal_whose_exception_is_lost_ends_the_run_at_its_next_progress(tmp_path, monkeypatch):
    """Python drops what a signal's handler raises within a garbage-collection callback."""

    def load_and_lose(*arguments, **settings):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return load_data(*arguments, **settings)

    monkeypatch.setattr("experiments.baseline.load_data", load_and_lose)
    done = run(*tiny.words("baseline", tmp_path / "run"))
    assert (done.returncode, files(tmp_path)) == (143, set())


def test_an_ignored_signal_stays_ignored_as_under_nohup(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        line = tiny.words("baseline", tmp_path / "run")
        assert run(*line, interrupt_at="50 %", by=signal.SIGHUP).returncode == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "n_files"), [("held out", 0), ("[", 4)])
def test_a_process_that_compiles_or_trains_ends_with_its_signals_code(tmp_path, text, n_files):
    line = tiny.words("baseline", tmp_path / "run")
    done = interrupt(text, *line, "--n_epochs=1000", "--shuffle", by=signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert len(files(tmp_path)) == n_files


@pytest.mark.slow
def test_a_signal_within_exec_of_text_has_its_exit_code():
    """Creating a named tuple executes a text. Python itself may then end by SIGINT instead."""
    program = """import linear_cifar.plots  # or a thread would execute texts meanwhile
from experiments.common.cli import launch
launch(lambda _: exec("import os; os.kill(os.getpid(), 15)"), lambda: None)"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 143, done.stderr


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_can_be_interrupted(tmp_path):
    words = ("--distributed", "--coordinator=127.0.0.1:1", "--n_processes=2", "--process_id=1")
    line = ("experiments.sweep", *words, f"--output_dir={tmp_path / 'run'}")
    assert interrupt("waiting for", *line, by=signal.SIGTERM).returncode == 143


NO_TEXT = b"\xff".decode("utf-8", "surrogateescape")  # a name that isn't UTF-8
# Several at once; the usual ones come first.
STREAMS = (
    *("{}", "{} >&-", "{} 2>&-", "{} <&- >&- 2>&-", "{} >/dev/full", "{} 2>/dev/full"),
    *("{} | head -1", "{} 2>&1 | head -1", "{} | true"),
)
VARIABLES = (
    *("LC_ALL=C", "LC_ALL=xx_XX.UTF-8", "PYTHONUTF8=0", "PYTHONIOENCODING=utf-16", "TZ=nonsense"),
    *("HOME=", "TMPDIR=/nonexistent", "PATH=", "OMP_NUM_THREADS=abc", "COLUMNS=0", "TERM=nonsense"),
    *("MPLBACKEND=nonsense", "MPLCONFIGDIR=/proc/nonexistent", "JAX_PLATFORMS=nonsense"),
    *("JAX_NUM_CPU_DEVICES=3", "JAX_ENABLE_X64=1", "JAX_DEBUG_NANS=1", "PYTHONDEVMODE=1"),
)
LIMITS = (
    *("true", "umask 777", "ulimit -f 0", "ulimit -f 100", "ulimit -n 64", "ulimit -s 1024"),
    *("trap '' PIPE", "cd gone && rmdir ../gone", "cd read-only", "cd /"),
)
PLACES = (
    *("out", "a\nb", "λ/é 漢", NO_TEXT, "-out", "x" * 230, "x" * 300, "a/" * 100, "%s{0}$x$\\n"),
    *(".", "..", "/dev/null/out", "/proc/out", "read-only/out", ""),
)
DATA = ("data.npz", "$x^$.npz", NO_TEXT + ".npz", "a\nb.npz", "%s{}.npz", "x" * 251 + ".npz")


@pytest.mark.slow
@few_examples(0.02)
@given(
    st.sampled_from(["baseline", "sweep", "lambda_path"]),
    st.sampled_from(STREAMS),
    st.lists(st.sampled_from(VARIABLES), max_size=2),
    st.sampled_from(LIMITS),
    st.sampled_from(PLACES),
    st.sampled_from(DATA),
)
@example("baseline", "{} | head -1", ["PYTHONUNBUFFERED=1"], "true", NO_TEXT, "data.npz")
@example("baseline", "{} >/dev/full", ["HOME="], "umask 077", "a b", "data.npz")
@example("baseline", "{} <&- >&- 2>&-", [], "trap '' PIPE", "λ/é 漢", "$x^$.npz")
@example("baseline", "{}", ["PYTHONIOENCODING=ascii", "PYTHONUTF8=0"], "true", "out", "data.npz")
@example("baseline", "{}", ["JAX_PLATFORMS=cuda"], "true", "out", "data.npz")
def test_a_process_leaves_a_whole_record_or_one_line_in_any_surroundings(
    tmp_path_factory, name, stream, variables, limit, out, data
):
    place = tmp_path_factory.mktemp("place")
    (place / "gone").mkdir()
    (place / "read-only").mkdir(0o555)
    with np.load(tiny.data_file()) as arrays:
        labels = np.array(["$a$", "λ\n", "b,\"c'"])[arrays["labels"]]
        np.savez(place / data, features=arrays["features"], labels=labels)
    line = shlex.join([sys.executable, "-m", *tiny.words(name, out, place / data)])
    bounds = "--bounding-set=-dac_override,-dac_read_search"  # of the superuser
    prefix = [] if os.geteuid() else ["setpriv", bounds]
    changes = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "MPLCONFIGDIR": str(place)}
    done = subprocess.run(
        [*prefix, "/bin/bash", "-o", "pipefail", "-c", f"{limit}; {stream.format(line)}"],
        cwd=place,
        env=environment(**changes | dict(word.split("=", 1) for word in variables)),
        capture_output=True,
        timeout=100,
        check=False,
    )
    printed, errors = (  # UTF-16 has these bytes beyond UTF-8
        text.replace(b"\xff\xfe", b"").replace(b"\0", b"").decode("utf-8", "replace")
        for text in (done.stdout, done.stderr)
    )
    assert done.returncode in (0, 1), errors
    assert not re.search("Traceback|Exception ignored|Fatal Python error", printed + errors)
    if "2>" not in stream and "<&-" not in stream:
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == done.returncode, errors
    is_recorded = done.returncode == 0 or "cannot write to stdout" in errors
    if is_recorded and not limit.startswith("cd") and out:
        assert (place / out / "result.json").exists(), errors
        check_every_file(place / out)
