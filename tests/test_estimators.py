"""The estimators: scikit-learn's own checks, and scikit-learn's own optimum."""

import importlib.util
import os
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

from linear_cifar.estimators import LinearProbe, LinearProbeCV
from linear_cifar.losses import LOSSES

LAM, LAMS = 0.01, np.array([1e-4, 0.01, 1.0, 100.0])
LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,  # too large to be padded
}
# Checks that scikit-learn itself skips without pandas or an environment variable.
NEED_PANDAS = {"check_sample_weights_pandas_series", "check_classifier_data_not_an_array"}
NEED_ARRAY_API = {"check_array_api_input"}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def logistic_regression(C, **settings):
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000, **settings)


def assert_same_coefficients(ours, theirs, relative=1e-5):
    for name in ("coef_", "intercept_"):
        actual, expected = getattr(ours, name), getattr(theirs, name)
        assert actual.shape == expected.shape
        if name == "intercept_" and len(actual) > 2:  # of softmax it is free up to a constant
            actual, expected = actual - actual.mean(), expected - expected.mean()
        assert np.linalg.norm(actual - expected) <= relative * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator",
    [
        LinearProbe(),
        LinearProbeCV(
            lams=[0.001, 0.1],
            cv=3,
            loss="multi_bce",
            select="loss",
            one_standard_error=True,
            class_weight="balanced",
        ),
    ],
    ids=str,
)
def test_every_check_of_scikit_learn_passes(estimator):
    results = check_estimator(estimator, on_skip=None)
    skipped = set() if importlib.util.find_spec("pandas") else NEED_PANDAS
    if not os.environ.get("SCIPY_ARRAY_API"):
        skipped = skipped | NEED_ARRAY_API
    assert {r["check_name"] for r in results if r["status"] == "skipped"} == skipped
    assert sum(r["status"] == "passed" for r in results) == len(results) - len(skipped) >= 60


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "digits")) for name in LOADERS]
)
def test_softmax_coefficients_match_scikit_learn(name):
    inputs, labels = LOADERS[name](return_X_y=True)
    n, two = len(labels), labels.max() == 1
    theirs = logistic_regression(1 / (LAM * n) if two else 1 / (2 * LAM * n))
    models = [
        make_pipeline(StandardScaler(), m).fit(inputs, labels) for m in (LinearProbe(), theirs)
    ]
    assert_same_coefficients(*(model[-1] for model in models))
    assert 0 < models[0][-1].gap_ <= 1e-10 * models[0][-1].cost_
    for method in ("decision_function", "predict_proba", "predict"):
        actual, expected = (getattr(model, method)(inputs) for model in models)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_multi_bce_matches_one_vs_rest(iris):
    ours = LinearProbe(LAM, loss="multi_bce").fit(*iris)
    theirs = OneVsRestClassifier(logistic_regression(1 / (2 * LAM * 150 * 3))).fit(*iris)
    for k, binary in enumerate(theirs.estimators_):
        np.testing.assert_allclose(ours.coef_[k], binary.coef_[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_[k], binary.intercept_[0], rtol=1e-5)
    expected = theirs.predict_proba(iris[0])
    np.testing.assert_allclose(ours.predict_proba(iris[0]), expected, atol=1e-6)


@pytest.mark.parametrize(("loss", "C"), [("softmax", 1.0), ("multi_bce", 0.25)])
def test_two_classes_have_one_vector_with_either_loss(iris, loss, C):
    inputs, labels = iris[0][50:], np.array(["no", "yes"])[iris[1][50:] - 1]
    ours = LinearProbe(LAM, loss=loss).fit(inputs, labels)
    theirs = logistic_regression(C / (LAM * 100)).fit(inputs, labels)
    assert_same_coefficients(ours, theirs)
    assert ours.predict(inputs).tolist() == theirs.predict(inputs).tolist()
    np.testing.assert_allclose(ours.predict_proba(inputs), theirs.predict_proba(inputs), atol=1e-6)


def test_log_probabilities_do_not_underflow(iris):
    for loss in LOSSES:
        probe = LinearProbe(loss=loss).fit(*iris)
        outliers = 1e4 * (iris[0][:5] - iris[0].mean(axis=0))
        assert np.isfinite(probe.predict_log_proba(outliers)).all()


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 5.0, 2: 0.5}], ids=str)
def test_sample_weights_act_like_repetitions_and_match_scikit_learn(iris, class_weight):
    inputs, labels = iris
    weights = np.arange(150) % 4
    rows = np.repeat(np.arange(150), weights)
    weighted = LinearProbe(LAM, class_weight=class_weight).fit(inputs, labels, weights)
    repeated = LinearProbe(LAM, class_weight=class_weight).fit(inputs[rows], labels[rows])
    assert_same_coefficients(weighted, repeated, relative=1e-7)
    assert weighted.cost_ == pytest.approx(repeated.cost_, rel=1e-12)
    total = len(rows)
    if isinstance(class_weight, dict):
        total = sum(class_weight[label] for label in labels[rows])
    theirs = logistic_regression(1 / (2 * LAM * total), class_weight=class_weight)
    assert_same_coefficients(weighted, theirs.fit(inputs, labels, weights))


