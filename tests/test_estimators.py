"""The estimators: scikit-learn's own checks, and scikit-learn's own optimum."""

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss, roc_auc_score
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


def targets(n_unknown=0):
    """Iris, scaled, shifted and shuffled, with three targets of more and more noise."""
    rng = np.random.default_rng(0)
    order = rng.permutation(150)
    inputs = scale(IRIS[0])[order]
    noise = rng.logistic(size=(150, 3)) * [0.2, 1, 5]
    labels = (inputs @ rng.normal(size=(4, 3)) + noise > [-1, 0, 1]) * 1
    labels[rng.random((150, 3)) < n_unknown / 150] = -1
    return 2 + inputs, labels


def of_target(model, t):
    """The model of a target as scikit-learn has one of two classes."""
    binary = LogisticRegression()
    binary.coef_, binary.intercept_ = model.coef_[[t]], model.intercept_[[t]]
    return binary


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_targets_match_scikit_learns_multilabel_classifier(class_weight):
    inputs, labels = targets()
    ours = LinearProbe(LAM, class_weight=class_weight).fit(inputs, labels)
    binary = logistic_regression(1 / (2 * LAM * 150), class_weight=class_weight)
    theirs = OneVsRestClassifier(binary).fit(inputs, labels)
    for t, model in enumerate(theirs.estimators_):
        assert_same_coefficients(of_target(ours, t), model)
    for method in ("decision_function", "predict_proba", "predict"):
        actual, expected = (getattr(model, method)(inputs) for model in (ours, theirs))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        assert actual.dtype == expected.dtype
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    assert ours.multilabel_ == theirs.multilabel_ is True
    assert ours.score(inputs, labels) == theirs.score(inputs, labels)
    assert ours.cost_.shape == ours.gap_.shape == ours.n_iter_.shape == (3,)
    assert (ours.gap_ <= 1e-10 * ours.cost_).all()


def test_each_target_leaves_out_its_unknown_labels_and_may_have_its_own_lambda():
    inputs, labels = targets(n_unknown=30)
    weights, pairs, lam = 1.0 + np.arange(150) % 3, [[1, 2], [3, 1], [1, 1]], [0.1, 0.01, 1.0]
    ours = LinearProbe(lam, class_weight=pairs).fit(inputs, csr_array(labels), weights)
    for t, pair in enumerate(pairs):
        is_known = labels[:, t] >= 0
        x, y, w = (array[is_known] for array in (inputs, labels[:, t], weights))
        w = w * np.take(pair, y)
        theirs = logistic_regression(1 / (2 * lam[t] * w.sum())).fit(x, y, w)
        assert_same_coefficients(of_target(ours, t), theirs)


@pytest.mark.parametrize(
    ("select", "scoring"),
    [("loss", "neg_log_loss"), ("auroc", "roc_auc"), ("average_precision", "average_precision")],
)
def test_each_target_has_the_lambda_that_scikit_learn_chooses(select, scoring):
    inputs, labels = targets()
    ours = LinearProbeCV(LAMS, select=select).fit(inputs, labels)
    for t in range(3):
        settings = {"solver": "newton-cholesky", "tol": 1e-13, "use_legacy_attributes": False}
        grid = {"Cs": 1 / (2 * LAMS * 120), "l1_ratios": (0,), "cv": KFold(5), "scoring": scoring}
        theirs = LogisticRegressionCV(**grid, **settings).fit(inputs, labels[:, t])
        assert 1 / (2 * ours.lam_[t] * 120) == pytest.approx(theirs.C_)
        values = getattr(ours, f"fold_{select}_")[..., t] * (-1 if select == "loss" else 1)
        np.testing.assert_allclose(values, theirs.scores_.squeeze(1), rtol=1e-6)
        refit = logistic_regression(1 / (2 * ours.lam_[t] * 150)).fit(inputs, labels[:, t])
        assert_same_coefficients(of_target(ours, t), refit)
    assert len(set(ours.lam_)) > 1
    assert ours.fold_accuracy_.shape == (5, 4, 3)


