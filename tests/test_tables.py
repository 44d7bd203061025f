"""Tables of configurations: each row as if it were trained alone."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close
from rows import SEEDS, keys, mixed_table, of_row

from linear_cifar.engine import loop, tables
from linear_cifar.engine.devices import device_mesh
from linear_cifar.engine.plan import make_table
from linear_cifar.engine.state import Training
from linear_cifar.engine.tables import sweep, sweep_epochs
from linear_cifar.engine.training import train
from linear_cifar.evaluation import evaluate_runs
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters, sgd

KEY = jax.random.key(0)


def test_a_sweep_trains_all_of_its_table(small):
    with pytest.raises(TypeError, match="finished"):
        sweep(KEY, Hyperparameters(0.1, 0.1), small, finished={0})


def test_a_table_comes_back_in_its_order_each_row_as_alone(small):
    hyperparameters, columns = mixed_table(3)
    own_keys = keys(SEEDS[:3])
    settings = {"n_epochs": 2, "shuffle": True}
    params, history = sweep(own_keys, hyperparameters, small, **columns, **settings)
    assert {type(array) for array in (*params, *history)} == {np.ndarray}
    assert params.weights.dtype == np.float32
    assert history.train_cost.shape == (3, 3)
    for i in range(3):
        own = {name: column[i] for name, column in columns.items()}
        alone, alone_history = train(
            own_keys[i], of_row(hyperparameters, i), small, **own, **settings
        )
        for ours, expected in zip((*params, *history), (*alone, *alone_history), strict=True):
            assert_close(ours[i], expected)


def test_programs_are_compiled_once_a_group_and_never_for_new_values(small):
    hyperparameters, columns = mixed_table(3)
    columns["batch_size"] = [size + 1 for size in columns["batch_size"]]  # as in no other test
    programs = (loop._advance, loop._start, evaluate_runs.__wrapped__)
    before = loop._advance._cache_size()
    sweep(KEY, hyperparameters, small, **columns, n_epochs=2)
    assert loop._advance._cache_size() - before == 2  # groups, of two runs and of one
    sizes = [program._cache_size() for program in programs]
    others = hyperparameters._replace(
        lam=hyperparameters.lam + 0.5, learning_rate=hyperparameters.learning_rate / 2
    )
    sweep(jax.random.split(KEY, 3), others, small, **columns, n_epochs=3)
    assert [program._cache_size() for program in programs] == sizes


def of_runs_bytes(n, dataset):
    """A bound on memory that n plain runs meet: parameters, gradient, updates, new parameters."""
    return int(n * 8 * (4 * dataset.n_features * 10 + 20))


def test_chunks_share_a_program_and_leave_out_what_is_finished(small):
    # Batches of a size that no other test has, for a program of its own.
    runs = Hyperparameters(np.linspace(0, 1, 11), 0.01)
    table = make_table(KEY, runs, 97, SOFTMAX_CROSS_ENTROPY, sgd)
    how = Training(n_epochs=2, measure=False, dtype=jnp.float64)
    before = loop._advance._cache_size()

    def trained(**settings):
        steps = list(
            sweep_epochs(table, small, how, memory_bytes=of_runs_bytes(4, small), **settings)
        )
        assert [step.epoch for step in steps] == [0, 1, 2] * (len(steps) // 3)
        assert [step.epoch for step in steps if step.finished] == [2] * (len(steps) // 3)
        return [(step.rows.tolist(), step.params) for step in steps if step.finished]

    whole = trained()
    assert [rows for rows, _ in whole] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    again = trained(finished={1, 2, 4, 5, 6, 7})
    assert [rows for rows, _ in again] == [[0, 3], [8, 9, 10]]
    assert np.array_equal(again[0][1].weights, whole[0][1].weights[[0, 3]])
    assert np.array_equal(again[1][1].weights, whole[2][1].weights)
    four = runs._replace(lam=runs.lam[4:8])
    expected, _ = train(KEY, four, small, **how._replace(batch_size=97)._asdict())
    assert_close(whole[1][1].weights, expected.weights, dtype=np.float64)
    assert loop._advance._cache_size() - before == 1


def test_what_fills_up_a_chunk_shows_nowhere(small):
    """Three runs on two devices, which train four."""
    runs = Hyperparameters(np.array([0.0, 0.1, 1.0]), np.array([0.01, 0.02, 0.03]))
    table = make_table(KEY, runs, 100, SOFTMAX_CROSS_ENTROPY, sgd)
    *_, step = sweep_epochs(table, small, Training(n_epochs=1), mesh=device_mesh())
    expected, history = train(KEY, runs, small, n_epochs=1)
    assert step.finished
    for ours, of_three in zip(step.params, expected, strict=True):
        assert len(ours) == 3
        assert_close(ours, of_three)
    for split, last in (("train", history.train_cost), ("validation", history.validation_cost)):
        measured = getattr(step.metrics, split)
        for found in (measured.cost, step.evaluate(split).cost):
            assert len(found) == 3
            assert_close(found, last[:, -1])
    test = evaluate_runs(expected, small.test, small.standardiser, runs.lam.astype(np.float32))
    for ours, of_three in zip(step.evaluate("test"), test, strict=True):
        assert_close(ours, of_three)


def test_a_single_configuration_has_its_axis_too(small):
    one, settings = Hyperparameters(0.1, 0.01), {"n_epochs": 2, "measure": False}
    params, history = sweep(KEY, one, small, **settings)
    alone, _ = train(KEY, one, small, **settings)
    assert params.weights.shape == (1, *alone.weights.shape)
    assert_close(params.weights[0], alone.weights)
    assert history.train_loss.shape == (1, 0)


def test_a_diverging_row_spoils_no_other(small):
    rates = np.array([0.01, 1e30, 0.01])
    params, history = sweep(KEY, Hyperparameters(1.0, rates), small, n_epochs=2)
    alone, _ = train(KEY, Hyperparameters(1.0, 0.01), small, n_epochs=2)
    assert params.weights.dtype == np.float32
    assert np.isnan(history.validation_accuracy[1, -1])
    for i in (0, 2):
        assert_close(params.weights[i], alone.weights)


class Own(NamedTuple):
    """Hyper-parameters of a user's own."""

    lam: np.ndarray
    rate: np.ndarray


