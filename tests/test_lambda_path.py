"""`experiments.lambda_path` on planted data, beside scikit-learn and NumPy in float64."""

import re

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from linear_cifar import evaluate, solve
from linear_cifar.data import stratified_folds
from tests.commands import arrays, files, finish, result
from tests.planted import FITTED, SIZES, examples, measures, optimum, save

C = (0.003, 0.03, 0.3, 3.0, 30.0)
PATHS = {
    "softmax": f"--C={','.join(map(str, C))}",
    "multi_bce": "--loss=multi_bce --lam=0.001:1:5:log --n_folds=4 --one_standard_error "
    "--memory_gb=1e-6 --tolerance=1e-8",  # several chunks, and the features stay on disk
}
each_loss = pytest.mark.parametrize("loss", PATHS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished path of each loss and its output; the multi_bce one has folds."""
    folder, features = tmp_path_factory.mktemp("paths"), save(tmp_path_factory.mktemp("planted"))
    words = {loss: (f"--features={features}", *words.split()) for loss, words in PATHS.items()}
    return {
        loss: (folder / loss, finish("lambda_path", folder / loss, *words[loss])) for loss in PATHS
    }


@pytest.fixture(scope="module")
def outs(finished):
    return {loss: out for loss, (out, _) in finished.items()}


def table(outs, loss):
    """path.csv, with each λ's parameters from the chunks."""
    params = {}
    for path in (outs[loss] / "chunks").iterdir():
        part = arrays(path)
        params |= zip(part["rows"], zip(part["weights"], part["bias"], strict=True), strict=True)
    read = pd.read_csv(outs[loss] / "path.csv")
    return read.assign(params=[params[row] for row in range(len(read))])


def test_the_record_is_whole_and_c_counts_the_training_examples(outs):
    names = {name for name in files(outs["softmax"]) if not name.startswith("chunks/")}
    tables = {"started.json", "result.json", "path.csv", "params.npz", "params_refit.npz"}
    assert names == tables | {"figures/path.png", "figures/cost.png"}
    expected = 1 / (2 * SIZES["train"] * np.array(C[::-1]))
    np.testing.assert_allclose(table(outs, "softmax").lam, expected, rtol=1e-14)


def test_progress_tells_the_share_of_all_problems_that_is_solved(finished):
    line, progress = r"\[ *(\d+) %\] (\d+) λ solved, (.*)", finished["multi_bce"][1].stderr
    lines = re.findall(line, progress)
    solved = [int(n) for _, n, _ in lines]
    assert [int(share) for share, *_ in lines] == [100 * n // 25 for n in solved]  # 5 λ, 1 + 4 fits
    assert len(solved) > 1
    assert solved == sorted(set(solved))
    assert solved[-1] == 25
    assert float(lines[-1][2].removeprefix("relative gap at most ")) <= 1e-6
    assert progress.count("[100 %]") == 2  # the path, and the refit


@each_loss
def test_costs_and_weights_match_scikit_learn_within_their_certificates(outs, loss):
    inputs, labels = examples("train")
    for row in table(outs, loss).itertuples():
        theirs = optimum(inputs, labels, row.lam, loss)
        cost, minimum = (
            measures(params, inputs, labels, loss)[0].mean() + row.lam * (params[0] ** 2).sum()
            for params in (row.params, theirs)
        )
        assert row.cost == pytest.approx(cost, rel=1e-7)
        assert -1e-9 <= (row.cost - minimum) / row.cost <= row.gap <= 1e-6
        assert np.linalg.norm(row.params[0] - theirs[0]) <= row.distance
        # λ · distance² is the bound in nats; `gap` is relative to the cost.
        assert row.gap == pytest.approx(row.lam * row.distance**2 / row.cost)
        assert row.weights_norm == pytest.approx(np.linalg.norm(row.params[0]))


@each_loss
@pytest.mark.parametrize("split", SIZES)
def test_losses_and_accuracies_match_numpy(outs, loss, split):
    ends = ("", "_error", "_low", "_high")
    inputs, labels = examples(split)
    for row in table(outs, loss).to_dict("records"):
        losses, correct = measures(row["params"], inputs, labels, loss)
        errors = stats.sem([losses, correct], axis=1)
        reach = stats.t.ppf(0.975, len(losses) - 1) * errors[0] * np.array([-1, 1])
        expected = (losses.mean(), errors[0], *(losses.mean() + reach))
        np.testing.assert_allclose([row[f"{split}_loss{end}"] for end in ends], expected, 1e-4)
        wilson = stats.binomtest(correct.sum(), len(correct)).proportion_ci(method="wilson")
        expected = (correct.mean(), errors[1], *wilson)
        np.testing.assert_allclose([row[f"{split}_accuracy{end}"] for end in ends], expected, 1e-6)


def test_fold_means_and_standard_errors_match_separate_fits(outs):
    inputs, labels = examples("train")
    fold_of = stratified_folds(jax.random.key(0), labels, 4)
    for row in table(outs, "multi_bce").itertuples():
        means = []
        for fold in range(4):
            rest, left_out = fold_of != fold, fold_of == fold
            params = optimum(inputs[rest], labels[rest], row.lam, "multi_bce")
            held_out = measures(params, inputs[left_out], labels[left_out], "multi_bce")
            means.append(np.mean(held_out, axis=1))
        errors = (row.folds_loss_error, row.folds_accuracy_error)
        expected = (*np.mean(means, axis=0), *stats.sem(means))  # the error has √n
        np.testing.assert_allclose((row.folds_loss, row.folds_accuracy, *errors), expected, 0, 3e-5)


def test_the_chosen_lam_is_the_best_on_validation_examples_only(outs):
    path, actual = table(outs, "softmax"), result(outs["softmax"])
    ranked = path.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True])
    best = ranked.iloc[0]
    assert path.test_accuracy.max() > best.test_accuracy  # noise prefers another one
    assert path.validation_loss.idxmin() != best.name  # so does the loss
    np.testing.assert_allclose(arrays(outs["softmax"] / "params.npz")["weights"], best.params[0])
    for name in ("lam", "train_accuracy", "validation_accuracy"):
        assert actual[name] == best[name]
    costs = best.cost, best.validation_loss + best.lam * best.weights_norm**2
    assert (actual["train_cost"], actual["validation_cost"]) == pytest.approx(costs)


