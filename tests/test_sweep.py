"""The engine: tables in chunks, blocks of batches, several devices; and the choice of the best."""

import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close
from scipy import stats
from test_commands import ROOT, environment

from linear_cifar import epoch, search, sweep, training
from linear_cifar.datasets import fit_standardiser, with_validation
from linear_cifar.evaluation import evaluate_runs
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from linear_cifar.objective import cost_gradient
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters, adam, momentum, sgd
from linear_cifar.sweep import steps
from linear_cifar.training import SettingsError, train

KEY = jax.random.key(0)
ENGINE = sys.modules["linear_cifar.sweep"]  # the package's name `sweep` is the function
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@each_loss
@pytest.mark.parametrize(
    ("batch_size", "at_once", "shuffle"),
    [(30, 4, False), (100, 4, True), (100, 3, False), (1, 7, False), (70, 60, True)],
)
def test_batches_at_once_are_batches_one_by_one(
    small, monkeypatch, loss, shuffle, batch_size, at_once
):
    """Whether a block is left over, with a last batch that isn't full, or not; λ = 0 among them."""
    runs = Hyperparameters(
        lam=np.array([0.0, 0.1, 1.0]), learning_rate=1e-4 * batch_size,
        decay_factor=np.array([1.0, 10.0, 3.0]), decay_every=np.array([1, 1, 2]),
    )  # fmt: skip
    settings = {"n_epochs": 3, "batch_size": batch_size, "loss": loss, "shuffle": shuffle}
    results = []
    for n in (1, at_once):
        monkeypatch.setattr(training, "batches_per_block", lambda *_, n=n: n)
        results.append(train(KEY, runs, small, dtype=jnp.float64, **settings))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert_close(a, b, factor=100)


def test_batches_are_taken_at_once_where_it_is_the_same_mathematics_and_pays():
    def n(batch_size, n_runs, n_epochs, optimizer=sgd, gradient=cost_gradient):
        return epoch.batches_per_block(batch_size, 10, n_runs, n_epochs, optimizer, gradient)

    assert n(100, 1, 40) == n(10, 64, 40) == n(50, 64, 1) == 4
    assert n(100, 1, 1) == n(100, 64, 40) == n(500, 1, 10_000) == 1
    assert n(10, 6, 40, momentum) == n(10, 6, 40, sgd, training.autodiff) == 1


def test_extreme_logits_and_nan_are_the_same_at_once(small, monkeypatch):
    wild = Hyperparameters(
        lam=np.array([0.0, 1.0, 5.0]), learning_rate=np.array([1e3, 1e200, 0.5])
    )  # fmt: skip
    results = []
    for n in (1, 4):
        monkeypatch.setattr(training, "batches_per_block", lambda *_, n=n: n)
        results.append(train(KEY, wild, small, n_epochs=1, dtype=jnp.float64)[0].weights)
    one_by_one, at_once = map(np.asarray, results)
    assert_close(at_once[0], one_by_one[0], factor=1000)  # logits of a million
    assert not np.isfinite(one_by_one[1]).all()
    assert not np.isfinite(at_once[1]).all()
    assert np.isfinite(at_once[[0, 2]]).all()


def mixed_table():
    """Seven rows in four groups, in no order."""
    table = Hyperparameters(
        lam=np.array([0.0, 0.1, 0.0, 1.0, 0.1, 0.2, 0.3]),
        learning_rate=np.array([1e-3, 1e-3, 1e-2, 1e-3, 1e-3, 2e-3, 1e-3]),
        momentum=np.array([0.9, 0.5, 0.9, 0.9, 0.9, 0.8, 0.9]),
        b1=np.array([0.9, 0.9, 0.9, 0.9, 0.8, 0.9, 0.9]),
    )
    softmax, binary = SOFTMAX_CROSS_ENTROPY, MULTIPLE_BINARY_CROSS_ENTROPY
    columns = {
        "batch_size": [30, 100, 30, 100, 30, 100, 30],
        "loss": [softmax, softmax, softmax, binary, softmax, softmax, softmax],
        "optimizer": [sgd, momentum, sgd, sgd, adam, momentum, sgd],
    }
    return table, columns


@pytest.mark.parametrize(("dtype", "shuffle"), [("float32", True), ("float64", False)])
def test_a_table_comes_back_in_its_order_each_row_as_alone(small, shuffle, dtype):
    table, columns = mixed_table()
    keys = jnp.stack([jax.random.key(seed) for seed in (0, 1, 2, 0, 1, 0, 0)])
    settings = {"n_epochs": 2, "shuffle": shuffle, "dtype": jnp.dtype(dtype)}
    params, history = sweep(keys, table, small, **columns, **settings)
    assert params.weights.dtype == dtype
    assert history.train_cost.shape == (7, 3)
    for i in range(7):
        one = Hyperparameters(*(f[i] if np.ndim(f) else f for f in table))
        own = {name: column[i] for name, column in columns.items()}
        alone, alone_history = train(keys[i], one, small, **own, **settings)
        assert_close(params.weights[i], alone.weights)
        assert_close(params.bias[i], alone.bias)
        assert_close(history.validation_cost[i], alone_history.validation_cost)


