"""Commands that train one configuration: their records are whole, and are what NumPy trains."""

from functools import cache
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from linear_cifar import LOSSES, Hyperparameters, TrainConfig, evaluate, sweep
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


EVERY_FLAG = {"loss": "multi_bce", "lam": 0.01, "batch_size": 30, "shuffle": True, "seed": 5}
EVERY_FLAG |= {"learning_rate": 0.01, "decay_factor": 10.0, "decay_every": 1}
MOMENTUM = {"optimizer": "momentum", "momentum": 0.8, "lam": 0.1, "n_seeds": 2, "seed": 3}
DECAY = {"lam": 0.1, "learning_rate": 0.05, "decay_factor": 10.0}
RUNS = {
    "every flag": Run("baseline", EVERY_FLAG, seeds=(5,)),
    "momentum, two seeds": Run("baseline", MOMENTUM, seeds=(3, 4)),
    "step decay": Run("step_decay", {"decay_every": 1}, DECAY),
    "full data": Run("full_data", {}, {"lam": 0.1, "split": "full"}),
}


@cache
def standardised(name, split="assignment"):
    """The inputs and labels of some examples, in float64."""
    dataset = few(split)
    stored, examples = dataset.train.inputs.astype(float), getattr(dataset, name)
    return (examples.inputs - stored.mean(axis=0)) / stored.std(axis=0), examples.labels


def train(seed=0, n_epochs=2, shuffle=False, split="assignment", **settings):
    """What NumPy trains: weights and bias, the history, and the test accuracy."""
    start = init_state(jax.random.key(seed), Hyperparameters(), few(), TrainConfig()).params
    data = [standardised(name, split) for name in ("train", "validation", "test")]
    settings["orders"] = shuffled(seed, len(data[0][1]), n_epochs) if shuffle else None
    epochs, lam = descend(start, *data[0], n_epochs=n_epochs, **settings), settings.get("lam", 0)
    loss = settings.get("loss", "softmax")
    rows = np.array([[oracle.measure(*p, *d, lam, loss) for d in data] for p in epochs])
    return epochs[-1], rows[:, :2].reshape(-1, 6), rows[-1, 2, 2]


def near(name, expected):
    """A measure, or several, but for rounding."""
    return pytest.approx(expected, **({"abs": IMAGE} if "accuracy" in name else {"rel": 1e-5}))


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory):
    """A run, its folder, its output, and NumPy's training from each seed."""
    run, out = RUNS[request.param], tmp_path_factory.mktemp("run") / "out"
    done = finish(run.command, out, *QUICK, *(f"--{k}={v}" for k, v in run.flags.items()))
    settings = run.flags | run.implied
    settings = {k: v for k, v in settings.items() if k not in ("optimizer", "n_seeds", "seed")}
    return run, out, done, [train(seed, **settings) for seed in run.seeds]


def test_history_and_parameters_are_what_numpy_trains(finished):
    run, out, _, trained = finished
    means = np.mean([rows for _, rows, _ in trained], axis=0)
    history = pd.read_csv(out / "history.csv")
    assert list(history) == ["epoch", *HISTORY]
    np.testing.assert_allclose(history[HISTORY], means, 1e-5, IMAGE)
    several = len(run.seeds) > 1
    table = (
        pd.read_csv(out / "history_by_seed.csv") if several else history.assign(seed=run.seeds[0])
    )
    assert table.epoch.tolist() == [0, 1, 2] * len(run.seeds)
    params = arrays(out / "params.npz")
    for i, (seed, (expected, rows, _)) in enumerate(zip(run.seeds, trained, strict=True)):
        for name, column in zip(HISTORY, rows.T, strict=True):
            assert table[name][table.seed == seed].tolist() == near(name, column.tolist()), name
        for name, array in zip(("weights", "bias"), expected, strict=True):
            one = params[name][i] if several else params[name]
            np.testing.assert_allclose(one, array, atol=2e-6)


def test_the_result_has_the_last_epoch_and_the_test_accuracy_with_their_spread(finished):
    run, out, done, trained = finished
    record = result(out)
    by_seed = {name: [rows[-1, i] for _, rows, _ in trained] for i, name in enumerate(HISTORY)}
    by_seed["test_accuracy"] = [accuracy for *_, accuracy in trained]
    for name in ("train_cost", "validation_cost", *(n for n in by_seed if "accuracy" in n)):
        assert record[name] == near(name, np.mean(by_seed[name])), name
        assert f"{record[name]:.4f}" in done.stdout
        if len(run.seeds) > 1:
            spread = record["over_seeds"][name]
            assert spread["values"] == near(name, by_seed[name])
            assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
            assert f"{spread['mean']:.4f} ± {spread['sd']:.4f}" in done.stdout


