"""Tables of configurations: each row as NumPy trains it, on any devices, in chunks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linear_cifar import (
    LOSSES,
    OPTIMIZERS,
    Hyperparameters,
    InputError,
    TrainConfig,
    device_mesh,
    grid,
    sweep,
    train,
)
from linear_cifar.training import init_state
from tests import oracle
from tests.conftest import assert_close, reduced

KEY = jax.random.key(0)
CONFIG = TrainConfig(n_epochs=2, batch_size=100, dtype=jnp.float64)


def expected(dataset, **settings):
    """What NumPy trains from the same start: the weights, and the history's rows."""
    start = init_state(KEY, Hyperparameters(), dataset, CONFIG).params
    defaults = {"lam": 0.1, "learning_rate": 0.01, "batch_size": 100, "loss": "softmax"}
    weights, _, rows = oracle.train(*start, dataset, n_epochs=2, **defaults | settings)
    return weights, rows


def test_a_sweep_returns_each_row_as_numpy_trains_it_in_the_order_of_the_table(small):
    adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
    rows = [
        {"lam": lam, "batch_size": size, "loss": loss}
        for lam, size, loss in (
            (0.0, 100, "softmax"),
            (0.1, 30, "softmax"),  # alone in its program: the devices share its features
            (0.5, 100, "multi_bce"),
            (0.2, 100, "softmax"),
            (1.0, 100, "softmax"),  # the third of its program, on two devices
            (0.1, 100, "softmax"),
        )
    ]
    rows[-1]["optimizer"] = "adam"
    table = {name: [row[name] for row in rows] for name in rows[0]}
    table["loss"][2] = LOSSES["multi_bce"]
    table["optimizer"] = ["sgd", OPTIMIZERS["sgd"], "sgd", "sgd", "sgd", "adam"]
    params, history = sweep(KEY, table | {"learning_rate": 0.01}, small, CONFIG, mesh=device_mesh())
    for i, row in enumerate(rows):
        weights, measured = expected(small, **row, **adam if "optimizer" in row else {})
        assert_close(params.weights[i], weights)
        assert_close([column[i] for column in history], measured.T, factor=10)


def test_every_row_can_have_its_own_key(small):
    keys, lam = jax.random.split(KEY, 3), [0.0, 0.1, 0.2]
    config = CONFIG._replace(shuffle=True, measure=False)
    params, history = sweep(keys, {"lam": lam}, small, config)
    assert history.train_cost.shape == (3, 0)
    for row in range(3):
        alone, _ = train(keys[row], Hyperparameters(lam[row]), small, config)
        assert_close(params.weights[row], alone.weights)


@pytest.mark.parametrize("n_features", [192, 99])
def test_one_run_on_two_devices_is_as_numpy_trains_it(synthetic, n_features):
    """Two devices can't share 99 features: each has them all."""
    data, table = reduced(synthetic, n_features), {"lam": 0.1, "learning_rate": 0.01}
    params, _ = sweep(KEY, table, data, CONFIG, mesh=device_mesh())
    assert_close(params.weights[0], expected(data)[0])


def test_a_bound_on_memory_cuts_a_table_into_chunks_with_the_same_results(small):
    table = grid(lam=np.linspace(0, 1, 9), learning_rate=[0.01])
    run_bytes = 2 * 8 * 10 * 193  # parameters and gradients
    chunks, steps = [], []
    nothing, _ = sweep(
        KEY, table, small, CONFIG, memory_bytes=8 * run_bytes,
        on_chunk=chunks.append, on_epoch=steps.append,
    )  # fmt: skip
    assert len(nothing.bias) == 0
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(9))
    assert all(1 < len(chunk.rows) <= 8 for chunk in chunks)
    assert [step.epoch for step in steps] == [0, 1, 2] * len(chunks)
    assert steps[1].history.train_cost.shape == (len(chunks[0].rows), 2)
    for chunk in chunks:
        for row, weights, cost in zip(
            chunk.rows, chunk.params.weights, chunk.history.train_cost, strict=True
        ):
            assert_close(weights, expected(small, lam=table["lam"][row])[0])
            assert_close(cost, expected(small, lam=table["lam"][row])[1][:, 1])


def test_the_state_of_an_optimiser_counts_as_memory_and_an_interrupt_comes_through(small):
    n_runs = []

    def interrupt(step):
        n_runs.append(len(step.rows))
        raise KeyboardInterrupt

    for optimizer in ("sgd", "adam"):
        table = {"lam": np.linspace(0, 1, 8), "optimizer": optimizer}
        with pytest.raises(KeyboardInterrupt):
            sweep(KEY, table, small, CONFIG, memory_bytes=12 * 8 * 8 * 193, on_epoch=interrupt)
    assert n_runs[0] > n_runs[1]


def test_finished_rows_are_left_out_and_the_others_keep_their_bits(small):
    table = grid(lam=np.linspace(0, 1, 5), learning_rate=[0.01])
    pairs = {"mesh": device_mesh(), "memory_bytes": 1}  # a run for each device
    all_rows, _ = sweep(KEY, table, small, CONFIG, **pairs)
    trained = []
    rest, _ = sweep(
        KEY, table, small, CONFIG, **pairs, finished={0, 1, 2},
        on_epoch=lambda step: trained.extend(step.rows.tolist()),
    )  # fmt: skip
    assert set(trained) == {2, 3, 4}
    assert np.array_equal(rest.weights, all_rows.weights[3:])


def test_a_diverging_row_spoils_no_other(small):
    table = {"lam": 0.1, "learning_rate": [0.01, 1e300, 0.02]}
    params, history = sweep(KEY, table, small, CONFIG)
    assert np.isnan(history.validation_accuracy[1, -1])
    for row in (0, 2):
        rate = table["learning_rate"][row]
        assert_close(params.weights[row], expected(small, learning_rate=rate)[0])


def test_an_optimiser_can_read_hyperparameters_of_its_own(small, monkeypatch):
    class Own(NamedTuple):
        lam: object
        step: object

    def by_sign(hyperparameters, _):
        return optax.chain(optax.scale_by_sign(), optax.scale(-hyperparameters.step))

    monkeypatch.setitem(oracle.OPTIMIZERS, "sign", lambda gradients: np.sign(gradients[0]))
    steps = np.array([1e-3, 1e-2])
    params, _ = sweep(KEY, Own(0.1, steps), small, CONFIG._replace(optimizer=by_sign))
    for row in range(2):
        weights, _ = expected(small, learning_rate=steps[row], optimizer="sign")
        assert_close(params.weights[row], weights)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lam": [0.1, 0.2], "batch_size": [10, 20, 30]}, "batch_size 3, lam 2"),
        ({"lambda": [0.1]}, "lambda.*lam"),
        ({"loss": ["softmax", "hinge"]}, "hinge"),
        ({"batch_size": [10, 0]}, "batch_size"),
        ({"lam": [[0.1]]}, "lam"),
    ],
)
def test_a_table_that_cannot_be_trained_is_refused_before_training(small, table, message):
    with pytest.raises(InputError, match=message):
        sweep(KEY, table, small, CONFIG, on_epoch=lambda _: pytest.fail("it trained"))


def test_a_mesh_with_other_axes_is_refused(small):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    with pytest.raises(InputError, match="device_mesh"):
        sweep(KEY, {"lam": 0.1}, small, CONFIG, mesh=mesh)
