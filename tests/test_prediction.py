"""What is certain of the exact optimum's predictions, against the optimum in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from linear_cifar.data import Split, dataset_from_arrays
from linear_cifar.losses import LOSSES, SOFTMAX_CROSS_ENTROPY
from linear_cifar.model import Params
from linear_cifar.optimum import solve
from linear_cifar.optimum.prediction import bias_distance, certain
from linear_cifar.settings import SettingsError

LAM = np.array([1e-3, 0.1, 1.0])


@pytest.fixture(scope="module")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs[:500], labels[:500]), test=(inputs[500:], labels[500:]))


def one(params, i):
    return Params(params.weights[i], params.bias[i])


def predictions(params, dataset):
    standardiser = dataset.standardiser
    inputs = (dataset.test.inputs - standardiser.mean) / standardiser.scale
    return np.argmax(inputs @ params.weights.T + params.bias, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_bounds_hold_and_what_is_certain_is_so(digits, loss):
    exact = solve(LAM, digits, loss=loss, tolerance=1e-13, dtype=jnp.float64)
    shares = []
    for tolerance in (1e-2, 1e-4, 1e-6, 1e-10):
        near = solve(LAM, digits, loss=loss, tolerance=tolerance, dtype=jnp.float64)
        for i, lam in enumerate(LAM):
            params, truth, distance = one(near.params, i), one(exact.params, i), near.distance[i]
            off = params.bias - truth.bias
            if loss is SOFTMAX_CROSS_ENTROPY:
                off = off - off.mean()
            bound = bias_distance(params, distance, lam, digits, loss)
            assert 0 < np.linalg.norm(off) <= bound
            sure = certain(params, distance, lam, digits, digits.test, loss)
            same = predictions(params, digits) == predictions(truth, digits)
            assert same[sure].all()
            shares.append(sure.mean())
    assert shares[0] < 0.5
    assert min(shares[-3:]) > 0.98


def test_the_bias_s_bound_is_that_of_the_proof(digits):
    found = solve([0.1], digits, tolerance=1e-3)
    params, distance, k = one(found.params, 0), found.distance[0], 10
    standardiser = digits.standardiser
    inputs = (digits.train.inputs - standardiser.mean) / standardiser.scale
    scores = inputs @ params.weights.T + params.bias
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    hessian = np.diag(p.mean(axis=0)) - p.T @ p / len(p)
    least = np.linalg.eigvalsh(hessian + np.ones((k, k)))[0]
    squares = (inputs**2).sum(axis=1)
    bound = bias_distance(params, distance, 0.1, digits, SOFTMAX_CROSS_ENTROPY)
    rho = 2 * (distance * np.sqrt(squares.max()) + bound)
    left = np.linalg.norm((p - np.eye(k)[digits.train.labels]).mean(axis=0))
    gained = 2 * 0.1 * distance**2 + left * bound
    right = 2 * gained * (1 + rho) + 2 * 0.5 * squares.mean() * distance**2
    assert least * bound**2 == pytest.approx(right, rel=1e-9)


@pytest.mark.slow
def test_without_a_bound_nothing_is_certain(digits):
    names = [str(k) for k in range(11)]
    empty = dataset_from_arrays((digits.train.inputs, digits.train.labels), class_names=names)
    found = solve([0.1], empty)
    params = one(found.params, 0)
    sure = certain(params, found.distance[0], 0.1, empty, digits.test, SOFTMAX_CROSS_ENTROPY)
    assert not sure.any()
    none = Split(digits.test.inputs[:0], digits.test.labels[:0])
    assert certain(params, 0.0, 0.1, empty, none, SOFTMAX_CROSS_ENTROPY).shape == (0,)
    other = SOFTMAX_CROSS_ENTROPY._replace(name="other", value=lambda *_: 0)
    with pytest.raises(SettingsError, match="no bound on the bias is known for the loss other"):
        certain(params, 0.1, 0.1, empty, digits.test, other)


def test_a_bias_that_is_not_optimal_is_within_its_bound_too(digits):
    found = solve([0.1], digits, tolerance=1e-13, dtype=np.float64)
    params = one(found.params, 0)
    off = 1e-3 * np.eye(10)[0]
    wrong = Params(params.weights, params.bias + off)
    bound = bias_distance(wrong, found.distance[0], 0.1, digits, SOFTMAX_CROSS_ENTROPY)
    assert np.linalg.norm(off - off.mean()) <= bound < 0.1
