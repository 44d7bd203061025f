import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close

from linear_cifar import gradient_check
from linear_cifar.gradient_check import EPSILON, relative_error
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY
from linear_cifar.model import Params, init_params
from linear_cifar.objective import cost, cost_gradient

numerical_gradient = jax.jit(gradient_check.numerical_gradient, static_argnames="loss")
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def case(dataset, n=20, n_features=None):
    inputs = dataset.standardiser(jnp.asarray(dataset.train.inputs[:n]), jnp.float64)
    inputs = inputs[:, :n_features]
    params = init_params(jax.random.key(0), inputs.shape[1], 10, dtype=jnp.float64)
    return params, inputs, jnp.asarray(dataset.train.labels[:n])


def black_box_gradient(f, params, h=1e-5):
    """Differences of the whole cost, one entry of a copy at a time, in NumPy."""
    flat = np.concatenate([np.ravel(a) for a in params])
    gradient = np.empty_like(flat)

    def value(vector):
        size = params.weights.size
        return float(f(Params(vector[:size].reshape(params.weights.shape), vector[size:])))

    for i in range(len(flat)):
        up, down = flat.copy(), flat.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (value(up) - value(down)) / (2 * h)
    return gradient


@each_loss
def test_differences_by_logit_equal_differences_of_the_whole_cost(small, loss):
    params, inputs, labels = case(small, n_features=8)
    f = jax.jit(lambda p: cost(p, inputs, labels, 0.1, loss))
    numerical = numerical_gradient(params, inputs, labels, 0.1, loss)
    flat = np.concatenate([np.ravel(a) for a in numerical])
    np.testing.assert_allclose(flat, black_box_gradient(f, params), atol=1e-9)


@each_loss
@pytest.mark.parametrize(("lam", "n"), [(0.0, 20), (0.1, 1)])
def test_hand_derived_gradient_passes_in_every_coefficient(small, loss, lam, n):
    params, inputs, labels = case(small, n)
    by_hand = cost_gradient(params, inputs, labels, lam, loss)
    numerical = numerical_gradient(params, inputs, labels, lam, loss)
    assert numerical.weights.shape == (10, small.n_features)
    assert relative_error(by_hand, numerical) <= 1e-6
    by_autodiff = jax.grad(cost)(params, inputs, labels, lam, loss)
    assert relative_error(by_hand, by_autodiff) <= 1e-10


@each_loss
def test_one_coefficient_off_by_a_part_in_100000_is_caught(small, loss):
    params, inputs, labels = case(small)
    by_hand = cost_gradient(params, inputs, labels, 0.1, loss)
    numerical = numerical_gradient(params, inputs, labels, 0.1, loss)
    size = np.abs(by_hand.weights)
    # The smallest, a middling and the largest coefficient, and a bias.
    order = np.argsort(size, axis=None)
    for flat in (order[0], order[len(order) // 2], order[-1]):
        k, j = np.unravel_index(flat, size.shape)
        broken = by_hand._replace(weights=by_hand.weights.at[k, j].multiply(1 + 1e-5))
        assert relative_error(broken, numerical) > 1e-6
    broken = by_hand._replace(bias=by_hand.bias.at[3].multiply(1 - 1e-5))
    assert relative_error(broken, numerical) > 1e-6


def test_printed_bce_derivative_fails_the_check(small):
    def printed(scores, labels):
        y, p = jax.nn.one_hot(labels, 10, dtype=scores.dtype), jax.nn.sigmoid(scores)
        return -((1 - y) * (1 / (1 - p) - 1) + y * (1 - p)) / 10

    params, inputs, labels = case(small)
    right = MULTIPLE_BINARY_CROSS_ENTROPY
    numerical = numerical_gradient(params, inputs, labels, 0.0, right)
    assert relative_error(cost_gradient(params, inputs, labels, 0.0, right), numerical) <= 1e-6
    wrong = right._replace(logit_gradient=printed)
    assert relative_error(cost_gradient(params, inputs, labels, 0.0, wrong), numerical) > 0.1


def test_known_bugs_fail_the_check(small):
    params, inputs, labels = case(small)
    right = cost_gradient(params, inputs, labels, 0.1, MULTIPLE_BINARY_CROSS_ENTROPY)
    numerical = numerical_gradient(params, inputs, labels, 0.1, MULTIPLE_BINARY_CROSS_ENTROPY)
    bugs = {
        "1/K in the bias alone": Params(10 * right.weights, right.bias),
        "half the penalty": right._replace(weights=right.weights - 0.1 * params.weights),
        "differences over h, not 2h": jax.tree.map(lambda g: 2 * g, right),
        "penalised bias": right._replace(bias=right.bias + 0.2 * params.bias),
    }
    for name, wrong in bugs.items():
        assert relative_error(wrong, numerical) > 1e-3, name


def test_relative_error_is_the_report_s():
    a = Params(jnp.array([[1.0, 0.0]]), jnp.array([2.0]))
    b = Params(jnp.array([[1.1, EPSILON / 4]]), jnp.array([2.0]))
    assert_close(relative_error(a, b), 0.25)
    assert_close(relative_error(a, b, epsilon=1.0), 0.1 / 2.1)


def test_nan_does_not_pass(small):
    params, inputs, labels = case(small, n_features=4)
    numerical = numerical_gradient(params, inputs, labels, 0.0)
    broken = numerical._replace(weights=numerical.weights.at[0, 0].set(jnp.nan))
    assert not relative_error(broken, numerical) <= 1e-6


def test_float32_is_refused(small):
    params, inputs, labels = case(small, n_features=4)
    with pytest.raises(TypeError, match="float64"):
        numerical_gradient(params, inputs.astype(jnp.float32), labels, 0.0)
