"""Training one run: against NumPy, under jit, vmap and grad, and its fast path."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linear_cifar import (
    LOSSES,
    Hyperparameters,
    InputError,
    Split,
    TrainConfig,
    autodiff_gradient,
    dataset_from_arrays,
    epochs,
    evaluate,
    init_params,
    train,
)
from linear_cifar.data import LazyRows
from linear_cifar.training import TrainState, epoch_step, fuses_batches, init_state
from tests import oracle
from tests.conftest import assert_close, reduced

KEY = jax.random.key(0)
RUN = Hyperparameters(lam=0.05, learning_rate=0.02)
FLOAT64 = TrainConfig(n_epochs=3, batch_size=50, dtype=jnp.float64)


def history_rows(history):
    return np.stack([np.asarray(column) for column in history], axis=-1)


def initial(dataset, dtype=jnp.float64):
    key = jax.random.fold_in(KEY, 0)
    return init_params(key, dataset.n_features, dataset.n_classes, dtype=dtype)


@pytest.mark.parametrize(
    ("loss", "batch_size", "decay"),
    [("softmax", 30, {}), ("multi_bce", 400, {"decay_factor": 10.0, "decay_every": 2})],
)
def test_training_agrees_with_numpy(small, loss, batch_size, decay):
    config = FLOAT64._replace(loss=LOSSES[loss], batch_size=batch_size, n_epochs=4)
    params, history = train(KEY, RUN._replace(**decay), small, config)
    settings = {"lam": 0.05, "learning_rate": 0.02, "n_epochs": 4, "batch_size": batch_size}
    expected = oracle.train(*initial(small), small, loss=loss, **settings, **decay)
    assert_close(params.weights, expected[0])
    assert_close(params.bias, expected[1])
    assert_close(history_rows(history), expected[2], factor=10)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_on_real_images_agrees_with_numpy(real, loss):
    few = reduced(real)
    params, _ = train(KEY, RUN, few, FLOAT64._replace(loss=loss))
    settings = {"lam": 0.05, "learning_rate": 0.02, "n_epochs": 3, "batch_size": 50}
    expected = oracle.train(*initial(few), few, loss=loss, **settings)
    assert_close(params.weights, expected[0])


def test_float32_training_stays_float32_and_near_float64(small):
    params, history = train(KEY, RUN, small, FLOAT64._replace(dtype=jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, history))} == {np.dtype("float32")}
    settings = {"lam": 0.05, "learning_rate": 0.02, "n_epochs": 3, "batch_size": 50}
    start = initial(small, jnp.float32)
    expected = oracle.train(*start, small, loss="softmax", **settings)
    assert_close(params.weights, expected[0], factor=5)


def clipped(hyperparameters, _):
    return optax.chain(optax.clip(0.1), optax.sgd(hyperparameters.learning_rate))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_optimisers_follow_their_published_updates(small, optimizer):
    run = Hyperparameters(0.05, 0.01, 2.0, 1, momentum=0.8, b1=0.7, b2=0.9, eps=1e-3)
    config = FLOAT64._replace(optimizer=optimizer, batch_size=150, n_epochs=2, measure=False)
    params, _ = train(KEY, run, small, config)
    inputs = np.asarray(small.standardiser(jnp.asarray(small.train.inputs), jnp.float64))
    state = [np.append(weights, bias) for weights, bias in zip(*initial(small), strict=True)]
    w, m, v = np.array(state), np.zeros((10, 193)), np.zeros((10, 193))
    x_and_1 = np.append(inputs, np.ones((400, 1)), axis=1)
    for t in range(6):
        rows = slice(150 * (t % 3), min(150 * (t % 3) + 150, 400))
        labels = small.train.labels[rows]
        g = oracle.losses_and_gradient(x_and_1[rows] @ w.T, labels, "softmax")[1] / len(labels)
        g = g.T @ x_and_1[rows] + 2 * 0.05 * w * (np.arange(193) < 192)
        rate = 0.01 / 2.0 ** (t // 3)
        if optimizer == "sgd":
            w = w - rate * g
        elif optimizer == "momentum":
            m = 0.8 * m + g
            w = w - rate * m
        else:
            m, v = 0.7 * m + 0.3 * g, 0.9 * v + 0.1 * g**2
            w = w - rate * (m / (1 - 0.7 ** (t + 1))) / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 1e-3)
    assert_close(params.weights, w[:, :-1], factor=10)
    assert_close(params.bias, w[:, -1], factor=10)


def test_any_optax_transformation_trains(small):
    params, history = train(KEY, RUN, small, FLOAT64._replace(optimizer=clipped))
    assert history.train_cost[-1] < history.train_cost[0]
    assert np.isfinite(params.weights).all()


def test_the_gradient_by_autodiff_trains_the_same(small):
    by_hand, by_autodiff = (
        train(KEY, RUN, small, FLOAT64._replace(gradient=gradient, batch_size=130))[0]
        for gradient in (FLOAT64.gradient, autodiff_gradient)
    )
    assert_close(by_autodiff.weights, by_hand.weights)


def test_each_epoch_visits_every_example_once_in_a_new_order():
    """With batches of one and unit inputs, the bias's path tells in which order examples came."""
    n, n_epochs = 12, 3
    data = dataset_from_arrays((np.eye(n), np.arange(n)), class_names=list(map(str, range(n))))
    config = TrainConfig(
        n_epochs=1, batch_size=1, shuffle=True, measure=False, dtype=jnp.float64,
        gradient=lambda params, x, labels, *_: jax.tree.map(jnp.zeros_like, params)._replace(
            bias=-jax.nn.one_hot(labels[0], n, dtype=params.bias.dtype)
        ),
        optimizer=lambda _, __: optax.chain(optax.scale(-1), optax.scale_by_schedule(
            lambda count: 1.0 + count.astype(jnp.float64)
        )),
    )  # fmt: skip
    orders = []
    start = initial(data).bias
    biases = [np.asarray(start)]
    for state, _ in epochs(KEY, Hyperparameters(), data, config._replace(n_epochs=n_epochs)):
        biases.append(np.asarray(state.params.bias))
    for epoch, change in enumerate(np.diff(biases[1:], axis=0)):
        steps = np.round(change).astype(int) - 1 - epoch * n  # the step at which each example came
        assert sorted(steps) == list(range(n))
        orders.append(np.argsort(steps).tolist())
    assert len({tuple(order) for order in [*orders, range(n)]}) == n_epochs + 1


