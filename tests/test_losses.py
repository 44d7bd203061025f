"""The mathematics: losses, the linear model and the objective, against NumPy in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import linear_cifar as lc
from linear_cifar import LOSSES, InputError, Params, predict
from tests import oracle
from tests.conftest import assert_close, each_loss


@partial(jax.jit, static_argnums=0)
def results(loss, scores, labels):
    """Value, gradient, gradient by autodiff, and probabilities: one program, compiled once."""
    by_autodiff = jax.grad(lambda s: loss.value(s, labels).sum())(scores)
    gradients = (loss.logit_gradient(scores, labels), by_autodiff)
    return loss.value(scores, labels), *gradients, loss.probabilities(scores)


each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(n_classes=5, n=6, dtype=np.float64):
    rng = np.random.default_rng(1)
    return 3 * rng.normal(size=(n, n_classes)).astype(dtype), rng.integers(0, n_classes, n)


def check_loss(loss):
    """A new loss in `LOSSES` is checked without a new test, by its definition in `oracle`."""
    check_definition(loss)
    check_leading_shapes(loss)
    check_extreme_logits(loss)
    check_nan_logits(loss)
    check_labels(loss)


def check_definition(loss):
    for dtype in (np.float32, np.float64):
        scores, labels = draw(dtype=dtype)
        values, gradient = oracle.losses_and_gradient(scores.astype(float), labels, loss.name)
        probabilities = oracle.LINKS[loss.name](scores.astype(float))
        expected = (values, gradient, gradient, probabilities)
        for result, array in zip(results(loss, scores, labels), expected, strict=True):
            assert result.dtype == dtype
            assert_close(result, array)
    assert loss.exclusive == np.allclose(probabilities.sum(axis=1), 1)


def check_leading_shapes(loss):
    scores, labels = draw()
    expected = results(loss, scores, labels)
    by_example = jax.jit(jax.vmap(partial(results, loss)))(scores, labels)
    jax.tree.map(assert_close, by_example, expected)
    by_pairs = results(loss, scores.reshape(3, 2, -1), labels.reshape(3, 2))
    for result, array in zip(by_pairs, expected, strict=True):
        assert_close(result, np.reshape(array, result.shape))


def check_extreme_logits(loss):
    extreme = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]])
    scores, labels = np.repeat(extreme, 3, axis=0), np.tile(np.arange(3), 3)
    values, gradient = oracle.losses_and_gradient(scores, labels, loss.name)
    for dtype in (np.float32, np.float64):
        actual = results(loss, scores.astype(dtype), labels)
        for result, array in zip(actual[:3], (values, gradient, gradient), strict=True):
            assert_close(result, array)


def check_nan_logits(loss):
    scores, labels = draw()
    scores[1, labels[1]] = scores[3, labels[3] - 1] = np.nan
    value, gradient, *_ = results(loss, scores, labels)
    for array in (np.isnan(value), np.isnan(gradient).any(axis=1)):
        assert np.flatnonzero(array).tolist() == [1, 3]


def check_labels(loss):
    for dtype, n_classes, right, wrong in (
        ("int32", 10, [0, 9], [-1, 10, 99]),
        ("uint8", 256, [0, 200, 255], []),
        ("int8", 200, [0, 127], [-1, -56]),
        ("int64", 3, [2], [2**32, 2**32 + 1, -(2**32)]),
        ("uint64", 3, [2], [2**64 - 1]),
    ):
        labels, n = np.array(right + wrong, dtype), len(right)
        scores = draw(n_classes, len(labels))[0]
        expected = oracle.losses_and_gradient(scores[:n], right, loss.name)
        # Without x64 mode JAX itself cuts its arrays of 64-bit integers, before we see them.
        for x64, y in ((True, jnp.asarray(labels)), (False, labels)):
            both = jax.jit(lambda s, y=y: (loss.value(s, y), loss.logit_gradient(s, y)))
            with jax.enable_x64(x64):
                actual = map(np.asarray, both(scores))
            for result, array in zip(actual, expected, strict=True):
                assert_close(result[:n], array)
                assert np.isnan(result[n:]).all(), (dtype, wrong)
    scores, labels = draw()
    for wrong in (labels * 1.0, labels == 0, np.eye(5, dtype=int)[labels], labels[:3]):
        for function in (loss.value, loss.logit_gradient):
            with pytest.raises(InputError, match="labels"):
                function(scores, wrong)


@each_loss
def test_every_loss_passes_each_check_of_a_loss(loss):
    check_loss(loss)


SOFTMAX, BINARY = LOSSES["softmax"], LOSSES["multi_bce"]


@pytest.mark.parametrize(
    "broken",
    [
        BINARY._replace(logit_gradient=lambda s, y: 5 * BINARY.logit_gradient(s, y)),  # no 1/K
        BINARY._replace(exclusive=True),
        SOFTMAX._replace(value=lambda s, y: SOFTMAX.value(jnp.nan_to_num(s), y)),
    ],
)
def test_a_broken_loss_fails_a_check(broken):
    with pytest.raises(AssertionError):
        check_loss(broken)


def test_initial_weights_and_biases_are_independent_normal_draws_with_their_scale():
    params = lc.init_params(jax.random.key(0), 20, 1000, scale=0.02)
    assert (params.weights.shape, params.bias.shape) == ((1000, 20), (1000,))
    for draws in params:
        assert stats.kstest(np.ravel(draws) / 0.02, "norm").pvalue > 0.01
    assert abs(np.corrcoef(params.weights[:, 0], params.bias)[0, 1]) < 0.1
    default = lc.init_params(jax.random.key(1), 20, 1000)
    assert np.std(default.bias) == pytest.approx(0.01, rel=0.1)
    assert not np.allclose(2 * default.bias, params.bias)


def draw_problem(dtype):
    rng = np.random.default_rng(3)
    arrays = (0.3 * rng.normal(size=(5, 23)), rng.normal(size=5), rng.normal(size=(37, 23)))
    return *(a.astype(dtype) for a in arrays), rng.integers(0, 5, 37)


@each_dtype
@pytest.mark.parametrize("lead", [(), (37,), (2, 3)])
def test_logits_are_wx_plus_b_and_the_largest_is_predicted(dtype, lead):
    weights, bias, inputs, _ = draw_problem(dtype)
    inputs = inputs[: int(np.prod(lead))].reshape(*lead, 23)
    scores = lc.logits(Params(weights, bias), inputs)
    assert scores.dtype == dtype
    expected = inputs.astype(float) @ weights.T.astype(float) + bias
    assert_close(scores, expected)
    assert np.array_equal(predict(Params(weights, bias), inputs), expected.argmax(axis=-1))


def test_an_example_without_finite_logits_is_predicted_as_minus_1_and_ties_go_first():
    params = Params(jnp.eye(3), jnp.zeros(3))
    inputs = jnp.array([[1.0, 1, 0], [jnp.nan, 0, 0], [0, 0, -jnp.inf], [0, 2, 0]])
    assert jax.jit(predict)(params, inputs).tolist() == [0, -1, -1, 1]


@each_loss
@each_dtype
def test_cost_and_gradient_match_numpy_under_jit_and_vmap(loss, dtype):
    weights, bias, inputs, labels = draw_problem(dtype)
    lams = np.array([0.0, 0.7], dtype)

    @jax.jit
    @jax.vmap
    def runs(lam):
        problem = (Params(weights, bias), inputs, labels, lam, loss)
        return lc.cost(*problem), (lc.cost_gradient(*problem), lc.autodiff_gradient(*problem))

    costs, gradients = runs(lams)
    for i, lam in enumerate(lams):
        exact = (*(a.astype(float) for a in (weights, bias, inputs)), labels, lam, loss.name)
        assert_close(costs[i], oracle.measure(*exact)[1])
        for gradient in gradients:
            for result, expected in zip(gradient, oracle.cost_gradient(*exact), strict=True):
                assert result.dtype == dtype
                assert_close(result[i], expected)
