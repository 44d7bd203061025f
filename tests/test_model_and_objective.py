import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from oracle import losses_and_gradient, measure

from linear_cifar.losses import LOSSES, SOFTMAX_CROSS_ENTROPY
from linear_cifar.model import Params, init_params, logits, predict
from linear_cifar.objective import cost, cost_gradient

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def draw(n=37, n_features=23, n_classes=5, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(3), 3)
    params = init_params(keys[0], n_features, n_classes, scale=0.3, dtype=dtype)
    inputs = jax.random.normal(keys[1], (n, n_features), dtype)
    return params, inputs, jax.random.randint(keys[2], (n,), 0, n_classes)


def test_initial_entries_are_normal_with_the_given_scale_bias_too():
    params = init_params(jax.random.key(0), 3072, 10)
    assert params.weights.shape == (10, 3072)
    assert params.weights.dtype == jnp.float32
    assert abs(float(params.weights.std()) / 0.01 - 1) < 0.02
    biases = jnp.stack([init_params(jax.random.key(s), 1, 10).bias for s in range(100)])
    assert abs(float(biases.std()) / 0.01 - 1) < 0.1
    other = init_params(jax.random.key(1), 3072, 10)
    assert not np.array_equal(params.weights, other.weights)


@each_dtype
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_logits_are_wx_plus_b(dtype, lead):
    params, _, _ = draw(dtype=dtype)
    inputs = jax.random.normal(jax.random.key(4), (*lead, 23), dtype)
    expected = np.asarray(inputs, float) @ np.asarray(params.weights, float).T + np.asarray(
        params.bias
    )
    scores = logits(params, inputs)
    assert scores.dtype == dtype
    assert_close(scores, expected, dtype)
    assert predict(params, inputs).tolist() == expected.argmax(axis=-1).tolist()


@each_loss
@each_dtype
@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_cost_and_gradient_agree_with_numpy(loss, dtype, lam):
    params, inputs, labels = draw(dtype=dtype)
    w, b, x = (np.asarray(a, float) for a in (*params, inputs))
    assert_close(
        cost(params, inputs, labels, lam, loss), measure(w, b, x, labels, lam, loss.name)[1]
    )
    g = losses_and_gradient(x @ w.T + b, labels, loss.name)[1] / len(labels)
    gradient = cost_gradient(params, inputs, labels, lam, loss)
    assert gradient.weights.dtype == gradient.bias.dtype == dtype
    assert_close(gradient.weights, g.T @ x + 2 * lam * w, dtype)
    assert_close(gradient.bias, g.sum(axis=0), dtype)


@each_loss
def test_gradient_is_that_of_autodiff_under_jit_and_vmap(loss):
    params, inputs, labels = draw()
    lams = jnp.array([0.0, 0.1, 2.0])
    by_hand = jax.jit(jax.vmap(lambda lam: cost_gradient(params, inputs, labels, lam, loss)))(lams)
    for i, lam in enumerate(lams):
        expected = jax.grad(cost)(params, inputs, labels, lam, loss)
        assert_close(by_hand.weights[i], expected.weights)
        assert_close(by_hand.bias[i], expected.bias)


def test_the_penalty_leaves_the_bias_alone_and_has_no_half():
    params = Params(jnp.full((2, 3), 2.0), jnp.full(2, 5.0))
    args = (jnp.zeros((1, 3)), jnp.array([0]))
    without, with_penalty = (cost(params, *args, lam) for lam in (0.0, 1.0))
    assert_close(with_penalty - without, 6 * 4.0)
    gradients = [cost_gradient(params, *args, lam) for lam in (0.0, 1.0)]
    assert_close(gradients[1].weights - gradients[0].weights, np.full((2, 3), 4.0))
    assert gradients[0].bias.tolist() == gradients[1].bias.tolist()


def test_nan_in_one_input_makes_cost_and_gradient_nan():
    params, inputs, labels = draw()
    inputs = inputs.at[3, 2].set(jnp.nan)
    assert jnp.isnan(cost(params, inputs, labels, 0.1, SOFTMAX_CROSS_ENTROPY))
    assert jnp.isnan(cost_gradient(params, inputs, labels, 0.1).weights).any()
