"""`experiments.sweep` and `grid_search`: as NumPy trains them, ranked by validation data.

The labels of the test examples are noise: another configuration is the best on them.
"""

import json
import re
import shutil
from itertools import product

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from linear_cifar import Hyperparameters, TrainConfig, load_features
from linear_cifar.training import init_state
from tests import oracle
from tests.commands import check_every_file, files
from tests.planted import (
    FITTED,
    SIZES,
    arrays,
    descend,
    examples,
    finish,
    planted,
    result,
    save,
    shuffled,
)

AXES = {"optimizer": ("sgd", "momentum"), "learning_rate": (0.01, 0.1, 1.0), "lam": (0.0, 0.1)}
SEEDS = (1, 2, 3)
WORDS = ("--optimizer=sgd,momentum", "--momentum=0.8", "--learning_rate=0.01,0.1,1", "--lam=0,0.1")
WORDS += ("--batch_size=50", "--n_epochs=2", "--shuffle", "--seed=1", "--n_seeds=3")
MEASURES = [f"{split}_{name}" for split, name in product(SIZES, ("loss", "cost", "accuracy"))]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("planted"))


def train(features, seed, splits=("train",), shuffle=True, optimizer="sgd", **settings):
    """Parameters that NumPy trains on some splits, and their measures on all."""
    data = load_features(features)
    start = init_state(jax.random.key(seed), Hyperparameters(), data, TrainConfig()).params
    inputs, labels = examples(*splits, reference=splits)
    settings = {"batch_size": 50, "momentum": 0.8 if optimizer == "momentum" else 0.0} | settings
    orders = shuffled(seed, len(labels), 2) if shuffle else None
    params = descend(start, inputs, labels, n_epochs=2, orders=orders, **settings)[-1]
    rows = (examples(split, reference=splits) for split in SIZES)
    values = [oracle.measure(*params, *row, settings["lam"], "softmax") for row in rows]
    return params, dict(zip(MEASURES, np.ravel(values), strict=True))


@pytest.fixture(scope="module")
def expected(features):
    """The measures of every run in NumPy, by configuration and seed."""
    return {
        (*values, seed): train(features, seed, **dict(zip(AXES, values, strict=True)))[1]
        for values in product(*AXES.values())
        for seed in SEEDS
    }


