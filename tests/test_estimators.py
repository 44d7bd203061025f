"""The estimators: scikit-learn's own checks, and its own optimum."""

import importlib.util
import os
import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from linear_cifar.estimators import LinearProbe, LinearProbeCV
from linear_cifar.losses import LOSSES
from linear_cifar.penalties import elsewhere

LAM = 0.01
LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": partial(load_digits, n_class=4),
}
PANDAS = importlib.util.find_spec("pandas")
# What scikit-learn itself leaves out, for want of another library or of a variable.
NEED_PANDAS = {"check_sample_weights_pandas_series", "check_classifier_data_not_an_array"}
NEED_ARRAY_API = {"check_array_api_input"}


def load(name):
    """At most 500 examples, so that most fits here share their programs."""
    inputs, labels = LOADERS[name](return_X_y=True)
    return inputs[:500], labels[:500]


@pytest.fixture(scope="module")
def iris():
    return load("iris")


def theirs(lam, n, n_classes, loss="softmax"):
    strength = elsewhere(lam, n, n_classes, LOSSES[loss]).C.item()
    return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-13, max_iter=1000)


def assert_same_coefficients(ours, other, relative=1e-5):
    for name in ("coef_", "intercept_"):
        mine, expected = getattr(ours, name), getattr(other, name)
        assert mine.shape == expected.shape
        difference = mine - expected
        if name == "intercept_" and len(mine) > 1:  # of softmax it is free up to a constant
            difference = difference - difference.mean()
        assert np.linalg.norm(difference) <= relative * np.linalg.norm(expected)


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
def test_all_of_scikit_learn_s_checks_pass_and_none_is_left_out_unsaid(estimator):
    done = check_estimator(estimator, on_skip=None)
    expected = set() if PANDAS else NEED_PANDAS
    if not os.environ.get("SCIPY_ARRAY_API"):
        expected = expected | NEED_ARRAY_API
    assert {check["check_name"] for check in done if check["status"] == "skipped"} == expected
    assert sum(check["status"] == "passed" for check in done) == len(done) - len(expected) >= 60


@pytest.mark.parametrize("scaled", [False, True], ids=["as they come", "standardised"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "digits" else n for n in LOADERS]
)
def test_coefficients_are_scikit_learn_s(name, scaled):
    inputs, labels = load(name)
    other = theirs(LAM, len(labels), labels.max() + 1)
    ours = LinearProbe(LAM)
    if scaled:
        models = [make_pipeline(StandardScaler(), model) for model in (ours, other)]
        ours, other = (model.fit(inputs, labels)[-1] for model in models)
    else:
        ours, other = ours.fit(inputs, labels), other.fit(inputs, labels)
    assert_same_coefficients(ours, other)
    assert 0 < ours.gap_ <= 1e-18 * ours.cost_
    features = StandardScaler().fit_transform(inputs) if scaled else inputs
    for method in ("decision_function", "predict_proba", "predict"):
        mine, expected = (getattr(model, method)(features) for model in (ours, other))
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


def test_multi_bce_is_one_against_the_rest(iris):
    ours = LinearProbe(LAM, loss="multi_bce").fit(*iris)
    other = OneVsRestClassifier(theirs(LAM, 150, 3, "multi_bce")).fit(*iris)
    for k, of_class in enumerate(other.estimators_):
        np.testing.assert_allclose(ours.coef_[k], of_class.coef_[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_[k], of_class.intercept_[0], rtol=1e-5)
    probabilities = ours.predict_proba(iris[0])
    np.testing.assert_allclose(probabilities, other.predict_proba(iris[0]), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_classes_have_one_vector_in_either_loss(iris, loss):
    inputs, labels = iris[0][50:], np.array(["no", "yes"])[iris[1][50:] - 1]
    ours = LinearProbe(LAM, loss=loss).fit(inputs, labels)
    other = theirs(LAM, 100, 2, loss).fit(inputs, labels)
    assert_same_coefficients(ours, other)
    assert ours.predict(inputs).tolist() == other.predict(inputs).tolist()
    np.testing.assert_allclose(ours.predict_proba(inputs), other.predict_proba(inputs), atol=1e-6)
    assert ours.decision_function(inputs).shape == (100,)


def test_log_probabilities_do_not_underflow(iris):
    for loss in LOSSES:
        probe = LinearProbe(loss=loss).fit(*iris)
        far = 1e4 * (iris[0][:5] - iris[0].mean(axis=0))
        assert np.isfinite(probe.predict_log_proba(far)).all()
        assert np.isfinite(probe.predict_proba(far)).all()


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 5.0, 2: 0.5}])
def test_weights_are_repetitions_and_scikit_learn_s(iris, class_weight):
    inputs, labels = iris
    weights = np.arange(150) % 4
    repeated = np.repeat(np.arange(150), weights)
    weighted = LinearProbe(LAM, class_weight=class_weight).fit(inputs, labels, weights)
    again = LinearProbe(LAM, class_weight=class_weight).fit(inputs[repeated], labels[repeated])
    assert_same_coefficients(weighted, again, relative=1e-7)
    assert weighted.cost_ == pytest.approx(again.cost_, rel=1e-12)
    # λ is per total weight, and that of scikit-learn's includes the classes'.
    other = theirs(LAM, len(repeated), 3).set_params(class_weight=class_weight)
    if isinstance(class_weight, dict):
        total = sum(class_weight[label] for label in labels[repeated])
        other.set_params(C=1 / (2 * LAM * total))
    assert_same_coefficients(weighted, other.fit(inputs, labels, weights))


