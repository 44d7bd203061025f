"""`experiments.sweep` and `grid_search`: as NumPy trains them, ranked by validation data.

The labels of the test examples are noise: another configuration is the best on them.
"""

import json
import re
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests import oracle
from tests.commands import arrays, check_every_file, files, finish, result
from tests.planted import FITTED, SIZES, descend, examples, save

AXES = {"optimizer": ("sgd", "momentum"), "learning_rate": (0.01, 0.1, 1.0), "lam": (0.0, 0.1)}
SEEDS = (1, 2, 3)
WORDS = ("--optimizer=sgd,momentum", "--momentum=0.8", "--learning_rate=0.01,0.1,1", "--lam=0,0.1")
WORDS += ("--batch_size=50", "--n_epochs=2", "--shuffle", "--seed=1", "--n_seeds=3")
MEASURES = [f"{split}_{name}" for split, name in product(SIZES, ("loss", "cost", "accuracy"))]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("planted"))


def train(seed, splits=("train",), optimizer="sgd", batch_size=50, **settings):
    """Parameters that NumPy trains on some splits, and their measures on all."""
    settings |= {"batch_size": batch_size, "momentum": 0.8 if optimizer == "momentum" else 0.0}
    params = descend(seed, *examples(*splits, reference=splits), n_epochs=2, **settings)[-1]
    rows = (examples(split, reference=splits) for split in SIZES)
    values = [oracle.measure(*params, *row, settings["lam"], "softmax") for row in rows]
    return params, dict(zip(MEASURES, np.ravel(values), strict=True))


@pytest.fixture(scope="module")
def expected():
    """The measures of every configuration in NumPy, each [S]."""
    by_values = {}
    for values in product(*AXES.values()):
        settings = dict(zip(AXES, values, strict=True), shuffle=True)
        runs = [train(seed, **settings)[1] for seed in SEEDS]
        by_values[values] = {name: np.array([run[name] for run in runs]) for name in MEASURES}
    return by_values


