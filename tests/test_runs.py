"""Commands that train one configuration: their records are true, whole, and kept on Ctrl-C."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from linear_cifar import OPTIMIZERS, Hyperparameters, TrainConfig, evaluate, sweep, train
from linear_cifar.losses import LOSSES
from tests import oracle
from tests.commands import QUICK, RUN_FILES, check_every_file, few, files, run
from tests.conftest import undrawn_figures

HISTORY = ["epoch", *(f"{s}_{m}" for s in ("train", "validation")
                      for m in ("loss", "cost", "accuracy"))]  # fmt: skip
IMAGE = 1.1 / 400  # one image, which rounding may move from one class to another


def baseline(out, *words, code=0, command="baseline", **how):
    """Runs a command; what it printed, and its `result.json`."""
    done = run(f"experiments.{command}", *QUICK, *words, f"--output_dir={out}", **how)
    assert done.returncode == code, done.stderr
    return done, json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)


def standardised(split):
    """Inputs of a split and its labels, in NumPy and float64."""
    stored, split = few().train.inputs.astype(float), getattr(few(), split)
    return (split.inputs - stored.mean(axis=0)) / stored.std(axis=0), split.labels


def measured(split, weights, bias, lam, loss):
    """Loss, cost and accuracy of a split, in NumPy and float64."""
    return oracle.measure(weights.astype(float), bias, *standardised(split), lam, loss)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run with no setting at its default."""
    out = tmp_path_factory.mktemp("baseline") / "run"
    words = "--loss=multi_bce --lam=0.01 --batch_size=30 --shuffle --seed=5 --learning_rate=0.01"
    return out, *baseline(out, *words.split(), "--decay_factor=10", "--decay_every=1")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two seeds at once."""
    out = tmp_path_factory.mktemp("baseline") / "run"
    words = ("--lam=0.1", "--learning_rate=0.01", "--n_seeds=2", "--seed=3")
    with undrawn_figures():
        return out, *baseline(out, *words)


def test_baseline_writes_the_whole_record(one):
    out, done, result = one
    assert files(out) == RUN_FILES
    assert list(out.parent.iterdir()) == [out]
    check_every_file(out)
    settings = {"loss": "multi_bce", "lam": 0.01, "batch_size": 30, "shuffle": True, "seed": 5}
    settings |= {"learning_rate": 0.01, "decay_factor": 10, "decay_every": 1, "n_epochs": 2}
    settings |= {"experiment": "baseline", "optimizer": "sgd", "diverged": False}
    assert settings.items() <= result.items()
    assert result["dataset"]["sizes"] == {"train": 400, "validation": 400, "test": 400}
    assert (result["dataset"]["name"], result["dataset"]["official"]) == ("synthetic", False)
    assert {"load", "compile", "train", "evaluate", "plot"} == result["seconds"].keys()
    assert {"versions", "device"} <= result.keys()
    assert len(result["dataset"]["sha256"]) == 64
    for shown in (f"{result['test_accuracy']:.4f}", str(out), "SYNTHETIC"):
        assert shown in done.stdout


def test_the_result_and_the_history_are_those_of_the_parameters(one):
    out, _, result = one
    last = pd.read_csv(out / "history.csv").iloc[-1]
    with np.load(out / "params.npz") as params:
        for split in ("train", "validation", "test"):
            loss, cost, accuracy = measured(split, **params, lam=0.01, loss="multi_bce")
            assert result[f"{split}_accuracy"] == pytest.approx(accuracy, abs=IMAGE)
            if split != "test":
                assert result[f"{split}_cost"] == pytest.approx(cost, rel=1e-5)
                assert last[f"{split}_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_history_and_the_parameters_are_those_of_train_from_before_training_on(one):
    out, *_ = one
    table = pd.read_csv(out / "history.csv")
    config = TrainConfig(loss=LOSSES["multi_bce"], n_epochs=2, batch_size=30, shuffle=True)
    hyperparameters = Hyperparameters(0.01, 0.01, decay_factor=10.0, decay_every=1)
    params, history = train(jax.random.key(5), hyperparameters, few(), config)
    assert list(table) == HISTORY
    assert table.epoch.tolist() == [0, 1, 2]
    for name, values in history._asdict().items():
        np.testing.assert_allclose(table[name], values, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(np.load(out / "params.npz")["weights"], params.weights, atol=1e-6)


def test_each_of_several_seeds_is_as_train_alone_and_the_record_has_their_mean(seeds):
    out, done, result = seeds
    both = np.load(out / "params.npz")
    by_seed = pd.read_csv(out / "history_by_seed.csv")
    for i, seed in enumerate((3, 4)):
        params, history = train(
            jax.random.key(seed), Hyperparameters(0.1, 0.01), few(), TrainConfig(n_epochs=2)
        )
        np.testing.assert_allclose(both["weights"][i], params.weights, atol=1e-6)
        rows = by_seed[by_seed.seed == seed]
        np.testing.assert_allclose(rows.train_cost, history.train_cost, rtol=1e-5)
        inputs, labels = standardised("test")
        right = (inputs @ np.asarray(params.weights, float).T).argmax(axis=1) == labels
        spread = result["over_seeds"]["test_accuracy"]
        assert spread["values"][i] == pytest.approx(right.mean(), abs=IMAGE)
    assert result["test_accuracy"] == pytest.approx(np.mean(spread["values"]))
    assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
    assert f"{result['test_accuracy']:.4f} ± {spread['sd']:.4f}" in done.stdout


@pytest.mark.usefixtures("undrawn")
def test_the_seed_determines_every_byte(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        baseline(tmp_path / name, f"--seed={seed}", "--shuffle")
    for name in ("params.npz", "history.csv"):
        a, b, c = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert a == b != c


@pytest.mark.usefixtures("undrawn")
def test_an_optimiser_trains_with_its_own_settings_and_records_no_others(tmp_path):
    settings = {"lam": 0.1, "learning_rate": 0.01, "decay_factor": 2.0, "decay_every": 3}
    settings |= {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
    words = [f"--{name}={value}" for name, value in settings.items()]
    _, result = baseline(tmp_path / "run", "--optimizer=adam", *words)
    assert {name: result[name] for name in Hyperparameters._fields if name in result} == settings
    config = TrainConfig(n_epochs=2, optimizer=OPTIMIZERS["adam"])
    params, _ = train(jax.random.key(0), Hyperparameters(**settings), few(), config)
    weights = np.load(tmp_path / "run" / "params.npz")["weights"]
    np.testing.assert_allclose(weights, params.weights, atol=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_diverged_run_is_recorded_without_numbers(tmp_path):
    done, result = baseline(tmp_path / "run", "--lam=1", "--learning_rate=1e30")
    assert "diverged" in done.stdout
    assert result["diverged"] is True
    assert result["train_cost"] is result["test_accuracy"] is None
    assert files(tmp_path / "run") == RUN_FILES


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("step_decay", {"lam": 0.1, "learning_rate": 0.05, "decay_factor": 10}),
        ("full_data", {"lam": 0.1, "learning_rate": 0.001, "decay_factor": 1}),
    ],
)
def test_the_reports_other_runs_have_their_settings_and_data(tmp_path, command, expected):
    _, result = baseline(tmp_path / "run", command=command)
    assert files(tmp_path / "run") == RUN_FILES
    assert expected.items() <= result.items()
    if command == "full_data":  # all five batches of 400 but their last 1,000 images
        assert result["dataset"]["sizes"] == {"train": 1000, "validation": 1000, "test": 400}
        assert result["split"] == "full"


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_baseline_keeps_its_finished_epochs(tmp_path):
    out = tmp_path / "run"
    _, result = baseline(out, "--n_epochs=10", code=130, interrupt_at="epoch 2 of 10")
    assert files(out) == RUN_FILES
    assert result["interrupted"] is True
    params, history = train(jax.random.key(0), Hyperparameters(), few(), TrainConfig(n_epochs=2))
    np.testing.assert_allclose(np.load(out / "params.npz")["weights"], params.weights, atol=1e-6)
    costs = pd.read_csv(out / "history.csv").train_cost
    np.testing.assert_allclose(costs, history.train_cost, rtol=1e-5)


@pytest.mark.slow
def test_loss_comparison_holds_a_run_for_each_loss(tmp_path):
    out = tmp_path / "run"
    _, result = baseline(out, command="loss_comparison")
    expected = {f"{loss}/{name}" for loss in LOSSES for name in RUN_FILES}
    assert files(out) == expected | {"result.json", "figures/probabilities.png"}
    check_every_file(out)
    for loss, compared in result["losses"].items():
        record = json.loads((out / loss / "result.json").read_text())
        assert record["loss"] == loss
        assert record["test_accuracy"] == compared["test_accuracy"]
        assert 0 < compared["true_class_probability"]["mean"] < 1


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_loss_comparison_keeps_the_finished_loss(tmp_path):
    out = tmp_path / "run"
    how = {"command": "loss_comparison", "interrupt_at": "1 of 2 runs finished"}
    _, result = baseline(out, "--n_epochs=5", code=130, **how)
    assert list(result["losses"]) == ["softmax"]
    assert {f"softmax/{name}" for name in RUN_FILES} <= files(out)
    assert not (out / "multi_bce").exists()
    assert pd.read_csv(out / "softmax" / "history.csv").epoch.iloc[-1] == 5


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
    accuracy = jax.vmap(lambda p: evaluate(p, real.test, real.standardiser, lam, LOSSES[loss]))(
        params
    ).accuracy
    assert ((low <= accuracy) & (accuracy <= high)).all(), accuracy


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_baseline_command_on_real_images_names_its_data(tmp_path, real_dir, real):
    words = (f"--data_dir={real_dir}", "--dataset=cifar10", "--n_epochs=40", "--lam=0.1")
    done, result = baseline(tmp_path / "run", *words)
    assert 0.383 <= result["test_accuracy"] <= 0.395
    assert result["dataset"]["sha256"] == real.sha256
    if not real.official:
        assert "not the official" in done.stderr
        assert "not the official" in done.stdout