def test_the_same_key_gives_the_same_bits(small):
    config = FLOAT64._replace(shuffle=True)
    first, second = (train(KEY, RUN, small, config)[0] for _ in range(2))
    assert np.array_equal(first.weights, second.weights)


def test_epochs_on_the_host_give_what_train_gives(small):
    params, history = train(KEY, RUN, small, FLOAT64._replace(shuffle=True))
    steps = list(epochs(KEY, RUN, small, FLOAT64._replace(shuffle=True)))
    assert len(steps) == 4
    assert_close(steps[-1][0].params.weights, params.weights)
    assert_close([metrics.train_cost for _, metrics in steps], history.train_cost)


def test_train_works_under_jit_and_compiles_once_whatever_the_number_of_epochs(small):
    def compilations(n_epochs):
        count = []
        jax.clear_caches()
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, *_, **__: count.append(event)
            if event == "/jax/core/compile/backend_compile_duration" else None
        )  # fmt: skip
        jitted = jax.jit(train, static_argnums=3)
        jitted(KEY, RUN, small, FLOAT64._replace(n_epochs=n_epochs))[0].weights.block_until_ready()
        jitted(KEY, RUN._replace(lam=0.3), small, FLOAT64._replace(n_epochs=n_epochs))
        jax.monitoring.clear_event_listeners()
        return len(count)

    assert compilations(2) == compilations(9) > 0


def test_vmap_over_keys_and_lambda_equals_each_alone(small):
    keys, lams = jax.random.split(KEY, 3), jnp.array([0.0, 0.1, 1.0])
    config = FLOAT64._replace(shuffle=True, n_epochs=2)
    together, _ = jax.vmap(lambda key, lam: train(key, RUN._replace(lam=lam), small, config))(
        keys, lams
    )
    for i in range(3):
        alone, _ = train(keys[i], RUN._replace(lam=lams[i]), small, config)
        assert_close(together.weights[i], alone.weights)


def test_grad_of_a_validation_loss_in_lambda_agrees_with_differences(small):
    config = FLOAT64._replace(n_epochs=2, measure=False)

    def validation_loss(lam):
        params, _ = train(KEY, RUN._replace(lam=lam), small, config)
        return evaluate(params, small.validation, small.standardiser, 0.0).loss

    h = 1e-5
    difference = (validation_loss(0.05 + h) - validation_loss(0.05 - h)) / (2 * h)
    assert jax.grad(validation_loss)(0.05) == pytest.approx(float(difference), rel=1e-6)


def test_a_bootstrap_is_vmap_over_resampled_data(small):
    rows = jax.random.choice(KEY, 400, (3, 400))

    def resampled(rows):
        split = Split(jnp.asarray(small.train.inputs)[rows], jnp.asarray(small.train.labels)[rows])
        return train(KEY, RUN, replace(small, train=split), FLOAT64)[0].weights

    together = jax.vmap(resampled)(rows)
    alone = resampled(rows[1])
    assert_close(together[1], alone)
    assert not np.allclose(together[0], together[1])


