"""Commands that train one configuration: their records are whole, and are what NumPy trains."""

import pickle
from functools import cache
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from linear_cifar import LOSSES, Hyperparameters, TrainConfig
from linear_cifar.training import init_state
from tests import oracle
from tests.commands import QUICK, RUN_FILES, check_every_file, few, files
from tests.planted import arrays, descend, finish, result, shuffled

HISTORY = [f"{split}_{name}" for split in ("train", "validation")
           for name in ("loss", "cost", "accuracy")]  # fmt: skip
IMAGE = 1.1 / 400  # one image, which rounding may move from one class to another


class Run(NamedTuple):
    """A command with some flags, and its other settings that aren't the defaults of `descend`."""

    command: str
    flags: dict
    implied: dict = {}  # noqa: RUF012, it isn't changed
    seeds: tuple = (0,)


RUNS = {
    "every flag": Run(
        "baseline",
        {"loss": "multi_bce", "lam": 0.01, "batch_size": 30, "shuffle": True, "seed": 5}
        | {"learning_rate": 0.01, "decay_factor": 10.0, "decay_every": 1},
        seeds=(5,),
    ),
    "momentum, two seeds": Run(
        "baseline",
        {"optimizer": "momentum", "momentum": 0.8, "lam": 0.1, "n_seeds": 2, "seed": 3},
        seeds=(3, 4),
    ),
    "step decay": Run(
        "step_decay", {"decay_every": 1}, {"lam": 0.1, "learning_rate": 0.05, "decay_factor": 10.0}
    ),
    "full data": Run("full_data", {}, {"lam": 0.1, "split": "full"}),
}


@cache
def standardised(name, split="assignment"):
    """The inputs and labels of some examples, in float64."""
    dataset = few(split)
    stored, examples = dataset.train.inputs.astype(float), getattr(dataset, name)
    return (examples.inputs - stored.mean(axis=0)) / stored.std(axis=0), examples.labels


def measured(examples, params, settings):
    """Loss, cost and accuracy in NumPy."""
    lam, loss = settings.get("lam", 0), settings.get("loss", "softmax")
    return oracle.measure(*params, *examples, lam, loss)


def train(seed=0, n_epochs=2, shuffle=False, split="assignment", **settings):
    """What NumPy trains: weights and bias, the history, and the test accuracy."""
    start = init_state(jax.random.key(seed), Hyperparameters(), few(), TrainConfig()).params
    data = [standardised(name, split) for name in ("train", "validation", "test")]
    settings["orders"] = shuffled(seed, len(data[0][1]), n_epochs) if shuffle else None
    epochs = descend(start, *data[0], n_epochs=n_epochs, **settings)
    rows = [[*measured(data[0], p, settings), *measured(data[1], p, settings)] for p in epochs]
    return epochs[-1], np.array(rows), measured(data[2], epochs[-1], settings)[2]


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory):
    """A run, its folder, its output, and NumPy's training from each seed."""
    run, out = RUNS[request.param], tmp_path_factory.mktemp("run") / "out"
    words = [f"--{name}={value}" for name, value in run.flags.items()]
    done = finish(run.command, out, *QUICK, *words)
    settings = run.flags | run.implied
    settings = {k: v for k, v in settings.items() if k not in ("optimizer", "n_seeds", "seed")}
    return run, out, done, [train(seed, **settings) for seed in run.seeds]


def test_history_and_parameters_are_what_numpy_trains(finished):
    run, out, _, trained = finished
    several = len(run.seeds) > 1
    table = pd.read_csv(out / ("history_by_seed.csv" if several else "history.csv"))
    assert list(table) == [*(["seed"] if several else []), "epoch", *HISTORY]
    assert table.epoch.tolist() == [0, 1, 2] * len(run.seeds)
    params = arrays(out / "params.npz")
    for i, (seed, (expected, rows, _)) in enumerate(zip(run.seeds, trained, strict=True)):
        actual = table[table.seed == seed] if several else table
        for name, column in zip(HISTORY, rows.T, strict=True):
            tolerance = {"abs": IMAGE} if "accuracy" in name else {"rel": 1e-5}
            assert actual[name].tolist() == pytest.approx(column.tolist(), **tolerance), name
        for name, array in zip(("weights", "bias"), expected, strict=True):
            one = params[name][i] if several else params[name]
            np.testing.assert_allclose(one, array, atol=2e-6)
    means = np.mean([rows for _, rows, _ in trained], axis=0)
    np.testing.assert_allclose(pd.read_csv(out / "history.csv")[HISTORY], means, 1e-5, IMAGE)


