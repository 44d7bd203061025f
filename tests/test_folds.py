"""Cross-validation: how examples are dealt out, and against scikit-learn."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from linear_cifar import cross_validate, dataset_from_arrays
from linear_cifar.optimum.folds import stratified_folds
from linear_cifar.settings import SettingsError


@pytest.mark.parametrize("n_folds", [2, 3, 7, 50])
def test_folds_and_the_classes_in_them_have_even_sizes(n_folds):
    labels = np.repeat([0, 1, 2], [23, 17, 10])
    folds = stratified_folds(jax.random.key(1), labels, n_folds)
    assert np.ptp(np.bincount(folds, minlength=n_folds)) <= 1
    for k in range(3):
        assert np.ptp(np.bincount(folds[labels == k], minlength=n_folds)) <= 1
    assert np.array_equal(folds, stratified_folds(jax.random.key(1), labels, n_folds))
    assert not np.array_equal(folds, stratified_folds(jax.random.key(2), labels, n_folds))


@pytest.mark.parametrize("n_folds", [1, 51, 0])
def test_a_number_of_folds_that_there_can_not_be_is_refused(n_folds):
    with pytest.raises(SettingsError, match=f"n_folds is {n_folds}: it has to be from 2 to 50"):
        stratified_folds(jax.random.key(0), np.arange(50) % 2, n_folds)


@pytest.mark.slow
def test_every_fold_has_the_figures_of_a_fit_without_it():
    inputs, labels = load_digits(return_X_y=True)
    data = dataset_from_arrays((inputs[:300], labels[:300]))
    lam, key = np.array([0.003, 0.3]), jax.random.key(0)
    found = cross_validate(key, lam, data, 3, tolerance=1e-8)
    assert found.converged.all()
    folds = stratified_folds(key, data.train.labels, 3)
    features = (data.train.inputs - data.standardiser.mean) / data.standardiser.scale
    for fold in range(3):
        fitted = folds != fold
        for i, value in enumerate(lam):
            model = LogisticRegression(C=1 / (2 * value * fitted.sum()), tol=1e-10, max_iter=9999)
            model.fit(features[fitted], data.train.labels[fitted])
            left = features[~fitted], data.train.labels[~fitted]
            assert found.accuracy[fold, i] == pytest.approx(model.score(*left), abs=0.011)
            expected = log_loss(left[1], model.predict_proba(left[0]), labels=range(10))
            assert found.loss[fold, i] == pytest.approx(expected, rel=1e-3)