def test_the_record_is_whole_and_names_its_settings_and_data(finished):
    run, out, done, _ = finished
    assert files(out) == RUN_FILES | ({"history_by_seed.csv"} if len(run.seeds) > 1 else set())
    check_every_file(out)
    record = result(out)
    expected = {"split": "assignment", "experiment": run.command} | run.flags | run.implied
    expected |= {"diverged": False, "interrupted": False, "n_epochs": 2}
    assert expected.items() <= record.items()
    assert ("momentum" in record) == (record["optimizer"] == "momentum")  # what SGD doesn't read
    n_train = {"assignment": 400, "full": 1000}[record["split"]]  # all but the last 1,000
    data = {"sizes": {"train": n_train, "validation": n_train, "test": 400}}
    data |= {"name": "synthetic", "official": False}
    assert data.items() <= record["dataset"].items()
    assert len(record["dataset"]["sha256"]) == 64
    assert {"load", "compile", "train", "evaluate", "plot"} == record["seconds"].keys()
    assert {"versions", "device"} <= record.keys()
    assert all(text in done.stdout for text in (str(out), "SYNTHETIC"))


def test_a_diverged_run_is_recorded_without_numbers(tmp_path):
    words = (*QUICK, "--lam=1", "--learning_rate=1e30")
    assert "diverged" in finish("baseline", tmp_path / "run", *words).stdout
    record = result(tmp_path / "run")
    assert record["diverged"] is True
    assert record["train_cost"] is record["test_accuracy"] is None


def test_loss_comparison_holds_what_numpy_trains_with_each_loss(tmp_path):
    out = tmp_path / "run"
    finish("loss_comparison", out, *QUICK, "--lam=0.1")
    expected = {f"{loss}/{name}" for loss in LOSSES for name in RUN_FILES}
    assert files(out) == expected | {"result.json", "figures/probabilities.png"}
    for loss, compared in result(out)["losses"].items():
        (weights, bias), rows, accuracy = train(loss=loss, lam=0.1)
        for record in (compared, result(out / loss)):
            assert record["train_cost"] == pytest.approx(rows[-1, 1], rel=1e-5)
            assert record["test_accuracy"] == pytest.approx(accuracy, abs=IMAGE)
        inputs, labels = standardised("test")
        links = oracle.LINKS[loss](inputs @ weights.T + bias)
        of_class = links[np.arange(len(labels)), labels]
        moments = {"mean": of_class.mean(), "median": np.median(of_class), "sd": of_class.std()}
        moments["above_0.8"] = np.mean(of_class > 0.8)
        assert compared["true_class_probability"] == pytest.approx(moments, rel=1e-4, abs=IMAGE)


def test_an_interrupted_loss_comparison_keeps_the_finished_loss(tmp_path):
    out, text = tmp_path / "run", "1 of 2 runs finished"
    finish("loss_comparison", out, *QUICK, code=130, interrupt_at=text)
    assert list(result(out)["losses"]) == ["softmax"]
    assert files(out) >= {f"softmax/{name}" for name in RUN_FILES}
    assert not (out / "multi_bce").exists()


# Test accuracies on real images: the JPEG copies, which differ by 0.01 from the official files.


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_full_data_on_real_images_reach_the_known_accuracy(tmp_path, real_dir):
    words = (f"--data_dir={real_dir}", "--dataset=cifar10", "--lam=0.1")
    done = finish("full_data", tmp_path / "run", *words)
    record = result(tmp_path / "run")
    assert 0.402 <= record["test_accuracy"] <= 0.414
    assert record["dataset"]["sizes"] == {"train": 49000, "validation": 1000, "test": 10000}
    for shown in (done.stdout, done.stderr):
        assert record["dataset"]["official"] == ("not the official" not in shown)


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
def test_runs_on_real_images_meet_the_report(real):
    table = dict(zip(("loss", "lam", "learning_rate"), zip(*KNOWN, strict=True), strict=True))
    params, _ = sweep(jax.random.key(0), table, real, TrainConfig(measure=False))
    for i, ((loss, lam, _), (low, high)) in enumerate(KNOWN.items()):
        one = params._make(array[i] for array in params)
        assert (
            low <= evaluate(one, real.test, real.standardiser, lam, LOSSES[loss]).accuracy <= high
        )
