import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from conftest import assert_close

from linear_cifar.engine import loop
from linear_cifar.engine.blocks import inner_products
from linear_cifar.engine.state import Training, autodiff
from linear_cifar.engine.training import epochs, train
from linear_cifar.evaluation import evaluate_runs
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters, step_decay
from linear_cifar.settings import SettingsError

KEY = jax.random.key(0)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def initial(dataset, key=KEY, **settings):
    state, _ = next(epochs(key, Hyperparameters(0.0, 0.1), dataset, Training(**settings)))
    return Params(*(np.asarray(array[0]) for array in state.params))


def agrees_with_numpy(dataset, loss, decay, batch_size):
    settings = {"n_epochs": 3, "batch_size": batch_size}
    # Small steps of few examples: larger ones don't converge, and magnify any rounding.
    learning_rate = min(0.01, 1e-4 * batch_size)
    decay = {"decay_factor": 10.0, "decay_every": 2} if decay else {}
    hyperparameters = Hyperparameters(0.1, learning_rate, **decay)
    params, history = train(KEY, hyperparameters, dataset, loss=loss, dtype=jnp.float64, **settings)
    start = initial(dataset, dtype=jnp.float64)
    weights, bias, rows = oracle.train(
        *start, dataset, lam=0.1, learning_rate=learning_rate, loss=loss.name, **decay, **settings
    )
    np.testing.assert_allclose(params.weights, weights, atol=1e-9, rtol=0)
    np.testing.assert_allclose(params.bias, bias, atol=1e-9, rtol=0)
    np.testing.assert_allclose(np.stack(history, axis=1), rows, atol=1e-9, rtol=0)


@each_loss
@pytest.mark.parametrize(
    ("batch_size", "decay"), [(1, False), (30, True), (100, False), (399, True), (400, False)]
)
def test_training_agrees_with_numpy(small, loss, decay, batch_size):
    agrees_with_numpy(small, loss, decay, batch_size)


@pytest.mark.slow
@each_loss
def test_training_on_real_images_agrees_with_numpy(real, loss):
    agrees_with_numpy(real, loss, decay=True, batch_size=30)  # 333 batches of 30, and one of 10


def test_float32_stays_float32_and_near_float64(small):
    hyperparameters = Hyperparameters(0.1, 0.01)
    params, history = train(KEY, hyperparameters, small, n_epochs=3)
    assert {a.dtype for a in (*params, *history)} == {jnp.dtype("float32")}
    _, _, rows = oracle.train(
        *initial(small),
        small,
        lam=0.1,
        learning_rate=0.01,
        n_epochs=3,
        batch_size=100,
        loss="softmax",
    )
    assert_close(history.train_cost, rows[:, 1])


@pytest.mark.parametrize(
    ("loss", "shuffle"), [(LOSSES["softmax"], True), (LOSSES["multi_bce"], False)], ids=LOSSES
)
def test_four_runs_at_once_equal_each_alone(small, loss, shuffle):
    many = Hyperparameters(
        lam=jnp.array([0.0, 0.1, 1.0, 0.1]),
        learning_rate=jnp.array([0.001, 0.01, 0.001, 0.01]),
        decay_factor=jnp.array([1.0, 10.0, 2.0, 1.0]),
        decay_every=jnp.array([1, 2, 1, 3]),
    )
    settings = {"loss": loss, "n_epochs": 4, "batch_size": 30, "shuffle": shuffle}
    params, history = train(KEY, many, small, **settings)
    for i in range(4):
        one = jax.tree.map(lambda field, i=i: field[i] if np.ndim(field) else field, many)
        alone, alone_history = train(KEY, one, small, **settings)
        assert_close(params.weights[i], alone.weights)
        assert_close(params.bias[i], alone.bias)
        for field, alone_field in zip(history, alone_history, strict=True):
            assert_close(field[i], alone_field)


def test_vmap_over_keys_and_hyperparameters_equals_each_alone(small):
    keys = jax.random.split(KEY, 4)
    lam = jnp.array([0.0, 0.1, 1.0, 0.0])

    def run(key, lam):
        return train(key, Hyperparameters(lam, 0.01), small, n_epochs=2, shuffle=True)

    params, history = jax.vmap(run)(keys, lam)
    for i in range(4):
        alone, alone_history = run(keys[i], lam[i])
        assert_close(params.weights[i], alone.weights)
        assert_close(history.validation_cost[i], alone_history.validation_cost)
    assert not np.allclose(params.weights[0], params.weights[3])


