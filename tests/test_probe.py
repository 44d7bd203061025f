"""`experiments.probe` on planted data, beside scikit-learn and NumPy in float64."""

import os
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special
from sklearn.metrics import classification_report, confusion_matrix

from linear_cifar import Classifier, Params, load_features
from linear_cifar.data import LazyRows, Standardiser, few_shot, stratified_folds, stratified_subset
from tests.commands import only_line
from tests.oracle import softmax
from tests.planted import (
    CLASSES,
    FITTED,
    SIZES,
    examples,
    finish,
    measures,
    optimum,
    planted,
    result,
    save,
)

N = SIZES["train"]
LAM = "--lam=0.001:1:5:log"
CURVE = ("--n_train=60,60", "--n_per_class=4", "--n_draws=3")
# Flags that fit, and would be ignored beside a model.
FITTING = ("lam=1", "C=1", "n_folds=3", "n_train=9", "features=f.npz", "standardise=none", "resume")
FOLDS = (LAM, "--n_folds=3", "--tolerance=1e-9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The planted features as a folder, and inputs of other files."""
    path = tmp_path_factory.mktemp("features")
    np.save(path / "further.npy", planted()["test"][0][:5])
    np.save(path / "wide.npy", np.zeros((2, 3), np.float32))
    np.savez(path / "unsplit.npz", x=planted()["train"][0], y=planted()["train"][1])
    (path / "planted").mkdir()
    save(path / "planted")
    return path


@pytest.fixture(scope="module")
def probed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    predict = f"--predict={folder / 'further.npy'}"
    finish("probe", out, f"--features={folder / 'planted'}", LAM, *CURVE, predict)
    return out


@pytest.fixture(scope="module")
def folds(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "out"
    finish("probe", out, f"--features={folder / 'planted'}", *FOLDS)
    return out


def chosen_row(out):
    path = pd.read_csv(out / "path.csv")
    return path[path.lam == result(out)["lam"]].iloc[0]


def refit_scores(out):
    """scikit-learn's scores of the test examples, fitted to training and validation examples."""
    weights, bias = optimum(*examples(*FITTED, reference=FITTED), result(out)["lam"])
    return examples("test", reference=FITTED)[0] @ weights.T + bias


def best_temperature(scores, labels):
    targets = np.eye(3)[labels]
    minimum = optimize.minimize_scalar(
        lambda log_t: softmax(scores / np.exp(log_t), targets)[0].mean(), (-1, 1), tol=1e-10
    )
    return np.exp(minimum.x)


def test_the_answer_is_at_the_top_level_of_the_result(probed):
    actual, row = result(probed), chosen_row(probed)
    assert actual["validation_accuracy"] == row.validation_accuracy
    assert row.validation_accuracy == pd.read_csv(probed / "path.csv").validation_accuracy.max()
    accuracy = np.mean(refit_scores(probed).argmax(axis=1) == planted()["test"][1])
    assert actual["test_accuracy_low"] < actual["test_accuracy"] < actual["test_accuracy_high"]
    assert actual["test_accuracy"] == pytest.approx(accuracy)
    assert 0 <= actual["gap"] <= 1e-10
    assert (actual["n"], actual["d"], actual["n_classes"]) == (240, 8, 3)


def test_per_class_is_scikit_learns_report(probed):
    table, predicted = pd.read_csv(probed / "per_class.csv"), refit_scores(probed).argmax(axis=1)
    report = classification_report(
        planted()["test"][1], predicted, target_names=CLASSES, output_dict=True, zero_division=0
    )
    expected = pd.DataFrame(report)[CLASSES].T
    assert table["class"].tolist() == expected.index.tolist()
    actual = table[["precision", "accuracy", "f1", "support"]]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    balanced = result(probed)["balanced_accuracy"]
    assert balanced == pytest.approx(report["macro avg"]["recall"])
    counts = confusion_matrix(planted()["test"][1], predicted)
    assert result(probed)["confusions"] == counts.tolist()


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_saved_model_predicts_what_predictions_csv_has(probed, folder, tmp_path, ending):
    inputs, path = np.load(folder / "further.npy"), probed / f"model.{ending}"
    model, table = Classifier.load(path), pd.read_csv(probed / "predictions.csv")
    probabilities = table[[f"p_{name}" for name in CLASSES]]
    assert table["class"].tolist() == model.predict(inputs).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(inputs), atol=1e-7)
    scaled = refit_scores(probed)[:5] / result(probed)["temperature"]
    np.testing.assert_allclose(probabilities, special.softmax(scaled, axis=1), atol=1e-4)
    out = tmp_path / "out"
    finish("probe", out, f"--model={path}", f"--predict={folder / 'further.npy'}")
    expected = (probed / "predictions.csv").read_bytes()
    assert (out / "predictions.csv").read_bytes() == expected


def test_the_temperature_is_the_best_on_validation_examples(probed):
    weights, bias = optimum(*examples("train"), result(probed)["lam"])
    inputs, labels = examples("validation")
    expected = best_temperature(inputs @ weights.T + bias, labels)
    assert result(probed)["temperature"] == pytest.approx(expected, rel=1e-3)


def test_with_folds_the_temperature_is_the_best_on_left_out_folds(folds):
    inputs, labels = examples("train")
    fold_of, scores = stratified_folds(jax.random.key(0), labels, 3), np.zeros((N, 3))
    for fold in range(3):
        rest = fold_of != fold
        weights, bias = optimum(inputs[rest], labels[rest], result(folds)["lam"])
        scores[~rest] = inputs[~rest] @ weights.T + bias
    expected = best_temperature(scores, labels)
    assert result(folds)["temperature"] == pytest.approx(expected, rel=1e-3)


def calibration_error(probabilities, labels):
    """Of 15 equal bins of confidence, each with its upper end."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.ceil(confidence * 15)
    sums = [np.abs((correct - confidence)[index == i].sum()) for i in range(1, 16)]
    return np.sum(sums) / len(labels)


def test_calibration_is_measured_on_test_examples_before_and_after_the_temperature(probed):
    actual, labels = result(probed), planted()["test"][1]
    for name, t in (("", 1), ("_with_temperature", actual["temperature"])):
        expected = calibration_error(special.softmax(refit_scores(probed) / t, axis=1), labels)
        assert actual[f"calibration_error{name}"] == pytest.approx(expected, abs=1e-4)


def test_each_point_of_the_learning_curve_is_a_probe_of_its_own_examples(probed):
    """They alone standardise; validation examples choose λ; test examples only test."""
    curve = pd.read_csv(probed / "learning_curve.csv")
    assert curve.n.tolist() == [60] * 3 + [12] * 3  # each size once
    assert curve.n_per_class.fillna(0).tolist() == [0] * 3 + [4] * 3
    inputs, labels = planted()["train"]
    for row in curve.itertuples():
        key = jax.random.fold_in(jax.random.key(0), row.draw)
        drawn = stratified_subset(key, labels, 60) if row.n == 60 else few_shot(key, labels, 4)
        scored = []
        for lam in pd.read_csv(probed / "path.csv").lam:
            fitted = examples("train", reference=inputs[drawn])[0][drawn]
            params = optimum(fitted, labels[drawn], lam)
            (loss, accuracy), (_, test_accuracy) = (
                np.mean(measures(params, *examples(split, reference=inputs[drawn]), "softmax"), 1)
                for split in ("validation", "test")
            )
            scored.append((accuracy, -loss, lam, test_accuracy))
        assert (row.lam, row.test_accuracy) == pytest.approx(max(scored)[2:], rel=1e-6)
        assert max(s[-1] for s in scored) > row.test_accuracy or row.n == 12


@pytest.mark.slow
def test_features_larger_than_memory_give_the_same(folder, folds, tmp_path):
    splits = load_features(folder / "planted", memory_gb=1e-6)
    assert isinstance(splits.train.inputs, LazyRows)
    assert isinstance(splits.test.inputs, LazyRows)
    out = tmp_path / "out"
    finish("probe", out, f"--features={folder / 'planted'}", *FOLDS, "--memory_gb=1e-6")
    lazy, expected = (
        pd.read_csv(path / "path.csv").drop(columns=["gap", "distance", "passes"])  # of rounding
        for path in (out, folds)
    )
    pd.testing.assert_frame_equal(lazy, expected, rtol=1e-4, atol=1e-4)
    for name in ("lam", "test_accuracy", "temperature", "test_loss"):
        assert result(out)[name] == pytest.approx(result(folds)[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_real_features_reach_their_known_accuracy(tmp_path):
    features = os.environ.get("LINEAR_CIFAR_FEATURES")
    if not features:
        pytest.skip("LINEAR_CIFAR_FEATURES names no folder with features")
    finish("probe", tmp_path / "out", f"--features={features}", "--lam=0.01")
    actual = result(tmp_path / "out")
    assert actual["C"] == pytest.approx(1e-3)
    assert actual["test_accuracy"] == pytest.approx(0.781, abs=0.001)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        *(("features", "--dataset=synthetic"), ("predict", "--model=m.npz")),
        *(
            ("n_train", "--features=planted --n_train=2"),
            ("n_train", "--features=planted --n_train=a"),
        ),
        *(("n_per_class", "--features=planted --n_per_class=99"),),
        *(("n_train", "--features=unsplit.npz --n_folds=3 --n_train=99"),),
        *(("none.npy", "--features=planted --predict=none.npy"),),
        *(("wide.npy", "--features=planted --predict=wide.npy"),),
        *((flag, f"--model=model.npz --predict=further.npy --{flag}") for flag in FITTING),
    ],
)
def test_a_flag_that_cannot_be_used_is_refused_by_its_name(
    probed, folder, tmp_path, monkeypatch, flag, words
):
    monkeypatch.chdir(folder)
    shutil.copy(probed / "model.npz", folder)
    done = finish("probe", tmp_path / "out", *words.split(), code=1)
    assert flag.split("=")[0] in only_line(done)
    assert not (tmp_path / "out").exists()


def test_predictions_never_replace_the_probe_that_holds_the_model(probed, folder):
    words = (f"--model={probed / 'model.npz'}", f"--predict={folder / 'further.npy'}")
    assert "--output_dir" in only_line(finish("probe", probed, *words, "--overwrite", code=1))
    assert (probed / "model.npz").exists()


def test_an_example_without_a_class_is_named_by_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = Params(np.array([[1e300, 0], [0, 1]]), np.zeros(2))
    Classifier(params, Standardiser(np.zeros(2), np.ones(2)), ("a", "b")).save("m.npz")
    np.save("further.npy", np.array([[1, 1], [1, 1], [1e10, 1], [1, 1]]))
    done = finish("probe", "out", "--model=m.npz", "--predict=further.npy", code=1)
    assert "further.npy" in only_line(done)
    assert "row 2" in only_line(done)
