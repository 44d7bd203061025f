"""`experiments.sweep`: a true and ranked table, and the best configuration tested."""

import json
import re
import shutil
import signal

import jax
import numpy as np
import pandas as pd
import pytest

from linear_cifar import LOSSES, OPTIMIZERS, Hyperparameters, TrainConfig, train, with_validation
from tests.commands import few, files, only_line, run, start
from tests.conftest import undrawn_figures
from tests.test_runs import IMAGE, measured

pytestmark = pytest.mark.usefixtures("undrawn")
# Four chunks of one program, because with --shuffle each seed has its own order.
CHUNKS = ("--dataset=synthetic", "--shuffle", "--n_seeds=4", "--lam=0,0.1", "--n_epochs=2")
CHUNKS += ("--learning_rate=0.001,0.01",)
ONE = ("--dataset=synthetic", "--lam=0", "--learning_rate=0.01", "--n_epochs=1")


def sweep(out, *words, **how):
    return run("experiments.sweep", *words, f"--output_dir={out}", **how)


def result_of(out):
    return json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)


def train_row(row, seed, n_epochs, dataset=None, **config):
    """Trains the configuration of a table's row alone."""
    read = {name: row[name] for name in Hyperparameters._fields if pd.notna(row.get(name))}
    config |= {"loss": LOSSES[row["loss"]], "optimizer": OPTIMIZERS[row["optimizer"]]}
    config = TrainConfig(n_epochs=n_epochs, batch_size=int(row["batch_size"]), **config)
    return train(jax.random.key(seed), Hyperparameters(**read), dataset or few(), config)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep, and what it printed."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    with undrawn_figures():
        done = sweep(out, *CHUNKS, "--refit", "--table=markdown,csv,latex")
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def whole(swept):
    return swept[0]


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished sweep, to change."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_sweep_leaves_the_whole_record(whole):
    assert {name for name in files(whole) if not name.startswith("chunks/")} == {
        *("started.json", "sweep.csv", "sweep_by_seed.csv", "result.json"),
        *("params.npz", "params_refit.npz", "table.md", "table.csv", "table.tex"),
        *("figures/accuracy_over_lam.png", "figures/heat_map.png"),
    }
    result = result_of(whole)
    assert (result["n_configurations"], result["n_seeds"], result["n_diverged"]) == (4, 4, 0)
    assert result["dataset"]["name"] == "synthetic"


def test_each_run_is_as_train_alone(whole):
    by_seed = pd.read_csv(whole / "sweep_by_seed.csv")
    assert len(by_seed) == 16
    for _, row in by_seed[by_seed.seed.isin([0, 3])].iterrows():
        _, history = train_row(row, row.seed, 2, shuffle=True)
        for name, values in history._asdict().items():
            tolerance = IMAGE if "accuracy" in name else 1e-4
            assert row[name] == pytest.approx(float(values[-1]), abs=tolerance), name


def test_the_table_has_means_and_deviations_over_seeds_ranked_by_validation_accuracy(whole):
    table = pd.read_csv(whole / "sweep.csv")
    by_seed = pd.read_csv(whole / "sweep_by_seed.csv").groupby(["lam", "learning_rate"])
    for row in table.to_dict("records"):
        seeds = by_seed.get_group((row["lam"], row["learning_rate"]))
        for name in ("validation_accuracy", "test_accuracy", "train_cost"):
            assert row[name] == pytest.approx(seeds[name].mean(), abs=1e-8)
            assert row[f"{name}_sd"] == pytest.approx(seeds[name].std(ddof=1), abs=1e-8)
    assert table.validation_accuracy.is_monotonic_decreasing
    assert table.ties_with_best.iloc[0]


def test_the_best_by_validation_is_printed_with_its_test_accuracy_and_its_parameters(swept):
    out, done = swept
    by_seed = pd.read_csv(out / "sweep_by_seed.csv")
    groups = by_seed.groupby(["lam", "learning_rate"])[["validation_accuracy", "test_accuracy"]]
    best = groups.mean().validation_accuracy.idxmax()
    result = result_of(out)["best"]
    assert (result["lam"], result["learning_rate"]) == best
    accuracy = groups.get_group(best).test_accuracy
    assert re.search(rf"test accuracy of the best +{accuracy.mean():.4f} ± {accuracy.std():.4f}",
                     done.stdout)  # fmt: skip
    with np.load(out / "params.npz") as params:
        *_, of_params = measured("test", **params, lam=0, loss="softmax")
    first = by_seed.set_index(["lam", "learning_rate", "seed"]).test_accuracy[(*best, 0)]
    assert of_params == pytest.approx(first, abs=IMAGE)


