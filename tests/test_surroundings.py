"""What surrounds a command: signals, and streams that can't be written to."""

import signal
import subprocess
import sys

import pytest
from commands import QUICK, ROOT, RUN_FILES, environment, files, interrupt, run, run_process

from experiments.common import records
from tests.campaign import honest, surroundings

LONG = ("--dataset=synthetic", "--n_epochs=100")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.slow
@pytest.mark.parametrize("by", CODES)
def test_a_signal_keeps_the_finished_epochs(tmp_path, by):
    out = tmp_path / "run"
    words = (*LONG, "--shuffle", f"--output_dir={out}")
    done = interrupt("validation accuracy", "experiments.baseline", *words, by=by)
    assert done.returncode == CODES[by], done.stderr
    assert "interrupted after epoch" in done.stderr
    assert files(out) == RUN_FILES
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert records.read_result(out)["interrupted"] is True
    assert 1 < len(records.read_history(out / "history.csv").train_cost) < 101


@pytest.mark.slow
def test_sigterm_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    words = ("--n_epochs=1000", "--lam=0.1", "--learning_rate=0.001", f"--output_dir={out}")
    name = "tests.programs.small_sweep"
    done = interrupt("/1000", name, "--dataset=synthetic", *words, by=signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert f"the same command with --resume --output_dir={out} goes on" in done.stderr
    assert files(out) == {"begun.json"}


@pytest.mark.slow
def test_a_signal_within_exec_has_its_exit_code():
    done = run_process("tests.programs.executing")
    assert (done.returncode, done.stderr) == (143, "interrupted: nothing written\n")


@pytest.mark.parametrize("import_time", [True, False])
def test_an_interrupt_before_anything_is_begun_is_no_traceback(tmp_path, import_time):
    """Some module of JAX's sends it; or absl as it reads the flags."""
    where = "jax" if import_time else "experiments.common.data"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {where!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = run_process("experiments.baseline", *LONG, PYTHONPATH=str(tmp_path))
    assert done.returncode == 130
    assert done.stderr == "interrupted: nothing written\n"


def in_shell(line, **changes):
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=ROOT,
        env=environment(**changes),
        text=True,
        timeout=300,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("around", "code", "errors"),
    [
        pytest.param("{} | head -1", 0, "2/2", marks=pytest.mark.slow),
        ("{} >/dev/full", 1, "error: cannot write to stdout: No space left on device"),
        pytest.param("{} 2>&-", 0, "", marks=pytest.mark.slow),
        pytest.param("{} <&- >&- 2>&-", 0, "", marks=pytest.mark.slow),
    ],
)
def test_output_that_cannot_be_written_costs_no_record(tmp_path, around, code, errors):
    words = [sys.executable, "-m", "experiments.baseline", *QUICK, f"--output_dir={tmp_path}/run"]
    done = in_shell(around.format(" ".join(words)))
    assert done.returncode == code, done.stderr
    assert errors in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert files(tmp_path / "run") == RUN_FILES
    assert records.read_result(tmp_path / "run")


@pytest.mark.slow
def test_a_terminal_without_greek_letters_has_others(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = (*QUICK, "--lam=0.1", f"--output_dir={tmp_path / 'run'}")
    done = run_process("experiments.baseline", *words, **ascii_only)
    assert done.returncode == 0, done.stderr
    assert r"\u03bb=0.1" in done.stdout
    assert files(tmp_path / "run") == RUN_FILES


@pytest.mark.parametrize("name", ["$x^$.npz", surroundings.NO_TEXT + ".npz"])
def test_a_name_of_data_is_drawn_as_it_is(tmp_path, name):
    honest.make_data(tmp_path).rename(tmp_path / name)
    words = ("--n_epochs=1", "--batch_size=20", f"--output_dir={tmp_path / 'run'}")
    done = run("experiments.baseline", f"--features={tmp_path / name}", *words)
    assert done.returncode == 0, done.stderr
    assert "figures/curves.png" in files(tmp_path / "run")
