"""What goes for commands as a user runs them: data, folders, errors and interrupts."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from commands import (
    QUICK,
    ROOT,
    RUN_FILES,
    environment,
    files,
    only_line,
    run,
    run_process,
)

from experiments.common import records

pytestmark = pytest.mark.usefixtures("undrawn")
WRITERS = (
    "baseline",
    "full_data",
    "gradient_check",
    "grid_search",
    "loss_comparison",
    "report",
    "step_decay",
    "sweep",
)


@pytest.fixture
def no_network(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.mark.slow
def test_a_plain_run_without_network_is_of_synthetic_images_and_says_so(tmp_path):
    words = ("experiments.baseline", "--n_epochs=2", f"--data_dir={tmp_path / 'none'}")
    done = run_process(*words, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert files(out) == RUN_FILES
    result = records.read_result(out)
    assert result["dataset"]["name"] == "synthetic"
    assert result["dataset"]["sizes"] == {"train": 10000, "validation": 10000, "test": 10000}
    assert "SYNTHETIC DATA, not CIFAR-10" in done.stderr
    assert "SYNTHETIC" in done.stdout
    assert f"{result['test_accuracy']:.4f}" in done.stdout
    assert str(out.relative_to(tmp_path)) in done.stdout
    # Plain progress lines, for there is no terminal.
    assert "1/2 epoch 1 of 2, cost " in done.stderr
    assert "2/2 epoch 2 of 2, cost " in done.stderr


def test_the_default_folder_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run("experiments.baseline", *QUICK).returncode == 0
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(files(folder) == RUN_FILES for folder in runs)


def damaged(tmp_path, name):
    """A data folder of the right form but for one thing."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (10000, 3072), dtype=np.uint8)
    good = {b"labels": [1] * 10000, b"data": images}
    changes = {
        "label 10": {b"labels": [10] * 10000},
        "wrong shape": {b"data": np.zeros((10000, 3000), np.uint8)},
    }
    (folder / "data_batch_1").write_bytes(pickle.dumps(good, protocol=3))
    os.link(folder / "data_batch_1", folder / "test_batch")
    content = pickle.dumps(good | changes.get(name, {}), protocol=3)
    bad = b"\x80\x03}q\x00(X\x04" if name == "truncated" else content
    (folder / "data_batch_2").write_bytes(bad)
    return folder.parent


@pytest.mark.parametrize("name", ["label 10", "wrong shape", "truncated"])
def test_damaged_data_is_one_line_and_writes_nothing(tmp_path, name):
    words = (f"--data_dir={damaged(tmp_path, name)}", f"--output_dir={tmp_path / 'run'}")
    assert "data_batch_2" in only_line(run("experiments.baseline", *words))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.usefixtures("no_network")
def test_other_bad_input_is_one_line_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    cases = {
        "by hand": ("--dataset=cifar10", f"--data_dir={tmp_path / 'none'}", f"--output_dir={out}"),
        "is corrupt": (f"--data_dir={archive}", f"--output_dir={out}"),
        "cannot write to": (*QUICK, f"--output_dir={archive / 'run'}"),
        "other than a run": (*QUICK, f"--output_dir={tmp_path}"),
        "learning_rate": (*QUICK, "--learning_rate=1e-60", f"--output_dir={out}"),
    }
    for message, words in cases.items():
        assert message in only_line(run("experiments.baseline", *words))
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_with_something_else_is_left_alone_before_data_are_loaded(
    tmp_path, monkeypatch, name
):
    def load_dataset(*_, **__):
        pytest.fail("it loads data first")

    monkeypatch.setattr("experiments.common.data.load_dataset", load_dataset)
    (tmp_path / "thesis.tex").touch()
    for words in ((), ("--overwrite",)):
        done = run(f"experiments.{name}", "--dataset=synthetic", *words, f"--output_dir={tmp_path}")
        assert "holds something other than a " in only_line(done)
    in_a_file = f"--output_dir={tmp_path / 'thesis.tex' / 'run'}"
    assert "cannot write to" in only_line(run(f"experiments.{name}", in_a_file))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", WRITERS)
def test_no_folder_is_left_of_a_command_that_gets_no_data(tmp_path, name):
    words = ("--dataset=cifar10", f"--data_dir={tmp_path / 'none'}")
    done = run(f"experiments.{name}", *words, f"--output_dir={tmp_path / 'run'}")
    assert "by hand" in only_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["none"]  # the empty folder of the data
    assert not list((tmp_path / "none").iterdir())


def test_a_folder_in_use_is_refused_before_training_and_kept(tmp_path):
    out = f"--output_dir={tmp_path / 'run'}"
    assert run("experiments.baseline", *QUICK, out).returncode == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    refused = run("experiments.baseline", *QUICK, out)
    assert "--overwrite" in only_line(refused)
    assert "1/2" not in refused.stderr
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert run("experiments.baseline", *QUICK, out, "--overwrite", "--seed=9").returncode == 0
    assert records.read_result(tmp_path / "run")["seed"] == 9


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    command = f"ulimit -f 4; exec {sys.executable} -m experiments.baseline {' '.join(QUICK)}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --output_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert "cannot write" in only_line(done)
    assert "2/2" in done.stderr  # it had something to write
    assert list(tmp_path.iterdir()) == []


def test_the_library_adds_only_safetensors_to_the_packages_of_jax_and_optax():
    program = "import sys, jax, optax; before = packages(); import linear_cifar; "
    program += "print(*sorted(packages() - before - sys.stdlib_module_names))"
    define = "def packages(): return {name.split('.')[0] for name in sys.modules}"
    done = subprocess.run(
        [sys.executable, "-c", f"{define}\n{program}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == ["linear_cifar", "safetensors"]
