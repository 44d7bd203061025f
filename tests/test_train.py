"""Training one run: NumPy's results, the order of examples, jit, vmap, grad and fused batches."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linear_cifar import (
    OPTIMIZERS,
    Hyperparameters,
    InputError,
    Split,
    TrainConfig,
    autodiff_gradient,
    dataset_from_arrays,
    epochs,
    evaluate,
    sweep,
    train,
)
from linear_cifar.training import fuses_batches, init_state
from tests import oracle
from tests.conftest import assert_close, lazy

KEY = jax.random.key(0)
RUN = Hyperparameters(lam=0.05, learning_rate=0.02)
CONFIG = TrainConfig(n_epochs=3, batch_size=150, dtype=jnp.float64)


def expected(dataset, config=CONFIG, **settings):
    """What NumPy trains from the same start."""
    start = init_state(KEY, RUN, dataset, config._replace(optimizer=OPTIMIZERS["sgd"])).params
    sizes = {"n_epochs": config.n_epochs, "batch_size": config.batch_size, "loss": "softmax"}
    return oracle.train(*start, dataset, **{"lam": 0.05, "learning_rate": 0.02} | sizes | settings)


ADAM = {"b1": 0.7, "b2": 0.9, "eps": 1e-3}
NEVER = {"decay_factor": 2.0, "decay_every": np.int32(2**31 - 1)}
RUNS = {
    # The last batch of "fused" has one example. As integers, powers of the decay factor of "sgd"
    # would overflow, and so would NEVER's number of steps until the decay.
    "fused": ({"loss": "multi_bce", "batch_size": 7}, {"decay_factor": 10.0, "decay_every": 2}),
    "sgd": ({}, {"decay_factor": 2**32, "decay_every": 1}),
    "autodiff": ({"gradient": autodiff_gradient, "batch_size": 10_000}, NEVER),
    "momentum": ({"loss": "multi_bce"}, {"momentum": 0.8, "decay_factor": 3, "decay_every": 1}),
    "adam": ({}, ADAM | NEVER),
}


@pytest.mark.parametrize("name", dict.fromkeys([*RUNS, *OPTIMIZERS]))
def test_training_agrees_with_the_published_updates_in_numpy(small, name):
    static, numbers = RUNS[name]
    optimizer = name if name in OPTIMIZERS else "sgd"
    config = CONFIG._replace(optimizer=optimizer, **static)
    params, history = train(KEY, RUN._replace(**numbers), small, config)
    loss = static.get("loss", "softmax")
    weights, bias, rows = expected(small, config, loss=loss, optimizer=optimizer, **numbers)
    assert_close(params.weights, weights, factor=10)
    assert_close(params.bias, bias, factor=10)
    assert_close(np.transpose(history), rows, factor=10)


def test_float32_training_stays_float32_and_near_float64(small):
    config = CONFIG._replace(dtype=jnp.float32)
    params, history = train(KEY, RUN._replace(lam=jnp.bfloat16(0.125)), small, config)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, history))} == {np.dtype("float32")}
    assert_close(params.weights, expected(small, config, lam=0.125)[0], factor=5)


# To show the order of the examples, each step adds its number to the bias of its example's class.
N = 12
ONE_EACH = dataset_from_arrays((np.eye(N), np.arange(N)))


def example_gradient(params, inputs, labels, lam, loss):
    return jax.tree.map(jnp.zeros_like, params)._replace(bias=1.0 * jax.nn.one_hot(labels[0], N))


def add_the_step(hyperparameters, steps_per_epoch):
    return optax.scale_by_schedule(lambda count: 1.0 + count)


MARKING = TrainConfig(
    n_epochs=3, batch_size=1, shuffle=True, measure=False, dtype=jnp.float64,
    gradient=example_gradient, optimizer=add_the_step,
)  # fmt: skip


def orders(biases):
    """The examples of each epoch in their order, from the biases between the epochs [E + 1, N]."""
    n_epochs = len(biases) - 1
    steps = np.round(np.diff(biases, axis=0)) - 1 - N * np.arange(n_epochs)[:, None]
    assert (np.sort(steps) == np.arange(N)).all(), "an example doesn't come once an epoch"
    return np.argsort(steps).tolist()


def orders_of_a_run(key, config):
    steps = epochs(key, Hyperparameters(), ONE_EACH, config)
    return orders([state.params.bias for state, _ in steps])


def test_a_shuffled_run_visits_every_example_once_an_epoch_in_an_order_of_its_key():
    first, other = (orders_of_a_run(key, MARKING) for key in (KEY, jax.random.key(1)))
    assert len({tuple(order) for order in [*first, *other, range(N)]}) == 7


def test_without_shuffling_the_examples_come_as_they_are_stored():
    assert orders_of_a_run(KEY, MARKING._replace(shuffle=False)) == [list(range(N))] * 3


def test_runs_of_a_sweep_share_their_order_if_they_share_their_key():
    keys, biases = jnp.stack([KEY, jax.random.key(1), KEY]), {0: [], 1: [], 2: []}

    def collect(chunk):
        for row, bias in zip(chunk.rows, chunk.params.bias, strict=False):
            biases[row].append(np.asarray(bias))

    sweep(keys, {"lam": [0.0, 0.1, 0.2]}, ONE_EACH, MARKING, on_epoch=collect)
    first, other, same = map(orders, biases.values())
    assert first == same == orders_of_a_run(jax.random.PRNGKey(0), MARKING) != other


def test_epochs_on_the_host_match_train_even_with_another_kind_of_key(small):
    key, config = jax.random.key(0, impl="rbg"), CONFIG._replace(shuffle=True)
    params, history = train(key, RUN, small, config)
    steps = list(epochs(key, RUN, small, config))
    assert_close(steps[-1][0].params.weights, params.weights)
    assert_close([metrics.train_cost for _, metrics in steps], history.train_cost)


@pytest.fixture
def compilations():
    """The programs that XLA compiles during a test."""
    events = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("trained", [train, lambda *run: list(epochs(*run)), sweep])
def test_another_lambda_or_rate_compiles_nothing(small, trained, compilations):
    config = CONFIG._replace(batch_size=37)
    trained(KEY, RUN, small, config)
    compilations.clear()
    trained(KEY, Hyperparameters(lam=0.3, learning_rate=0.01), small, config)
    assert not compilations
    jax.jit(lambda x: x)(0.0)
    assert compilations, "the listener hears nothing"


def test_jit_and_vmap_over_keys_lambda_and_data_equal_each_alone(small):
    config = CONFIG._replace(shuffle=True, measure=False)
    arrays = jax.tree.map(jnp.asarray, small.train)

    def weights(key, lam, rows):
        resampled = replace(small, train=Split(arrays.inputs[rows], arrays.labels[rows]))
        return train(key, RUN._replace(lam=lam), resampled, config)[0].weights

    rows = np.random.default_rng(0).integers(400, size=(2, 400))
    runs = (jax.random.split(KEY, 2), np.array([0.0, 1.0]), rows)
    together = jax.jit(jax.vmap(weights))(*runs)
    for result, *run in zip(together, *runs, strict=True):
        assert_close(result, weights(*run))


def test_grad_of_a_validation_loss_in_lambda_agrees_with_differences(small):
    def validation_loss(lam):
        params, _ = train(KEY, RUN._replace(lam=lam), small, CONFIG._replace(measure=False))
        return evaluate(params, small.validation, small.standardiser, 0.0).loss

    def in_numpy(lam):
        return expected(small, lam=lam)[2][-1, 3]

    difference = (in_numpy(0.05 + 1e-5) - in_numpy(0.05 - 1e-5)) / 2e-5
    assert jax.grad(validation_loss)(0.05) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize(("n", "batch_size", "shuffle"), [(400, 3, True), (20, 7, False)])
def test_fused_batches_equal_single_batches(small, n, batch_size, shuffle):
    data = replace(small, train=Split(small.train.inputs[:n], small.train.labels[:n]))
    fused = CONFIG._replace(batch_size=batch_size, shuffle=shuffle, measure=False)
    single = fused._replace(gradient=autodiff_gradient)
    assert [fuses_batches(data, config, n_runs=1) for config in (fused, single)] == [True, False]
    (by_block, history), (by_batch, _) = (train(KEY, RUN, data, c) for c in (fused, single))
    jax.tree.map(assert_close, by_block, by_batch)
    assert history.train_cost.shape == (0,)  # not measured


@pytest.mark.parametrize(
    ("run", "config", "name"),
    [
        (RUN._replace(lam=np.zeros(3)), CONFIG, "lam.*sweep"),
        (0.1, CONFIG, "hyperparameters"),
        (RUN, CONFIG._replace(batch_size=2.5), "batch_size"),
        (RUN, CONFIG._replace(optimizer=3), "optimizer"),
        (RUN, CONFIG._replace(dtype="int32"), "dtype"),
    ],
)
def test_impossible_settings_are_refused_by_name(small, run, config, name):
    with pytest.raises(InputError, match=name):
        train(KEY, run, small, config)


# The lowest and the highest values, and the nearest ones that are refused.
RANGES = {
    "lam": ([0.0, 1e300], [-1e-9, np.nan, np.inf]),
    "learning_rate": ([1e-9], [0.0]),
    "decay_factor": ([1.0], [0.999]),
    "decay_every": ([1, 2**31 - 1], [0, 2**31, 1.5]),
    "momentum": ([0.0, 0.999], [-1e-9, 1.0]),
    "b1": ([0.0, 0.999], [-1e-9, 1.0]),
    "b2": ([0.0, 0.999], [-1e-9, 1.0]),
    "eps": ([1e-9], [0.0]),
}


@pytest.mark.parametrize("name", Hyperparameters._fields)
def test_a_hyperparameter_is_accepted_in_its_range_and_refused_by_name_outside(name):
    accepted, refused = RANGES[name]
    config = TrainConfig(n_epochs=1, measure=False, dtype=jnp.float64)
    sweep(KEY, {name: accepted}, ONE_EACH, config)
    for value in refused:
        with pytest.raises(InputError, match=name):
            sweep(KEY, {name: [value]}, ONE_EACH, config)


def test_inputs_on_disk_are_refused_in_one_line(small):
    on_disk = replace(small, train=Split(lazy(small.train.inputs), small.train.labels))
    with pytest.raises(InputError, match=r"on disk.*gradient descent"):
        train(KEY, RUN, on_disk, CONFIG)