def test_the_result_has_the_last_epoch_and_the_test_accuracy_with_their_spread(finished):
    run, out, done, trained = finished
    record = result(out)
    by_seed = {name: [rows[-1, i] for _, rows, _ in trained] for i, name in enumerate(HISTORY)}
    by_seed["test_accuracy"] = [accuracy for *_, accuracy in trained]
    for name in ("train_cost", "validation_cost", *(n for n in by_seed if "accuracy" in n)):
        tolerance = {"abs": IMAGE} if "accuracy" in name else {"rel": 1e-5}
        assert record[name] == pytest.approx(np.mean(by_seed[name]), **tolerance), name
        if len(run.seeds) > 1:
            spread = record["over_seeds"][name]
            assert spread["values"] == pytest.approx(by_seed[name], **tolerance)
            assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
            assert f"{spread['mean']:.4f} ± {spread['sd']:.4f}" in done.stdout
        else:
            assert f"{record[name]:.4f}" in done.stdout


def test_the_record_is_whole_and_names_its_settings_and_data(finished):
    run, out, done, _ = finished
    assert files(out) == RUN_FILES | ({"history_by_seed.csv"} if len(run.seeds) > 1 else set())
    check_every_file(out)
    record = result(out)
    expected = {"split": "assignment", "experiment": run.command} | run.flags | run.implied
    assert expected.items() <= record.items()
    assert ("momentum" in record) == (record["optimizer"] == "momentum")  # what SGD doesn't read
    assert (record["diverged"], record["interrupted"], record["n_epochs"]) == (False, False, 2)
    n_train = {"assignment": 400, "full": 1000}[record["split"]]  # all but the last 1,000
    assert record["dataset"]["sizes"] == {"train": n_train, "validation": n_train, "test": 400}
    assert (record["dataset"]["name"], record["dataset"]["official"]) == ("synthetic", False)
    assert {"load", "compile", "train", "evaluate", "plot"} == record["seconds"].keys()
    assert {"versions", "device"} <= record.keys()
    assert len(record["dataset"]["sha256"]) == 64
    for text in (str(out), "SYNTHETIC"):
        assert text in done.stdout


def test_a_diverged_run_is_recorded_without_numbers(tmp_path):
    words = (*QUICK, "--lam=1", "--learning_rate=1e30")
    assert "diverged" in finish("baseline", tmp_path / "run", *words).stdout
    record = result(tmp_path / "run")
    assert record["diverged"] is True
    assert record["train_cost"] is record["test_accuracy"] is None
    assert files(tmp_path / "run") == RUN_FILES


def test_loss_comparison_holds_what_numpy_trains_with_each_loss(tmp_path):
    out = tmp_path / "run"
    finish("loss_comparison", out, *QUICK, "--lam=0.1")
    expected = {f"{loss}/{name}" for loss in LOSSES for name in RUN_FILES}
    assert files(out) == expected | {"result.json", "figures/probabilities.png"}
    check_every_file(out)
    for loss, compared in result(out)["losses"].items():
        (weights, bias), rows, accuracy = train(loss=loss, lam=0.1)
        assert result(out / loss)["loss"] == loss
        params = arrays(out / loss / "params.npz")
        np.testing.assert_allclose(params["weights"], weights, atol=2e-6)
        assert result(out / loss)["train_cost"] == pytest.approx(rows[-1, 1], rel=1e-5)
        assert compared["train_cost"] == pytest.approx(rows[-1, 1], rel=1e-5)
        assert compared["test_accuracy"] == pytest.approx(accuracy, abs=IMAGE)
        inputs, labels = standardised("test")
        odds = np.exp(inputs @ weights.T + bias)
        total = odds.sum(axis=1, keepdims=True) if loss == "softmax" else 1 + odds
        of_class = (odds / total)[np.arange(len(labels)), labels]
        moments = {"mean": of_class.mean(), "median": np.median(of_class), "sd": of_class.std()}
        moments["above_0.8"] = np.mean(of_class > 0.8)
        assert compared["true_class_probability"] == pytest.approx(moments, rel=1e-4, abs=IMAGE)