def test_a_single_configuration_has_its_axis_too(small):
    params, history = sweep(KEY, Hyperparameters(0.1, 0.01), small, n_epochs=2)
    alone, _ = train(KEY, Hyperparameters(0.1, 0.01), small, n_epochs=2)
    assert params.weights.shape[0] == history.train_loss.shape[0] == 1
    assert_close(params.weights[0], alone.weights)
    _, unmeasured = sweep(KEY, Hyperparameters(0.1, 0.01), small, n_epochs=2, measure=False)
    assert unmeasured.train_loss.shape == (1, 0)


class Own(NamedTuple):
    """Hyper-parameters of a user's own."""

    lam: np.ndarray
    rate: np.ndarray


def own_optimizer(hyperparameters, steps_per_epoch):
    del steps_per_epoch
    return optax.chain(optax.clip(0.5), optax.sgd(hyperparameters.rate))


def test_an_optimiser_of_one_s_own_has_hyperparameters_of_its_own(small):
    table = Own(np.array([0.0, 0.1, 0.2]), np.array([0.01, 0.001, 0.01]))
    params, _ = sweep(KEY, table, small, optimizer=own_optimizer, n_epochs=2)
    alone, _ = train(KEY, Own(0.1, 0.001), small, optimizer=own_optimizer, n_epochs=2)
    assert_close(params.weights[1], alone.weights)


def test_columns_of_different_lengths_are_refused(small):
    with pytest.raises(SettingsError, match=r"\[2, 3\]"):
        sweep(KEY, Hyperparameters(np.zeros(3), 0.1), small, batch_size=[1, 2])


def of_run_bytes(n, dataset):
    """A bound on memory that n plain runs meet: parameters, gradient, updates, new parameters."""
    return int(n * 4 * (4 * dataset.n_features * 10 + 20))


def test_chunks_share_a_program_and_leave_out_what_is_finished(small):
    # Batches of a size that no other test has, for a program of its own.
    lam, settings = np.linspace(0, 1, 11), {"n_epochs": 2, "measure": False, "batch_size": 97}
    settings |= {"memory_bytes": of_run_bytes(4, small)}
    before = training._advance._cache_size()
    trained = list(steps(KEY, Hyperparameters(lam, 0.01), small, **settings))
    assert training._advance._cache_size() - before == 1
    assert [s.rows.tolist() for s in trained if s.finished] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10],
    ]
    assert [s.epoch for s in trained] == [0, 1, 2] * 3
    again = list(
        steps(KEY, Hyperparameters(lam, 0.01), small, finished={0, 1, 2, 3, 9}, **settings)
    )
    assert [s.rows.tolist() for s in again if s.finished] == [[4, 5, 6, 7], [8, 10]]
    whole = {row: p for s in trained if s.finished
             for row, p in zip(s.rows, s.params.weights, strict=True)}  # fmt: skip
    for step in again:
        if step.finished:
            for row, weights in zip(step.rows, step.params.weights, strict=True):
                assert np.array_equal(weights, whole[row])


def test_programs_are_compiled_once_a_group_and_never_for_new_values(small):
    table, columns = mixed_table()
    columns["batch_size"] = [size + 1 for size in columns["batch_size"]]  # as in no other test
    programs = (training._advance, training._start, evaluate_runs)
    before = training._advance._cache_size()
    sweep(KEY, table, small, **columns, n_epochs=3)
    assert training._advance._cache_size() - before == 4  # groups, of three, two, one and one runs
    sizes = [program._cache_size() for program in programs]
    others = table._replace(lam=table.lam + 0.5, learning_rate=table.learning_rate / 2)
    sweep(jax.random.split(KEY, 7), others, small, **columns, n_epochs=3)
    assert [program._cache_size() for program in programs] == sizes


def test_a_diverging_row_spoils_no_other(small):
    rates = np.array([0.01, 1e30, 0.01])
    params, history = sweep(KEY, Hyperparameters(1.0, rates), small, n_epochs=2)
    alone, _ = train(KEY, Hyperparameters(1.0, 0.01), small, n_epochs=2)
    assert np.isnan(history.validation_accuracy[1, -1])
    for i in (0, 2):
        assert_close(params.weights[i], alone.weights)


@pytest.fixture
def scarce(monkeypatch):
    """Memory for no more than two runs at once."""
    real = training.epochs

    def epochs(key, hyperparameters, *arguments, **settings):
        if np.size(hyperparameters.lam) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return real(key, hyperparameters, *arguments, **settings)

    monkeypatch.setattr(ENGINE, "epochs", epochs)


