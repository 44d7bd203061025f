"""Two processes that share a sweep or a path give what one gives, and only the first writes."""

import shutil
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from tests.commands import ROOT, environment, files, only_line, run_process

pytestmark = pytest.mark.slow
# Four chunks of one program, because with --shuffle each seed has its own order.
SWEEP = ("experiments.sweep", "--shuffle", "--n_seeds=4", "--lam=0,0.1", "--n_epochs=20")
SWEEP += ("--learning_rate=0.001,0.01", "--refit")
# More λ than are solved from zero: the others start from those.
PATH = ("experiments.lambda_path", "--lam=0.1:10:16:log", "--memory_gb=0.0001")
TABLES = {SWEEP: "sweep_by_seed.csv", PATH: "path.csv"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    inputs, labels = load_digits(return_X_y=True)
    np.save(path / "digits_features.npy", inputs[:500].astype(np.float32))
    np.save(path / "digits_labels.npy", labels[:500])
    return f"--features={path / 'digits_features.npy'}"


class Ended:
    """A process that ended: its exit code and what it printed."""

    def __init__(self, process):
        self.stdout, self.stderr = process.communicate(timeout=120)
        self.returncode = process.returncode


@pytest.fixture(scope="module")
def start():
    """Starts two processes, each with words of its own; none of them outlives the tests."""
    started = []

    def start(*words, own=((), ()), cwd=ROOT):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
        join = ("--distributed", coordinator, "--n_processes=2")
        for i in range(2):
            command = [sys.executable, "-m", *words, *join, f"--process_id={i}", *own[i]]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            env = environment(PYTHONPATH=str(ROOT))
            started.append(subprocess.Popen(command, cwd=cwd, env=env, **pipes))
        return started[-2:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def finished(start, digits, tmp_path_factory):
    """The folder of two processes that were not interrupted, by command."""
    folders = {}

    def finish(command):
        if command not in folders:
            folders[command] = out = tmp_path_factory.mktemp("two") / "run"
            ended = [Ended(p) for p in start(*command, digits, f"--output_dir={out}")]
            assert [end.returncode for end in ended] == [0, 0], [end.stderr for end in ended]
            assert "written to" in ended[0].stdout
            assert "written to" not in ended[1].stdout
            assert "%" not in ended[1].stderr  # no progress
        return folders[command]

    return finish


@pytest.mark.parametrize("command", [SWEEP, PATH])
def test_two_processes_give_the_numbers_of_one(finished, digits, tmp_path, command):
    two, alone = finished(command), tmp_path / "alone"
    done = run_process(*command, digits, f"--output_dir={alone}")
    assert done.returncode == 0, done.stderr
    assert files(alone) == files(two)
    a, b = (pd.read_csv(out / TABLES[command]) for out in (alone, two))
    for name in [name for name in a if name.endswith(("_loss", "cost"))]:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("command", [SWEEP, PATH])
def test_resuming_gives_the_same_bytes_though_the_second_cannot_read_the_chunks(
    start, finished, digits, tmp_path, command
):
    whole, out = finished(command), tmp_path / "resumed"
    shutil.copytree(whole, out)
    last = max(out.glob("chunks/*"), key=lambda path: path.stat().st_mtime_ns)  # built on others
    for path in (out / "result.json", out / TABLES[command], last):
        path.unlink()
    own = [f"--output_dir={out}"], [f"--output_dir={tmp_path / 'elsewhere'}"]
    ended = [Ended(p) for p in start(*command, digits, "--resume", own=own)]
    assert [end.returncode for end in ended] == [0, 0], [end.stderr for end in ended]
    assert not (tmp_path / "elsewhere").exists()
    assert files(out) == files(whole)
    for name in files(out):
        if name.endswith((".csv", ".npz")):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("command", "other"),
    [
        (SWEEP, "--n_epochs=3"),
        (SWEEP, "--test_fraction=0.3"),  # other data
        (PATH, "--lam=1,2"),
        (PATH, "--validation_fraction=0.2"),
    ],
)
def test_processes_with_other_data_or_flags_end_with_one_line(
    start, digits, tmp_path, command, other
):
    words = (*command, digits, f"--output_dir={tmp_path / 'run'}")
    for process in start(*words, own=((), (other,))):
        assert "other data or other flags" in only_line(Ended(process))
    assert list(tmp_path.iterdir()) == []


def test_without_output_dir_only_the_first_makes_a_folder(start, digits, tmp_path):
    words = (*SWEEP, "--n_epochs=1", digits)
    ended = [Ended(process) for process in start(*words, cwd=tmp_path)]
    assert [end.returncode for end in ended] == [0, 0], [end.stderr for end in ended]
    (out,) = (tmp_path / "runs").iterdir()
    assert "result.json" in files(out)


def test_processes_that_do_not_know_each_other_end_with_one_line(digits, tmp_path):
    words = (*SWEEP, digits, "--distributed", f"--output_dir={tmp_path / 'run'}")
    assert "--coordinator, --n_processes and --process_id" in only_line(run_process(*words))
    assert list(tmp_path.iterdir()) == []
