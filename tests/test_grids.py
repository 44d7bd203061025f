"""`experiments.grid_search`: each cell as NumPy trains it, under the report's keys."""

import json

import jax
import numpy as np
import pandas as pd
import pytest

from linear_cifar import Hyperparameters, TrainConfig
from linear_cifar.training import init_state
from tests import oracle
from tests.commands import QUICK, check_every_file, few, files, only_line, run
from tests.test_runs import IMAGE, measured


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "run"
    words = ("--batch_size=50,500", "--learning_rate=0.001,1e30", "--lam=0,0.1", "--n_seeds=2")
    done = run("experiments.grid_search", *QUICK, *words, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    return out


def test_a_grid_leaves_the_whole_record(grid):
    check_every_file(grid)
    tables = {"grid.json", "grid.csv", "grid_by_seed.csv"}
    assert tables | {"result.json", "params.npz"} <= files(grid)


def test_grid_json_has_validation_accuracies_under_the_reports_keys(grid):
    cells = json.loads((grid / "grid.json").read_text())
    assert cells.keys() == {
        f"{batch_size}_{rate}_{lam}"
        for batch_size in ("50", "500")
        for rate in ("0.001", "1e+30")
        for lam in ("0.0", "0.1")
    }
    assert cells["50_1e+30_0.1"] is None  # it diverged
    by_seed = pd.read_csv(grid / "grid_by_seed.csv")
    means = by_seed.groupby(["batch_size", "learning_rate", "lam"]).validation_accuracy.mean()
    for (batch_size, rate, lam), mean in means[means.notna()].items():
        assert cells[f"{batch_size}_{rate}_{lam}"] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(("batch_size", "lam"), [(50, 0.0), (50, 0.1), (500, 0.1)])
def test_a_cell_is_what_numpy_trains(grid, batch_size, lam):
    by_seed = pd.read_csv(grid / "grid_by_seed.csv").query("learning_rate == 0.001")
    cells = by_seed[(by_seed.batch_size == batch_size) & (by_seed.lam == lam)]
    for seed, cell in enumerate(cells.sort_values("seed").itertuples()):
        start = init_state(jax.random.key(seed), Hyperparameters(), few(), TrainConfig()).params
        settings = {"batch_size": batch_size, "learning_rate": 0.001, "n_epochs": 2}
        weights, bias, rows = oracle.train(*start, few(), lam=lam, loss="softmax", **settings)
        assert cell.train_cost == pytest.approx(rows[-1, 1], rel=1e-5)
        assert cell.validation_accuracy == pytest.approx(rows[-1, -1], abs=IMAGE)
        *_, accuracy = measured("test", weights, bias, lam, "softmax")
        assert cell.test_accuracy == pytest.approx(accuracy, abs=IMAGE)


def test_the_best_cell_is_tested_with_its_parameters(grid):
    best = json.loads((grid / "result.json").read_text())["best"]
    cells = json.loads((grid / "grid.json").read_text())
    assert cells[best["key"]] == max(value for value in cells.values() if value is not None)
    by_seed = pd.read_csv(grid / "grid_by_seed.csv").set_index(
        ["batch_size", "learning_rate", "lam", "seed"]
    )
    with np.load(grid / "params.npz") as params:
        *_, accuracy = measured("test", **params, lam=0.0, loss="softmax")
    settings = (best["batch_size"], best["learning_rate"], best["lam"], 0)
    assert by_seed.test_accuracy[settings] == pytest.approx(accuracy, abs=IMAGE)
    assert np.isfinite(best["test_accuracy"])


def test_resume_refuses_a_loss_that_the_finished_cells_do_not_have(tmp_path):
    words = (*QUICK, "--batch_size=50", "--learning_rate=0.001", f"--output_dir={tmp_path / 'run'}")
    assert run("experiments.grid_search", *words).returncode == 0
    before = (tmp_path / "run" / "grid.csv").read_bytes()
    line = only_line(run("experiments.grid_search", *words, "--loss=multi_bce", "--resume"))
    assert "multi_bce" in line
    assert (tmp_path / "run" / "grid.csv").read_bytes() == before


def test_random_cells_with_equal_lam_and_rate_are_drawn_as_points(tmp_path):
    axes = ("--batch_size=50:200:4", "--lam=0,0.1", "--learning_rate=0.001,0.01", "--seed=1")
    words = (*QUICK, "--n_random=4", *axes, f"--output_dir={tmp_path / 'run'}")
    assert run("experiments.sweep", *words).returncode == 0
    assert "figures/drawn.png" in files(tmp_path / "run")