def test_left_out_examples_of_targets_may_repeat_and_overlap():
    inputs, labels = targets(n_unknown=30)
    rng, cv = np.random.default_rng(1), []
    for _ in range(3):
        train = rng.integers(0, 150, 150)
        cv.append((train, rng.integers(0, 150, 90)))
    ours = LinearProbeCV(LAMS, cv=cv, class_weight="balanced").fit(inputs, labels)
    measures = (ours.fold_loss_, ours.fold_auroc_, ours.fold_accuracy_)
    for (train, test), losses, areas, accuracies in zip(cv, *measures, strict=True):
        parts = [part[labels[part, 1] >= 0] for part in (train, test)]
        (x, y), (x_test, y_test) = ((inputs[part], labels[part, 1]) for part in parts)
        C = 1 / (2 * LAMS[1] * len(y))
        theirs = logistic_regression(C, class_weight="balanced").fit(x, y)
        loss = log_loss(y_test, theirs.predict_proba(x_test))
        assert losses[1, 1] == pytest.approx(loss, rel=1e-6)
        area = roc_auc_score(y_test, theirs.decision_function(x_test))
        assert areas[1, 1] == pytest.approx(area, abs=1e-9)
        assert accuracies[1, 1] == pytest.approx(theirs.score(x_test, y_test))


@pytest.mark.parametrize("one_standard_error", [False, True])
def test_a_target_leaves_out_the_folds_in_which_its_measure_does_not_exist(one_standard_error):
    inputs, labels = targets()
    labels[:30] = 0  # the first of five folds
    settings = {"select": "auroc", "one_standard_error": one_standard_error}
    lams = np.geomspace(1e-3, 1, 40)
    ours = LinearProbeCV(lams, **settings).fit(inputs, labels)
    assert np.isnan(ours.fold_auroc_[0]).all()
    values = ours.fold_auroc_[1:]
    means, errors = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(4)
    losses = ours.fold_loss_.mean(axis=0)
    for t, (mean, error) in enumerate(zip(means.T, errors.T, strict=True)):
        near = mean >= mean.max() - one_standard_error * error[mean.argmax()]
        best = np.where(near, lams if one_standard_error else -losses[:, t], -np.inf).argmax()
        assert ours.lam_[t] == lams[best]
    assert (means.argmax(axis=0) != losses.argmin(axis=0)).any()


def test_constant_and_rare_targets_are_fitted_and_change_no_other():
    inputs, labels = targets()
    rare = np.column_stack([np.zeros(150), np.ones(150), np.arange(150) == 3]).astype(int)
    both, cv = np.column_stack([rare, labels]), LinearProbeCV(LAMS, select="auroc")
    for model in (LinearProbe(LAM), cv):
        others = clone(model).fit(inputs, labels)
        model.fit(inputs, both)
        assert model.predict_proba(inputs)[:, :2].tolist() == [[0, 1]] * 150
        assert not model.coef_[:2].any()
        for name in ("coef_", "intercept_", "gap_"):
            np.testing.assert_allclose(getattr(model, name)[3:], getattr(others, name), atol=1e-6)
    # The first fold leaves the only positive example out, so its fit without it is constant.
    assert cv.fold_loss_[0, :, 2].tolist() == [pytest.approx(1e4 / 30)] * 4
    assert cv.fold_loss_[1:, :, 2].max() < 1
    assert np.isnan(cv.fold_auroc_[1:, :, 2]).all()


def test_a_fit_of_targets_starts_from_the_last_one_and_a_short_one_warns():
    inputs, labels = targets()
    probe = LinearProbe(LAM, warm_start=True).fit(inputs, labels)
    first, weights = probe.n_iter_, probe.coef_
    probe.fit(inputs, labels)
    assert probe.n_iter_.sum() <= first.sum() / 2
    np.testing.assert_allclose(probe.coef_, weights, atol=1e-6)
    with pytest.warns(ConvergenceWarning, match=r"lam 1e-06, target \d: .*max_iter"):
        LinearProbe(1e-6, max_iter=3).fit(inputs, labels)


def test_impossible_targets_are_value_errors_in_one_line():
    inputs, labels = targets()
    unknown, alone = labels.copy(), labels.copy()
    unknown[:, 1] = -1
    alone[30:, 1] = -1  # in one fold
    wrong = {"has 2": 2 * labels, "known label of target 1": unknown, "U": labels.astype(str)}
    for message, y in wrong.items():
        with pytest.raises(ValueError, match=message) as error:
            LinearProbe().fit(inputs, y)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="target 1: no fold"):
        LinearProbeCV(LAMS).fit(inputs, alone)
    with pytest.raises(ValueError, match="sample_weight"):
        LinearProbeCV(LAMS).fit(inputs, labels, np.ones(150))
    with pytest.raises(ValueError, match="select"):
        LinearProbeCV(LAMS, select="auroc").fit(*IRIS)
    with pytest.raises(ValueError, match="lam has shape"):
        LinearProbe([0.1, 0.2]).fit(inputs, labels)