def test_float32_stays_float32(iris):
    inputs = iris[0].astype(np.float32)
    probe = LinearProbe(LAM).fit(inputs, iris[1])
    assert probe.coef_.dtype == probe.intercept_.dtype == np.float32
    assert probe.predict_proba(inputs).dtype == np.float32
    assert probe.gap_ <= 1e-6 * probe.cost_
    assert_same_coefficients(probe, LinearProbe(LAM).fit(*iris), relative=1e-3)


def test_shifted_features_change_only_the_bias(iris):
    shifted = LinearProbe(LAM).fit(iris[0] + 1e6, iris[1])
    np.testing.assert_allclose(shifted.coef_, LinearProbe(LAM).fit(*iris).coef_, rtol=1e-6)


@pytest.mark.parametrize("classes", [[0, 1, 2], [1, 2]], ids=["three", "two"])
def test_a_warm_start_takes_few_passes_to_the_same_optimum(iris, classes):
    inputs, labels = (array[np.isin(iris[1], classes)] for array in iris)
    cold = LinearProbe(LAM).fit(inputs, labels)
    warm = clone(cold).set_params(warm_start=True).fit(inputs, labels)
    assert warm.n_iter_ == cold.n_iter_
    assert warm.fit(inputs, labels).n_iter_ <= cold.n_iter_ / 2
    assert_same_coefficients(warm, cold, relative=1e-7)


def test_a_warm_start_on_other_classes_or_features_starts_anew(iris):
    warm = LinearProbe(LAM, warm_start=True).fit(*iris)
    for data in ((iris[0][50:], iris[1][50:]), (iris[0][50:, :3], iris[1][50:])):
        assert_same_coefficients(warm.fit(*data), LinearProbe(LAM).fit(*data), relative=1e-7)


def test_a_search_in_a_pipeline_can_be_pickled_and_cloned(iris):
    model = make_pipeline(StandardScaler(), LinearProbe())
    search = GridSearchCV(model, {"linearprobe__lam": [1e-4, 10.0]}, cv=3).fit(*iris)
    assert search.best_params_ == {"linearprobe__lam": 1e-4}
    loaded = pickle.loads(pickle.dumps(search))
    assert np.array_equal(loaded.predict_proba(iris[0]), search.predict_proba(iris[0]))
    assert not hasattr(clone(search.best_estimator_[-1]), "coef_")


def test_a_fit_that_misses_its_tolerance_warns(iris):
    with pytest.warns(ConvergenceWarning, match=r"lam 1e-06.*max_iter"):
        probe = LinearProbe(1e-6, max_iter=3).fit(*iris)
    assert probe.n_iter_ <= 4