@pytest.fixture(scope="module")
def swept(features, tmp_path_factory):
    """A finished sweep and its output."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    words = (f"--features={features}", *WORDS, "--refit", "--table=markdown,csv,latex")
    return out, finish("sweep", out, *words)


def test_a_sweep_leaves_the_whole_record(swept):
    out, _ = swept
    check_every_file(out / "figures")
    assert files(out / "figures") == {
        f"{kind}_optimizer_{group}.png"
        for kind in ("accuracy_over_lam", "heat_map")
        for group in ("momentum_momentum_0.8", "sgd_momentum_0.9")
    }
    assert {name for name in files(out) if not name.startswith(("chunks/", "figures/"))} == {
        *("started.json", "sweep.csv", "sweep_by_seed.csv", "result.json"),
        *("params.npz", "params_refit.npz", "table.md", "table.csv", "table.tex"),
    }
    record = result(out)
    assert (record["n_configurations"], record["n_seeds"], record["n_diverged"]) == (12, 3, 0)


def test_progress_tells_the_share_of_all_epochs_that_is_done(swept):
    line = r"\[ *(\d+) %\] epoch (\d) of 2, 6 runs .*, (\d+) of 36 runs finished"
    lines = [map(int, numbers) for numbers in re.findall(line, swept[1].stderr)]
    shares = []
    for share, epoch, n_finished in lines:
        assert share == 100 * (n_finished + (3 if epoch == 1 else 0)) // 36  # half of the six
        shares.append(share)
    assert shares == sorted(set(shares))
    assert shares[-1] == 100


def test_the_ten_best_are_printed_with_their_ties_and_then_how_many_more_there_are(swept):
    _, *lines = swept[1].stdout.splitlines()
    table = pd.read_csv(swept[0] / "sweep.csv")
    for line, row in zip(lines, table.head(10).itertuples(), strict=False):
        assert f" {row.validation_accuracy:.4f} {row.validation_accuracy_sd:.4f} " in line
        assert line.endswith("=") == row.ties_with_best
    assert lines[10] == "and 2 more in sweep.csv; 0 diverged"
    assert "validation accuracy ± sd of 3 seeds" in lines


def test_each_run_is_what_numpy_trains(swept, expected):
    rows = pd.read_csv(swept[0] / "sweep_by_seed.csv").to_dict("records")
    assert len(rows) == len(expected) * len(SEEDS)
    for row in rows:
        measures = expected[tuple(row[name] for name in AXES)]
        for name, values in measures.items():
            assert row[name] == pytest.approx(values[SEEDS.index(row["seed"])], rel=1e-5)


def test_the_table_has_means_deviations_and_ties_over_seeds_the_best_by_validation_first(
    swept, expected
):
    table = pd.read_csv(swept[0] / "sweep.csv").to_dict("records")
    accuracy = {key: values["validation_accuracy"] for key, values in expected.items()}
    losses = {key: values["validation_loss"].mean() for key, values in expected.items()}
    ranked = sorted(expected, key=lambda key: (-accuracy[key].mean().round(9), losses[key]))
    assert [tuple(row[name] for name in AXES) for row in table] == ranked
    for row, key in zip(table, ranked, strict=True):
        for name, values in expected[key].items():
            assert row[name] == pytest.approx(values.mean(), rel=1e-5)
            assert row[f"{name}_sd"] == pytest.approx(values.std(ddof=1), rel=1e-3, abs=1e-6)
        better = accuracy[ranked[0]] - accuracy[key]
        reach = stats.t.ppf(0.975, 2) * stats.sem(better)
        assert row["ties_with_best"] == bool((better == 0).all() or better.mean() <= reach)


def test_the_best_by_validation_is_recorded_with_its_test_accuracy_and_its_parameters(
    swept, expected
):
    out, done = swept
    best = tuple(result(out)["best"][name] for name in AXES)
    validation, test = (
        {key: values[f"{split}_accuracy"].mean() for key, values in expected.items()}
        for split in ("validation", "test")
    )
    assert validation[best] == max(validation.values())
    assert test[best] < max(test.values())  # noise prefers another one
    assert result(out)["test_accuracy"] == pytest.approx(test[best])
    sd = expected[best]["test_accuracy"].std(ddof=1)
    assert re.search(rf"test accuracy of the best +{test[best]:.4f} ± {sd:.4f}", done.stdout)
    params, _ = train(SEEDS[0], **dict(zip(AXES, best, strict=True)), shuffle=True)
    np.testing.assert_allclose(arrays(out / "params.npz")["weights"], params[0], atol=1e-5)


def test_select_loss_ranks_by_the_validation_loss(swept, features, expected, tmp_path):
    out = shutil.copytree(swept[0], tmp_path / "out")
    words = (f"--features={features}", *WORDS, "--refit", "--table=markdown,csv,latex")
    finish("sweep", out, *words, "--select=loss", "--resume")
    losses = {values: m["validation_loss"].mean() for values, m in expected.items()}
    table = pd.read_csv(out / "sweep.csv")
    ranked = [losses[tuple(row[name] for name in AXES)] for row in table.to_dict("records")]
    assert ranked == sorted(losses.values())


def test_refit_trains_the_best_on_validation_examples_too(swept):
    best = {name: result(swept[0])["best"][name] for name in AXES}
    refits = [train(seed, FITTED, shuffle=True, **best) for seed in SEEDS]
    params = arrays(swept[0] / "params_refit.npz")
    np.testing.assert_allclose(params["weights"], refits[0][0][0], atol=1e-5)
    np.testing.assert_allclose(params["bias"], refits[0][0][1], atol=1e-5)
    accuracies = [values["test_accuracy"] for _, values in refits]
    assert result(swept[0])["refit"]["test_accuracy_by_seed"] == pytest.approx(accuracies)


def test_tables_show_mean_and_deviation_over_seeds_in_every_format(swept, expected):
    cells = []  # a row per rate, a column per λ
    for _, values in sorted(expected.items()):
        accuracy = values["validation_accuracy"]
        cells.append(f"{accuracy.mean():.4f} ± {accuracy.std(ddof=1):.4f}")
    for ending in ("md", "csv", "tex"):
        text = (swept[0] / f"table.{ending}").read_text().replace("$\\pm$", "±")
        assert re.findall(r"[\d.]+ ± [\d.]+", text) == cells


def test_a_configuration_with_a_measure_that_is_not_finite_is_last_and_never_the_best(tmp_path):
    """With η = 1000 training and validation are fine, but a huge test example overflows."""
    inputs = np.load(save(tmp_path) / "test_features.npy")
    inputs[0] = 1e38
    np.save(tmp_path / "test_features.npy", inputs)
    out = tmp_path / "out"
    words = (f"--features={tmp_path}", "--lam=0", "--n_epochs=1", "--overwrite")
    done = finish("sweep", out, *words, "--learning_rate=1e30,1000,0.0001")
    table = pd.read_csv(out / "sweep.csv")
    assert table.learning_rate[0] == result(out)["best"]["learning_rate"] == 0.0001
    assert table.diverged.tolist() == [False, True, True]
    assert table.validation_accuracy.max() > table.validation_accuracy[0]
    assert not table.ties_with_best[table.validation_accuracy.isna()].any()
    assert result(out)["n_diverged"] == 2
    assert "diverged" in done.stdout
    finish("sweep", out, *words, "--learning_rate=1e30", "--refit")
    assert result(out)["best"] is None
    assert not {"params.npz", "params_refit.npz"} & files(out)


def test_drawn_configurations_lie_in_their_ranges(features, tmp_path):
    words = "--lam=1e-4:1:log --learning_rate=1e-3:1e-1:log --n_random=50 --n_epochs=1"
    finish("sweep", tmp_path / "run", f"--features={features}", *words.split())
    table = pd.read_csv(tmp_path / "run" / "sweep.csv")
    assert len(table) == table.lam.nunique() == 50
    assert table.lam.between(1e-4, 1).all()
    assert table.learning_rate.between(1e-3, 1e-1).all()
    assert (table.lam < 1e-2).sum() > 10  # equal ratios are equally likely


def test_a_grid_has_numpys_accuracies_under_the_reports_keys_and_marks_ties(features, tmp_path):
    grid = tmp_path / "run"
    words = "--batch_size=50,70 --learning_rate=0.1,1e30 --lam=0,0.3 --n_epochs=2"
    done = finish("grid_search", grid, f"--features={features}", *words.split())
    assert "more in" not in done.stdout  # than the eight that it prints
    assert "±" not in done.stdout  # of one seed
    check_every_file(grid)
    cells, accuracies = {}, {}
    for batch_size, lam in product((50, 70), (0.0, 0.3)):
        params, values = train(0, batch_size=batch_size, learning_rate=0.1, lam=lam)
        accuracy = values["validation_accuracy"]
        cells[f"{batch_size}_0.1_{lam}"] = pytest.approx(accuracy, abs=1e-6)
        cells[f"{batch_size}_1e+30_{lam}"] = None  # it diverged
        accuracies[accuracy] = f"{batch_size}_0.1_{lam}", values["test_accuracy"], params[0]
    assert json.loads((grid / "grid.json").read_text()) == cells
    highest, best = max(accuracies), result(grid)["best"]
    key, test, weights = accuracies[highest]
    actual = [best[name] for name in ("key", "test_accuracy", "validation_accuracy")]
    assert actual == [key, pytest.approx(test), pytest.approx(highest)]
    np.testing.assert_allclose(arrays(grid / "params.npz")["weights"], weights, atol=1e-5)
    table = pd.read_csv(grid / "grid.csv")
    error = np.sqrt(highest * (1 - highest) / SIZES["validation"])  # of a single seed
    ties = table.validation_accuracy >= highest - error
    assert table.ties_with_best.tolist() == ties.tolist()
