"""The estimators: scikit-learn's own checks, and scikit-learn's own optimum."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator

from linear_cifar import LOSSES
from linear_cifar.estimators import LinearProbe, LinearProbeCV

LAM, LAMS = 0.01, np.array([1e-4, 0.01, 1.0, 100.0])
IRIS = load_iris(return_X_y=True)
# Checks that scikit-learn itself skips without pandas or an environment variable.
SKIPPED = {"check_sample_weights_pandas_series", "check_classifier_data_not_an_array"}
SKIPPED |= {"check_array_api_input"}
SCORING = {"accuracy": "accuracy", "loss": "neg_log_loss"}


def logistic_regression(C, **settings):
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000, **settings)


def assert_same_coefficients(ours, theirs, relative=1e-5):
    for name in ("coef_", "intercept_"):
        actual, expected = getattr(ours, name), getattr(theirs, name)
        assert actual.shape == expected.shape
        if name == "intercept_" and len(actual) > 2:  # softmax's is free up to a constant
            actual, expected = actual - actual.mean(), expected - expected.mean()
        assert np.linalg.norm(actual - expected) <= relative * np.linalg.norm(expected)


def test_fits_are_in_float64_though_users_have_no_x64_mode():
    inputs, labels = load_iris(return_X_y=True)
    with jax.enable_x64(False):
        models = [LinearProbe(LAM), LinearProbeCV([LAM], cv=3)]
        fits = [model.fit(scale(inputs), labels) for model in models]
        assert all(fit.predict(inputs).shape == labels.shape for fit in fits)
    theirs = logistic_regression(1 / (2 * LAM * len(labels))).fit(scale(inputs), labels)
    for fit in fits:
        assert_same_coefficients(fit, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cv", [False, True])
def test_every_check_of_scikit_learn_passes(cv):
    settings = {"cv": 3, "loss": "multi_bce", "select": "loss", "class_weight": "balanced"}
    cross_validated = LinearProbeCV([0.001, 0.1], one_standard_error=True, **settings)
    results = check_estimator(cross_validated if cv else LinearProbe(), on_skip=None)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= SKIPPED
    assert sum(r["status"] == "passed" for r in results) == len(results) - len(skipped) >= 60


@pytest.mark.parametrize(
    "load", [load_iris, load_breast_cancer, pytest.param(load_digits, marks=pytest.mark.slow)]
)
def test_softmax_matches_scikit_learn_at_the_documented_c(load):
    inputs, labels = load(return_X_y=True)
    inputs, n_vectors = scale(inputs), 1 + (labels.max() > 1)  # one for two classes
    theirs = logistic_regression(1 / (n_vectors * LAM * len(labels))).fit(inputs, labels)
    ours = LinearProbe(LAM).fit(inputs, labels)
    assert_same_coefficients(ours, theirs)
    for method in ("decision_function", "predict_proba", "predict"):
        actual, expected = (getattr(model, method)(inputs) for model in (ours, theirs))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    penalty = LAM * (theirs.coef_**2).sum() * n_vectors / 2
    cost = log_loss(labels, theirs.predict_proba(inputs)) + penalty
    assert ours.cost_ == pytest.approx(cost, rel=1e-10)
    assert 0 < ours.gap_ <= 1e-10 * cost


def test_multi_bce_matches_scikit_learns_one_against_the_rest():
    ours = LinearProbe(LAM, loss="multi_bce").fit(*IRIS)
    theirs = OneVsRestClassifier(logistic_regression(1 / (2 * LAM * 150 * 3))).fit(*IRIS)
    for k, binary in enumerate(theirs.estimators_):
        np.testing.assert_allclose(ours.coef_[k], binary.coef_[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_[k], binary.intercept_[0], rtol=1e-5)
    expected = theirs.predict_proba(IRIS[0])
    np.testing.assert_allclose(ours.predict_proba(IRIS[0]), expected, atol=1e-6)


@pytest.mark.parametrize(("loss", "C"), [("softmax", 1.0), ("multi_bce", 0.25)])
def test_two_classes_have_one_vector_and_a_warm_start_halves_their_passes(loss, C):
    inputs, labels = IRIS[0][50:], np.array(["no", "yes"])[IRIS[1][50:] - 1]
    ours = LinearProbe(LAM, loss=loss, warm_start=True).fit(*IRIS)
    ours.fit(inputs, labels)  # not from the three classes before
    theirs = logistic_regression(C / (LAM * 100)).fit(inputs, labels)
    passes = ours.n_iter_
    assert ours.fit(inputs, labels).n_iter_ <= passes / 2
    assert_same_coefficients(ours, theirs)
    assert ours.predict(inputs).tolist() == theirs.predict(inputs).tolist()
    np.testing.assert_allclose(ours.predict_proba(inputs), theirs.predict_proba(inputs), atol=1e-6)


def test_log_probabilities_do_not_underflow():
    for loss in LOSSES:
        probe = LinearProbe(loss=loss).fit(*IRIS)
        outliers = 1e4 * (IRIS[0][:5] - IRIS[0].mean(axis=0))
        assert np.isfinite(probe.predict_log_proba(outliers)).all()


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 5.0, 2: 0.5}], ids=str)
def test_example_weights_act_like_repetitions_in_scikit_learn(class_weight):
    weights = np.arange(150) % 4
    inputs, labels = (np.repeat(array, weights, axis=0) for array in IRIS)
    by_class = [1, 1, 1] if class_weight == "balanced" else list(class_weight.values())
    total = np.take(by_class, labels).sum()
    theirs = logistic_regression(1 / (2 * LAM * total), class_weight=class_weight)
    ours = LinearProbe(LAM, class_weight=class_weight).fit(*IRIS, weights)
    assert_same_coefficients(ours, theirs.fit(inputs, labels))


def test_float32_stays_float32():
    inputs = IRIS[0].astype(np.float32)
    probe = LinearProbe(LAM).fit(inputs, IRIS[1])
    assert probe.coef_.dtype == probe.intercept_.dtype == np.float32
    assert probe.predict_proba(inputs).dtype == np.float32
    assert_same_coefficients(probe, logistic_regression(1 / (2 * LAM * 150)).fit(*IRIS), 1e-3)


def test_a_fit_that_misses_its_tolerance_warns():
    with pytest.warns(ConvergenceWarning, match=r"lam 1e-06.*max_iter"):
        probe = LinearProbe(1e-6, max_iter=3).fit(*IRIS)
    assert probe.n_iter_ <= 4


def test_settings_out_of_range_and_a_fold_without_weights_are_value_errors():
    wrong = {"lam": 0.0, "loss": "hinge", "class_weight": "equal", "tol": 0.0, "max_iter": 0}
    probes = {name: LinearProbe(**{name: value}) for name, value in wrong.items()}
    probes |= {"lam is 0": LinearProbeCV([0.1, 0.0]), "select": LinearProbeCV(select="f1")}
    for name, probe in probes.items():
        with pytest.raises(ValueError, match=name):
            probe.fit(*IRIS)
    with pytest.raises(ValueError, match="fold 0"):
        LinearProbeCV(cv=[(np.arange(100), np.arange(100, 150))]).fit(*IRIS, IRIS[1] < 2)


@pytest.mark.parametrize(
    ("cv", "select"), [(3, "accuracy"), (KFold(3, shuffle=True, random_state=1), "loss")]
)
def test_lambda_is_the_one_that_scikit_learn_chooses_on_the_same_folds(cv, select):
    grid = {"C": 1 / (2 * LAMS * 100)}
    search = GridSearchCV(logistic_regression(1), grid, scoring=SCORING[select], cv=cv).fit(*IRIS)
    ours = LinearProbeCV(LAMS, cv=cv, select=select).fit(*IRIS)
    assert 1 / (2 * ours.lam_ * 100) == pytest.approx(search.best_params_["C"])
    scores = [search.cv_results_[f"split{fold}_test_score"] for fold in range(3)]
    values = ours.fold_accuracy_ if select == "accuracy" else -ours.fold_loss_
    np.testing.assert_allclose(values, scores, rtol=1e-6)
    assert_same_coefficients(ours, logistic_regression(1 / (2 * ours.lam_ * 150)).fit(*IRIS))


def test_folds_have_their_weights_and_may_be_shuffled():
    weights = 1.0 + np.arange(150) % 3
    settings = {"random_state": 5, "class_weight": "balanced", "select": "loss"}
    ours = LinearProbeCV(LAMS, cv=3, **settings).fit(*IRIS, weights)
    folds = StratifiedKFold(3, shuffle=True, random_state=5).split(*IRIS)
    for (train, test), losses in zip(folds, ours.fold_loss_, strict=True):
        x, y, w = (array[train] for array in (*IRIS, weights))
        theirs = logistic_regression(1 / (2 * LAMS[2] * w.sum()), class_weight="balanced")
        probabilities = theirs.fit(x, y, w).predict_proba(IRIS[0][test])
        expected = log_loss(IRIS[1][test], probabilities, sample_weight=weights[test])
        assert losses[2] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("select", "scoring"), SCORING.items())
def test_one_standard_error_chooses_the_largest_lambda_within_it(select, scoring):
    lams, data = 10 ** np.array([-4, -2.5, -2.25, -1]), (IRIS[0][:, :2], IRIS[1])
    models = [logistic_regression(1 / (2 * lam * 100)) for lam in lams]
    scores = np.array([cross_val_score(model, *data, cv=3, scoring=scoring) for model in models])
    mean, sd = scores.mean(axis=1), scores.std(axis=1, ddof=1)
    limit, without_root = (mean.max() - sd[mean.argmax()] / root for root in (np.sqrt(3), 1))
    expected = lams[mean >= limit].max()
    assert expected < lams[mean >= without_root].max()
    probe = LinearProbeCV(lams, cv=3, select=select, one_standard_error=True)
    assert probe.fit(*data).lam_ == expected