@pytest.mark.usefixtures("scarce")
def test_a_chunk_out_of_memory_is_halved_and_said_to_be(small):
    lam = np.linspace(0, 1, 7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params, _ = sweep(KEY, Hyperparameters(lam, 0.01), small, n_epochs=1)
    texts = [str(w.message) for w in caught]
    assert [int(text.split()[4]) for text in texts] == [7, 3]
    assert all("half as many" in text for text in texts)
    many, _ = train(KEY, Hyperparameters(lam, 0.01), small, n_epochs=1)
    assert_close(params.weights, many.weights)


def test_out_of_memory_with_one_run_is_an_error_and_others_pass(small, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(ENGINE, "epochs", fail)
    message = "RESOURCE_EXHAUSTED: Out of memory"
    with pytest.raises(MemoryError, match="1 configurations"):
        sweep(KEY, Hyperparameters(0.1, 0.01), small)
    message = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        sweep(KEY, Hyperparameters(0.1, 0.01), small)


FOUR_DEVICES = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from conftest import reduced
from linear_cifar import Hyperparameters, SettingsError, load_dataset, train
from linear_cifar.devices import device_mesh, place_dataset
from linear_cifar.sweep import sweep
from test_sweep import mixed_table

assert len(jax.devices()) == 4
mesh, data = device_mesh(), reduced(load_dataset("synthetic"))
table, columns = mixed_table()
settings = dict(**columns, n_epochs=2, dtype=np.float64)
alone = sweep(jax.random.key(0), table, data, **settings)
split = sweep(jax.random.key(0), table, place_dataset(data, mesh), mesh=mesh, **settings)
for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(split), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
try:
    train(jax.random.key(0), Hyperparameters(np.zeros(6), 0.1), data, mesh=mesh)
except SettingsError as error:
    assert "6 runs can't be split evenly over 4 devices" in str(error)
    print("equal")
"""


def test_four_devices_give_the_results_of_one():
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], cwd=ROOT / "tests", text=True, capture_output=True,
        env=environment(
            XLA_FLAGS="--xla_force_host_platform_device_count=4", PYTHONPATH=f"{ROOT}:{ROOT}/tests"
        ), check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("equal"), done.stderr


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_takes_its_settings_from_the_table(small, name):
    field = {"sgd": "decay_factor", "momentum": "momentum", "adam": "b2"}[name]
    values = {field: np.array([1.0, 3.0])} if name == "sgd" else {field: np.array([0.5, 0.9])}
    table = Hyperparameters(0.1, 0.001, **values, **({"decay_every": 1} if name == "sgd" else {}))
    params, history = sweep(KEY, table, small, optimizer=OPTIMIZERS[name], n_epochs=4)
    assert (history.train_cost[:, -1] < history.train_cost[:, 0]).all()
    assert not np.allclose(params.weights[0], params.weights[1])


def test_a_grid_has_every_combination_once():
    table = search.grid(batch_size=[10, 20], learning_rate=[0.1, 0.2], lam=[0.0, 0.5, 1.0])
    rows = list(zip(*(column.tolist() for column in table.values()), strict=True))
    assert rows == [(b, e, lam) for b in (10, 20) for e in (0.1, 0.2) for lam in (0.0, 0.5, 1.0)]
    assert table["batch_size"].dtype.kind == "i"


def test_draws_are_log_uniform_and_depend_on_the_seed_alone():
    axes = {"lam": stats.loguniform(1e-5, 1.0), "batch_size": [10, 50]}
    table, same = search.draw(3, 4000, **axes), search.draw(3, 4000, **axes)
    assert all(np.array_equal(table[name], same[name]) for name in axes)
    logs = np.log10(table["lam"])
    assert stats.kstest(logs, stats.uniform(-5, 5).cdf).pvalue > 0.01
    assert abs(np.mean(table["batch_size"] == 10) - 0.5) < 0.03
    assert not np.array_equal(table["lam"], search.draw(4, 4000, **axes)["lam"])


def test_the_best_is_never_diverged_and_ties_go_by_the_other_figure():
    accuracy = np.array([np.nan, 0.3, 0.4, 0.4, 0.4, np.nan])
    loss = np.array([np.nan, 1.0, 1.9, 1.8, 1.8, 0.1])
    assert search.best(accuracy) == 2
    assert search.best(accuracy, loss) == 3
    assert search.best(accuracy, loss, by="loss") == 1
    assert search.ranking(accuracy, loss).tolist() == [3, 4, 2, 1, 5, 0]
    assert search.ranking(accuracy, loss, by="loss").tolist() == [1, 3, 4, 2, 5, 0]
    with pytest.raises(ValueError, match="diverged"):
        search.best(np.array([np.nan, np.nan]))


def test_refitting_takes_validation_data_with_statistics_of_all(small):
    both = with_validation(small)
    inputs = np.concatenate([small.train.inputs, small.validation.inputs])
    assert np.array_equal(both.train.inputs, inputs)
    assert len(both.train.labels) == len(inputs)
    assert_close(both.standardiser.mean, fit_standardiser(inputs).mean)
    assert np.array_equal(both.test.inputs, small.test.inputs)
