"""Two processes, of two devices each, that share a sweep."""

import os
import socket
import time

import numpy as np
import pytest
from commands import only_line, run_process, start
from sklearn.datasets import load_digits
from test_sweep_command import CHUNKS, SMALL_SWEEP, read, sweep


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the same sweep."""
    out = tmp_path_factory.mktemp("sweep") / "alone"
    done = sweep(out, *CHUNKS)
    assert done.returncode == 0, done.stderr
    return out


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def two_processes(tmp_path):
    """Starts them on `tmp_path / "two"`; none of them outlives the test."""
    started = []

    def start_both(*words, program=(SMALL_SWEEP, *CHUNKS), lost=None, ends_with=""):
        """One of them gets a signal after a chunk."""
        join = (
            "--distributed",
            f"--coordinator=127.0.0.1:{free_port()}",
            "--n_processes=2",
            "--heartbeat_seconds=2",
            f"--output_dir={tmp_path / 'two'}",
        )
        ends = {"END_AFTER_CHUNKS": "1", "END_WITH": ends_with}
        for i in range(2):
            changes = ends if i == lost else {}
            started.append(start(*program, *words, *join, f"--process_id={i}", **changes))
        return started[-2:]

    yield start_both
    for process in started:
        process.kill()
        process.communicate()


def await_loss(lost, left):
    """Waits for a process to be lost, and for the other to end over it."""
    os.waitpid(lost.pid, os.WUNTRACED)
    begun = time.monotonic()
    _, errors = left.communicate(timeout=60)
    assert time.monotonic() - begun < 20  # without --heartbeat_seconds it can be more than 30
    assert left.returncode != 0
    assert errors.splitlines()[-1].startswith("error: another process was lost"), errors


def assert_same_results(out, expected):
    """But for rounding, which the number of devices changes."""
    one, two = (
        {(r["lam"], r["learning_rate"], r["seed"]): r for r in read(p, "sweep_by_seed.csv")}
        for p in (expected, out)
    )
    assert one.keys() == two.keys()
    for key, row in one.items():
        for name in ("train_loss", "validation_loss", "test_loss"):
            assert float(two[key][name]) == pytest.approx(float(row[name]), rel=1e-5)
    chunks = {path.name for path in expected.glob("chunks/*")}
    assert {path.name for path in out.glob("chunks/*")} == chunks
    for name in chunks:
        with np.load(expected / "chunks" / name) as a, np.load(out / "chunks" / name) as b:
            np.testing.assert_allclose(a["weights"], b["weights"], atol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_results_of_one_and_one_of_them_writes(
    two_processes, alone, tmp_path
):
    """Also where the first of them is lost on the way, and both are started again."""
    out = tmp_path / "two"
    await_loss(*two_processes(lost=0, ends_with="SIGKILL"))
    assert len(list(out.glob("chunks/[0-9]*"))) == 1
    processes = two_processes("--refit", "--resume")
    first, second = (process.communicate(timeout=90) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], (first, second)
    assert "written to" in first[0]
    assert "refitted on all but test data" in first[0]
    assert "40/40 epoch 2 of 2, 4 runs" in first[1]  # two epochs of the other 20 runs
    assert "written to" not in second[0]
    assert "epoch" not in second[1]
    assert_same_results(out, alone)


@pytest.mark.slow
def test_a_process_that_no_longer_answers_ends_the_other_and_one_goes_on_alone(
    two_processes, alone, tmp_path
):
    out = tmp_path / "two"
    left, stopped = two_processes(lost=1, ends_with="SIGSTOP")
    await_loss(stopped, left)
    assert 1 <= len(list(out.glob("chunks/[0-9]*"))) < 6
    done = sweep(out, *CHUNKS, "--resume")
    assert done.returncode == 0, done.stderr
    assert "n_devices 4, now 2" in done.stderr
    assert_same_results(out, alone)


@pytest.mark.slow
def test_two_processes_share_the_examples_of_a_path(two_processes, tmp_path):
    """Each has half of the rows; where one is lost, both go on with what is finished."""
    inputs, labels = load_digits(return_X_y=True)
    features = inputs[:500].astype(np.float32)
    np.save(tmp_path / "digits_features.npy", features)
    np.save(tmp_path / "digits_labels.npy", labels[:500])
    words = (
        f"--features={tmp_path / 'digits_features.npy'}",
        "--lam=0.1:10:8:log",
        "--memory_gb=0.0001",
    )
    program = ("tests.programs.small_probe", *words)
    left, lost = two_processes(program=program, lost=1, ends_with="SIGKILL")
    await_loss(lost, left)
    assert len(list((tmp_path / "two").glob("chunks/[0-9]*"))) >= 1
    processes = two_processes("--resume", program=program)
    first, second = (process.communicate(timeout=90) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], (first, second)
    assert "inputs stay in their file" in first[1]
    assert "written to" not in second[0]
    done = run_process(*program, f"--output_dir={tmp_path / 'alone'}")
    assert done.returncode == 0, done.stderr
    alone, both = (read(tmp_path / name, "path.csv") for name in ("alone", "two"))
    assert len(alone) == len(both) == 8
    for one, two in zip(alone, both, strict=True):
        assert float(two["cost"]) == pytest.approx(float(one["cost"]), rel=1e-6)
        assert two["converged"] == one["converged"] == "True"


def test_processes_that_are_not_told_of_each_other_are_refused(tmp_path):
    words = ("--dataset=synthetic", "--distributed", f"--output_dir={tmp_path / 'run'}")
    done = run_process(SMALL_SWEEP, *words)
    assert "--coordinator, --n_processes and --process_id" in only_line(done)
    assert list(tmp_path.iterdir()) == []
