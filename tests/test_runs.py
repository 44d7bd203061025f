"""What commands that train leave: records of the runs that they name, whole and true."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import QUICK, RUN_FILES, check_every_file, few, files, run

from experiments.common import records, training
from experiments.common.settings import Settings, as_table
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import evaluate
from linear_cifar.model import Params, predict
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import TrainConfig, fuses_batches, sweep, train


def test_baseline_writes_the_whole_record(tmp_path):
    out = tmp_path / "run"
    done = run("experiments.baseline", "--lam=0.1", *QUICK, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert files(out) == RUN_FILES
    assert list(tmp_path.iterdir()) == [out]
    check_every_file(out)
    result = records.read_result(out)
    assert {
        "experiment",
        "dataset",
        "hyperparameters",
        "n_epochs",
        "batch_size",
        "loss",
        "optimizer",
        "seed",
        "n_seeds",
        "train_accuracy",
        "validation_accuracy",
        "test_accuracy",
        "test_accuracy_by_class",
        "train_cost",
        "validation_cost",
        "diverged",
        "interrupted",
        "seconds",
        "versions",
        "device",
        "n_devices",
    } <= result.keys()
    assert result["dataset"]["name"] == "synthetic"
    assert result["dataset"]["official"] is False
    assert result["hyperparameters"]["lam"] == 0.1
    assert result["diverged"] is result["interrupted"] is False
    assert result["n_devices"] == jax.device_count() == 2
    assert {"load", "compile", "train", "evaluate", "plot"} == result["seconds"].keys()
    assert all(seconds > 0 for seconds in result["seconds"].values())
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert float(rows[-1]["validation_accuracy"]) == result["validation_accuracy"]
    assert f"{result['test_accuracy']:.4f}" in done.stdout
    assert str(out) in done.stdout
    assert "synthetic" in done.stdout.lower()
    assert "2/2 epoch 2 of 2, cost" in done.stderr  # plain lines, for there is no terminal


@pytest.mark.usefixtures("undrawn")
def test_the_record_is_that_of_the_model_it_holds(tmp_path):
    out = tmp_path / "run"
    words = (
        "--loss=multi_bce",
        "--lam=0.01",
        "--batch_size=30",
        "--shuffle",
        "--seed=5",
        "--learning_rate=0.01",
        "--decay_factor=10",
        "--decay_every=1",
    )
    assert run("experiments.baseline", *words, *QUICK, f"--output_dir={out}").returncode == 0
    result, loss, dataset = records.read_result(out), LOSSES["multi_bce"], few()
    expected, _ = train(
        jax.random.key(5),
        Hyperparameters(0.01, 0.01, 10.0, 1),
        dataset,
        TrainConfig(loss=loss, n_epochs=2, batch_size=30, shuffle=True),
    )
    params = records.read_params(out / "params.npz")
    np.testing.assert_allclose(params.weights, expected.weights, atol=1e-6)
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        measured = evaluate(params, split, dataset.standardiser, jnp.float32(0.01), loss)
        assert result[f"{name}_accuracy"] == pytest.approx(float(measured.accuracy), abs=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = (*QUICK, f"--seed={seed}", "--shuffle", f"--output_dir={tmp_path / name}")
        assert run("experiments.baseline", *words).returncode == 0
    for name in ("params.npz", "history.csv"):
        a, b, c = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert a == b
        assert a != c


@pytest.mark.usefixtures("undrawn")
def test_a_diverged_run_is_said_to_be(tmp_path):
    out = tmp_path / "run"
    words = ("--lam=1", "--learning_rate=1e30", f"--output_dir={out}")
    done = run("experiments.baseline", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    assert "diverged" in done.stdout
    result = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["diverged"] is True
    assert result["train_cost"] is result["test_accuracy"] is None
    assert files(out) == RUN_FILES


@pytest.mark.parametrize("words", [("step_decay", "--n_seeds=2"), ("full_data",)])
def test_runs_of_the_report_write_whole_records(tmp_path, words):
    name, *more = words
    out = tmp_path / "run"
    done = run(
        f"experiments.{name}", "--dataset=synthetic", "--n_epochs=1", *more, f"--output_dir={out}"
    )
    assert done.returncode == 0, done.stderr
    assert files(out) == RUN_FILES | ({"history_by_seed.csv"} if more else set())
    check_every_file(out)
    result = records.read_result(out)
    assert result["hyperparameters"]["lam"] == 0.1
    if name == "step_decay":
        assert result["hyperparameters"]["learning_rate"] == 0.05
        assert result["hyperparameters"]["decay_factor"] == 10
    else:  # all five batches of 400 but their last 1,000 images
        assert result["dataset"]["sizes"] == {"train": 1000, "validation": 1000, "test": 400}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("shuffle", [False, True])
def test_seeds_trained_at_once_equal_each_alone(tmp_path, shuffle):
    words = ["experiments.baseline", *QUICK, "--lam=0.1", *["--shuffle"] * shuffle]
    done = run(*words, "--n_seeds=2", "--seed=3", f"--output_dir={tmp_path / 'both'}")
    assert done.returncode == 0, done.stderr
    assert "±" in done.stdout
    both = records.read_params(tmp_path / "both" / "params.npz")
    result = records.read_result(tmp_path / "both")
    values = result["over_seeds"]["test_accuracy"]["values"]
    assert result["test_accuracy"] == pytest.approx(np.mean(values))
    for i in range(2):
        out = tmp_path / str(i)
        run(*words, f"--seed={3 + i}", f"--output_dir={out}")
        alone = records.read_params(out / "params.npz")
        np.testing.assert_allclose(both.weights[i], alone.weights, atol=1e-6)
        # Up to one image, which rounding may move from one class to another.
        expected = records.read_result(out)["test_accuracy"]
        assert values[i] == pytest.approx(expected, abs=1.1 / 400)


@pytest.mark.usefixtures("undrawn")
def test_the_accuracy_of_a_class_is_its_mean_over_seeds(tmp_path):
    out = tmp_path / "run"
    words = (*QUICK, "--learning_rate=0.01", "--n_seeds=2", f"--output_dir={out}")
    assert run("experiments.baseline", *words).returncode == 0
    dataset, of_seeds = few(), []
    inputs = dataset.standardiser(dataset.test.inputs, jnp.float32)
    for params in zip(*records.read_params(out / "params.npz"), strict=True):
        right = np.asarray(predict(Params(*params), inputs)) == dataset.test.labels
        of_seeds.append([right[dataset.test.labels == k].mean() for k in range(10)])
    assert np.ptp(of_seeds, axis=0).max() > 0.01
    by_class = records.read_result(out)["test_accuracy_by_class"]
    assert list(by_class) == list(dataset.class_names)
    np.testing.assert_allclose(list(by_class.values()), np.mean(of_seeds, axis=0), atol=1e-6)


@pytest.mark.slow
def test_loss_comparison_holds_a_run_for_each_loss(tmp_path):
    out = tmp_path / "run"
    words = ("--dataset=synthetic", "--n_epochs=1", f"--output_dir={out}")
    done = run("experiments.loss_comparison", *words)
    assert done.returncode == 0, done.stderr
    expected = {f"{loss}/{name}" for loss in ("softmax", "multi_bce") for name in RUN_FILES}
    assert files(out) == expected | {"result.json", "figures/probabilities.png"}
    check_every_file(out)
    losses = records.read_result(out)["losses"]
    for loss, figures in losses.items():
        assert figures["test_accuracy"] == records.read_result(out / loss)["test_accuracy"]
        assert 0 < figures["true_class_probability"]["mean"] < 1


def test_baseline_takes_several_batches_at_once_by_default():
    _, table, config = as_table([Settings()])
    (batch_size,) = table["batch_size"]
    assert fuses_batches(few(), config._replace(batch_size=batch_size), n_runs=1)


# Test accuracies on the JPEG copies; the official files differ by up to 0.01.
RUNS = {
    "lam=0.1": ("softmax", 0.1, 0.001, 0.383, 0.395),
    "lam=0": ("softmax", 0.0, 0.001, 0.382, 0.394),
    "lam=1": ("softmax", 1.0, 0.001, 0.368, 0.380),
    "eta=0.1": ("softmax", 0.0, 0.1, 0.25, 0.32),
    "multi_bce": ("multi_bce", 0.0, 0.001, 0.334, 0.346),
}


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("loss", "lam", "rate", "low", "high"), RUNS.values(), ids=RUNS)
def test_five_seeds_on_real_images_meet_the_report(real, loss, lam, rate, low, high):
    keys = jnp.stack([jax.random.key(seed) for seed in range(5)])
    config = TrainConfig(loss=LOSSES[loss], measure=False)
    params, _ = sweep(keys, {"lam": lam, "learning_rate": rate}, real, config)
    measured = jax.vmap(lambda p: evaluate(p, real.test, real.standardiser, lam, LOSSES[loss]))(
        params
    )
    assert ((low <= measured.accuracy) & (measured.accuracy <= high)).all(), measured.accuracy


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
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


def test_an_interrupt_while_the_last_epoch_is_evaluated_keeps_the_run(tmp_path, monkeypatch):
    evaluate_runs, told = training.evaluate_runs, []

    def interrupted(params, lam, split, *arguments):
        if not told:
            told.append(split)
            raise KeyboardInterrupt
        return evaluate_runs(params, lam, split, *arguments)

    monkeypatch.setattr(training, "evaluate_runs", interrupted)
    done = run("experiments.baseline", *QUICK, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 130, done.stderr
    assert "interrupted after epoch 2" in done.stderr
    assert files(tmp_path / "run") == RUN_FILES
