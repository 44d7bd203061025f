"""Commands that train one configuration: their records are whole, and are what NumPy trains."""

import re
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest

from linear_cifar import LOSSES, TrainConfig, evaluate, sweep
from tests import oracle
from tests.commands import QUICK, RUN_FILES, arrays, check_every_file, few, files, finish, result
from tests.planted import descend

HISTORY = [f"{split}_{name}" for split in ("train", "validation")
           for name in ("loss", "cost", "accuracy")]  # fmt: skip
IMAGE = 1.1 / 400  # one image, which rounding may move from one class to another
EVERY_FLAG = {"loss": "multi_bce", "lam": 0.01, "batch_size": 30, "shuffle": True, "seed": 5}
EVERY_FLAG |= {"learning_rate": 0.01, "decay_factor": 10.0, "decay_every": 1}
MOMENTUM = {"optimizer": "momentum", "momentum": 0.8, "lam": 0.1, "n_seeds": 2, "seed": 3}
RUNS = {  # a command, its flags, and its other settings that aren't the defaults of `descend`
    "every flag": ("baseline", EVERY_FLAG, {}),
    "momentum, two seeds": ("baseline", MOMENTUM, {}),
    "decay": ("step_decay", {"decay_every": 1}, {"learning_rate": 0.05, "decay_factor": 10.0}),
    "full data": ("full_data", {}, {"split": "full"}),
}


@cache
def standardised(name, split="assignment"):
    """The inputs and labels of some examples, in float64."""
    dataset = few(split)
    stored, examples = dataset.train.inputs.astype(float), getattr(dataset, name)
    return (examples.inputs - stored.mean(axis=0)) / stored.std(axis=0), examples.labels


def train(seed=0, n_epochs=2, split="assignment", **settings):
    """What NumPy trains: weights and bias, the history, and the test accuracy."""
    data = [standardised(name, split) for name in ("train", "validation", "test")]
    epochs, lam = descend(seed, *data[0], n_epochs=n_epochs, **settings), settings.get("lam", 0)
    loss = settings.get("loss", "softmax")
    rows = np.array([[oracle.measure(*p, *d, lam, loss) for d in data] for p in epochs])
    return epochs[-1], rows[:, :2].reshape(-1, 6), rows[-1, 2, 2]


def near(name, expected):
    """A measure, or several, but for rounding."""
    return pytest.approx(expected, **({"abs": IMAGE} if "accuracy" in name else {"rel": 1e-5}))


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory):
    """A run's folder, its output, its settings, and NumPy's training from each seed."""
    (command, flags, implied), out = RUNS[request.param], tmp_path_factory.mktemp("run") / "out"
    done = finish(command, out, *QUICK, *(f"--{name}={value}" for name, value in flags.items()))
    settings = {"lam": 0.1, "split": "assignment"} | flags | implied
    numbers = {k: v for k, v in settings.items() if k not in ("optimizer", "n_seeds", "seed")}
    first, n_seeds = flags.get("seed", 0), flags.get("n_seeds", 1)
    trained = {seed: train(seed, **numbers) for seed in range(first, first + n_seeds)}
    return out, done, settings | {"experiment": command}, trained


def test_history_and_parameters_are_what_numpy_trains(finished):
    out, _, _, trained = finished
    means = np.mean([rows for _, rows, _ in trained.values()], axis=0)
    table, params = pd.read_csv(out / "history.csv"), arrays(out / "params.npz")
    assert list(table) == ["epoch", *HISTORY]
    np.testing.assert_allclose(table[HISTORY], means, 1e-5, IMAGE)
    if len(trained) > 1:
        table = pd.read_csv(out / "history_by_seed.csv")
    assert table.epoch.tolist() == [0, 1, 2] * len(trained)
    for i, (seed, (expected, rows, _)) in enumerate(trained.items()):
        for name, column in zip(HISTORY, rows.T, strict=True):
            actual = table[name][table.seed == seed] if len(trained) > 1 else table[name]
            assert actual.tolist() == near(name, column.tolist()), name
        for name, array in zip(("weights", "bias"), expected, strict=True):
            one = params[name][i] if len(trained) > 1 else params[name]
            np.testing.assert_allclose(one, array, atol=2e-6)


def test_the_result_has_the_last_epoch_and_the_test_accuracy_with_their_spread(finished):
    out, done, _, trained = finished
    record = result(out)
    last = np.transpose([[*rows[-1], accuracy] for _, rows, accuracy in trained.values()])
    for name, values in zip([*HISTORY, "test_accuracy"], last.tolist(), strict=True):
        if name.endswith("_loss"):
            continue  # the cost is recorded
        assert record[name] == near(name, np.mean(values)), name
        assert f"{record[name]:.4f}" in done.stdout
        if len(trained) > 1:
            spread = record["over_seeds"][name]
            assert spread["values"] == near(name, values)
            assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
            assert f"{spread['mean']:.4f} ± {spread['sd']:.4f}" in done.stdout


def test_the_last_progress_line_has_the_mean_cost_and_accuracy_of_the_last_epoch(finished):
    record = result(finished[0])
    (last,) = re.findall(r"100 %\].* cost (.*), validation accuracy (.*)", finished[1].stderr)
    expected = [record["train_cost"], record["validation_accuracy"]]
    assert [float(number) for number in last] == pytest.approx(expected, abs=1e-4)


def test_the_title_tells_of_decay_if_there_is_any(finished):
    out, _, settings, _ = finished
    assert ("÷" in result(out)["title"]) == ("decay_factor" in settings)


def test_the_record_is_whole_and_names_its_settings_and_data(finished):
    out, done, settings, trained = finished
    assert files(out) == RUN_FILES | ({"history_by_seed.csv"} if len(trained) > 1 else set())
    check_every_file(out)
    record = result(out)
    expected = settings | {"diverged": False, "interrupted": False, "n_epochs": 2}
    assert expected.items() <= record.items()
    assert ("momentum" in record) == (record["optimizer"] == "momentum")  # what SGD doesn't read
    n = 1000 if record["split"] == "full" else 400  # of 2,000 all but the last 1,000
    data = {"sizes": {"train": n, "validation": n, "test": 400}}
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
    words = "--split=full --dataset=cifar10 --lam=0.1 --learning_rate=0.001 --n_epochs=40"
    done = finish("sweep", tmp_path / "run", f"--data_dir={real_dir}", *words.split())
    record = result(tmp_path / "run")
    assert 0.402 <= record["test_accuracy"] <= 0.414
    assert record["dataset"]["sizes"] == {"train": 49000, "validation": 1000, "test": 10000}
    for text in (done.stdout, done.stderr):
        assert record["dataset"]["official"] == ("not the official" not in text)


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
        accuracy = evaluate(one, real.test, real.standardiser, lam, LOSSES[loss]).accuracy
        assert low <= accuracy <= high, (loss, lam)
