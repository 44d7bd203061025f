"""Two processes that share a sweep or a path give what one gives, and only the first writes."""

import shutil
import socket

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from tests.commands import Outcome, files, only_line, run, start
from tests.conftest import undrawn_figures

pytestmark = pytest.mark.slow
# Chunks of one program, because with --shuffle each seed has its own order.
SWEEP = ("experiments.sweep", "--shuffle", "--n_seeds=2", "--lam=0,0.1", "--n_epochs=2")
SWEEP += ("--learning_rate=0.01", "--batch_size=50")
# More λ than are solved from zero: the others start from those.
PATH = ("experiments.lambda_path", "--lam=0.1:10:12:log", "--memory_gb=0.00004")
# Several chunks of targets.
TARGETS = ("experiments.probe", "--lam=0.1:10:12:log", "--memory_gb=0.0003", "--n_folds=2")
TABLES = {SWEEP: "sweep_by_seed.csv", PATH: "path.csv", TARGETS: "path.csv"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    inputs, labels = load_digits(return_X_y=True)
    np.save(place / "digits_features.npy", inputs[:200].astype(np.float32))
    np.save(place / "digits_labels.npy", labels[:200])
    np.save(place / "targets.npy", labels[:200, None] == np.arange(4))
    return place


def source(place, command):
    """The flags of a command's data."""
    targets = [f"--targets={place / 'targets.npy'}"] if command == TARGETS else []
    return [f"--features={place / 'digits_features.npy'}", *targets]


def run_two(*words, each=((), ()), code=0):
    """Runs two processes; `each` has the words that only one of them gets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        join = ("--distributed", f"--coordinator=127.0.0.1:{free.getsockname()[1]}")
    lines = [(*words, *join, "--n_processes=2", f"--process_id={i}", *each[i]) for i in range(2)]
    with start(*lines[0]) as first, start(*lines[1]) as second:
        processes = (first, second)
        printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [code, code], printed
    return [Outcome(code, *texts) for texts in printed]


@pytest.mark.parametrize("command", [SWEEP, PATH, TARGETS], ids=["sweep", "path", "targets"])
def test_two_processes_resume_to_the_numbers_of_one_though_the_second_sees_no_chunk(
    digits, tmp_path, command
):
    alone, two = tmp_path / "alone", tmp_path / "two"
    with undrawn_figures():
        assert run(*command, *source(digits, command), f"--output_dir={alone}").returncode == 0
    shutil.copytree(alone, two)
    # The last chunks are built on others.
    chunks = sorted(two.glob("chunks/*"), key=lambda path: path.stat().st_mtime_ns)
    for path in (two / "result.json", two / TABLES[command], *chunks[len(chunks) // 2 :]):
        path.unlink()
    each = [(f"--output_dir={place}",) for place in (two, tmp_path / "elsewhere")]
    first, second = run_two(*command, *source(digits, command), "--resume", each=each)
    assert "written to" in first.stdout
    assert "written to" not in second.stdout
    assert "%" not in second.stderr  # no progress
    assert set(tmp_path.iterdir()) == {alone, two}
    assert files(alone) == files(two)
    a, b = (pd.read_csv(out / TABLES[command]) for out in (alone, two))
    for name in [name for name in a if name.endswith(("_loss", "cost"))]:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("command", "other"),
    [(SWEEP, "--test_fraction=0.3"), (PATH, "--lam=1,2")],  # data, flags
)
def test_processes_with_other_data_or_flags_end_with_one_line(digits, tmp_path, command, other):
    words = (*command, *source(digits, command), f"--output_dir={tmp_path / 'run'}")
    for end in run_two(*words, each=((), (other,)), code=1):
        assert "other data or other flags" in only_line(end)
    assert list(tmp_path.iterdir()) == []
