"""The mathematics: losses, the linear model and the objective, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES, as_loss
from linear_cifar.model import Params, init_params, logits, predict
from linear_cifar.objective import autodiff_gradient, cost, cost_gradient
from tests.conftest import assert_close
from tests.oracle import losses_and_gradient, measure

# Jitted once, because XLA would compile eager operations one by one.
VALUE, GRADIENT, PROBABILITIES = (
    jax.jit(lambda loss, *a, name=name: getattr(loss, name)(*a), static_argnums=0)
    for name in ("value", "logit_gradient", "probabilities")
)
SUM_GRADIENT = jax.jit(
    jax.grad(lambda loss, s, y: loss.value(s, y).sum(), argnums=1), static_argnums=0
)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def draw(shape=(7,), n_classes=10, dtype=jnp.float64):
    rng = np.random.default_rng(1)
    scores = 3 * rng.normal(size=(*shape, n_classes))
    return jnp.asarray(scores, dtype), jnp.asarray(rng.integers(0, n_classes, shape))


def draw_problem(dtype=jnp.float64, n=37, n_features=23, n_classes=5):
    keys = jax.random.split(jax.random.key(3), 3)
    params = init_params(keys[0], n_features, n_classes, scale=0.3, dtype=dtype)
    inputs = jax.random.normal(keys[1], (n, n_features), dtype)
    return params, inputs, jax.random.randint(keys[2], (n,), 0, n_classes)


@each_loss
@each_dtype
def test_values_and_gradients_match_the_definitions_in_their_dtype(loss, dtype):
    scores, labels = draw((50,), dtype=dtype)
    values, gradient = losses_and_gradient(np.asarray(scores, float), labels, loss.name)
    assert_close(VALUE(loss, scores, labels), values, dtype)
    assert_close(GRADIENT(loss, scores, labels), gradient, dtype)
    link = special.softmax if loss.exclusive else lambda s, axis: special.expit(s)
    assert_close(PROBABILITIES(loss, scores), link(np.asarray(scores, float), axis=1), dtype)
    results = (VALUE(loss, scores, labels), GRADIENT(loss, scores, labels))
    assert {a.dtype for a in (*results, PROBABILITIES(loss, scores))} == {np.dtype(dtype)}


@each_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_leading_shape_equals_a_loop(loss, shape):
    scores, labels = draw(shape)
    for function in (loss.value, loss.logit_gradient):
        values, mapped = jax.jit(function)(scores, labels), function
        for index in np.ndindex(*shape):
            assert_close(values[index], jax.jit(function)(scores[index], labels[index]))
        for _ in shape:
            mapped = jax.vmap(mapped)
        assert_close(jax.jit(mapped)(scores, labels), values)


@each_loss
@each_dtype
def test_extreme_logits_give_finite_losses_and_gradients(loss, dtype):
    scores = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], dtype)
    for label in range(3):
        for function in (VALUE, GRADIENT, SUM_GRADIENT):
            assert np.isfinite(function(loss, scores, jnp.full(3, label))).all()
    hopeless = {"softmax": 2e4, "multi_bce": (2e4 + np.log(2)) / 3}[loss.name]
    assert_close(VALUE(loss, scores[0], jnp.array(1)), hopeless, dtype)


@each_loss
@pytest.mark.parametrize("column", [0, 4])
def test_a_nan_logit_gives_nan_for_its_example_only(loss, column):
    scores, labels = map(np.array, draw((2,)))
    scores[0, column], labels[0] = np.nan, 4
    assert np.isnan(VALUE(loss, scores, labels)).tolist() == [True, False]
    assert np.isnan(GRADIENT(loss, scores, labels)).any(axis=1).tolist() == [True, False]


@each_loss
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("dtype", "n_classes", "right", "wrong"),
    [
        ("int32", 10, [0, 9], [-1, 10, 99]),
        ("uint8", 256, [0, 200, 255], []),
        ("uint8", 10, [9], [10, 255]),
        ("int8", 200, [0, 127], [-1, -56]),
        ("int8", 128, [127], [-1, -128]),
        ("int64", 3, [2], [2**32, 2**32 + 1, -(2**32)]),
        ("uint64", 3, [2], [2**64 - 1, 2**32]),
    ],
)
def test_labels_of_any_integer_dtype_are_right_or_nan(loss, x64, dtype, n_classes, right, wrong):
    labels, n = np.array(right + wrong, dtype), len(right)
    with jax.enable_x64(x64):
        scores = jnp.asarray(np.random.default_rng(0).normal(size=(len(labels), n_classes)))
        expected = losses_and_gradient(np.asarray(scores[:n], float), right, loss.name)
        # Without x64 JAX itself cuts its arrays of 64-bit integers, before we see them.
        for array in (labels, jnp.array(labels)) if x64 or labels.itemsize < 8 else (labels,):
            for function, values in zip((loss.value, loss.logit_gradient), expected, strict=True):
                results = np.asarray(function(scores, array))
                assert_close(results[:n], values)
                assert np.isnan(results[n:]).all()


@each_loss
def test_labels_that_are_no_class_ids_are_refused(loss):
    scores, labels = draw((4,))
    one_hot = np.eye(10, dtype=int)[labels]
    for wrong in (labels * 1.0, labels == 0, one_hot, labels[:3]):
        for function in (loss.value, loss.logit_gradient):
            with pytest.raises(InputError, match="labels"):
                function(scores, wrong)


def test_a_loss_can_be_named_and_an_unknown_name_is_refused():
    assert as_loss("softmax") is as_loss(LOSSES["softmax"]) is LOSSES["softmax"]
    for wrong in ("hinge", None):
        with pytest.raises(InputError, match="loss"):
            as_loss(wrong)


def test_initial_weights_and_biases_are_normal_with_their_scale():
    params = init_params(jax.random.key(0), 300, 1000)
    assert (params.weights.shape, params.bias.shape) == ((1000, 300), (1000,))
    for array in params:
        draws = np.asarray(array).ravel()[:5000] / 0.01
        assert stats.kstest(draws, "norm").pvalue > 0.01
    other = init_params(jax.random.key(1), 300, 1000)
    assert not np.array_equal(params.bias, other.bias)


@each_dtype
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_logits_are_wx_plus_b_and_the_largest_is_predicted(dtype, lead):
    params = draw_problem(dtype)[0]
    inputs = jax.random.normal(jax.random.key(4), (*lead, 23), dtype)
    w, b, x = (np.asarray(a, float) for a in (*params, inputs))
    scores = logits(params, inputs)
    assert scores.dtype == dtype
    assert_close(scores, x @ w.T + b, dtype)
    assert np.array_equal(predict(params, inputs), (x @ w.T + b).argmax(axis=-1))


def test_an_example_without_finite_logits_is_predicted_as_minus_1_and_ties_go_first():
    params = Params(jnp.eye(3), jnp.zeros(3))
    inputs = jnp.array([[1.0, 1, 0], [jnp.nan, 0, 0], [0, 0, -jnp.inf], [0, 2, 0]])
    assert predict(params, inputs).tolist() == [0, -1, -1, 1]


@each_loss
@each_dtype
@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_cost_and_gradient_match_numpy(loss, dtype, lam):
    params, inputs, labels = draw_problem(dtype)
    w, b, x = (np.asarray(a, float) for a in (*params, inputs))
    expected = measure(w, b, x, labels, lam, loss.name)[1]
    assert_close(cost(params, inputs, labels, lam, loss), expected)
    g = losses_and_gradient(x @ w.T + b, labels, loss.name)[1] / len(labels)
    gradient = cost_gradient(params, inputs, labels, lam, loss)
    assert gradient.weights.dtype == gradient.bias.dtype == dtype
    assert_close(gradient.weights, g.T @ x + 2 * lam * w, dtype)
    assert_close(gradient.bias, g.sum(axis=0), dtype)


@each_loss
def test_the_cost_gradient_matches_autodiff_under_jit_and_vmap(loss):
    params, inputs, labels = draw_problem()
    by_hand, by_autodiff = (
        jax.jit(jax.vmap(lambda lam, f=f: f(params, inputs, labels, lam, loss)))(jnp.arange(3.0))
        for f in (cost_gradient, autodiff_gradient)
    )
    jax.tree.map(assert_close, by_hand, by_autodiff)


def test_the_penalty_ignores_the_bias_and_has_no_half():
    params = Params(jnp.full((2, 3), 2.0), jnp.full(2, 5.0))
    data = (jnp.zeros((1, 3)), jnp.array([0]))
    assert_close(cost(params, *data, 1.0) - cost(params, *data, 0.0), 6 * 4.0)