def test_a_diverging_run_gives_nan_and_leaves_the_others_alone(small):
    rates = jnp.array([0.02, 1e300])
    _, history = jax.vmap(lambda rate: train(KEY, Hyperparameters(0.05, rate), small, FLOAT64))(
        rates
    )
    assert np.isnan(history.train_accuracy[1, -1])
    assert np.isfinite(history.train_accuracy[0]).all()


def test_without_measuring_the_history_is_empty(small):
    measured, _ = train(KEY, RUN, small, FLOAT64)
    params, history = train(KEY, RUN, small, FLOAT64._replace(measure=False))
    assert history.train_cost.shape == (0,)
    assert np.array_equal(params.weights, measured.weights)


def test_a_batch_size_above_n_takes_all_examples(small):
    large, full = (
        train(KEY, RUN, small, FLOAT64._replace(batch_size=size))[0] for size in (10_000, 400)
    )
    assert np.array_equal(large.weights, full.weights)


@pytest.mark.parametrize(("batch_size", "n"), [(50, 400), (30, 400), (100, 70), (7, 60)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_fused_batches_equal_single_batches(small, batch_size, n, shuffled):
    rows = Split(small.train.inputs[:n], small.train.labels[:n])
    data, config = replace(small, train=rows), FLOAT64._replace(batch_size=min(batch_size, n))
    order = jax.random.permutation(KEY, n) if shuffled else None
    start = init_state(KEY, RUN, data, config)
    single, fused = (
        epoch_step(start, RUN, data, config, order, fused=fused) for fused in (False, True)
    )
    assert isinstance(fused, TrainState)
    assert_close(fused.params.weights, single.params.weights)
    assert_close(fused.params.bias, single.params.bias)


def test_batches_are_fused_only_if_it_pays_within_the_memory_of_the_inputs():
    def data(n, d):
        labels = np.arange(n) % 10
        return dataset_from_arrays((np.ones((n, d), np.uint8) * labels[:, None], labels))

    images, narrow = data(400, 3072), data(1000, 10)
    assert fuses_batches(images, TrainConfig(), n_runs=1)
    assert not fuses_batches(images, TrainConfig(), n_runs=64)
    assert not fuses_batches(images, TrainConfig(optimizer=clipped), n_runs=1)
    assert not fuses_batches(narrow, TrainConfig(), n_runs=1)


@pytest.mark.parametrize(
    ("run", "config", "name"),
    [
        (RUN._replace(lam=-1.0), FLOAT64, "lam"),
        (RUN._replace(learning_rate=0), FLOAT64, "learning_rate"),
        (RUN._replace(lam=np.nan), FLOAT64, "lam"),
        (RUN._replace(momentum=0.999999999), TrainConfig(), "momentum"),
        (RUN._replace(lam="0.1"), FLOAT64, "lam"),
        (RUN._replace(lam=np.zeros(3)), FLOAT64, "sweep"),
        (RUN, FLOAT64._replace(n_epochs=0), "n_epochs"),
        (RUN, FLOAT64._replace(batch_size=2.5), "batch_size"),
        (RUN, FLOAT64._replace(loss="hinge"), "loss"),
        (RUN, FLOAT64._replace(optimizer=3), "optimizer"),
        (RUN, FLOAT64._replace(dtype="int32"), "dtype"),
    ],
)
def test_impossible_settings_are_refused_by_name(small, run, config, name):
    with pytest.raises(InputError, match=name):
        train(KEY, run, small, config)


def test_float64_needs_x64(small):
    with jax.enable_x64(False), pytest.raises(InputError, match="x64"):
        train(KEY, RUN, small, FLOAT64)


def test_epochs_take_keys_of_another_generator(small):
    key = jax.random.key(0, impl="rbg")
    config = FLOAT64._replace(measure=False, n_epochs=1)
    *_, (state, _) = epochs(key, RUN, small, config)
    assert_close(state.params.weights, train(key, RUN, small, config)[0].weights)


def test_hyperparameters_may_be_bfloat16(small):
    expected, _ = train(KEY, RUN._replace(lam=0.125), small, FLOAT64)
    params, _ = train(KEY, RUN._replace(lam=jnp.bfloat16(0.125)), small, FLOAT64)
    assert_close(params.weights, expected.weights)


def test_inputs_left_on_disk_are_refused_in_one_line(small):
    rows = LazyRows(lambda a, b: small.train.inputs[a:b], (400, 192), np.uint8)
    on_disk = replace(small, train=Split(rows, small.train.labels))
    with pytest.raises(InputError, match=r"on disk.*gradient descent"):
        train(KEY, RUN, on_disk, FLOAT64)
