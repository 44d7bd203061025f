"""The gradient check: it passes the right gradients, and it catches the wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from linear_cifar import gradient_check
from linear_cifar.errors import InputError
from linear_cifar.gradient_check import relative_error
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY as BINARY
from linear_cifar.model import Params, init_params
from linear_cifar.objective import autodiff_gradient, cost, cost_gradient
from tests.conftest import assert_close

numerical_gradient = jax.jit(gradient_check.numerical_gradient, static_argnames="loss")
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def problem(n=20, n_features=None):
    inputs, labels = load_digits(return_X_y=True)
    deviation = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(deviation == 0, 1, deviation)
    varying = inputs[:n, deviation > 1][:, :n_features]
    params = init_params(jax.random.key(0), varying.shape[1], 10, dtype=jnp.float64)
    return params, jnp.asarray(varying), jnp.asarray(labels[:n])


@each_loss
def test_differences_by_logit_equal_differences_of_the_cost(loss):
    params, inputs, labels = problem(n_features=8)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    cost_at = jax.jit(lambda vector: cost(unflatten(vector), inputs, labels, 0.1, loss))
    moves = 1e-5 * np.eye(len(flat))
    expected = [(cost_at(flat + move) - cost_at(flat - move)) / 2e-5 for move in moves]
    numerical = numerical_gradient(params, inputs, labels, 0.1, loss)
    flat_numerical = jax.flatten_util.ravel_pytree(numerical)[0]
    np.testing.assert_allclose(flat_numerical, expected, atol=1e-9)


@each_loss
@pytest.mark.parametrize(("lam", "n"), [(0.0, 20), (0.1, 1)])
def test_the_hand_derived_gradient_passes_in_every_coefficient(loss, lam, n):
    arguments = (*problem(n), lam, loss)
    by_hand = cost_gradient(*arguments)
    assert relative_error(by_hand, numerical_gradient(*arguments)) <= 1e-6
    assert relative_error(by_hand, autodiff_gradient(*arguments)) <= 1e-10


@each_loss
def test_one_coefficient_off_by_a_part_in_100000_is_caught(loss):
    arguments = (*problem(), 0.1, loss)
    numerical = numerical_gradient(*arguments)
    flat, unflatten = jax.flatten_util.ravel_pytree(cost_gradient(*arguments))
    order = np.argsort(np.abs(flat))
    for entry in (order[0], order[len(order) // 2], order[-1], len(flat) - 3):  # this is a bias
        wrong = unflatten(flat.at[entry].multiply(1 + 1e-5))
        assert relative_error(wrong, numerical) > 1e-6


def test_printed_bce_derivative_fails_the_check():
    def printed(scores, labels):
        y, p = jax.nn.one_hot(labels, 10, dtype=scores.dtype), jax.nn.sigmoid(scores)
        return -((1 - y) * (1 / (1 - p) - 1) + y * (1 - p)) / 10

    arguments, wrong = (*problem(), 0.0), BINARY._replace(logit_gradient=printed)
    numerical = numerical_gradient(*arguments, BINARY)
    assert relative_error(cost_gradient(*arguments, BINARY), numerical) <= 1e-6
    assert relative_error(cost_gradient(*arguments, wrong), numerical) > 0.1


def test_known_bugs_fail_the_check():
    params, *data = problem()
    right = cost_gradient(params, *data, 0.1, BINARY)
    numerical = numerical_gradient(params, *data, 0.1, BINARY)
    bugs = {
        "1/K in the bias alone": Params(10 * right.weights, right.bias),
        "half the penalty": right._replace(weights=right.weights - 0.1 * params.weights),
        "differences over h, not 2h": jax.tree.map(lambda g: 2 * g, right),
        "penalised bias": right._replace(bias=right.bias + 0.2 * params.bias),
        "NaN": right._replace(weights=right.weights.at[0, 0].set(jnp.nan)),
    }
    for name, wrong in bugs.items():
        assert not relative_error(wrong, numerical) <= 1e-3, name


def test_the_relative_error_is_the_largest_over_weights_and_biases():
    a = Params(jnp.array([[1.0, 0.0]]), jnp.array([2.0]))
    b = Params(jnp.array([[1.1, 0.2]]), jnp.array([2.0]))
    assert_close(relative_error(a, b, epsilon=0.8), 0.25)
    assert_close(relative_error(a, b, epsilon=8.0), 0.2 / 8)
    assert_close(relative_error(a, b._replace(bias=jnp.array([6.0])), epsilon=0.8), 0.5)


def test_float32_is_refused():
    params, inputs, labels = problem(n_features=4)
    with pytest.raises(InputError, match="float64"):
        numerical_gradient(params, inputs.astype(jnp.float32), labels, 0.0)
    arrays = jax.tree.map(np.asarray, (params, inputs, labels))
    with jax.enable_x64(False), pytest.raises(InputError, match="float64"):
        gradient_check.numerical_gradient(*arrays, 0.0)
