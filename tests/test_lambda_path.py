"""`experiments.lambda_path`: what it finds, its record, and going on after an interruption."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import few, files, only_line, run
from oracle import losses_and_gradient
from scipy import stats

from experiments.common import records
from experiments.report import plan
from linear_cifar.data import with_validation

PATH = ("--dataset=synthetic", "--lam=0.01:10:20:log", "--n_folds=2")


def path(out, *words, **settings):
    """Of the report's runs of gradient descent two are enough, which share a program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "RUNS", {name: plan.RUNS[name] for name in ("lam_0.1", "lam_1")})
        patch.setattr(plan, "VARIANTS", {})
        return _path(out, *words, **settings)


def _path(out, *words, **settings):
    return run("experiments.lambda_path", *words, f"--output_dir={out}", **settings)


def table(out):
    with (out / "path.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def scores(params, dataset, split):
    standardiser = dataset.standardiser
    inputs = (getattr(dataset, split).inputs - standardiser.mean) / standardiser.scale
    return inputs @ params.weights.T + params.bias


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("path") / "whole"
    done = path(out, *PATH)
    assert done.returncode == 0, done.stderr
    assert "62 optima" in done.stderr  # with λ = 0.1 and 1, which are those of the report
    assert "62, of which 62 are certified" in done.stdout
    return out


@pytest.mark.slow
def test_the_record_says_what_the_parameters_give(whole):
    columns = {
        name: values.astype(float)
        for name, values in table(whole).items()
        if name not in ("converged", "settled")
    }
    result = records.read_result(whole)
    params = records.read_params(whole / "params.npz")
    best = result["best"]
    place = np.flatnonzero(columns["lam"] == best["lam"])[0]
    assert best["folds_accuracy"] == columns["folds_accuracy"].max()
    for split in ("train", "validation", "test"):
        of_split = getattr(few(), split)
        found = scores(params, few(), split)
        losses = losses_and_gradient(found, of_split.labels, "softmax")[0]
        right = found.argmax(axis=1) == of_split.labels
        for name, values in (("loss", losses), ("accuracy", right)):
            own = f"{split}_{name}"
            mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
            assert columns[own][place] == pytest.approx(mean, rel=1e-5)
            assert columns[f"{own}_error"][place] == pytest.approx(error, rel=1e-4)
            ends = (columns[f"{own}_low"][place], columns[f"{own}_high"][place])
            expected = (mean - 1.966 * error, mean + 1.966 * error)
            if name == "accuracy":
                shares = stats.binomtest(int(right.sum()), len(right))
                expected = tuple(shares.proportion_ci(0.95, "wilson"))
            assert ends == pytest.approx(expected, rel=1e-3)
        if split == "train":
            cost = losses.mean() + best["lam"] * (params.weights**2).sum()
            assert columns["cost"][place] == pytest.approx(cost, rel=1e-9)
    assert (columns["gap"] <= 1e-6 * columns["cost"]).all()
    assert (np.diff(columns["cost"]) > 0).all()
    assert (np.diff(columns["weight_norm"]) < 0).all()


@pytest.mark.slow
def test_the_refit_is_of_training_and_validation_data(whole):
    refit = records.read_result(whole)["refit"]
    params = records.read_params(whole / "params_refit.npz")
    both = with_validation(few())
    losses = losses_and_gradient(scores(params, both, "train"), both.train.labels, "softmax")[0]
    cost = losses.mean() + refit["lam"] * (params.weights**2).sum()
    assert refit["cost"] == pytest.approx(cost, rel=1e-9)
    right = scores(params, both, "test").argmax(axis=1) == both.test.labels
    assert refit["test_accuracy"] == pytest.approx(right.mean(), rel=1e-6)


@pytest.mark.slow
def test_gradient_descent_stops_above_the_least_cost(whole):
    runs = records.read_result(whole)["gradient_descent"]
    assert {run["lam"] for run in runs} == {0.1, 1.0}
    assert all(run["relative_excess"] > 0 for run in runs)


@pytest.mark.slow
def test_the_folder_has_the_files_that_the_documents_name(whole):
    expected = {"begun.json", "result.json", "path.csv", "params.npz", "params_refit.npz"}
    expected |= {f"figures/{name}.png" for name in ("path", "cost", "passes", "weights")}
    assert {name for name in files(whole) if not name.startswith("chunks/")} == expected


@pytest.mark.slow
@pytest.mark.parametrize("missing", [(0, 2), ()])
def test_a_path_that_goes_on_has_the_same_files_bit_for_bit(whole, tmp_path, missing):
    out = tmp_path / "again"
    (out / "chunks").mkdir(parents=True)
    shutil.copy(whole / "begun.json", out)
    parts = sorted((whole / "chunks").iterdir())
    assert len(parts) == 4
    for i, part in enumerate(parts):
        if i not in missing:
            shutil.copy(part, out / "chunks")
    done = path(out, *PATH, "--resume")
    assert done.returncode == 0, done.stderr
    expected, found = contents(whole), contents(out)
    for files_of in (expected, found):
        content = json.loads(files_of.pop(Path(records.RESULT)))
        files_of["result"] = {**content, "seconds": None}
    assert found == expected


@pytest.mark.slow
def test_an_interrupt_keeps_the_chunks_that_are_finished(tmp_path):
    out = tmp_path / "path"
    done = path(out, *PATH, interrupt_at="44/62")
    assert done.returncode == 130
    assert "optima are finished; the same command with --resume" in done.stderr
    assert not (out / "path.csv").exists()
    assert list((out / "chunks").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lam=0,0.1",), "above 0"),
        (("--tolerance=0",), "tolerance"),
        (("--n_folds=1",), "n_folds"),
        (("--n_folds=401",), "n_folds is 401: it has to be from 2 to 400"),
        (("--lam=1e-60,0.1",), "1e-60"),
    ],
)
def test_what_cannot_be_solved_is_refused_before_anything_is_begun(tmp_path, words, message):
    done = path(tmp_path / "out", "--dataset=synthetic", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_damaged_chunk_is_solved_again(whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    part = min((out / "chunks").iterdir())
    part.write_bytes(part.read_bytes()[:5000])
    done = path(out, *PATH, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{part} is damaged: kept as unfit-{part.name}, and made again" in done.stderr
    for name in ("path.csv", "params.npz", f"chunks/{part.name}"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_another_path_does_not_go_on(whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    done = path(out, *PATH[:-1], "--resume")
    assert "was begun with other n_folds" in only_line(done)


@pytest.mark.slow
def test_the_rule_of_one_standard_error_and_a_best_at_the_end_of_the_path(tmp_path):
    words = ("--dataset=synthetic", "--lam=5,6", "--loss=multi_bce", "--select=loss")
    done = path(tmp_path / "out", *words, "--one_standard_error")
    assert done.returncode == 0, done.stderr
    result = records.read_result(tmp_path / "out")
    first, second = result["best"], result["one_standard_error"]
    assert result["chosen_by"] == "validation_loss"
    assert result["refit"]["lam"] == second["lam"] == 6
    assert first["lam"] == 5
    assert second["validation_loss"] <= first["validation_loss"] + first["validation_loss_error"]
    assert "note: the best λ is the smallest one" in done.stdout