@pytest.mark.parametrize("lam", [1e-6, 1.0])
def test_a_fit_that_only_rounding_stops_does_not_warn(lam):
    inputs, labels = load_wine(return_X_y=True)
    probe = LinearProbe(lam).fit(scale(inputs), labels)
    assert probe.gap_ <= 1e-10 * probe.cost_


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearProbe(0.0), "lam is 0"),
        (LinearProbe(-1.0), "lam is -1.0"),
        (LinearProbe(loss="hinge"), "loss is 'hinge'.*softmax, multi_bce"),
        (LinearProbe(class_weight="equal"), "class_weight"),
        (LinearProbe(tol=0.0), "tol is 0.0"),
        (LinearProbe(max_iter=0), "max_iter is 0"),
        (LinearProbeCV(lams=[0.1, 0.0]), "lam is 0"),
        (LinearProbeCV(lams=0.1), r"lam .*\[C\]"),
        (LinearProbeCV(select="f1"), "select is 'f1'.*accuracy, loss"),
    ],
)
def test_settings_out_of_range_are_value_errors(iris, estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(*iris)


def test_data_without_two_classes_or_with_an_empty_fold_are_rejected(iris):
    inputs, labels = iris
    with pytest.raises(ValueError, match="one class: a"):
        LinearProbe().fit(inputs, np.full(150, "a"))
    with pytest.raises(ValueError, match="one class: 1"):
        LinearProbe().fit(inputs, labels, sample_weight=labels == 1)
    splits = [(np.arange(100), np.arange(100, 150))]
    with pytest.raises(ValueError, match="fold 0"):
        LinearProbeCV(cv=splits).fit(inputs, labels, sample_weight=labels < 2)


@pytest.mark.parametrize("cv", [3, KFold(3, shuffle=True, random_state=1)], ids=["number", "KFold"])
def test_cross_validation_matches_a_loop_over_folds(iris, cv):
    inputs, labels = iris
    splitter = StratifiedKFold(cv) if cv == 3 else cv
    losses, accuracies = np.zeros((2, 3, len(LAMS)))
    for fold, (train, test) in enumerate(splitter.split(inputs, labels)):
        for i, lam in enumerate(LAMS):
            model = logistic_regression(1 / (2 * lam * len(train)))
            model.fit(inputs[train], labels[train])
            losses[fold, i] = log_loss(labels[test], model.predict_proba(inputs[test]))
            accuracies[fold, i] = accuracy_score(labels[test], model.predict(inputs[test]))
    by_accuracy = LinearProbeCV(LAMS, cv=cv).fit(inputs, labels)
    np.testing.assert_allclose(by_accuracy.fold_loss_, losses, rtol=1e-6)
    np.testing.assert_allclose(by_accuracy.fold_accuracy_, accuracies, rtol=1e-12)
    assert by_accuracy.lam_ == LAMS[accuracies.mean(axis=0).argmax()]
    by_loss = LinearProbeCV(LAMS, cv=cv, select="loss").fit(inputs, labels)
    assert by_loss.lam_ == LAMS[losses.mean(axis=0).argmin()]
    alone = LinearProbe(by_loss.lam_).fit(inputs, labels)
    assert_same_coefficients(by_loss, alone, relative=1e-7)


def test_folds_have_their_weights_and_may_be_shuffled(iris):
    inputs, labels = iris
    weights = 1.0 + np.arange(150) % 3
    settings = {"class_weight": "balanced", "select": "loss"}
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    shuffled = LinearProbeCV(LAMS, cv=3, random_state=5, **settings).fit(inputs, labels, weights)
    for (train, test), losses in zip(folds.split(inputs, labels), shuffled.fold_loss_, strict=True):
        model = logistic_regression(1 / (2 * weights[train].sum()), class_weight="balanced")
        model.fit(inputs[train], labels[train], weights[train])
        probabilities = model.predict_proba(inputs[test])
        expected = log_loss(labels[test], probabilities, sample_weight=weights[test])
        assert losses[2] == pytest.approx(expected, rel=1e-6)  # λ = 1


def test_one_standard_error_chooses_the_largest_lambda_within_it(iris):
    lams, data = np.array([1e-4, 1e-3, 0.1, 1.0]), (iris[0][:, :2], iris[1])
    best = LinearProbeCV(lams, cv=3, select="loss").fit(*data)
    simple = LinearProbeCV(lams, cv=3, select="loss", one_standard_error=True).fit(*data)
    mean, sd = best.fold_loss_.mean(axis=0), best.fold_loss_.std(axis=0, ddof=1)
    limit = mean.min() + sd[mean.argmin()] / np.sqrt(3)
    assert simple.lam_ == lams[mean <= limit].max() > best.lam_ == lams[mean.argmin()]
