"""The commands, run as a user runs them: in a process of their own, judged by what they leave."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar import records
from linear_cifar.evaluation import evaluate
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import train

ROOT = Path(__file__).parent.parent
BASELINE_FILES = {
    "result.json", "history.csv", "params.npz", "figures/curves.png", "figures/weights.png",
}  # fmt: skip
QUICK = ("--dataset=synthetic", "--n_epochs=2")


def environment(**changes):
    without = {k: v for k, v in os.environ.items() if k != "LINEAR_CIFAR_DATA"}
    # No command that a test runs may reach a mirror.
    return without | {"HTTPS_PROXY": "http://127.0.0.1:1", "PYTHONWARNINGS": "error"} | changes


# Commands that are not killed share what they compile, which saves a fifth of their time.
COMPILED = tempfile.TemporaryDirectory()
SHARED = {
    "JAX_COMPILATION_CACHE_DIR": COMPILED.name, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}  # fmt: skip


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment(**SHARED), text=True, timeout=300,
        capture_output=True, check=False,
    )  # fmt: skip


def interrupt(text, *words):
    """Runs a module, interrupts it once `text` is in its progress; exit code, output, errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for line in process.stderr:
        if text in line:
            break
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    return process.returncode, shown, errors


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def only_line(process):
    """The one line of an error; the exit code has to be 1, and no traceback shown."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, process.stderr
    return lines[0]


def test_baseline_writes_the_whole_record(tmp_path):
    out = tmp_path / "run"
    done = run("experiments.baseline", "--lam=0.1", *QUICK, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert files(out) == BASELINE_FILES
    assert list(tmp_path.iterdir()) == [out]
    result = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    assert {
        "experiment", "dataset", "hyperparameters", "n_epochs", "batch_size", "loss", "seed",
        "train_accuracy", "validation_accuracy", "test_accuracy", "train_cost", "validation_cost",
        "diverged", "seconds", "versions", "device",
    } <= result.keys()  # fmt: skip
    assert result["dataset"]["name"] == "synthetic"
    assert result["dataset"]["official"] is False
    assert result["hyperparameters"]["lam"] == 0.1
    assert result["diverged"] is False
    assert {"load", "compile", "train", "evaluate", "plot"} == result["seconds"].keys()
    assert all(seconds > 0 for seconds in result["seconds"].values())
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert float(rows[-1]["validation_accuracy"]) == result["validation_accuracy"]
    assert f"{result['test_accuracy']:.4f}" in done.stdout
    assert str(out) in done.stdout
    assert "synthetic" in done.stdout.lower()
    assert "2/3" in done.stderr  # plain progress lines, for there is no terminal


def test_the_record_is_that_of_the_model_it_holds(tmp_path, synthetic):
    out = tmp_path / "run"
    words = ("--loss=multi_bce", "--lam=0.01", "--batch_size=30", "--shuffle", "--seed=5")
    words += ("--learning_rate=0.01", "--decay_factor=10", "--decay_every=1")
    assert run("experiments.baseline", *words, *QUICK, f"--output_dir={out}").returncode == 0
    result, loss = records.read_result(out), LOSSES["multi_bce"]
    expected, _ = train(
        jax.random.key(5), Hyperparameters(0.01, 0.01, 10.0, 1), synthetic, loss=loss,
        n_epochs=2, batch_size=30, shuffle=True,
    )  # fmt: skip
    params = records.read_params(out / "params.npz")
    np.testing.assert_allclose(params.weights, expected.weights, atol=1e-6)
    for name in ("train", "validation", "test"):
        split = getattr(synthetic, name)
        measured = evaluate(params, split, synthetic.standardiser, jnp.float32(0.01), loss)
        assert result[f"{name}_accuracy"] == pytest.approx(float(measured.accuracy), abs=1e-6)


def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = (*QUICK, f"--seed={seed}", "--shuffle", f"--output_dir={tmp_path / name}")
        assert run("experiments.baseline", *words).returncode == 0
    for name in ("params.npz", "history.csv"):
        a, b, c = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert a == b
        assert a != c


def test_the_default_folder_is_new_each_time_and_auto_warns(tmp_path):
    environment_path = {"PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "experiments.baseline", "--n_epochs=1",
             f"--data_dir={tmp_path / 'none'}"],
            cwd=tmp_path, env=environment(**environment_path), text=True, timeout=300,
            capture_output=True, check=True,
        )  # fmt: skip
        assert "SYNTHETIC DATA, not CIFAR-10" in done.stderr
        assert "SYNTHETIC" in done.stdout
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(files(folder) == BASELINE_FILES for folder in runs)


@pytest.mark.parametrize(
    "flag",
    ["--learning_rate=-1", "--learning_rate=nan", "--learning_rate=inf", "--learning_rate=0",
     "--lam=-0.1", "--lam=nan", "--n_epochs=0", "--batch_size=0", "--decay_factor=0.1",
     "--decay_every=0", "--loss=hinge", "--dataset=mnist", "--seed=-1", "--lam=much",
     "--bogus=1"],
)  # fmt: skip
def test_a_bad_flag_is_refused_by_name(tmp_path, flag):
    done = run("experiments.baseline", *QUICK, flag, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def damaged(tmp_path, name):
    """A data folder of the right form but for one thing."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    good = {b"labels": [1] * 10000, b"data": rng.integers(0, 256, (10000, 3072), dtype=np.uint8)}
    changes = {
        "label 10": {b"labels": [10] * 10000},
        "wrong shape": {b"data": np.zeros((10000, 3000), np.uint8)},
    }
    for batch in ("data_batch_1", "data_batch_2", "test_batch"):
        content = good | changes.get(name, {}) if batch == "data_batch_2" else good
        (folder / batch).write_bytes(pickle.dumps(content, protocol=3))
    if name == "truncated":
        (folder / "data_batch_2").write_bytes(b"\x80\x03}q\x00(X\x04")
    return folder.parent


