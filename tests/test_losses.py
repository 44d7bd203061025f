import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from oracle import losses_and_gradient

from linear_cifar.losses import LOSSES

DTYPES = (jnp.float32, jnp.float64)
# Compiled once a shape, where eager operations would be compiled one by one.
VALUE, GRADIENT, PROBABILITIES = (
    jax.jit(lambda loss, *a, name=name: getattr(loss, name)(*a), static_argnums=0)
    for name in ("value", "logit_gradient", "probabilities")
)
SUM_GRADIENT = jax.jit(
    jax.grad(lambda loss, s, y: loss.value(s, y).sum(), argnums=1), static_argnums=0
)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "float64"))


def draw(shape=(7,), n_classes=10, dtype=jnp.float64, scale=3.0):
    rng = np.random.default_rng(1)
    scores = scale * rng.normal(size=(*shape, n_classes))
    return jnp.asarray(scores, dtype), jnp.asarray(rng.integers(0, n_classes, shape))


@each_loss
@each_dtype
def test_value_and_gradient_agree_with_the_definitions(loss, dtype):
    scores, labels = draw((50,), dtype=dtype)
    values, gradient = losses_and_gradient(np.asarray(scores, float), labels, loss.name)
    assert_close(VALUE(loss, scores, labels), values, dtype)
    assert_close(GRADIENT(loss, scores, labels), gradient, dtype)


@each_loss
def test_hand_derived_gradient_is_that_of_autodiff(loss):
    scores, labels = draw((50,))
    assert_close(GRADIENT(loss, scores, labels), SUM_GRADIENT(loss, scores, labels))


@each_loss
@each_dtype
def test_dtype_is_preserved(loss, dtype):
    scores, labels = draw(dtype=dtype)
    for function in (VALUE, GRADIENT):
        assert function(loss, scores, labels).dtype == dtype
    assert PROBABILITIES(loss, scores).dtype == dtype


@each_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_leading_shape_equals_a_loop(loss, shape):
    scores, labels = draw(shape)
    values, gradient = VALUE(loss, scores, labels), GRADIENT(loss, scores, labels)
    assert values.shape == shape
    assert gradient.shape == (*shape, 10)
    for index in np.ndindex(*shape):
        assert_close(values[index], VALUE(loss, scores[index], labels[index]))
        assert_close(gradient[index], GRADIENT(loss, scores[index], labels[index]))
    mapped = loss.value
    for _ in shape:
        mapped = jax.vmap(mapped)
    assert_close(jax.jit(mapped)(scores, labels), values)


@each_loss
@each_dtype
def test_extreme_logits_give_finite_values(loss, dtype):
    scores = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], dtype)
    for label in range(3):
        labels = jnp.full(3, label)
        assert np.isfinite(VALUE(loss, scores, labels)).all()
        assert np.isfinite(GRADIENT(loss, scores, labels)).all()
        assert np.isfinite(SUM_GRADIENT(loss, scores, labels)).all()


@each_dtype
@pytest.mark.parametrize(
    ("name", "expected"), [("softmax", 2e4), ("multi_bce", (2e4 + np.log(2)) / 3)]
)
def test_a_hopeless_prediction_costs_its_distance(name, expected, dtype):
    scores = jnp.array([1e4, -1e4, 0.0], dtype)
    assert_close(VALUE(LOSSES[name], scores, jnp.array(1)), expected, dtype)


@each_loss
@pytest.mark.parametrize("place", [0, 4])
def test_nan_stays_nan(loss, place):
    scores, labels = map(np.array, draw((2,)))
    scores[0, place], labels[0] = np.nan, 4
    assert np.isnan(VALUE(loss, scores, labels)).tolist() == [True, False]
    assert np.isnan(GRADIENT(loss, scores, labels)).any(axis=1).tolist() == [True, False]


@each_loss
def test_a_label_out_of_range_is_nan_and_never_a_plausible_number(loss):
    scores, _ = draw((3,))
    wrong = jnp.array([-1, 10, 99])
    assert np.isnan(VALUE(loss, scores, wrong)).all()
    assert np.isnan(GRADIENT(loss, scores, wrong)).all()


def test_softmax_probabilities_sum_to_one_and_sigmoid_ones_need_not():
    scores, _ = draw((20,))
    assert_close(PROBABILITIES(LOSSES["softmax"], scores).sum(axis=1), np.ones(20))
    assert not np.allclose(PROBABILITIES(LOSSES["multi_bce"], scores).sum(axis=1), 1)


def test_binary_loss_is_a_mean_over_classes():
    assert_close(VALUE(LOSSES["multi_bce"], jnp.zeros(10), jnp.array(3)), np.log(2))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_second_derivatives_are_those_of_autodiff(loss):
    logits = jnp.array([[0.3, -1.0, 2.0], [30.0, -30.0, 0.0], [0.0, 0.0, 0.0]])
    for scores, label in zip(logits, (2, 1, 0), strict=True):
        diagonal, root = loss.logit_hessian(scores)
        expected = jax.hessian(loss.value)(scores, jnp.asarray(label))
        assert_close(jnp.diag(diagonal) - jnp.outer(root, root), expected)
