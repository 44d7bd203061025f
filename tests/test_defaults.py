"""Commands as users run them: float32, XLA's optimisations, none of the tests' settings."""

import os
import signal

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from linear_cifar import Hyperparameters, TrainConfig, load_dataset
from linear_cifar.training import init_state
from tests import oracle
from tests.commands import RUN_FILES, files, interrupt, result, run_process

DEFAULTS = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "JAX_ENABLE_X64": "false",
    "XLA_FLAGS": "",
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with 400 examples of 3 overlapping classes, a file for each split."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 3
    inputs = rng.normal(size=(400, 6)) + np.eye(6)[labels]
    folder = tmp_path_factory.mktemp("features")
    splits = np.repeat(["train", "validation", "test"], [200, 100, 100])
    for split in ("train", "validation", "test"):
        rows = splits == split
        np.savez(folder / f"{split}.npz", features=inputs[rows], labels=labels[rows])
    return folder


@pytest.mark.slow
def test_without_network_a_user_gets_the_run_that_numpy_computes_on_synthetic_images(tmp_path):
    words = (f"--data_dir={tmp_path / 'none'}", f"--output_dir={tmp_path / 'run'}")
    done = run_process("experiments.baseline", "--n_epochs=2", "--lam=0.1", *words, **DEFAULTS)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == {f"run/{name}" for name in RUN_FILES}
    assert "SYNTHETIC" in done.stdout
    assert "SYNTHETIC" in done.stderr
    assert "epoch 2 of 2, cost " in done.stderr  # plain progress lines, without a terminal
    record = result(tmp_path / "run")
    assert record["dataset"]["sizes"] == {"train": 10000, "validation": 10000, "test": 10000}
    assert f"{record['test_accuracy']:.4f}" in done.stdout
    assert record["n_devices"] == min(len(os.sched_getaffinity(0)), 8)  # one for each core
    assert record["seconds"]["compile"] > 0
    with jax.enable_x64(False):
        data = load_dataset("synthetic")
        start = init_state(jax.random.key(0), Hyperparameters(), data, TrainConfig()).params
    settings = {"learning_rate": 0.001, "batch_size": 100, "n_epochs": 2, "loss": "softmax"}
    weights, bias, rows = oracle.train(*start, data, lam=0.1, **settings)
    with np.load(tmp_path / "run" / "params.npz") as params:
        # Products of float16 inputs would differ by 7e-7.
        np.testing.assert_allclose(params["weights"], weights, 0, 2e-7)
        np.testing.assert_allclose(params["bias"], bias, 0, 2e-7)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    np.testing.assert_allclose(history.train_cost, rows[:, 1], rtol=1e-5)
    np.testing.assert_allclose(history.validation_accuracy, rows[:, -1], atol=2e-4)


@pytest.mark.slow
def test_a_users_interrupted_sweep_resumes_to_the_same_bytes(features, tmp_path):
    sweep = (
        *("experiments.sweep", f"--features={features}", "--lam=0,0.1", "--learning_rate=0.1"),
        *("--batch_size=20,50", "--n_epochs=500", "--shuffle"),
    )
    for name in ("uninterrupted", "resumed"):
        line = (*sweep, f"--output_dir={tmp_path / name}")
        if name == "resumed":
            done = interrupt("[ 50", *line, by=signal.SIGTERM, **DEFAULTS)
            assert done.returncode == 143, done.stderr
            line += ("--resume",)
        done = run_process(*line, **DEFAULTS)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "resumed") == files(tmp_path / "uninterrupted")
    for name in ("sweep.csv", "params.npz"):
        expected = (tmp_path / "uninterrupted" / name).read_bytes()
        assert (tmp_path / "resumed" / name).read_bytes() == expected


@pytest.mark.slow
def test_a_users_probe_has_the_accuracy_of_scikit_learn(features, tmp_path):
    words = (f"--features={features}", "--lam=0.1", f"--output_dir={tmp_path / 'run'}")
    done = run_process("experiments.probe", *words, **DEFAULTS)
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "run")
    assert record["gap"] < 1e-6
    train, validation, test = (
        np.load(features / f"{s}.npz") for s in ("train", "validation", "test")
    )
    inputs, labels = (
        np.concatenate([train[name], validation[name]]) for name in ("features", "labels")
    )
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    model = LogisticRegression(C=1 / (2 * 0.1 * len(labels)), tol=1e-10, max_iter=1000)
    model.fit((inputs - mean) / scale, labels)
    expected = model.score((test["features"] - mean) / scale, test["labels"])
    assert record["test_accuracy"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_programs_are_kept_for_the_next_run_and_damaged_ones_compiled_again(features, tmp_path):
    keep = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    results, programs = [], []
    for name in ("first", "second", "damaged"):
        words = (f"--features={features}", "--n_epochs=2", f"--output_dir={tmp_path / name}")
        done = run_process("experiments.baseline", *words, **keep)
        assert done.returncode == 0, done.stderr
        assert "cache" not in done.stderr
        results.append((tmp_path / name / "params.npz").read_bytes())
        entries = (tmp_path / "cache").rglob("*-cache")
        programs.append({path: path.stat().st_mtime_ns for path in entries})
        if name == "second":
            for path in programs[0]:
                path.write_bytes(path.read_bytes()[:-20])
    assert programs[0]
    assert programs[0] == programs[1]
    assert results[0] == results[1] == results[2]