@pytest.mark.parametrize("name", ["label 10", "wrong shape", "truncated"])
def test_damaged_data_is_one_line_and_writes_nothing(tmp_path, name):
    words = (f"--data_dir={damaged(tmp_path, name)}", f"--output_dir={tmp_path / 'run'}")
    assert "data_batch_2" in only_line(run("experiments.baseline", *words))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_bad_input_is_one_line_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    cases = {
        "by hand": ("--dataset=cifar10", f"--data_dir={tmp_path / 'none'}", f"--output_dir={out}"),
        "is corrupt": (f"--data_dir={archive}", f"--output_dir={out}"),
        "cannot write to": (*QUICK, f"--output_dir={archive / 'run'}"),
        "other than a run": (*QUICK, f"--output_dir={tmp_path}"),
        "from 1 to 10000": (*QUICK, "--batch_size=10001", f"--output_dir={out}"),
    }
    for message, words in cases.items():
        assert message in only_line(run("experiments.baseline", *words))
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))


def test_a_folder_in_use_is_refused_before_training_and_kept(tmp_path):
    out = f"--output_dir={tmp_path / 'run'}"
    assert run("experiments.baseline", *QUICK, out).returncode == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    refused = run("experiments.baseline", *QUICK, out)
    assert "--overwrite" in only_line(refused)
    assert "1/3" not in refused.stderr
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert run("experiments.baseline", *QUICK, out, "--overwrite", "--seed=9").returncode == 0
    assert records.read_result(tmp_path / "run")["seed"] == 9


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    command = f"ulimit -f 4; exec {sys.executable} -m experiments.baseline {' '.join(QUICK)}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --output_dir={tmp_path / 'run'}"],
        cwd=ROOT, env=environment(), text=True, timeout=300, capture_output=True, check=False,
    )  # fmt: skip
    assert "cannot write" in only_line(done)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_keeps_the_finished_epochs(tmp_path):
    out = tmp_path / "run"
    words = ("--dataset=synthetic", "--n_epochs=200", f"--output_dir={out}")
    code, _, errors = interrupt("validation accuracy", "experiments.baseline", *words)
    assert code == 130, errors
    assert "interrupted after epoch" in errors
    assert files(out) == BASELINE_FILES
    assert records.read_result(out)["interrupted"] is True
    assert 1 < len(records.read_history(out / "history.csv").train_cost) < 201


