"""Tables of configurations: each row as NumPy trains it, on any devices, in chunks."""

from collections import namedtuple

import numpy as np
import optax
import pytest

from linear_cifar import LOSSES, OPTIMIZERS, InputError, device_mesh, sweep
from tests.conftest import assert_close, reduced
from tests.test_train import ADAM, CONFIG, KEY, expected

SETTINGS = {"lam": 0.05, "learning_rate": 0.02}  # of `expected`


def test_a_sweep_returns_each_row_as_numpy_trains_it_in_the_order_of_the_table(small):
    table = {
        # Row 1 is alone in its program, so the devices share its features. Rows 0, 3 and 4 are one
        # program: three runs on two devices.
        "lam": [0.0, 0.1, 0.5, 0.2, 1.0, 0.1],
        "batch_size": [150, 30, 150, 150, 150, 150],
        "loss": ["softmax", "softmax", LOSSES["multi_bce"], "softmax", "softmax", "softmax"],
        "optimizer": ["sgd", OPTIMIZERS["sgd"], "sgd", "sgd", "sgd", "adam"],
    }
    columns = table | ADAM | {"learning_rate": 0.02}
    params, history = sweep(KEY, columns, small, CONFIG, mesh=device_mesh())
    for i, (lam, batch_size) in enumerate(zip(table["lam"], table["batch_size"], strict=True)):
        settings = {"lam": lam, "batch_size": batch_size}
        settings |= {"loss": "multi_bce"} if i == 2 else {}
        settings |= {"optimizer": "adam", **ADAM} if i == 5 else {}
        weights, _, rows = expected(small, **settings)
        assert_close(params.weights[i], weights, factor=10)
        assert_close([column[i] for column in history], rows.T, factor=10)


@pytest.mark.parametrize("n_features", [192, 99])
def test_one_run_on_two_devices_is_as_numpy_trains_it(synthetic, n_features):
    """Two devices can't share 99 features: each has them all."""
    data = reduced(synthetic, n_features)
    params, _ = sweep(KEY, SETTINGS, data, CONFIG, mesh=device_mesh())
    assert_close(params.weights[0], expected(data)[0])


def test_a_bound_on_memory_cuts_a_table_into_chunks_with_the_same_results(small):
    table = SETTINGS | {"lam": np.linspace(0, 1, 9)}
    run_bytes = 2 * 8 * 10 * 193  # parameters and gradients
    chunks, steps = [], []
    calls = {"on_chunk": chunks.append, "on_epoch": steps.append}
    nothing, _ = sweep(KEY, table, small, CONFIG, memory_bytes=8 * run_bytes, **calls)
    assert len(nothing.bias) == 0
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(9))
    assert all(1 < len(chunk.rows) <= 8 for chunk in chunks)
    assert [step.epoch for step in steps] == [0, 1, 2, 3] * len(chunks)
    assert steps[1].history.train_cost.shape == (len(chunks[0].rows), 2)
    for chunk in chunks:
        for row, *result in zip(
            chunk.rows, chunk.params.weights, chunk.history.train_cost, strict=True
        ):
            weights, _, rows = expected(small, lam=table["lam"][row])
            assert_close(result[0], weights)
            assert_close(result[1], rows[:, 1])


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
    table, trained = SETTINGS | {"lam": np.linspace(0, 1, 5)}, []
    pairs = {"mesh": device_mesh(), "memory_bytes": 1}  # a run for each device
    all_rows, _ = sweep(KEY, table, small, CONFIG, **pairs)
    pairs |= {"finished": {0, 1, 2}, "on_epoch": lambda step: trained.extend(step.rows.tolist())}
    rest, _ = sweep(KEY, table, small, CONFIG, **pairs)
    assert set(trained) == {2, 3, 4}
    assert np.array_equal(rest.weights, all_rows.weights[3:])


def test_a_diverging_row_spoils_no_other(small):
    rates = [0.01, 1e300, 0.02]
    params, history = sweep(KEY, SETTINGS | {"learning_rate": rates}, small, CONFIG)
    assert np.isnan(history.validation_accuracy[1, -1])
    for row in (0, 2):
        assert_close(params.weights[row], expected(small, learning_rate=rates[row])[0])


def test_an_optimiser_can_read_hyperparameters_of_its_own(small):
    hyperparameters = namedtuple("Own", ["lam", "step"])(0.05, np.array([0.001, 0.02]))
    config = CONFIG._replace(optimizer=lambda h, _: optax.scale(-h.step))
    params, _ = sweep(KEY, hyperparameters, small, config)
    for weights, step in zip(params.weights, hyperparameters.step, strict=True):
        assert_close(weights, expected(small, learning_rate=step)[0])


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