def test_filling_up_and_what_has_no_weight_change_nothing(iris, monkeypatch):
    filled = LinearProbe(LAM).fit(*iris)
    monkeypatch.setattr("linear_cifar.estimators.examples._SMALL", 0)
    assert_same_coefficients(LinearProbe(LAM).fit(*iris), filled, relative=1e-7)


def test_float32_stays_float32(iris):
    single = LinearProbe(LAM).fit(iris[0].astype(np.float32), iris[1])
    assert {single.coef_.dtype, single.intercept_.dtype} == {np.dtype(np.float32)}
    assert single.predict_proba(iris[0].astype(np.float32)).dtype == np.float32
    assert single.gap_ <= 1e-6 * single.cost_
    assert_same_coefficients(single, LinearProbe(LAM).fit(*iris), relative=1e-3)


def test_an_offset_of_the_features_moves_the_bias_alone(iris):
    moved = LinearProbe(LAM).fit(iris[0] + 1e6, iris[1])
    np.testing.assert_allclose(moved.coef_, LinearProbe(LAM).fit(*iris).coef_, rtol=1e-6)


def test_a_warm_start_is_there_at_once_and_ends_at_the_same_optimum(iris):
    cold = LinearProbe(LAM).fit(*iris)
    warm = clone(cold).set_params(warm_start=True).fit(*iris)
    coef = warm.coef_
    assert warm.n_iter_ == cold.n_iter_
    warm.fit(*iris)
    assert warm.n_iter_ <= 4 < cold.n_iter_
    np.testing.assert_allclose(warm.coef_, coef, rtol=1e-7)
    assert_same_coefficients(warm.set_params(lam=0.02).fit(*iris), LinearProbe(0.02).fit(*iris))
    # Other classes or features begin anew.
    warm.fit(iris[0][50:, :3], iris[1][50:])
    assert_same_coefficients(warm, LinearProbe(0.02).fit(iris[0][50:, :3], iris[1][50:]))
    assert warm.fit(iris[0][50:, :3], iris[1][50:]).n_iter_ <= 4


def test_it_is_pickled_cloned_and_searched_in_a_pipeline(iris):
    model = make_pipeline(StandardScaler(), LinearProbe())
    grid = {"linearprobe__lam": [1e-4, 10.0], "linearprobe__loss": ["softmax"]}
    search = GridSearchCV(model, grid, cv=3).fit(*iris)
    assert search.best_params_["linearprobe__lam"] == 1e-4
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict_proba(iris[0]), search.predict_proba(iris[0]))
    assert not hasattr(clone(search.best_estimator_[-1]), "coef_")
    other = make_pipeline(StandardScaler(), theirs(1e-4, 150, 3)).fit(*iris)
    assert search.score(*iris) == other.score(*iris)


# With scikit-learn's own containers where pandas isn't installed.
@pytest.mark.parametrize("output", ["default", *(["pandas"] if PANDAS else [])])
def test_a_pipeline_s_containers_keep_the_names_of_features(iris, output):
    inputs = load_iris(as_frame=True).data if output == "pandas" else iris[0]
    model = make_pipeline(StandardScaler(), LinearProbe()).set_output(transform=output)
    probe = model.fit(inputs, iris[1])[-1]
    assert hasattr(probe, "feature_names_in_") == (output == "pandas")
    assert list(getattr(probe, "feature_names_in_", [])) == list(getattr(inputs, "columns", []))


