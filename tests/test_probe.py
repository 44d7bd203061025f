"""`experiments.probe` on planted data, beside scikit-learn and NumPy in float64."""

import re
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special
from sklearn.metrics import classification_report, confusion_matrix

from linear_cifar import Classifier, evaluate, load_features, solve, with_validation
from linear_cifar.data import few_shot, stratified_folds, stratified_subset
from tests.commands import files, finish, only_line, result
from tests.oracle import softmax
from tests.planted import CLASSES, FITTED, examples, measures, optimum, save

LAM = "--lam=0.001:1:5:log"
CURVE = ("--n_train=60,60", "--n_per_class=4", "--n_draws=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The planted features, and inputs to predict."""
    path = save(tmp_path_factory.mktemp("features"))
    np.save(path / "further.npy", np.load(path / "test_features.npy")[:5])
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A probe's folder and its output."""
    out, predict = tmp_path_factory.mktemp("probe") / "out", f"--predict={folder / 'further.npy'}"
    return out, finish("probe", out, f"--features={folder}", LAM, *CURVE, predict)


@pytest.fixture(scope="module")
def probed(finished):
    return finished[0]


@pytest.fixture(scope="module")
def folds(folder, tmp_path_factory):
    """Another probe, of features larger than the memory that it may use."""
    out = tmp_path_factory.mktemp("folds") / "out"
    words = ("--n_folds=3", "--memory_gb=1e-6", "--select=loss", "--n_train=60", "--n_draws=2")
    finish("probe", out, f"--features={folder}", LAM, *words)
    return out


def refit_scores(out):
    """scikit-learn's scores of the test examples, fitted to training and validation examples."""
    weights, bias = optimum(*examples(*FITTED, reference=FITTED), result(out)["lam"])
    return examples("test", reference=FITTED)[0] @ weights.T + bias


def best_temperature(scores, labels):
    targets = np.eye(3)[labels]
    minimum = optimize.minimize_scalar(
        lambda log_t: softmax(scores / np.exp(log_t), targets)[0].mean(), (-1, 1), tol=1e-10
    )
    return pytest.approx(np.exp(minimum.x), rel=1e-3)


def test_the_answer_is_at_the_top_level_of_the_result(probed):
    actual, path = result(probed), pd.read_csv(probed / "path.csv")
    best = path.validation_accuracy.max()
    assert actual["validation_accuracy"] == best
    assert actual["lam"] in path.lam[path.validation_accuracy == best].tolist()
    accuracy = np.mean(refit_scores(probed).argmax(axis=1) == examples("test")[1])
    assert actual["test_accuracy_low"] < actual["test_accuracy"] < actual["test_accuracy_high"]
    assert actual["test_accuracy"] == pytest.approx(accuracy)
    assert 0 <= actual["gap"] <= 1e-10
    assert (actual["n"], actual["d"], actual["n_classes"]) == (240, 8, 3)


def test_figures_show_the_path_the_curves_and_the_mistakes(probed):
    names = ("confusions", "few_shot", "learning_curve", "path", "per_class", "reliability")
    assert files(probed / "figures") == {f"{name}.png" for name in names}


def test_per_class_csv_matches_scikit_learns_report(probed):
    labels, predicted = examples("test")[1], refit_scores(probed).argmax(axis=1)
    names = {"target_names": CLASSES, "output_dict": True, "zero_division": 0}
    report = classification_report(labels, predicted, **names)
    table = pd.read_csv(probed / "per_class.csv", index_col="class")
    actual = table.loc[CLASSES, ["precision", "accuracy", "f1", "support"]]
    np.testing.assert_allclose(actual, pd.DataFrame(report)[CLASSES].T, rtol=1e-12)
    balanced = result(probed)["balanced_accuracy"]
    assert balanced == pytest.approx(report["macro avg"]["recall"])
    assert result(probed)["confusions"] == confusion_matrix(labels, predicted).tolist()


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_saved_model_gives_the_predictions_in_predictions_csv(probed, folder, tmp_path, ending):
    path, predictions = probed / f"model.{ending}", probed / "predictions.csv"
    inputs, table = np.load(folder / "further.npy"), pd.read_csv(predictions)
    probabilities = table[[f"p_{name}" for name in CLASSES]]
    assert table["class"].tolist() == Classifier.load(path).predict(inputs).tolist()
    scaled = refit_scores(probed)[:5] / result(probed)["temperature"]
    np.testing.assert_allclose(probabilities, special.softmax(scaled, axis=1), atol=1e-4)
    finish("probe", tmp_path / "out", f"--model={path}", f"--predict={folder / 'further.npy'}")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == predictions.read_bytes()


def test_the_temperature_is_the_best_on_validation_examples(probed):
    weights, bias = optimum(*examples("train"), result(probed)["lam"])
    inputs, labels = examples("validation")
    assert result(probed)["temperature"] == best_temperature(inputs @ weights.T + bias, labels)


def test_with_folds_on_disk_the_temperature_is_the_best_on_left_out_folds(folds):
    inputs, labels = examples("train")
    fold_of, scores = stratified_folds(jax.random.key(0), labels, 3), np.zeros((len(labels), 3))
    for fold in range(3):
        rest = fold_of != fold
        weights, bias = optimum(inputs[rest], labels[rest], result(folds)["lam"])
        scores[~rest] = inputs[~rest] @ weights.T + bias
    assert result(folds)["temperature"] == best_temperature(scores, labels)
    accuracy = np.mean(refit_scores(folds).argmax(axis=1) == examples("test")[1])
    assert result(folds)["test_accuracy"] == pytest.approx(accuracy)


def test_calibration_is_measured_on_test_examples_before_and_after_the_temperature(probed):
    """In 15 equal bins of confidence, each with its upper end."""
    actual, labels = result(probed), examples("test")[1]
    for name, t in (("", 1), ("_with_temperature", actual["temperature"])):
        p = special.softmax(refit_scores(probed) / t, axis=1)
        confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
        sums = np.bincount(np.ceil(confidence * 15).astype(int), correct - confidence)
        expected = np.abs(sums).sum() / len(labels)
        assert actual[f"calibration_error{name}"] == pytest.approx(expected, abs=1e-4)


def test_the_learning_curve_has_each_size_once_and_its_draws(probed):
    curve = pd.read_csv(probed / "learning_curve.csv")
    assert curve.n.tolist() == [60] * 3 + [12] * 3
    assert curve.n_per_class.fillna(0).tolist() == [0] * 3 + [4] * 3


@pytest.mark.parametrize("select", ["accuracy", "loss"])
def test_each_point_of_the_learning_curve_is_a_probe_of_its_own_examples(request, folder, select):
    """These alone standardise it; validation examples choose λ, and test examples only test."""
    out = request.getfixturevalue("probed" if select == "accuracy" else "folds")
    curve = pd.read_csv(out / "learning_curve.csv")
    inputs, labels = np.load(folder / "train_features.npy"), examples("train")[1]
    for row in curve.itertuples():
        key = jax.random.fold_in(jax.random.key(0), row.draw)
        drawn = stratified_subset(key, labels, 60) if row.n == 60 else few_shot(key, labels, 4)
        scored = []
        for lam in pd.read_csv(out / "path.csv").lam:
            fitted = examples("train", reference=inputs[drawn])[0][drawn]
            params = optimum(fitted, labels[drawn], lam)
            (loss, accuracy), (_, test_accuracy) = (
                np.mean(measures(params, *examples(split, reference=inputs[drawn]), "softmax"), 1)
                for split in ("validation", "test")
            )
            by = (accuracy, -loss) if select == "accuracy" else (-loss, accuracy)
            scored.append((*by, lam, test_accuracy))
        assert (row.lam, row.test_accuracy) == pytest.approx(max(scored)[2:], rel=1e-6)
        assert max(s[-1] for s in scored) > row.test_accuracy or row.n == 12


def test_the_curve_is_printed_with_the_mean_and_deviation_of_its_draws(finished):
    out, done = finished
    curve = pd.read_csv(out / "learning_curve.csv")
    for n, words in ((60, "60 examples"), (12, "12 examples, 4 per class")):
        accuracy = curve.test_accuracy[curve.n == n]
        value = f"{accuracy.mean():.4f} ± {accuracy.std():.4f} (sd of 3 draws)"
        assert re.search(f"^with {words} +{re.escape(value)}$", done.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_real_features_reach_their_known_accuracy(real_features):
    dataset = with_validation(load_features(real_features))
    params = solve(0.01, dataset).params  # C is 1e-3
    accuracy = evaluate(params, dataset.test, dataset.standardiser, 0.01).accuracy
    assert accuracy == pytest.approx(0.781, abs=0.001)


def test_a_flag_that_cannot_be_used_is_refused_by_its_name(probed, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copy(probed / "model.npz", "m.npz")
    for words, name in {
        "--dataset=synthetic": "--features",
        "--model=m.npz": "--predict",
        "--features=. --n_train=2": "--n_train",
        "--features=. --predict=none.npy": "none.npy",
        "--model=m.npz --predict=further.npy --lam=1": "--lam",  # it would be ignored
        "--model=m.npz --predict=further.npy --resume": "--resume",
    }.items():
        assert name in only_line(finish("probe", tmp_path / "out", *words.split(), code=1))
        assert not (tmp_path / "out").exists()


def test_predictions_never_replace_the_probe_that_holds_the_model(probed, folder):
    words = (f"--model={probed / 'model.npz'}", f"--predict={folder / 'further.npy'}")
    assert "--output_dir" in only_line(finish("probe", probed, *words, "--overwrite", code=1))
    assert (probed / "model.npz").exists()
