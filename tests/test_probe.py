"""`experiments.probe` on planted data, beside scikit-learn and NumPy in float64."""

import os

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special
from sklearn.metrics import classification_report

from linear_cifar import Classifier, Params, load_features
from linear_cifar.data import LazyRows, Standardiser, stratified_folds
from tests.commands import only_line, run
from tests.conftest import undrawn_figures
from tests.oracle import softmax
from tests.test_lambda_path import CLASSES, FITTED, SIZES, examples, optimum, planted, result, save

N = SIZES["train"]
LAM = "--lam=0.001:1:5:log"
CURVE = (f"--n_train={N},{N}", "--n_per_class=4", "--n_draws=2")
FOLDS = (LAM, "--n_folds=3", "--tolerance=1e-9")


def probe(out, *words, **settings):
    with undrawn_figures():
        return run("experiments.probe", *words, f"--output_dir={out}", **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The planted features as a folder, and inputs of other files."""
    path = tmp_path_factory.mktemp("features")
    np.save(path / "further.npy", planted()["test"][0][:5])
    np.save(path / "wide.npy", np.zeros((2, 3), np.float32))
    np.savez(path / "unsplit.npz", x=planted()["train"][0], y=planted()["train"][1])
    (path / "planted").mkdir()
    save(path / "planted", planted())
    return path


@pytest.fixture(scope="module")
def probed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    predict = f"--predict={folder / 'further.npy'}"
    done = probe(out, f"--features={folder / 'planted'}", LAM, *CURVE, predict)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def folds(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "out"
    done = probe(out, f"--features={folder / 'planted'}", *FOLDS)
    assert done.returncode == 0, done.stderr
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
    assert probe(out, f"--model={path}", f"--predict={folder / 'further.npy'}").returncode == 0
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


def test_neither_lam_nor_temperature_depends_on_test_labels(probed, tmp_path):
    inputs, labels = planted()["test"]
    save(tmp_path, planted() | {"test": (inputs, labels[::-1])})
    done = probe(tmp_path / "out", f"--features={tmp_path}", LAM)
    assert done.returncode == 0, done.stderr
    actual, expected = result(tmp_path / "out"), result(probed)
    for name in ("lam", "temperature", "validation_accuracy"):
        assert actual[name] == expected[name]
    assert actual["test_accuracy"] != expected["test_accuracy"]


def test_the_learning_curve_draws_each_size_once(probed):
    curve, row = pd.read_csv(probed / "learning_curve.csv"), chosen_row(probed)
    assert curve.n.tolist() == [N, N, 12, 12]
    assert curve.n_per_class.fillna(0).tolist() == [0, 0, 4, 4]
    assert curve.draw.tolist() == [0, 1, 0, 1]
    # A draw of all training examples is the path itself.
    assert (curve.lam[:2] == row.lam).all()
    assert (curve.test_accuracy[:2] == row.test_accuracy).all()


def test_features_larger_than_memory_give_the_same(folder, folds, tmp_path):
    splits = load_features(folder / "planted", memory_gb=1e-6)
    assert isinstance(splits.train.inputs, LazyRows)
    assert isinstance(splits.test.inputs, LazyRows)
    words = (f"--features={folder / 'planted'}", *FOLDS, "--memory_gb=1e-6")
    out, at = tmp_path / "out", "relative gap at most"
    assert probe(out, *words, interrupt_at=at).returncode == 130
    done = probe(out, *words, "--resume")
    assert done.returncode == 0, done.stderr
    lazy, expected = (
        pd.read_csv(path / "path.csv").drop(columns=["gap", "distance", "passes"])  # of rounding
        for path in (out, folds)
    )
    pd.testing.assert_frame_equal(lazy, expected, rtol=1e-5, atol=1e-5)
    for name in ("lam", "test_accuracy", "temperature", "test_loss"):
        assert result(out)[name] == pytest.approx(result(folds)[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_real_features_reach_their_known_accuracy(tmp_path):
    features = os.environ.get("LINEAR_CIFAR_FEATURES")
    if not features:
        pytest.skip("LINEAR_CIFAR_FEATURES names no folder with features")
    done = probe(tmp_path / "out", f"--features={features}", "--lam=0.01")
    assert done.returncode == 0, done.stderr
    actual = result(tmp_path / "out")
    assert actual["C"] == pytest.approx(1e-3)
    assert actual["test_accuracy"] == pytest.approx(0.781, abs=0.001)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset=synthetic",), "--features"),
        (("--model=m.npz",), "--model needs --predict"),
        (("--features=planted", "--n_train=2"), "--n_train is 2: it has to be from 3 to 150"),
        (("--features=planted", "--n_train=a"), "--n_train=a: it has to be integers"),
        (("--features=planted", "--n_per_class=99"), "it has to be from 1 to 50"),
        (("--features=unsplit.npz", "--n_folds=3", "--n_train=99"), "need validation examples"),
        (("--features=planted", "--predict=none.npy"), "none.npy does not exist"),
        (("--features=planted", "--predict=wide.npy"), "has 3 features, and the model 8"),
    ],
)
def test_rejects_flags_in_one_line(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    assert message in only_line(probe(tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flag",
    [
        *("--lam=1", "--C=1", "--loss=softmax", "--select=loss", "--tolerance=0.1"),
        *("--max_passes=9", "--n_folds=3", "--one_standard_error", "--n_train=9", "--n_draws=2"),
        *("--features=f.npz", "--dataset=auto", "--standardise=none", "--test_fraction=0.3"),
        *("--normalise_rows", "--memory_gb=1", "--resume", "--max_runs=9", "--distributed"),
    ],
)
def test_a_model_with_a_fitting_flag_is_refused_by_its_name(probed, folder, tmp_path, flag):
    words = (f"--model={probed / 'model.npz'}", f"--predict={folder / 'further.npy'}", flag)
    assert flag.split("=")[0] in only_line(probe(tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


def test_predictions_never_replace_the_probe_that_holds_the_model(probed, folder):
    words = (f"--model={probed / 'model.npz'}", f"--predict={folder / 'further.npy'}")
    assert "--output_dir" in only_line(probe(probed, *words, "--overwrite"))
    assert (probed / "model.npz").exists()


def test_an_example_without_a_class_is_named_by_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = Params(np.array([[1e300, 0], [0, 1]]), np.zeros(2))
    Classifier(params, Standardiser(np.zeros(2), np.ones(2)), ("a", "b")).save("m.npz")
    np.save("further.npy", np.array([[1, 1], [1, 1], [1e10, 1], [1, 1]]))
    line = only_line(probe("out", "--model=m.npz", "--predict=further.npy"))
    assert "further.npy, from row 0" in line
    assert "row 2" in line
