"""The probe as a user runs it: the answer, the model, and what is refused."""

import csv
import json

import numpy as np
import pytest
from commands import only_line, run
from conftest import undrawn_figures
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from linear_cifar.classifier import Classifier
from linear_cifar.data import Standardiser, load_features
from linear_cifar.model import Params
from linear_cifar.penalties import lam_to

LAM = "--lam=1e-3:1:4:log"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """400 digits in a file, and the inputs of the others in another one."""
    folder = tmp_path_factory.mktemp("features")
    inputs, labels = load_digits(return_X_y=True)
    np.savez(folder / "digits.npz", features=inputs[:400].astype(np.float32), labels=labels[:400])
    np.save(folder / "others.npy", inputs[400:430].astype(np.float32))
    return folder / "digits.npz"


@pytest.fixture(scope="module")
def probed(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    words = (f"--features={digits}", LAM, f"--output_dir={out}")
    curve = ("--n_train=50", "--n_per_class=2", "--n_draws=2")
    with undrawn_figures():
        done = run("experiments.probe", *words, *curve, f"--predict={digits.parent / 'others.npy'}")
    assert done.returncode == 0, done.stderr
    return out, done


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_answer_is_scikit_learn_s(probed, digits):
    out, _ = probed
    found = json.loads((out / "probe.json").read_text())
    rows = table(out / "path.csv")
    best = max(
        rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"]))
    )
    assert float(best["lam"]) == found["refit"]["lam"]
    data = load_features(digits)
    inputs = np.concatenate([data.train.inputs, data.validation.inputs]).astype(float)
    labels = np.concatenate([data.train.labels, data.validation.labels])
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale == 0] = 1
    theirs = LogisticRegression(C=found["refit"]["C"], tol=1e-8, max_iter=5000)
    theirs.fit((inputs - mean) / scale, labels)
    predicted = theirs.predict((data.test.inputs - mean) / scale)
    test = found["test"]
    assert test["accuracy"]["estimate"] == pytest.approx(np.mean(predicted == data.test.labels))
    expected = balanced_accuracy_score(data.test.labels, predicted)
    assert test["balanced_accuracy"] == pytest.approx(expected)
    expected = lam_to(found["refit"]["lam"], len(labels), 10).C
    assert found["refit"]["C"] == pytest.approx(expected)
    low, high = test["accuracy_at_optimum"]
    assert low <= test["accuracy"]["estimate"] <= high


def test_the_model_predicts_alike_from_either_file(probed, digits, tmp_path):
    out, _ = probed
    inputs = np.load(digits.parent / "others.npy")
    models = [Classifier.load(out / f"model{ending}") for ending in (".npz", ".safetensors")]
    rows = table(out / "predictions.csv")
    for model in models:
        assert [row["class"] for row in rows] == model.predict(inputs).tolist()
        p = model.predict_proba(inputs)
        read = [[float(row[f"p_{k}"]) for k in range(10)] for row in rows]
        np.testing.assert_allclose(read, p, atol=1e-7)
    words = (f"--model={out / 'model.safetensors'}", f"--predict={digits.parent / 'others.npy'}")
    done = run("experiments.probe", *words, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "out" / "predictions.csv").read_bytes()
    assert again == (out / "predictions.csv").read_bytes()


def test_an_example_without_a_class_is_refused_by_its_row(tmp_path):
    params, standardiser = Params(np.eye(2, 3), np.zeros(2)), Standardiser(np.zeros(3), np.ones(3))
    params.weights[0] = 1e300
    Classifier(params, standardiser, ("a", "b")).save(tmp_path / "m.npz")
    inputs = np.ones((4, 3)) * [[1], [1], [1e10], [1]]
    np.save(tmp_path / "others.npy", inputs)
    words = (f"--model={tmp_path / 'm.npz'}", f"--predict={tmp_path / 'others.npy'}")
    done = run("experiments.probe", *words, f"--output_dir={tmp_path / 'out'}")
    line = only_line(done)
    assert "others.npy" in line
    assert "row 2: the logits aren't finite" in line
    assert not (tmp_path / "out").exists()


def test_fewer_examples_are_drawn_again_and_again(probed):
    out, done = probed
    few, of_class = json.loads((out / "probe.json").read_text())["learning_curve"]
    assert (few["n"], few["per_class"]) == (50, None)
    assert (of_class["n"], of_class["per_class"]) == (20, 2)
    for point in (few, of_class):
        assert len(point["accuracy"]) == len(point["lam"]) == point["over_draws"]["n"] == 2
        assert 0.3 < point["over_draws"]["mean"] < 1
    assert "with 20 examples, 2 a class" in done.stdout
    assert (out / "figures" / "learning_curve.png").exists()
    assert (out / "figures" / "few_shot.png").exists()


@pytest.mark.slow
def test_folds_choose_and_calibrate_where_nothing_else_validates(tmp_path):
    inputs, labels = load_breast_cancer(return_X_y=True)
    np.savez(tmp_path / "cancer.npz", x=inputs, y=np.array(["malign", "benign"])[labels])
    words = (f"--features={tmp_path / 'cancer.npz'}", LAM, "--n_folds=3")
    done = run("experiments.probe", *words, f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert found["chosen_by"] == "folds_accuracy"
    assert found["dataset"]["sizes"]["validation"] == 0
    assert found["test"]["accuracy"]["estimate"] > 0.93
    assert set(found["test"]["by_class"]) == {"benign", "malign"}
    calibration = found["calibration"]
    assert calibration["uncalibrated"] == ""
    assert 0.2 < calibration["temperature"] < 2


@pytest.mark.slow
def test_a_probe_goes_on_where_it_was_interrupted(digits, tmp_path):
    lam = "--lam=1e-3:1:20:log"
    words = (f"--features={digits}", lam, f"--output_dir={tmp_path / 'out'}")
    whole = run("experiments.probe", f"--features={digits}", lam, f"--output_dir={tmp_path / 'b'}")
    assert whole.returncode == 0, whole.stderr
    chunks = sorted((tmp_path / "b" / "chunks").iterdir())
    assert len(chunks) == 2
    done = run("experiments.probe", *words, interrupt_at="19/20")
    assert done.returncode == 130
    assert len(list((tmp_path / "out" / "chunks").iterdir())) == 1
    assert run("experiments.probe", *words, "--resume").returncode == 0
    for name in ("path.csv", "model.npz", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--n_train=5",), "--n_train is 5: it has to be from 10 to"),
        (("--n_train=a",), "--n_train=a: it has to be integers"),
        (("--n_per_class=1000",), "--n_per_class is 1000: it has to be from 1 to"),
        (("--n_folds=3", "--n_train=100"), "need validation examples, and no folds"),
        (("--model=m.npz",), "--model goes with --predict"),
        (("--predict=none.npy",), "none.npy does not exist"),
        (("--predict=WIDE",), "has 3 features, and the model 64"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_fitted(digits, tmp_path, words, message):
    np.save(tmp_path / "wide.npy", np.zeros((2, 3), np.float32))
    words = [word.replace("WIDE", str(tmp_path / "wide.npy")) for word in words]
    out = tmp_path / "out"
    done = run("experiments.probe", f"--features={digits}", LAM, *words, f"--output_dir={out}")
    assert done.returncode == 1
    assert message in only_line(done)
    assert not out.exists()