def test_an_interrupted_loss_comparison_keeps_the_finished_loss(tmp_path):
    out, text = tmp_path / "run", "1 of 2 runs finished"
    finish("loss_comparison", out, *QUICK, "--n_epochs=5", code=130, interrupt_at=text)
    assert list(result(out)["losses"]) == ["softmax"]
    assert {f"softmax/{name}" for name in RUN_FILES} <= files(out)
    assert not (out / "multi_bce").exists()
    assert pd.read_csv(out / "softmax" / "history.csv").epoch.iloc[-1] == 5


# Real images: the JPEG copies, from which the official files' accuracies differ by 0.01.

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
REAL = {
    "baseline": (BATCHES[:1], BATCHES[1:2], slice(None), 0.383, 0.395),
    "full_data": (BATCHES, BATCHES, slice(-1000, None), 0.402, 0.414),
}


def stored(folder, names):
    """Images and labels of batches as CIFAR-10's authors say to read them."""
    parts = []
    for name in names:
        with (folder / "cifar-10-batches-py" / name).open("rb") as file:
            parts.append(pickle.load(file, encoding="bytes"))
    labels = np.concatenate([part[b"labels"] for part in parts])
    return np.concatenate([part[b"data"] for part in parts]), labels


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("command", REAL)
def test_a_command_on_real_images_splits_them_and_reaches_the_known_accuracy(
    tmp_path, real_dir, command
):
    train_names, validation_names, validated, low, high = REAL[command]
    out, data = tmp_path / "run", f"--data_dir={real_dir}"
    done = finish(command, out, data, "--dataset=cifar10", "--lam=0.1")
    record, params = result(out), arrays(out / "params.npz")
    assert low <= record["test_accuracy"] <= high
    images = stored(real_dir, train_names)[0]
    images = images if command == "baseline" else images[:-1000]
    assert record["dataset"]["sizes"]["train"] == len(images)
    parts = np.array_split(images, 50)  # each in float64, which would take too much memory for all
    mean, square = (
        np.mean([(part.astype(float) ** power).mean(axis=0) for part in parts], axis=0)
        for power in (1, 2)
    )
    sd = np.sqrt(square - mean**2)
    for name, batches, rows in (
        ("validation", validation_names, validated),
        ("test", ["test_batch"], slice(None)),
    ):
        inputs, labels = (array[rows] for array in stored(real_dir, batches))
        scores = (inputs - mean) / sd @ params["weights"].T + params["bias"]
        accuracy = (scores.argmax(axis=1) == labels).mean()
        assert record[f"{name}_accuracy"] == pytest.approx(accuracy, abs=1.1 / len(labels))
    if not record["dataset"]["official"]:
        assert "not the official" in done.stderr
        assert "not the official" in done.stdout


# By loss, λ and η.
KNOWN = {
    ("softmax", 0.0, 0.001): (0.382, 0.394),
    ("softmax", 0.1, 0.001): (0.383, 0.395),
    ("softmax", 1.0, 0.001): (0.368, 0.380),
    ("softmax", 0.0, 0.1): (0.25, 0.32),
    ("multi_bce", 0.0, 0.001): (0.334, 0.346),
}


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_two_seeds_on_real_images_meet_the_report(tmp_path, real_dir):
    words = "--loss=softmax,multi_bce --lam=0,0.1,1 --learning_rate=0.001,0.1 --n_epochs=40"
    words += f" --n_seeds=2 --dataset=cifar10 --data_dir={real_dir}"
    finish("sweep", tmp_path / "run", *words.split())
    table = pd.read_csv(tmp_path / "run" / "sweep_by_seed.csv")
    for (loss, lam, rate), (low, high) in KNOWN.items():
        rows = table[(table.loss == loss) & (table.lam == lam) & (table.learning_rate == rate)]
        assert len(rows) == 2
        assert rows.test_accuracy.between(low, high).all(), rows
