"""`experiments.lambda_path` on planted data, beside scikit-learn and NumPy in float64."""

import json
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar.data import stratified_folds
from tests.commands import files, only_line, run
from tests.conftest import undrawn_figures
from tests.oracle import losses_and_gradient

CLASSES = np.array(["ant", "bee", "cat"])
SIZES = {"train": 150, "validation": 90, "test": 80}
FITTED = ("train", "validation")  # by the refit
C = (0.003, 0.03, 0.3, 3.0, 30.0)
PATHS = {
    "softmax": (f"--C={','.join(map(str, C))}",),
    "multi_bce": (
        *("--loss=multi_bce", "--lam=0.001:1:5:log", "--n_folds=3", "--one_standard_error"),
        "--memory_gb=1e-5",  # several chunks
    ),
}


@cache
def planted():
    """Inputs and class ids by split. The labels of test examples are noise."""
    draws = np.random.default_rng(3)
    centres, data = draws.normal(size=(3, 8)), {}
    for split, n in SIZES.items():
        labels = np.arange(n) % 3
        inputs = 10 + 3 * (0.7 * centres[labels] + draws.normal(size=(n, 8)))
        data[split] = inputs.astype(np.float32), labels
    return data | {"test": (data["test"][0], draws.permutation(data["test"][1]))}


def save(folder, data):
    for split, (inputs, labels) in data.items():
        np.save(folder / f"{split}_features.npy", inputs)
        np.save(folder / f"{split}_labels.npy", CLASSES[labels])
    return folder


def examples(*splits, reference=("train",)):
    """Inputs and labels of splits, standardised with the statistics of others."""
    inputs, labels = (np.concatenate([planted()[s][i] for s in splits]) for i in (0, 1))
    fitted = np.concatenate([planted()[s][0] for s in reference], dtype=float)
    return (inputs - fitted.mean(axis=0)) / fitted.std(axis=0), labels


def optimum(inputs, labels, lam, loss="softmax"):
    """scikit-learn's weights and bias at the minimum of our cost."""
    strength = 1 / (2 * lam * len(labels) * (1 if loss == "softmax" else 3))
    fit = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    if loss == "softmax":
        return fit.fit(inputs, labels).coef_, fit.intercept_
    fits = OneVsRestClassifier(fit).fit(inputs, labels).estimators_
    return np.concatenate([one.coef_ for one in fits]), np.ravel([one.intercept_ for one in fits])


def measures(params, inputs, labels, loss):
    """Losses and whether predictions are right, each [n]."""
    scores = inputs @ params[0].T + params[1]
    return losses_and_gradient(scores, labels, loss)[0], scores.argmax(axis=1) == labels


def result(out):
    return json.loads((out / "result.json").read_text())


def solve(features, out, *words, **settings):
    with undrawn_figures():
        words = (f"--features={features}", *words, f"--output_dir={out}")
        return run("experiments.lambda_path", *words, **settings)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("planted"), planted())


@pytest.fixture(scope="module")
def outs(features, tmp_path_factory):
    """A finished path of each loss; the multi_bce one has folds."""
    folder = tmp_path_factory.mktemp("paths")
    for loss, words in PATHS.items():
        assert solve(features, folder / loss, *words).returncode == 0
    return {loss: folder / loss for loss in PATHS}


def table(outs, loss):
    """path.csv, with each λ's parameters from the chunks."""
    params = {}
    for path in (outs[loss] / "chunks").iterdir():
        with np.load(path) as part:
            for i, row in enumerate(part["rows"]):
                params[row] = part["weights"][i], part["bias"][i]
    read = pd.read_csv(outs[loss] / "path.csv")
    return read.assign(params=[params[row] for row in range(len(read))])


def test_c_is_scikit_learns_on_the_training_examples(outs):
    expected = 1 / (2 * SIZES["train"] * np.array(C[::-1]))
    np.testing.assert_allclose(table(outs, "softmax").lam, expected, rtol=1e-14)


@pytest.mark.parametrize("loss", PATHS)
def test_costs_and_weights_are_scikit_learns_within_their_certificates(outs, loss):
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


@pytest.mark.parametrize("loss", PATHS)
@pytest.mark.parametrize("split", SIZES)
def test_losses_and_accuracies_are_numpys(outs, loss, split):
    ends = ("", "_error", "_low", "_high")
    inputs, labels = examples(split)
    for row in table(outs, loss).to_dict("records"):
        losses, correct = measures(row["params"], inputs, labels, loss)
        means, errors = (losses.mean(), correct.mean()), stats.sem([losses, correct], axis=1)
        reach = stats.t.ppf(0.975, len(losses) - 1) * errors[0]
        expected = (means[0], errors[0], means[0] - reach, means[0] + reach)
        np.testing.assert_allclose([row[f"{split}_loss{end}"] for end in ends], expected, 1e-4)
        wilson = stats.binomtest(correct.sum(), len(correct)).proportion_ci(method="wilson")
        expected = (means[1], errors[1], *wilson)
        np.testing.assert_allclose([row[f"{split}_accuracy{end}"] for end in ends], expected, 1e-6)