def test_what_is_not_reached_is_warned_of(iris):
    with pytest.warns(ConvergenceWarning, match=r"^lam 1e-06: the cost is certified to be within"):
        probe = LinearProbe(1e-6, max_passes=3).fit(*iris)
    assert probe.gap_ > 1e-18 * probe.cost_
    assert probe.n_iter_ <= 4


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearProbe(0.0), "^lam is 0: without a penalty the cost may have no minimum$"),
        (LinearProbe(-1.0), "^lam is -1.0: it has to be above 0$"),
        (LinearProbe(loss="hinge"), "^loss is 'hinge': it has to be one of softmax, multi_bce$"),
        (LinearProbe(class_weight="equal"), "class_weight"),
        (LinearProbe(tolerance=0.0), "^tolerance is 0.0: it has to be above 0"),
        (LinearProbeCV(lams=[0.1, 0.0]), "^lam is 0: without a penalty"),
        (LinearProbeCV(lams=0.1), r"^lam has to be a list of values, \[C\]"),
        (LinearProbeCV(select="f1"), "^select is 'f1': it has to be accuracy or loss$"),
    ],
)
def test_settings_out_of_range_are_value_errors_of_one_line(iris, estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(*iris)


def test_data_that_cannot_be_fitted_are_refused(iris):
    inputs, labels = iris
    with pytest.raises(ValueError, match=r"at least 2 classes.* only one class: a$"):
        LinearProbe().fit(inputs, np.full(150, "a"))
    with pytest.raises(ValueError, match=r"only one class: 1$"):
        LinearProbe().fit(inputs, labels, sample_weight=labels == 1)
    splits = [(np.arange(100), np.arange(100, 150))]
    with pytest.raises(ValueError, match="fold 0 leaves out have no weight"):
        LinearProbeCV(cv=splits).fit(inputs, labels, sample_weight=labels < 2)


@pytest.mark.parametrize(
    "cv",
    [3, pytest.param(KFold(3, shuffle=True, random_state=1), marks=pytest.mark.slow)],
    ids=["stratified", "a splitter"],
)
def test_the_cross_validation_is_a_loop_s(iris, cv):
    lams = (1e-4, 0.01, 1.0, 100.0)
    chosen = LinearProbeCV(lams, cv=cv).fit(*iris)
    for score, means in (
        ("accuracy", chosen.fold_accuracy_),
        ("neg_log_loss", -chosen.fold_loss_),
    ):
        loop = [cross_val_score(LinearProbe(lam), *iris, cv=cv, scoring=score) for lam in lams]
        np.testing.assert_allclose(means, np.transpose(loop), rtol=1e-6, atol=1e-8)
    assert chosen.lam_ == lams[chosen.fold_accuracy_.mean(axis=0).argmax()]
    by_loss = LinearProbeCV(lams, cv=cv, select="loss").fit(*iris)
    assert by_loss.lam_ == lams[chosen.fold_loss_.mean(axis=0).argmin()]
    assert_same_coefficients(chosen, LinearProbe(chosen.lam_).fit(*iris), relative=1e-7)


def test_folds_have_weights_of_their_own_and_may_be_shuffled(iris):
    lams, weights = (1e-4, 0.01, 1.0, 100.0), 1.0 + np.arange(150) % 3
    folds = list(StratifiedKFold(3, shuffle=True, random_state=5).split(*iris))
    how = {"class_weight": "balanced", "select": "loss"}
    shuffled = LinearProbeCV(lams, cv=3, random_state=5, **how).fit(*iris, weights)
    given = LinearProbeCV(lams, cv=folds, **how).fit(*iris, weights)
    np.testing.assert_array_equal(shuffled.fold_loss_, given.fold_loss_)
    for (train, test), losses in zip(folds, given.fold_loss_, strict=True):
        alone = LinearProbe(1.0, class_weight="balanced")
        alone.fit(iris[0][train], iris[1][train], weights[train])
        chosen = alone.predict_log_proba(iris[0][test])[np.arange(len(test)), iris[1][test]]
        assert losses[2] == pytest.approx(-np.average(chosen, weights=weights[test]), rel=1e-6)


def test_one_standard_error_chooses_the_largest_lambda_within_it(iris):
    lams, data = np.array([1e-4, 1e-3, 0.1, 1.0]), (iris[0][:, :2], iris[1])
    best = LinearProbeCV(lams, cv=3, select="loss").fit(*data)
    simple = LinearProbeCV(lams, cv=3, select="loss", one_standard_error=True).fit(*data)
    mean, spread = best.fold_loss_.mean(axis=0), best.fold_loss_.std(axis=0, ddof=1)
    least = mean.argmin()
    limit = mean[least] + spread[least] / np.sqrt(3)
    assert simple.lam_ == lams[mean <= limit].max() > best.lam_ == lams[least]
