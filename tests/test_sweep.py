"""Tables of configurations: each row as it is alone, on any devices, in chunks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linear_cifar import (
    LOSSES,
    Hyperparameters,
    InputError,
    TrainConfig,
    device_mesh,
    grid,
    sweep,
    train,
)
from tests.commands import ROOT, run_process
from tests.conftest import assert_close, reduced

KEY = jax.random.key(0)
CONFIG = TrainConfig(n_epochs=2, batch_size=100, dtype=jnp.float64)
MIXED = {
    "lam": [0.0, 0.1, 0.5, 0.1, 0.2, 1.0, 0.3],
    "learning_rate": 0.01,
    "batch_size": [100, 30, 100, 30, 100, 400, 100],
    "loss": ["softmax", "softmax", "multi_bce", "softmax", "softmax", "softmax", "softmax"],
    "optimizer": ["sgd", "sgd", "sgd", "sgd", "adam", "sgd", "sgd"],
}


def alone(table, row, dataset):
    values = {name: v[row] if isinstance(v, list) else v for name, v in table.items()}
    static = {name: values.pop(name) for name in ("batch_size", "loss", "optimizer")}
    return train(KEY, Hyperparameters(**values), dataset, CONFIG._replace(**static))


def test_a_sweep_returns_each_row_as_it_is_alone_in_the_order_of_the_table(small):
    params, history = sweep(KEY, MIXED, small, CONFIG, mesh=device_mesh())
    assert history.validation_accuracy.shape == (7, 3)
    for row in range(7):
        expected, measured = alone(MIXED, row, small)
        assert_close(params.weights[row], expected.weights)
        assert_close(history.train_cost[row], measured.train_cost)


def test_every_row_can_have_its_own_key(small):
    keys, lam = jax.random.split(KEY, 3), [0.0, 0.1, 0.2]
    config = CONFIG._replace(shuffle=True, measure=False)
    params, history = sweep(keys, {"lam": lam}, small, config)
    assert history.train_cost.shape == (3, 0)
    for row in range(3):
        expected, _ = train(keys[row], Hyperparameters(lam[row]), small, config)
        assert_close(params.weights[row], expected.weights)


def test_rows_that_are_shuffled_together_share_one_order(small):
    config = CONFIG._replace(shuffle=True)
    params, _ = sweep(KEY, {"lam": [0.1, 0.1], "learning_rate": [0.01, 0.01]}, small, config)
    assert np.array_equal(params.weights[0], params.weights[1])


@pytest.mark.slow
def test_four_devices_give_the_results_of_one():
    done = run_process("tests.programs.four_devices", PYTHONPATH=str(ROOT))
    assert done.stdout.strip() == "equal", done.stderr


def test_features_that_devices_cannot_share_are_on_all_of_them(synthetic):
    data = reduced(synthetic, 99)
    one, two = (
        sweep(KEY, {"lam": 0.1}, data, CONFIG, mesh=mesh)[0].weights
        for mesh in (None, device_mesh())
    )
    assert_close(two, one)


def test_small_memory_cuts_a_table_into_chunks_with_the_same_results(small):
    table = grid(lam=np.linspace(0, 1, 5), learning_rate=[0.01])
    bytes_per_run = 5 * 8 * 193 * 10
    chunks, epochs = [], []
    nothing, _ = sweep(
        KEY, table, small, CONFIG, memory_bytes=2 * bytes_per_run,
        on_chunk=chunks.append, on_epoch=epochs.append,
    )  # fmt: skip
    assert len(nothing.bias) == 0
    assert [chunk.rows.tolist() for chunk in chunks] == [[0, 1], [2, 3], [4]]
    assert [step.epoch for step in epochs] == [0, 1, 2] * 3
    assert epochs[-1].history.train_cost.shape == (1, 3)
    expected, _ = sweep(KEY, table, small, CONFIG)
    assert_close(np.concatenate([c.params.weights for c in chunks]), expected.weights)


def test_finished_rows_are_left_out_and_the_others_keep_their_bits(small):
    table, memory = grid(lam=np.linspace(0, 1, 6)), 2 * 5 * 8 * 193 * 10
    all_rows, _ = sweep(KEY, table, small, CONFIG, memory_bytes=memory)
    trained = []
    rest, _ = sweep(
        KEY, table, small, CONFIG, memory_bytes=memory, finished={0, 1, 2},
        on_epoch=lambda step: trained.extend(step.rows.tolist()),
    )  # fmt: skip
    assert set(trained) == {2, 3, 4, 5}
    assert np.array_equal(rest.weights, all_rows.weights[3:])


def test_an_interrupt_comes_through(small):
    def interrupt(step):
        if step.epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(KEY, {"lam": 0.1}, small, CONFIG, on_epoch=interrupt)


def test_a_diverging_row_spoils_no_other(small):
    table = {"learning_rate": [0.01, 1e300, 0.02]}
    params, history = sweep(KEY, table, small, CONFIG)
    assert np.isnan(history.validation_accuracy[1, -1])
    for row in (0, 2):
        run = Hyperparameters(learning_rate=table["learning_rate"][row])
        assert_close(params.weights[row], train(KEY, run, small, CONFIG)[0].weights)


def test_an_optimiser_can_read_hyperparameters_of_its_own(small):
    class Clipped(NamedTuple):
        lam: object
        limit: object

    def clipped(hyperparameters, _):
        return optax.chain(optax.clip(hyperparameters.limit), optax.sgd(0.01))

    config = CONFIG._replace(optimizer=clipped)
    params, _ = sweep(KEY, Clipped(0.1, np.array([1e-4, 10.0])), small, config)
    expected, _ = train(KEY, Clipped(0.1, 1e-4), small, config)
    assert_close(params.weights[0], expected.weights)
    assert not np.allclose(params.weights[0], params.weights[1])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lam": [0.1, -1.0]}, "lam"),
        ({"lam": [0.1, 0.2], "batch_size": [10, 20, 30]}, "batch_size 3, lam 2"),
        ({"lambda": [0.1]}, "lambda.*lam"),
        ({"lam": []}, "at least 1"),
        ({"loss": ["softmax", "hinge"]}, "hinge"),
        ({"batch_size": [10, 0]}, "batch_size"),
        ({"lam": [[0.1]]}, "lam"),
    ],
)
def test_a_table_that_cannot_be_trained_is_refused_before_training(small, table, message):
    def fail(_):
        raise AssertionError("it trained")

    with pytest.raises(InputError, match=message):
        sweep(KEY, table, small, CONFIG, on_epoch=fail)


def test_a_mesh_with_other_axes_is_refused(small):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    with pytest.raises(InputError, match="device_mesh"):
        sweep(KEY, {"lam": 0.1}, small, CONFIG, mesh=mesh)


def test_losses_and_optimisers_may_be_objects(small):
    table = {"loss": list(LOSSES.values()), "learning_rate": 0.01}
    params, _ = sweep(KEY, table, small, CONFIG)
    one_value = {"loss": list(LOSSES), "batch_size": np.array(CONFIG.batch_size)}
    names, _ = sweep(KEY, table | one_value, small, CONFIG)
    assert np.array_equal(params.weights, names.weights)
