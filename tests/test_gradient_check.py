"""The gradient check: it passes the right gradients, and it catches the wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from linear_cifar import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY as BINARY,
    InputError,
    Params,
    autodiff_gradient,
    cost_gradient,
    numerical_gradient,
    relative_error,
)
from tests import oracle
from tests.conftest import assert_close

JITTED = {
    function: jax.jit(function, static_argnames="loss")
    for function in (numerical_gradient, cost_gradient, autodiff_gradient)
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def problem():
    """Parameters, inputs and labels of 20 digits, among which some features are 0 throughout."""
    inputs, labels = load_digits(return_X_y=True)
    deviation = inputs.std(axis=0)
    inputs = (inputs / np.where(deviation == 0, 1, deviation))[:20]
    rng = np.random.default_rng(0)
    params = Params(0.01 * rng.normal(size=(10, inputs.shape[1])), 0.01 * rng.normal(size=10))
    return params, inputs, labels[:20]


def gradients(*arguments):
    """The numerical gradient and the one derived by hand."""
    return JITTED[numerical_gradient](*arguments), JITTED[cost_gradient](*arguments)


@each_loss
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_differences_match_numpy_and_the_right_gradients_pass(loss, lam):
    arguments = (*problem(), lam, loss)
    numerical, by_hand = gradients(*arguments)
    params, *data = problem()
    expected = oracle.cost_gradient(*params, *data, lam, loss.name)
    for result, array in zip(numerical, expected, strict=True):
        np.testing.assert_allclose(result, array, atol=1e-12)
    assert relative_error(by_hand, numerical) <= 1e-6
    assert relative_error(by_hand, JITTED[autodiff_gradient](*arguments)) <= 1e-10


@each_loss
def test_one_coefficient_off_by_a_part_in_100000_is_caught(loss):
    numerical, by_hand = gradients(*problem(), 0.1, loss)
    flat, unflatten = jax.flatten_util.ravel_pytree(by_hand)
    order = np.argsort(np.abs(flat))
    for entry in (order[0], order[len(order) // 2], order[-1], len(flat) - 3):  # this is a bias
        wrong = unflatten(flat.at[entry].multiply(1 + 1e-5))
        assert relative_error(wrong, numerical) > 1e-6


def test_printed_bce_derivative_fails_the_check():
    def printed(scores, labels):
        y, p = jax.nn.one_hot(labels, 10, dtype=scores.dtype), jax.nn.sigmoid(scores)
        return -((1 - y) * (1 / (1 - p) - 1) + y * (1 - p)) / 10

    numerical, wrong = gradients(*problem(), 0.1, BINARY._replace(logit_gradient=printed))
    assert relative_error(wrong, numerical) > 0.1


@pytest.mark.parametrize(
    "bug",
    [
        lambda _, right: Params(10 * right.weights, right.bias),  # 1/K in the bias alone
        lambda _, right: Params(right.weights, 10 * right.bias),
        lambda params, right: right._replace(weights=right.weights - 0.1 * params.weights),  # ½λ
        lambda _, right: jax.tree.map(lambda g: 2 * g, right),  # differences over h, not 2h
        lambda params, right: right._replace(bias=right.bias + 0.2 * params.bias),  # penalised
        lambda _, right: right._replace(weights=right.weights.at[0, 0].set(jnp.nan)),
    ],
)
def test_known_bugs_fail_the_check(bug):
    numerical, right = gradients(*problem(), 0.1, BINARY)
    assert not relative_error(bug(problem()[0], right), numerical) <= 1e-3


def test_the_relative_error_is_the_largest_over_weights_and_biases():
    a = Params(np.array([[1.0, 0.0]]), np.array([2.0]))
    b = Params(np.array([[1.1, 0.2]]), np.array([2.0]))
    assert_close(relative_error(a, b, epsilon=0.8), 0.25)
    assert_close(relative_error(a, b, epsilon=8.0), 0.2 / 8)
    assert_close(relative_error(a, b._replace(bias=np.array([6.0])), epsilon=0.8), 0.5)


def test_float32_is_refused():
    params, inputs, labels = problem()
    with pytest.raises(InputError, match="float64"):
        numerical_gradient(params, inputs.astype(np.float32), labels, 0.0)
    with jax.enable_x64(False), pytest.raises(InputError, match="float64"):
        numerical_gradient(params, inputs, labels, 0.0)
