import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from oracle import losses_and_gradient

from linear_cifar.losses import LOSSES

DTYPES = (jnp.float32, jnp.float64)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "float64"))


def draw(shape=(7,), n_classes=10, dtype=jnp.float64, scale=3.0):
    scores = scale * jax.random.normal(jax.random.key(1), (*shape, n_classes), dtype)
    return scores, jax.random.randint(jax.random.key(2), shape, 0, n_classes)


@each_loss
@each_dtype
def test_value_and_gradient_agree_with_the_definitions(loss, dtype):
    scores, labels = draw((50,), dtype=dtype)
    values, gradient = losses_and_gradient(np.asarray(scores, float), labels, loss.name)
    assert_close(loss.value(scores, labels), values, dtype)
    assert_close(loss.logit_gradient(scores, labels), gradient, dtype)


@each_loss
def test_hand_derived_gradient_is_that_of_autodiff(loss):
    scores, labels = draw((50,))
    by_autodiff = jax.grad(lambda s: loss.value(s, labels).sum())(scores)
    assert_close(loss.logit_gradient(scores, labels), by_autodiff)


@each_loss
@each_dtype
def test_dtype_is_preserved(loss, dtype):
    scores, labels = draw(dtype=dtype)
    for function in (loss.value, loss.logit_gradient):
        assert function(scores, labels).dtype == dtype
    assert loss.probabilities(scores).dtype == dtype


@each_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_leading_shape_equals_a_loop(loss, shape):
    scores, labels = draw(shape)
    values, gradient = loss.value(scores, labels), loss.logit_gradient(scores, labels)
    assert values.shape == shape
    assert gradient.shape == (*shape, 10)
    for index in np.ndindex(*shape):
        assert_close(values[index], loss.value(scores[index], labels[index]))
        assert_close(gradient[index], loss.logit_gradient(scores[index], labels[index]))
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
        assert jnp.isfinite(loss.value(scores, labels)).all()
        assert jnp.isfinite(loss.logit_gradient(scores, labels)).all()
        assert jnp.isfinite(jax.grad(lambda s, y=labels: loss.value(s, y).sum())(scores)).all()
    wrong = loss.value(scores[0], jnp.array(1))
    assert_close(wrong, 2e4 if loss.name == "softmax" else (2e4 + jnp.log(2.0)) / 3, dtype)


@each_loss
@pytest.mark.parametrize("place", [0, 4])
def test_nan_stays_nan(loss, place):
    scores, labels = draw((2,))
    scores, labels = scores.at[0, place].set(jnp.nan), labels.at[0].set(4)
    assert jnp.isnan(loss.value(scores, labels)).tolist() == [True, False]
    assert jnp.isnan(loss.logit_gradient(scores, labels)).any(axis=1).tolist() == [True, False]


def test_softmax_of_a_label_out_of_range_is_nan():
    scores, _ = draw((3,))
    assert jnp.isnan(LOSSES["softmax"].value(scores, jnp.array([-1, 10, 99]))).all()


def test_softmax_probabilities_sum_to_one_and_sigmoid_ones_need_not():
    scores, _ = draw((20,))
    assert_close(LOSSES["softmax"].probabilities(scores).sum(axis=1), np.ones(20))
    assert not np.allclose(LOSSES["multi_bce"].probabilities(scores).sum(axis=1), 1)


def test_binary_loss_is_a_mean_over_classes():
    assert_close(LOSSES["multi_bce"].value(jnp.zeros(10), jnp.array(3)), np.log(2))
