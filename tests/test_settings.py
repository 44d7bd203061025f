"""Settings: what is out of range is refused where it comes in, before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_close

from linear_cifar.engine import loop, tables
from linear_cifar.engine.tables import sweep
from linear_cifar.engine.training import train
from linear_cifar.optimizers import Hyperparameters, sgd, step_decay
from linear_cifar.settings import SettingsError

KEY = jax.random.key(0)


def no_training(monkeypatch):
    """Whatever is trained fails the test."""
    for module in (loop, tables):
        monkeypatch.setattr(module, "run_epochs", lambda *_: pytest.fail("something was trained"))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("lam", -0.1, "lam is -0.1: it has to be at least 0"),
        ("lam", np.nan, "lam is nan"),
        ("learning_rate", 0.0, "learning_rate is 0.0: it has to be above 0"),
        ("learning_rate", np.inf, "learning_rate is inf"),
        ("decay_every", 0, "decay_every is 0: it has to be from 1 to 2147483647"),
        ("decay_every", 2**31, "decay_every is 2147483648"),
        ("decay_every", 2**40, f"decay_every is {2**40}"),
        ("eps", np.inf, "eps is inf"),
        ("decay_factor", 0.5, "decay_factor is 0.5: it has to be at least 1"),
        ("momentum", 1.0, "momentum is 1.0: it has to be at least 0 and below 1"),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_refused_by_name_in_any_run(
    small, monkeypatch, setting, value, message
):
    no_training(monkeypatch)
    usual = getattr(Hyperparameters(), setting)
    for values in (value, np.array([usual, usual, value])):
        runs = Hyperparameters(**{setting: values})
        for function in (train, sweep):
            with pytest.raises(SettingsError, match=message):
                function(KEY, runs, small)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (0, "batch_size is 0: it has to be from 1 to 400"),
        (401, "batch_size is 401: it has to be from 1 to 400"),
        (20.7, "batch_size is 20.7: it has to be an integer"),
        ("20", "batch_size is '20': it has to be an integer"),
    ],
)
def test_a_batch_size_out_of_its_range_is_refused_in_any_row_before_anything_is_trained(
    small, monkeypatch, batch_size, message
):
    no_training(monkeypatch)
    one = Hyperparameters(0.1, 0.01)
    for sizes in (batch_size, [20, 100, batch_size], (batch_size, 100)):
        with pytest.raises(SettingsError, match=message):
            sweep(KEY, one, small, batch_size=sizes)
    with pytest.raises(SettingsError, match=message):
        train(KEY, one, small, batch_size=batch_size)


@pytest.mark.parametrize(
    ("n_epochs", "message"),
    [
        (0, "n_epochs is 0: it has to be from 1 to 2147483647"),
        ("2", "n_epochs is '2': it has to be an integer"),
    ],
)
def test_a_number_of_epochs_out_of_its_range_is_refused(small, monkeypatch, n_epochs, message):
    no_training(monkeypatch)
    for function in (train, sweep):
        with pytest.raises(SettingsError, match=message):
            function(KEY, Hyperparameters(0.1, 0.01), small, n_epochs=n_epochs)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "learning_rate",
            1e39,
            "learning_rate is 1e[+]39, which is inf in float32: it has",
        ),
        ("learning_rate", 1e-50, "learning_rate is 1e-50, which is 0.0 in float32"),
        ("lam", 1e300, "lam is 1e[+]300, which is inf in float32: it has to be at least 0"),
        ("momentum", 1 - 1e-9, "momentum is 0.999999999, which is 1.0 in float32"),
        ("b1", 1 - 1e-9, "b1 is 0.999999999, which is 1.0 in float32"),
    ],
)
def test_a_hyperparameter_that_leaves_its_range_in_the_dtype_is_refused(
    small, monkeypatch, setting, value, message
):
    no_training(monkeypatch)
    usual = getattr(Hyperparameters(), setting)
    for values in (value, np.array([usual, value])):
        for function in (train, sweep):
            with pytest.raises(SettingsError, match=message):
                function(KEY, Hyperparameters(**{setting: values}), small, dtype=jnp.float32)


def test_columns_of_different_lengths_are_refused_with_their_names_and_lengths(small, monkeypatch):
    no_training(monkeypatch)
    with pytest.raises(SettingsError, match=r"lengths: batch_size 2, key 4, lam 3$"):
        sweep(jax.random.split(KEY, 4), Hyperparameters(np.zeros(3), 0.1), small, batch_size=(1, 2))
    # A column of one value isn't taken for one value.
    with pytest.raises(SettingsError, match=r"lengths: lam 1, learning_rate 2$"):
        sweep(KEY, Hyperparameters(np.zeros(1), np.array([0.1, 0.2])), small)


def test_a_table_without_rows_is_refused(small, monkeypatch):
    no_training(monkeypatch)
    with pytest.raises(SettingsError, match="at least one row"):
        sweep(KEY, Hyperparameters(np.zeros(0), 0.1), small)
    with pytest.raises(SettingsError, match="at least one row"):
        sweep(KEY, Hyperparameters(0.1, 0.1), small, batch_size=())


def test_hyperparameters_of_different_lengths_are_refused(small):
    with pytest.raises(SettingsError, match=r"scalars or \[C\]"):
        train(KEY, Hyperparameters(np.zeros(2), np.ones(3)), small)


def test_step_decay_divides_after_every_so_many_epochs():
    schedule = step_decay(Hyperparameters(0.0, 0.05, 10.0, 10), steps_per_epoch=7)
    assert_close(schedule(jnp.array([0, 69, 70, 139, 140])), [0.05, 0.05, 0.005, 0.005, 0.0005])
    constant = step_decay(Hyperparameters(0.0, 0.05), 7)(jnp.array([0, 10_000]))
    assert constant.tolist() == [0.05, 0.05]
    assert isinstance(sgd(Hyperparameters(0.0, 0.1), 1), optax.GradientTransformation)


def test_a_decay_after_more_steps_than_an_int32_holds_never_comes():
    schedule = step_decay(Hyperparameters(0.0, 0.05, 2.0, 2**31 - 1), steps_per_epoch=10_000)
    assert schedule(jnp.int32(2**31 - 1)) == 0.05


def test_what_is_of_another_kind_is_refused_by_name(small):
    one = Hyperparameters(0.1, 0.01)
    for function in (train, sweep):
        for settings, message in (
            ({"loss": "softmax"}, "loss is 'softmax': it has to be a Loss"),
            ({"optimizer": "adam"}, "optimizer is 'adam': it has to be a function"),
        ):
            with pytest.raises(SettingsError, match=message):
                function(KEY, one, small, **settings)
        with pytest.raises(SettingsError, match="key is 0: it has to be a PRNG key"):
            function(0, one, small)
        with pytest.raises(SettingsError, match="have to be Hyperparameters, not a dict"):
            function(KEY, {"lam": 0.1}, small)
        with pytest.raises(SettingsError, match="lam is str: it has to be real numbers"):
            function(KEY, Hyperparameters("much"), small)


def test_a_list_is_as_good_as_an_array(small):
    for function in (train, sweep):
        a, b = (
            function(KEY, Hyperparameters(lam=lam), small, n_epochs=1)[0].weights
            for lam in ([0.0, 0.1], np.array([0.0, 0.1]))
        )
        assert np.array_equal(a, b)


def test_a_whole_number_divides_the_learning_rate_as_its_float_does():
    for factor in (2, 10, np.int32(3)):
        schedule = step_decay(Hyperparameters(0.0, 0.1, factor, 1), steps_per_epoch=1)
        expected = 0.1 / float(factor) ** 40.0
        assert float(schedule(jnp.int32(40))) == pytest.approx(expected, rel=1e-5)


def test_shapes_that_are_no_column_are_refused(small):
    for function in (train, sweep):
        for lam in (np.zeros((2, 2)), np.zeros(0)):
            with pytest.raises(SettingsError):
                function(KEY, Hyperparameters(lam), small)
    sizes = [
        sweep(KEY, Hyperparameters([0.0, 0.1]), small, batch_size=size, n_epochs=1)[0].weights
        for size in (50, np.array(50), jnp.array([50, 50]))
    ]
    assert np.array_equal(sizes[0], sizes[1])
    assert np.array_equal(sizes[0], sizes[2])