def test_one_standard_error_takes_the_largest_lam_within_it(outs):
    path, actual = table(outs, "multi_bce"), result(outs["multi_bce"])
    best = path.loc[path.folds_accuracy.idxmax()]
    close = path[path.folds_accuracy >= best.folds_accuracy - best.folds_accuracy_error]
    assert actual["lam"] == close.lam.max() > best.lam == actual["best"]["lam"]
    assert path.lam.max() > close.lam.max()  # twice the error would take it
    assert actual["validation_accuracy"] == path.folds_accuracy[close.lam.idxmax()]


@each_loss
def test_the_refit_is_fitted_to_training_and_validation_examples(outs, loss):
    actual = result(outs[loss])
    inputs, labels = examples(*FITTED, reference=FITTED)
    theirs = optimum(inputs, labels, actual["lam"], loss)
    weights = arrays(outs[loss] / "params_refit.npz")["weights"]
    np.testing.assert_allclose(weights, theirs[0], 0, 3e-5)
    losses, correct = measures(theirs, *examples("test", reference=FITTED), loss)
    wilson = stats.binomtest(correct.sum(), len(correct)).proportion_ci(method="wilson")
    c = 1 / (2 * actual["lam"] * len(labels) * (1 if loss == "softmax" else 3))
    names = ("test_loss", "test_accuracy", "test_accuracy_low", "test_accuracy_high", "C")
    expected = (losses.mean(), correct.mean(), *wilson, c)
    np.testing.assert_allclose([actual[name] for name in names], expected, 1e-4)
    low, high = actual["test_accuracy_at_optimum"]
    assert low <= actual["test_accuracy"] <= high


def test_without_folds_one_standard_error_is_that_of_validation_examples(tmp_path):
    words = ("--lam=0.01:1:9:log", "--one_standard_error", "--select=loss")
    finish("lambda_path", tmp_path / "out", f"--features={save(tmp_path)}", *words)
    inputs, labels = examples("validation")
    lam, scores = np.geomspace(0.01, 1, 9), []
    for value in lam:
        losses, _ = measures(optimum(*examples("train"), value), inputs, labels, "softmax")
        scores.append((losses.mean(), stats.sem(losses)))
    (lowest, error), means = min(scores), np.array(scores)[:, 0]
    chosen = lam[means <= lowest + error].max()
    assert lam[means.argmin()] < chosen < lam.max()
    assert result(tmp_path / "out")["lam"] == pytest.approx(chosen)


def test_an_imprecise_refit_bounds_the_accuracy_of_the_exact_optimum(tmp_path):
    words = (f"--features={save(tmp_path)}", "--lam=0.001", "--max_passes=4")
    finish("lambda_path", tmp_path / "out", *words)
    low, high = result(tmp_path / "out")["test_accuracy_at_optimum"]
    theirs = optimum(*examples(*FITTED, reference=FITTED), 0.001)
    _, correct = measures(theirs, *examples("test", reference=FITTED), "softmax")
    assert low <= correct.mean() <= high
    assert low < high


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_optima_on_real_images_have_their_known_cost_and_accuracy(real):
    optimum = solve([0.1, 1.0], real)
    for i, (lam, cost, accuracy) in enumerate(((0.1, 1.69036, 0.390), (1.0, 1.89303, 0.367))):
        params = optimum.params._make(array[i] for array in optimum.params)
        validation = evaluate(params, real.validation, real.standardiser, lam)
        assert optimum.cost[i] == pytest.approx(cost, abs=1e-5)
        assert validation.accuracy == pytest.approx(accuracy, abs=1e-3)
