"""Batches at once: the mathematics of batches one by one, and taken where it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close

from linear_cifar.engine import loop
from linear_cifar.engine.blocks import batches_per_block
from linear_cifar.engine.state import Training, autodiff
from linear_cifar.engine.training import train
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import Hyperparameters, momentum


def one_by_one_and_at_once(monkeypatch, at_once, runs, dataset, **settings):
    """The parameters that `train` gives with single batches, and with so many at once."""
    for n in (1, at_once):
        monkeypatch.setattr(loop, "batches_per_block", lambda *_, n=n: n)
        params, _ = train(
            jax.random.key(0), runs, dataset, dtype=jnp.float64, measure=False, **settings
        )
        yield params


@pytest.mark.parametrize(
    ("loss", "batch_size", "at_once", "shuffle"),
    [
        ("multi_bce", 130, 2, False),  # left is a full batch and one that isn't
        ("softmax", 100, 4, True),  # nothing is left
        ("softmax", 100, 3, False),  # a full batch is left
        # many blocks, of single examples
        pytest.param("multi_bce", 1, 3, True, marks=pytest.mark.slow),
        # the data have no more than two full batches
        pytest.param("softmax", 150, 60, True, marks=pytest.mark.slow),
    ],
)
def test_batches_at_once_are_batches_one_by_one(
    small, monkeypatch, loss, batch_size, at_once, shuffle
):
    runs = Hyperparameters(
        lam=np.array([0.0, 0.1, 1.0]),
        learning_rate=1e-4 * batch_size,
        decay_factor=np.array([1.0, 10.0, 3.0]),
        decay_every=np.array([1, 1, 2]),
    )
    settings = {"n_epochs": 3, "batch_size": batch_size, "shuffle": shuffle, "loss": LOSSES[loss]}
    expected, blocks = one_by_one_and_at_once(monkeypatch, at_once, runs, small, **settings)
    for a, b in zip(blocks, expected, strict=True):
        assert_close(a, b, factor=100)


def test_extreme_logits_and_nan_are_the_same_at_once(small, monkeypatch):
    wild = Hyperparameters(lam=np.array([0.0, 1.0, 5.0]), learning_rate=np.array([1e3, 1e200, 0.5]))
    expected, blocks = (
        np.asarray(params.weights)
        for params in one_by_one_and_at_once(monkeypatch, 4, wild, small, n_epochs=1)
    )
    assert np.abs(expected[0]).max() > 1e2  # logits of many thousands
    assert_close(blocks[0], expected[0], factor=1000)
    assert not np.isfinite(expected[1]).all()
    assert not np.isfinite(blocks[1]).all()
    assert np.isfinite(blocks[[0, 2]]).all()


def test_batches_are_taken_at_once_where_it_is_the_same_mathematics_and_pays():
    def n(batch_size, n_runs, n_epochs, **settings):
        how = Training(batch_size=batch_size, n_epochs=n_epochs, **settings)
        return batches_per_block(how, 10, n_runs)

    assert n(100, 1, 40) == n(10, 64, 40) == n(50, 64, 1) == 4
    assert n(100, 1, 1) == n(100, 64, 40) == n(500, 1, 10_000) == 1  # it doesn't pay
    # Each epoch has an order of its own, so that none shares the inner products.
    assert n(100, 1, 40, shuffle=True) == 1
    assert n(10, 6, 40) == 4
    assert n(10, 6, 40, optimizer=momentum) == n(10, 6, 40, gradient=autodiff) == 1