def own_optimizer(hyperparameters, steps_per_epoch):
    del steps_per_epoch
    return optax.chain(optax.clip(0.5), optax.sgd(hyperparameters.rate))


def test_an_optimiser_of_one_s_own_has_hyperparameters_of_its_own(small):
    table = Own(np.array([0.0, 0.1, 0.2]), np.array([0.01, 0.001, 0.01]))
    settings = {"optimizer": own_optimizer, "n_epochs": 2, "measure": False}
    params, _ = sweep(KEY, table, small, **settings)
    alone, _ = train(KEY, of_row(table, 1), small, **settings)
    assert_close(params.weights[1], alone.weights)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("sgd", "decay_factor", [1.0, 3.0]),
        ("momentum", "momentum", [0.5, 0.9]),
        ("adam", "b1", [0.5, 0.9]),
        ("adam", "b2", [0.5, 0.9]),
        ("adam", "eps", [1e-8, 1.0]),
    ],
)
def test_an_optimiser_takes_its_settings_from_the_table(small, name, field, values):
    table = Hyperparameters(0.1, 0.001, decay_every=1)._replace(**{field: np.array(values)})
    params, history = sweep(KEY, table, small, optimizer=OPTIMIZERS[name], n_epochs=4)
    assert (history.train_cost[:, -1] < history.train_cost[:, 0]).all()
    assert not np.allclose(params.weights[0], params.weights[1])


# Out of memory.


@pytest.mark.parametrize(
    "error",
    [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError("no")],
    ids=["of a device", "of the host"],
)
def test_a_chunk_out_of_memory_is_halved_and_said_to_be(small, monkeypatch, error):
    """After a chunk for which there was memory."""
    real, sizes = loop.run_epochs, []

    def scarce(runs, data, how):
        sizes.append(len(runs.keys))
        if sizes[-1] > 1 and len(sizes) > 1:
            raise error
        return real(runs, data, how)

    runs = Hyperparameters(np.linspace(0, 1, 7), 0.01)
    settings = {"n_epochs": 1, "measure": False, "dtype": jnp.float64}
    expected, _ = train(KEY, runs, small, **settings)
    monkeypatch.setattr(tables, "run_epochs", scarce)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params, _ = sweep(KEY, runs, small, memory_bytes=of_runs_bytes(4, small), **settings)
    assert sizes == [4, 4, 2, 1, 1, 1]
    texts = [str(w.message) for w in caught]
    assert [int(text.split()[4]) for text in texts] == [4, 2]
    assert all("half as many" in text for text in texts)
    assert_close(params.weights, expected.weights)


def test_out_of_memory_with_one_run_is_an_error_and_others_pass(small, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(tables, "run_epochs", fail)
    message = "RESOURCE_EXHAUSTED: Out of memory"
    with pytest.raises(MemoryError, match="1 configurations"):
        sweep(KEY, Hyperparameters(0.1, 0.01), small)
    message = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        sweep(KEY, Hyperparameters(0.1, 0.01), small)
