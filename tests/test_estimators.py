"""The estimators: scikit-learn's own checks, and scikit-learn's own optimum."""

import importlib.util
import os
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

from linear_cifar import LOSSES
from linear_cifar.estimators import LinearProbe, LinearProbeCV

LAM, LAMS = 0.01, np.array([1e-4, 0.01, 1.0, 100.0])
LOADERS = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
LOADERS["digits"] = load_digits  # too large to be padded
# Checks that scikit-learn itself skips without pandas or an environment variable.
NEED_PANDAS = {"check_sample_weights_pandas_series", "check_classifier_data_not_an_array"}
NEED_ARRAY_API = {"check_array_api_input"}
EXACT = {"solver": "newton-cholesky", "tol": 1e-13, "max_iter": 1000}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def optimum(iris):
    """scikit-learn's, on iris."""
    return LogisticRegression(C=1 / (2 * LAM * 150), **EXACT).fit(*iris)


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
def test_softmax_is_scikit_learns_at_the_documented_c(name):
    inputs, labels = LOADERS[name](return_X_y=True)
    inputs, two = scale(inputs), labels.max() == 1
    theirs = LogisticRegression(C=(2 if two else 1) / (2 * LAM * len(labels)), **EXACT)
    ours, theirs = LinearProbe(LAM).fit(inputs, labels), theirs.fit(inputs, labels)
    assert_same_coefficients(ours, theirs)
    for method in ("decision_function", "predict_proba", "predict"):
        actual, expected = (getattr(model, method)(inputs) for model in (ours, theirs))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    penalty = LAM * (theirs.coef_**2).sum() / (2 if two else 1)
    cost = log_loss(labels, theirs.predict_proba(inputs)) + penalty
    assert ours.cost_ == pytest.approx(cost, rel=1e-10)
    assert 0 < ours.gap_ <= 1e-10 * cost


def test_multi_bce_is_scikit_learns_one_against_the_rest(iris):
    ours = LinearProbe(LAM, loss="multi_bce").fit(*iris)
    theirs = LogisticRegression(C=1 / (2 * LAM * 150 * 3), **EXACT)
    theirs = OneVsRestClassifier(theirs).fit(*iris)
    for k, binary in enumerate(theirs.estimators_):
        np.testing.assert_allclose(ours.coef_[k], binary.coef_[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_[k], binary.intercept_[0], rtol=1e-5)
    expected = theirs.predict_proba(iris[0])
    np.testing.assert_allclose(ours.predict_proba(iris[0]), expected, atol=1e-6)


@pytest.mark.parametrize(("loss", "C"), [("softmax", 1.0), ("multi_bce", 0.25)])
def test_two_classes_have_one_vector_and_a_warm_start_takes_it(iris, loss, C):
    inputs, labels = iris[0][50:], np.array(["no", "yes"])[iris[1][50:] - 1]
    ours = LinearProbe(LAM, loss=loss, warm_start=True).fit(inputs, labels)
    theirs = LogisticRegression(C=C / (LAM * 100), **EXACT).fit(inputs, labels)
    passes = ours.n_iter_
    assert ours.fit(inputs, labels).n_iter_ <= passes / 2
    assert_same_coefficients(ours, theirs)
    assert ours.predict(inputs).tolist() == theirs.predict(inputs).tolist()
    np.testing.assert_allclose(ours.predict_proba(inputs), theirs.predict_proba(inputs), atol=1e-6)


def test_a_warm_start_takes_few_passes_but_starts_anew_on_other_classes_or_features(iris, optimum):
    warm = LinearProbe(LAM, warm_start=True).fit(*iris)
    passes = warm.n_iter_
    assert warm.fit(*iris).n_iter_ <= passes / 2
    assert_same_coefficients(warm, optimum)
    for inputs, labels in ((iris[0][50:], iris[1][50:]), (iris[0][50:, :3], iris[1][50:])):
        theirs = LogisticRegression(C=1 / (LAM * 100), **EXACT).fit(inputs, labels)
        assert_same_coefficients(warm.fit(inputs, labels), theirs)


def test_log_probabilities_do_not_underflow(iris):
    for loss in LOSSES:
        probe = LinearProbe(loss=loss).fit(*iris)
        outliers = 1e4 * (iris[0][:5] - iris[0].mean(axis=0))
        assert np.isfinite(probe.predict_log_proba(outliers)).all()


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 5.0, 2: 0.5}], ids=str)
def test_example_weights_act_like_repetitions_in_scikit_learn(iris, class_weight):
    inputs, labels = iris
    weights = np.arange(150) % 4
    rows = np.repeat(np.arange(150), weights)
    total = len(rows)
    if isinstance(class_weight, dict):
        total = sum(class_weight[label] for label in labels[rows])
    theirs = LogisticRegression(C=1 / (2 * LAM * total), class_weight=class_weight, **EXACT)
    ours = LinearProbe(LAM, class_weight=class_weight).fit(inputs, labels, weights)
    assert_same_coefficients(ours, theirs.fit(inputs[rows], labels[rows]))


def test_float32_stays_float32(iris, optimum):
    inputs = iris[0].astype(np.float32)
    probe = LinearProbe(LAM).fit(inputs, iris[1])
    assert probe.coef_.dtype == probe.intercept_.dtype == np.float32
    assert probe.predict_proba(inputs).dtype == np.float32
    assert probe.gap_ <= 1e-6 * probe.cost_
    assert_same_coefficients(probe, optimum, relative=1e-3)