def test_a_key_for_each_run_gives_each_its_own_start(small):
    keys = jax.random.split(KEY, 3)
    params, _ = train(keys, Hyperparameters(0.1, 0.01), small, n_epochs=1)
    assert params.bias.shape == (3, 10)
    for i in range(3):
        alone, _ = train(keys[i], Hyperparameters(0.1, 0.01), small, n_epochs=1)
        assert_close(params.weights[i], alone.weights)
    with pytest.raises(SettingsError, match="one key"):
        train(keys, Hyperparameters(0.1, 0.01), small, n_epochs=1, shuffle=True)


def test_an_old_style_key_is_one_key(small):
    new, _ = train(jax.random.key(7), Hyperparameters(0.1, 0.01), small, n_epochs=1)
    old, _ = train(jax.random.PRNGKey(7), Hyperparameters(0.1, 0.01), small, n_epochs=1)
    assert np.array_equal(new.weights, old.weights)


PROGRAMS = (loop._advance, loop._start, inner_products, evaluate_runs.__wrapped__)


def test_new_values_and_another_number_of_epochs_compile_nothing(small):
    def run(lam, learning_rate, seed, n_epochs=2):
        hyperparameters = Hyperparameters(lam, learning_rate)
        train(jax.random.key(seed), hyperparameters, small, n_epochs=n_epochs)

    run(0.1, 0.01, 0)
    sizes = [f._cache_size() for f in PROGRAMS]
    run(0.2, 0.001, 1)
    run(np.float32(0.3), jnp.float32(0.1), 2, n_epochs=4)
    assert sizes == [f._cache_size() for f in PROGRAMS]


def test_same_key_same_bits(small):
    runs = [
        train(KEY, Hyperparameters(0.1, 0.01), small, n_epochs=2, shuffle=True) for _ in range(2)
    ]
    for a, b in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        assert np.array_equal(a, b)


def test_shuffling_takes_every_example_once_in_a_new_order_each_epoch(small):
    orders = [
        loop._shuffled(jax.random.key_data(KEY), epoch, small.train, key_impl="threefry2x32")
        for epoch in (1, 2)
    ]
    for order in orders:
        assert np.array_equal(
            np.sort(np.asarray(order.inputs), axis=0), np.sort(small.train.inputs, axis=0)
        )
        rows = {r.tobytes(): y for r, y in zip(small.train.inputs, small.train.labels, strict=True)}
        for row, label in zip(np.asarray(order.inputs), order.labels, strict=True):
            assert rows[row.tobytes()] == label
    assert not np.array_equal(orders[0].inputs, orders[1].inputs)
    assert not np.array_equal(orders[0].inputs, small.train.inputs)


def test_autodiff_trains_the_same(small):
    args = (KEY, Hyperparameters(0.1, 0.01), small)
    by_hand, _ = train(*args, n_epochs=2)
    by_autodiff, _ = train(*args, n_epochs=2, gradient=autodiff)
    assert_close(by_hand.weights, by_autodiff.weights)


@pytest.mark.slow
def test_optax_transformations_train_and_sweep(small):
    def momentum(hyperparameters, steps_per_epoch):
        schedule = optax.cosine_decay_schedule(hyperparameters.learning_rate, 5 * steps_per_epoch)
        return optax.sgd(schedule, momentum=0.9)

    def adam(hyperparameters, steps_per_epoch):
        return optax.adam(step_decay(hyperparameters, steps_per_epoch))

    rates = jnp.array([0.0001, 0.001])
    for optimizer in (momentum, adam):
        many, history = train(
            KEY, Hyperparameters(0.0, rates), small, n_epochs=5, optimizer=optimizer
        )
        assert (history.train_cost[:, -1] < history.train_cost[:, 0]).all()
        alone, _ = train(
            KEY, Hyperparameters(0.0, rates[1]), small, n_epochs=5, optimizer=optimizer
        )
        assert_close(many.weights[1], alone.weights, factor=5)  # Adam divides by small moments


def test_a_diverging_run_is_nan_and_leaves_the_others_alone(small):
    rates = jnp.array([0.01, 1e30, 0.01])
    params, history = train(KEY, Hyperparameters(1.0, rates), small, n_epochs=3)
    assert jnp.isnan(history.train_cost[1, -1])
    assert jnp.isnan(history.validation_accuracy[1, -1])
    alone, _ = train(KEY, Hyperparameters(1.0, 0.01), small, n_epochs=3)
    for i in (0, 2):
        assert_close(params.weights[i], alone.weights)
        assert jnp.isfinite(history.train_cost[i]).all()


def test_measuring_can_be_left_out(small):
    args = (KEY, Hyperparameters(0.1, 0.01), small)
    params, history = train(*args, n_epochs=2, measure=False)
    assert [len(field) for field in history] == [0] * 6
    assert np.array_equal(params.weights, train(*args, n_epochs=2)[0].weights)
