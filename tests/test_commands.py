"""What holds for all commands: their data, folders and devices, and one line for an error."""

import json
import os
import subprocess
import sys

import pytest

from tests.commands import QUICK, ROOT, RUN_FILES, environment, files, only_line, run, run_process

pytestmark = pytest.mark.usefixtures("undrawn")
WRITERS = (
    *("baseline", "full_data", "gradient_check", "grid_search", "lambda_path"),
    *("loss_comparison", "report", "step_decay", "sweep"),
)


def result_of(out):
    return json.loads((out / "result.json").read_text())


@pytest.mark.slow
def test_a_plain_run_without_network_trains_on_synthetic_images_and_says_so(tmp_path):
    words = ("experiments.baseline", "--n_epochs=2", f"--data_dir={tmp_path / 'none'}")
    done = run_process(*words, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert files(out) == RUN_FILES
    result = result_of(out)
    assert result["dataset"]["name"] == "synthetic"
    assert result["dataset"]["sizes"] == {"train": 10000, "validation": 10000, "test": 10000}
    assert "SYNTHETIC" in done.stderr
    assert "SYNTHETIC" in done.stdout
    assert f"{result['test_accuracy']:.4f}" in done.stdout
    assert str(out.relative_to(tmp_path)) in done.stdout
    assert "epoch 1 of 2, cost " in done.stderr  # plain progress lines, without a terminal
    assert "epoch 2 of 2, cost " in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_process_that_may_use_one_core_makes_one_device(tmp_path):
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})  # the process inherits it
        done = run_process("experiments.baseline", *QUICK, f"--output_dir={tmp_path / 'run'}")
    finally:
        os.sched_setaffinity(0, allowed)
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "run")["n_devices"] == 1


def test_the_default_folder_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run("experiments.baseline", *QUICK).returncode == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(files(folder) == RUN_FILES for folder in folders)


@pytest.mark.parametrize("name", WRITERS)
def test_a_command_whose_data_are_missing_or_damaged_leaves_no_folder(tmp_path, monkeypatch, name):
    for variable in ("HTTPS_PROXY", "https_proxy"):  # no network
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    for data in (tmp_path / "none", archive):
        words = ("--dataset=cifar10", f"--data_dir={data}", f"--output_dir={tmp_path / 'run'}")
        assert str(data) in only_line(run(f"experiments.{name}", *words))
    assert {path.name for path in tmp_path.iterdir()} == {"none", archive.name}
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_with_something_else_is_left_alone_before_data_are_loaded(
    tmp_path, monkeypatch, name
):
    def load_dataset(*_, **__):
        pytest.fail("it loads data first")

    monkeypatch.setattr("experiments.common.data.load_dataset", load_dataset)
    (tmp_path / "thesis.tex").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.tex" / "run"):
        for overwrite in ((), ("--overwrite",)):
            words = ("--dataset=synthetic", f"--output_dir={out}", *overwrite)
            assert str(tmp_path) in only_line(run(f"experiments.{name}", *words))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_replaced_only_with_overwrite(tmp_path):
    out = tmp_path / "run"
    words = ("experiments.baseline", *QUICK, f"--output_dir={out}")
    assert run(*words).returncode == 0
    before = (out / "result.json").read_bytes()
    refused = run(*words)
    assert "--overwrite" in only_line(refused)
    assert "epoch" not in refused.stderr
    assert (out / "result.json").read_bytes() == before
    assert run(*words, "--overwrite", "--seed=9").returncode == 0
    assert result_of(out)["seed"] == 9


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    # JAX warns that its cache has no room.
    command = f"ulimit -f 4; exec {sys.executable} -m experiments.baseline {' '.join(QUICK)}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --output_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=environment(PYTHONWARNINGS="default"),
        text=True,
        capture_output=True,
        check=False,
    )
    assert "cannot write" in only_line(done)
    assert "epoch 2 of 2" in done.stderr  # it had something to write
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