def test_fold_means_and_standard_errors_are_those_of_separate_fits(outs):
    inputs, labels = examples("train")
    fold_of = stratified_folds(jax.random.key(0), labels, 3)
    for row in table(outs, "multi_bce").itertuples():
        means = []
        for fold in range(3):
            rest, left_out = fold_of != fold, fold_of == fold
            params = optimum(inputs[rest], labels[rest], row.lam, "multi_bce")
            held_out = measures(params, inputs[left_out], labels[left_out], "multi_bce")
            means.append(np.mean(held_out, axis=1))
        errors = (row.folds_loss_error, row.folds_accuracy_error)
        actual = (row.folds_loss, row.folds_accuracy, *errors)
        expected = (*np.mean(means, axis=0), *stats.sem(means))  # the error has √n
        np.testing.assert_allclose(actual, expected, atol=3e-5)


def test_the_chosen_lam_is_the_best_on_validation_examples_only(outs):
    path = table(outs, "softmax")
    best = path.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True])
    assert result(outs["softmax"])["lam"] == best.lam.iloc[0]
    assert path.test_accuracy.max() > best.test_accuracy.iloc[0]  # noise prefers another one


def test_one_standard_error_takes_the_largest_lam_within_it(outs):
    path = table(outs, "multi_bce")
    best = path.loc[path.folds_accuracy.idxmax()]
    close = path[path.folds_accuracy >= best.folds_accuracy - best.folds_accuracy_error]
    assert result(outs["multi_bce"])["lam"] == close.lam.max() > best.lam


@pytest.mark.parametrize("loss", PATHS)
def test_the_refit_is_fitted_to_training_and_validation_examples(outs, loss):
    actual = result(outs[loss])
    inputs, labels = examples(*FITTED, reference=FITTED)
    theirs = optimum(inputs, labels, actual["lam"], loss)
    with np.load(outs[loss] / "params_refit.npz") as params:
        np.testing.assert_allclose(params["weights"], theirs[0], atol=3e-5)
    accuracy = measures(theirs, *examples("test", reference=FITTED), loss)[1].mean()
    low, high = actual["test_accuracy_at_optimum"]
    assert low <= actual["test_accuracy"] <= high
    assert actual["test_accuracy"] == pytest.approx(accuracy)
    classes = 1 if loss == "softmax" else 3
    assert actual["C"] == pytest.approx(1 / (2 * actual["lam"] * len(labels) * classes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--C=1", "--lam=0.1"), "give --lam or --C, not both"),
        (("--C=strong",), "--C=strong"),
        (("--C=0.1:1",), "--C=0.1:1"),
        (("--C=1:9:1000000",), "--max_runs"),
        (("--C=0,1",), "C can't be 0"),
        (("--lam=0,0.1",), "lam can't be 0"),
        (("--lam=1e-60,0.1",), "1e-60"),
        (("--tolerance=0",), "--tolerance=0"),
        (("--n_folds=151",), "n_folds is 151"),
        (("--max_runs=10", "--lam=0.1:1:3", "--n_folds=3"), "12 runs"),
    ],
)
def test_rejects_flags_in_one_line(features, tmp_path, words, message):
    assert message in only_line(solve(features, tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


def test_a_resumed_path_has_the_bytes_of_an_uninterrupted_one(features, outs, tmp_path):
    out, words = tmp_path / "out", PATHS["multi_bce"]
    done = solve(features, out, *words, interrupt_at="relative gap at most")
    assert done.returncode == 130
    chunk = min((out / "chunks").iterdir())
    content = chunk.read_bytes()
    chunk.write_bytes(content[:999] + bytes([content[999] ^ 1]) + content[1000:])
    done = solve(features, out, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{chunk} isn't used" in done.stderr
    for name in ("path.csv", "params.npz", "params_refit.npz", f"chunks/{chunk.name}"):
        assert (out / name).read_bytes() == (outs["multi_bce"] / name).read_bytes()


@pytest.mark.slow
def test_images_have_their_weights_drawn(tmp_path, undrawn):
    words = ("--dataset=synthetic", "--lam=5,6", "--tolerance=0.01")
    done = run("experiments.lambda_path", *words, f"--output_dir={tmp_path / 'out'}", n_images=60)
    assert done.returncode == 0, done.stderr
    drawn = {f"figures/{name}.png" for name in ("path", "cost", "weights")}
    tables = {"started.json", "result.json", "path.csv", "params.npz", "params_refit.npz"}
    assert {n for n in files(tmp_path / "out") if not n.startswith("chunks/")} == drawn | tables
    assert "note: the best λ is the" in done.stderr  # it is at an end of the path