def test_shifted_features_change_only_the_bias(iris, optimum):
    shifted = LinearProbe(LAM).fit(iris[0] + 1e6, iris[1])
    np.testing.assert_allclose(shifted.coef_, optimum.coef_, rtol=1e-6)


def test_a_search_in_a_pipeline_can_be_pickled_and_cloned(iris):
    model = make_pipeline(StandardScaler(), LinearProbe())
    search = GridSearchCV(model, {"linearprobe__lam": [1e-4, 10.0]}, cv=3).fit(*iris)
    assert search.best_params_ == {"linearprobe__lam": 1e-4}
    loaded = pickle.loads(pickle.dumps(search))
    assert np.array_equal(loaded.predict_proba(iris[0]), search.predict_proba(iris[0]))
    assert not hasattr(clone(search.best_estimator_[-1]), "coef_")


def test_only_a_fit_that_misses_its_tolerance_warns(iris):
    with pytest.warns(ConvergenceWarning, match=r"lam 1e-06.*max_iter"):
        probe = LinearProbe(1e-6, max_iter=3).fit(*iris)
    assert probe.n_iter_ <= 4
    inputs, labels = load_wine(return_X_y=True)
    for lam in (1e-6, 1.0):  # only rounding stops these
        probe = LinearProbe(lam).fit(scale(inputs), labels)
        assert probe.gap_ <= 1e-10 * probe.cost_


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (LinearProbe(0.0), "lam is 0"),
        (LinearProbe(loss="hinge"), "loss"),
        (LinearProbe(class_weight="equal"), "class_weight"),
        (LinearProbe(tol=0.0), "tol"),
        (LinearProbe(max_iter=0), "max_iter"),
        (LinearProbeCV(lams=[0.1, 0.0]), "lam is 0"),
        (LinearProbeCV(lams=0.1), r"lam .*\[C\]"),
        (LinearProbeCV(select="f1"), "select"),
    ],
)
def test_settings_out_of_range_are_value_errors(iris, estimator, name):
    with pytest.raises(ValueError, match=name):
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


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("cv", [3, KFold(3, shuffle=True, random_state=1)], ids=["number", "KFold"])
@pytest.mark.parametrize(("select", "score"), [("accuracy", "accuracy"), ("loss", "neg_log_loss")])
def test_lambda_is_the_one_that_scikit_learn_chooses_on_the_same_folds(iris, cv, select, score):
    settings = {"Cs": 1 / (2 * LAMS * 100), "scoring": score, **EXACT}
    theirs = LogisticRegressionCV(cv=cv, **settings).fit(*iris)
    ours = LinearProbeCV(LAMS, cv=cv, select=select).fit(*iris)
    assert 1 / (2 * ours.lam_ * 100) == pytest.approx(np.ravel(theirs.C_)[0])
    search = GridSearchCV(LogisticRegression(**EXACT), {"C": settings["Cs"]}, scoring=score, cv=cv)
    results = search.fit(*iris).cv_results_
    scores = [results[f"split{fold}_test_score"] for fold in range(3)]
    values = {"accuracy": ours.fold_accuracy_, "neg_log_loss": -ours.fold_loss_}[score]
    np.testing.assert_allclose(values, scores, rtol=1e-6)
    refitted = LogisticRegression(C=1 / (2 * ours.lam_ * 150), **EXACT).fit(*iris)
    assert_same_coefficients(ours, refitted)


def test_folds_have_their_weights_and_may_be_shuffled(iris):
    inputs, labels = iris
    weights = 1.0 + np.arange(150) % 3
    settings = {"class_weight": "balanced", "select": "loss"}
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    shuffled = LinearProbeCV(LAMS, cv=3, random_state=5, **settings).fit(inputs, labels, weights)
    for (train, test), losses in zip(folds.split(inputs, labels), shuffled.fold_loss_, strict=True):
        C = 1 / (2 * LAMS[2] * weights[train].sum())
        model = LogisticRegression(C=C, class_weight="balanced", **EXACT)
        model.fit(inputs[train], labels[train], weights[train])
        probabilities = model.predict_proba(inputs[test])
        expected = log_loss(labels[test], probabilities, sample_weight=weights[test])
        assert losses[2] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("select", ["loss", "accuracy"])
def test_one_standard_error_chooses_the_largest_lambda_within_it(iris, select):
    lams, data = 10 ** np.array([-4, -2.5, -2.25, -1]), (iris[0][:, :2], iris[1])
    scoring = {"loss": "neg_log_loss", "accuracy": "accuracy"}[select]
    models = [LogisticRegression(C=1 / (2 * lam * 100), **EXACT) for lam in lams]
    scores = np.array([cross_val_score(model, *data, cv=3, scoring=scoring) for model in models])
    mean, sd = scores.mean(axis=1), scores.std(axis=1, ddof=1)
    limit, without_root = (mean.max() - sd[mean.argmax()] / root for root in (np.sqrt(3), 1))
    expected = lams[mean >= limit].max()
    assert expected < lams[mean >= without_root].max()
    settings = {"cv": 3, "select": select, "one_standard_error": True}
    assert LinearProbeCV(lams, **settings).fit(*data).lam_ == expected