@pytest.fixture(scope="module")
def swept(features, tmp_path_factory):
    """A finished sweep and its output."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    words = (f"--features={features}", *WORDS, "--refit", "--table=markdown,csv,latex")
    return out, finish("sweep", out, *words)


@pytest.fixture
def copy(swept, tmp_path):
    return shutil.copytree(swept[0], tmp_path / "copy")


def over_seeds(expected, name):
    """The values of a measure by configuration, each [S]."""
    return {
        values: np.array([expected[(*values, seed)][name] for seed in SEEDS])
        for values in product(*AXES.values())
    }


def test_a_sweep_leaves_the_whole_record(swept):
    out, _ = swept
    check_every_file(out / "figures")
    assert {name for name in files(out) if not name.startswith(("chunks/", "figures/"))} == {
        *("started.json", "sweep.csv", "sweep_by_seed.csv", "result.json"),
        *("params.npz", "params_refit.npz", "table.md", "table.csv", "table.tex"),
    }
    record = result(out)
    assert (record["n_configurations"], record["n_seeds"], record["n_diverged"]) == (12, 3, 0)
    assert {name[:21] for name in files(out / "figures")} == {
        "accuracy_over_lam_opt",
        "heat_map_optimizer_mo",
        "heat_map_optimizer_sg",
    }


def test_each_run_is_what_numpy_trains(swept, expected):
    rows = pd.read_csv(swept[0] / "sweep_by_seed.csv").to_dict("records")
    assert len(rows) == len(expected)
    for row in rows:
        values = expected[(*(row[name] for name in AXES), row["seed"])]
        assert {name: row[name] for name in MEASURES} == pytest.approx(values, rel=1e-5)
        assert pd.notna(row["momentum"]) == (row["optimizer"] == "momentum")


def test_the_table_has_means_deviations_and_ties_over_seeds_the_best_by_validation_first(
    swept, expected
):
    table = pd.read_csv(swept[0] / "sweep.csv").to_dict("records")
    by_name = {name: over_seeds(expected, name) for name in MEASURES}
    accuracy, loss = by_name["validation_accuracy"], by_name["validation_loss"]
    ranked = sorted(accuracy, key=lambda key: (-accuracy[key].mean().round(9), loss[key].mean()))
    assert [tuple(row[name] for name in AXES) for row in table] == ranked
    for row, values in zip(table, ranked, strict=True):
        for name in MEASURES:
            assert row[name] == pytest.approx(by_name[name][values].mean(), rel=1e-5)
            sd = by_name[name][values].std(ddof=1)
            assert row[f"{name}_sd"] == pytest.approx(sd, rel=1e-3, abs=1e-6)
        better = accuracy[ranked[0]] - accuracy[values]
        reach = stats.t.ppf(0.975, 2) * stats.sem(better)
        assert row["ties_with_best"] == bool((better == 0).all() or better.mean() <= reach)


def test_the_best_by_validation_is_recorded_with_its_test_accuracy_and_its_parameters(
    swept, features, expected
):
    out, done = swept
    means = {key: values.mean() for key, values in over_seeds(expected, "test_accuracy").items()}
    best = tuple(result(out)["best"][name] for name in AXES)
    validation = over_seeds(expected, "validation_accuracy")
    assert validation[best].mean() == max(values.mean() for values in validation.values())
    assert means[best] < max(means.values())  # noise prefers another one
    assert result(out)["test_accuracy"] == pytest.approx(means[best])
    test = over_seeds(expected, "test_accuracy")[best]
    line = rf"test accuracy of the best +{test.mean():.4f} ± {test.std(ddof=1):.4f}"
    assert re.search(line, done.stdout)
    params, _ = train(features, SEEDS[0], **dict(zip(AXES, best, strict=True)))
    np.testing.assert_allclose(arrays(out / "params.npz")["weights"], params[0], atol=1e-5)


def test_refit_trains_the_best_on_validation_examples_too(swept, features):
    best = {name: result(swept[0])["best"][name] for name in AXES}
    refits = [train(features, seed, FITTED, **best) for seed in SEEDS]
    params = arrays(swept[0] / "params_refit.npz")
    np.testing.assert_allclose(params["weights"], refits[0][0][0], atol=1e-5)
    np.testing.assert_allclose(params["bias"], refits[0][0][1], atol=1e-5)
    accuracies = [values["test_accuracy"] for _, values in refits]
    assert result(swept[0])["refit"]["test_accuracy_by_seed"] == pytest.approx(accuracies)
    assert result(swept[0])["refit"]["test_accuracy"] == pytest.approx(np.mean(accuracies))


def test_tables_show_mean_and_deviation_over_seeds_in_every_format(swept, expected):
    accuracy = over_seeds(expected, "validation_accuracy")  # a row per rate, a column per λ
    cells = [f"{v.mean():.4f} ± {v.std(ddof=1):.4f}" for _, v in sorted(accuracy.items())]
    for ending in ("md", "csv", "tex"):
        text = (swept[0] / f"table.{ending}").read_text().replace("$\\pm$", "±")
        assert re.findall(r"[\d.]+ ± [\d.]+", text) == cells


def test_select_loss_ranks_by_validation_loss_and_resuming_removes_the_refit(
    copy, features, expected
):
    words = (f"--features={features}", *WORDS, "--select=loss", "--resume")
    finish("sweep", copy, *words)
    means = {key: values.mean() for key, values in over_seeds(expected, "validation_loss").items()}
    table = pd.read_csv(copy / "sweep.csv")
    assert list(zip(*(table[name] for name in AXES), strict=True)) == sorted(means, key=means.get)
    assert not table.validation_accuracy.is_monotonic_decreasing  # the order is another one
    assert result(copy)["best"]["validation_loss"] == pytest.approx(min(means.values()), rel=1e-5)
    assert "params_refit.npz" not in files(copy)


def test_a_configuration_with_a_measure_that_is_not_finite_is_last_and_never_the_best(
    copy, tmp_path
):
    """With η = 1000 training and validation are fine, but a huge test example overflows."""
    inputs, labels = planted()["test"]
    huge = np.where(np.arange(len(labels))[:, None], inputs, np.float32(1e38))
    (tmp_path / "huge").mkdir()
    features = save(tmp_path / "huge", planted() | {"test": (huge, labels)})
    words = (f"--features={features}", "--lam=0", "--n_epochs=1", "--overwrite")
    done = finish("sweep", copy, *words, "--learning_rate=1e30,1000,0.0001")
    table = pd.read_csv(copy / "sweep.csv")
    assert table.learning_rate[0] == result(copy)["best"]["learning_rate"] == 0.0001
    assert table.diverged.tolist() == [False, True, True]
    assert table.validation_accuracy.max() > table.validation_accuracy[0]
    assert not table.ties_with_best[table.validation_accuracy.isna()].any()
    assert result(copy)["n_diverged"] == 2
    assert "diverged" in done.stdout
    finish("sweep", copy, *words, "--learning_rate=1e30", "--refit")
    assert result(copy)["best"] is None
    assert not {"params.npz", "sweep_by_seed.csv", "params_refit.npz", "table.md"} & files(copy)


def test_drawn_configurations_are_of_their_ranges_and_make_few_figures(features, tmp_path):
    out = tmp_path / "run"
    words = "--lam=1e-4:1:log --learning_rate=1e-3:1e-1:log --momentum=0.5:0.99 --n_epochs=1"
    words += f" --optimizer=momentum,adam --n_random=50 --features={features}"
    finish("sweep", out, *words.split())
    table = pd.read_csv(out / "sweep.csv")
    assert len(table) == table.lam.nunique() == 50
    assert table.lam.between(1e-4, 1).all()
    assert table.learning_rate.between(1e-3, 1e-1).all()
    assert (table.lam < 1e-2).sum() > 10  # equal ratios are equally likely
    assert table.momentum.dropna().between(0.5, 0.99).all()
    assert files(out / "figures") == {
        f"drawn_optimizer_{name}.png" for name in ("momentum", "adam")
    }


# Grids.

GRID = ("--batch_size=50,70", "--learning_rate=0.1,1e30", "--lam=0,0.3", "--n_epochs=2")


@pytest.fixture(scope="module")
def grid(features, tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "run"
    finish("grid_search", out, f"--features={features}", *GRID)
    return out


def test_grid_json_has_what_numpy_validates_under_the_reports_keys(grid, features):
    cells = json.loads((grid / "grid.json").read_text())
    assert cells.keys() == {
        f"{batch_size}_{rate}_{lam}"
        for batch_size, rate, lam in product((50, 70), ("0.1", "1e+30"), ("0.0", "0.3"))
    }
    accuracies = {}
    for batch_size, lam in product((50, 70), (0.0, 0.3)):
        settings = {"batch_size": batch_size, "learning_rate": 0.1, "lam": lam}
        params, values = train(features, 0, shuffle=False, **settings)
        key = f"{batch_size}_0.1_{lam}"
        assert cells[key] == pytest.approx(values["validation_accuracy"], abs=1e-6)
        assert cells[key.replace("0.1", "1e+30", 1)] is None  # it diverged
        accuracies[key] = values["validation_accuracy"], values["test_accuracy"], params[0]
    best = result(grid)["best"]
    validation, test, weights = max(accuracies.values(), key=lambda cell: cell[0])
    assert (best["validation_accuracy"], best["test_accuracy"]) == pytest.approx((validation, test))
    assert accuracies[best["key"]][0] == validation
    np.testing.assert_allclose(arrays(grid / "params.npz")["weights"], weights, atol=1e-5)


def test_a_single_seed_ties_within_one_standard_error_of_its_validation_accuracy(grid):
    table = pd.read_csv(grid / "grid.csv")
    best = table.validation_accuracy.max()
    error = np.sqrt(best * (1 - best) / SIZES["validation"])
    ties = table.validation_accuracy >= best - error
    assert table.ties_with_best.tolist() == ties.tolist()
    assert 0 < ties.sum() < (~table.diverged).sum() + 1
    check_every_file(grid)