def test_a_diverged_run_is_said_to_be(tmp_path):
    out = tmp_path / "run"
    words = ("--lam=1", "--learning_rate=1e30", f"--output_dir={out}")
    done = run("experiments.baseline", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    assert "diverged" in done.stdout
    result = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["diverged"] is True
    assert result["train_cost"] is result["test_accuracy"] is None
    assert files(out) == BASELINE_FILES


def test_help_explains_every_flag_with_its_default():
    shown = run("experiments.baseline", "--helpshort").stdout
    for flag in ("dataset", "data_dir", "output_dir", "seed", "lam", "learning_rate", "batch_size",
                 "n_epochs", "loss", "decay_factor", "decay_every"):  # fmt: skip
        assert f"--{flag}:" in shown
    assert "default: '0.001'" in shown
    assert "python -m experiments.baseline" in shown


def test_gradient_check_passes_and_records_every_case(tmp_path):
    words = (
        "experiments.gradient_check",
        "--dataset=synthetic",
        f"--output_dir={tmp_path / 'run'}",
    )
    done = run(*words)
    assert done.returncode == 0, done.stderr
    result = records.read_result(tmp_path / "run")
    assert len(result["cases"]) == 12
    assert {case["loss"] for case in result["cases"]} == {"softmax", "multi_bce"}
    assert max(case["numerical_error"] for case in result["cases"]) <= 1e-6
    assert max(case["autodiff_error"] for case in result["cases"]) <= 1e-10


def test_gradient_check_fails_on_a_broken_gradient(tmp_path):
    # One class's logit gradient, of one loss, is off by one part in 100,000.
    program = """
import runpy, sys
from linear_cifar import losses
right = losses.LOSSES["multi_bce"]
def wrong(scores, labels):
    return right.logit_gradient(scores, labels).at[:, 3].multiply(1 + 1e-5)
losses.LOSSES["multi_bce"] = right._replace(logit_gradient=wrong)
runpy.run_module("experiments.gradient_check", run_name="__main__", alter_sys=True)
"""
    words = [
        sys.executable,
        "-c",
        program,
        "--dataset=synthetic",
        f"--output_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    passed = [case["passed"] for case in records.read_result(tmp_path / "run")["cases"]]
    assert passed == [True] * 6 + [False] * 6


def test_the_library_adds_no_heavy_import_to_those_of_jax_and_optax():
    program = "import sys, jax, optax; before = set(sys.modules); import linear_cifar; "
    program += "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert done.stdout.split() == ["linear_cifar"]


# Test accuracies on the JPEG copies; the official files differ by up to 0.01.
RUNS = {
    "lam=0.1": ("softmax", 0.1, 0.001, 0.383, 0.395),
    "lam=0": ("softmax", 0.0, 0.001, 0.382, 0.394),
    "lam=1": ("softmax", 1.0, 0.001, 0.368, 0.380),
    "eta=0.1": ("softmax", 0.0, 0.1, 0.25, 0.32),
    "multi_bce": ("multi_bce", 0.0, 0.001, 0.334, 0.346),
}


@pytest.mark.parametrize(("loss", "lam", "rate", "low", "high"), RUNS.values(), ids=RUNS)
def test_five_seeds_on_real_images_meet_the_report(real, loss, lam, rate, low, high):
    keys = jnp.stack([jax.random.key(seed) for seed in range(5)])
    params, _ = train(keys, Hyperparameters(lam, rate), real, loss=LOSSES[loss], measure=False)
    measured = jax.vmap(lambda p: evaluate(p, real.test, real.standardiser, lam, LOSSES[loss]))(
        params
    )
    assert ((low <= measured.accuracy) & (measured.accuracy <= high)).all(), measured.accuracy


def test_the_baseline_command_on_real_images(tmp_path, real_dir, real):
    words = (f"--data_dir={real_dir}", "--dataset=cifar10", f"--output_dir={tmp_path / 'run'}")
    done = run("experiments.baseline", "--lam=0.1", *words)
    assert done.returncode == 0, done.stderr
    result = records.read_result(tmp_path / "run")
    assert 0.383 <= result["test_accuracy"] <= 0.395
    assert result["dataset"]["sha256"] == records.describe_dataset(real)["sha256"]
    if not real.official:
        assert "not the official CIFAR-10" in done.stderr
        assert "not the official" in done.stdout