def test_refit_trains_the_best_on_validation_data_too(whole):
    result, data = result_of(whole), with_validation(few())
    params, _ = train_row(result["best"], 0, 2, data, shuffle=True)
    weights = np.load(whole / "params_refit.npz")["weights"]
    np.testing.assert_allclose(weights, params.weights, atol=1e-5)
    scores = np.asarray(data.standardiser(data.test.inputs, np.float32)) @ weights.T
    accuracy = (scores.argmax(axis=1) == data.test.labels).mean()
    assert result["refit"]["test_accuracy_by_seed"][0] == pytest.approx(accuracy, abs=0.03)


def test_tables_show_mean_and_deviation_over_seeds_in_every_format(whole):
    by_seed = pd.read_csv(whole / "sweep_by_seed.csv")
    grouped = by_seed.groupby(["learning_rate", "lam"]).validation_accuracy
    cells = [
        f"{mean:.4f} ± {sd:.4f}" for mean, sd in zip(grouped.mean(), grouped.std(), strict=True)
    ]
    for ending in ("md", "csv", "tex"):
        text = (whole / f"table.{ending}").read_text().replace("$\\pm$", "±")
        assert re.findall(r"[\d.]+ ± [\d.]+", text) == cells  # a row per rate, a column per λ


def test_a_diverged_configuration_is_last_and_never_the_best(copy):
    """In a folder whose sweep it replaces."""
    words = (*ONE, "--learning_rate=1e30,0.001,1e-9", "--overwrite")
    done = sweep(copy, *words)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(copy / "sweep.csv")
    assert table.diverged.tolist() == [False, False, True]
    assert table.learning_rate[2] == 1e30
    assert np.isnan(table.validation_accuracy[2])
    assert not table.ties_with_best[2]
    assert result_of(copy)["n_diverged"] == 1
    assert "diverged" in done.stdout
    done = sweep(copy, *words, "--learning_rate=1e30", "--refit")
    assert (done.returncode, result_of(copy)["best"]) == (0, None)
    assert not {"params.npz", "sweep_by_seed.csv", "params_refit.npz", "table.md"} & files(copy)


def test_select_loss_ranks_optimisers_by_validation_loss(tmp_path):
    out = tmp_path / "run"
    words = ("--optimizer=sgd,momentum,adam", "--momentum=0.5", "--b1=0.8", "--select=loss")
    words += ("--learning_rate=0.001,0.01,0.1",)
    assert sweep(out, *ONE, *words).returncode == 0
    table = pd.read_csv(out / "sweep.csv")
    assert len(table) == 9
    assert table.validation_loss.is_monotonic_increasing
    assert not table.validation_accuracy.is_monotonic_decreasing
    best = result_of(out)["best"]
    assert best["validation_loss"] == table.validation_loss.min()
    for _, row in table.iterrows():  # each optimiser's own settings are there, and no others
        assert pd.notna(row.momentum) == (row.optimizer == "momentum")
        assert pd.notna(row.b1) == (row.optimizer == "adam")
        _, history = train_row(row, 0, 1)
        assert row.validation_loss == pytest.approx(float(history.validation_loss[-1]), rel=1e-4)


def test_drawn_configurations_are_of_their_ranges_and_make_few_figures(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "tiny.npz", inputs=rng.normal(size=(60, 4)), labels=labels)
    out = tmp_path / "run"
    words = "--lam=1e-4:1:log --learning_rate=1e-3:1e-1:log --momentum=0.5:0.99 --n_epochs=1"
    words += f" --optimizer=momentum,adam --n_random=50 --features={tmp_path / 'tiny.npz'}"
    assert sweep(out, *words.split()).returncode == 0
    table = pd.read_csv(out / "sweep.csv")
    assert len(table) == table.lam.nunique() == 50
    assert table.lam.between(1e-4, 1).all()
    assert table.learning_rate.between(1e-3, 1e-1).all()
    assert (table.lam < 1e-2).sum() > 10  # equal ratios are equally likely
    assert table.momentum.dropna().between(0.5, 0.99).all()
    figures = files(out / "figures")
    assert len(figures) <= 15
    for optimizer in ("momentum", "adam"):
        assert sum(optimizer in name for name in figures) >= 1


def test_a_resumed_sweep_gives_the_same_bytes(copy, whole):
    next(copy.glob("chunks/*")).unlink()
    done = sweep(copy, *CHUNKS, "--refit", "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("sweep.csv", "sweep_by_seed.csv", "params.npz", "params_refit.npz"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes()


def test_resuming_without_refit_removes_the_refit(copy, whole):
    done = sweep(copy, *CHUNKS, "--resume")
    assert done.returncode == 0, done.stderr
    assert "params_refit.npz" in files(whole)
    assert "params_refit.npz" not in files(copy)


@pytest.mark.slow
def test_a_folder_is_used_by_one_process_at_a_time(tmp_path):
    out = tmp_path / "run"
    words = (*ONE, "--n_epochs=100000")
    with start("experiments.sweep", *words, f"--output_dir={out}") as first:
        for line in first.stderr:
            if "configuration" in line:
                break
        assert str(out) in only_line(sweep(out, *words, "--resume"))
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert first.returncode == 143
    assert files(out) == {"started.json"}
