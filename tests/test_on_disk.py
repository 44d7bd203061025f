"""Inputs that stay on a disk: everything gives what it gives of the same inputs in memory."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import assert_close

from linear_cifar import evaluation
from linear_cifar.data import Split, on_disk
from linear_cifar.data.on_disk import OnDisk
from linear_cifar.engine.devices import device_mesh
from linear_cifar.engine.training import train
from linear_cifar.losses import MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from linear_cifar.model import Params
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters
from linear_cifar.optimum import cross_validate, solve, solver
from linear_cifar.settings import SettingsError


@pytest.fixture
def pair(small, monkeypatch):
    """The same data in memory and on a disk, in blocks of 90 rows."""
    monkeypatch.setattr(on_disk, "BLOCK_BYTES", 90 * small.n_features)

    def away(split):
        return Split(
            OnDisk(lambda a, b: split.inputs[a:b].copy(), split.inputs.shape, "uint8"), split.labels
        )

    splits = {name: away(getattr(small, name)) for name in ("train", "validation", "test")}
    return small, dataclasses.replace(small, **splits)


@pytest.mark.parametrize(
    ("loss", "mesh"),
    [
        (SOFTMAX_CROSS_ENTROPY, device_mesh),
        pytest.param(SOFTMAX_CROSS_ENTROPY, None, marks=pytest.mark.slow),
        pytest.param(MULTIPLE_BINARY_CROSS_ENTROPY, device_mesh, marks=pytest.mark.slow),
    ],
)
def test_the_optimum_is_the_same(pair, loss, mesh):
    lam = np.geomspace(0.01, 10, 12)
    here, away = (solve(lam, data, loss=loss, mesh=mesh and mesh()) for data in pair)
    assert away.converged.all()
    apart = np.linalg.norm(here.params.weights - away.params.weights, axis=(1, 2))
    assert (apart <= here.distance + away.distance).all()
    np.testing.assert_allclose(here.cost, away.cost, rtol=1e-6)


@pytest.mark.slow
def test_a_pass_serves_all_lambda_but_those_that_start_them(pair, monkeypatch):
    """40 λ are three chunks in memory; from a disk the others come in one."""
    lam = np.geomspace(0.01, 10, 40)
    sizes = [
        [len(step.rows) for step in solver.solve_chunks(lam, data) if step.optimum] for data in pair
    ]
    assert sizes == [[14, 14, 12], [14, 26]]


@pytest.mark.slow
def test_folds_are_the_same(pair):
    here, away = (cross_validate(jax.random.key(0), [0.1, 1.0], data, 3) for data in pair)
    assert_close(away.loss, here.loss, np.float32, factor=100)
    assert np.array_equal(away.accuracy, here.accuracy)


@pytest.mark.parametrize(
    "name",
    [n if n == "sgd" else pytest.param(n, marks=pytest.mark.slow) for n in OPTIMIZERS],
)
@pytest.mark.parametrize("n_runs", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_training_is_the_same(pair, name, n_runs):
    lam = np.geomspace(0.01, 0.1, n_runs)
    runs = Hyperparameters(
        lam=lam if n_runs > 1 else 0.01, learning_rate=0.01, decay_every=2, decay_factor=2.0
    )
    how = {"n_epochs": 3, "batch_size": 40, "optimizer": OPTIMIZERS[name], "mesh": device_mesh()}
    (here, before), (away, after) = (
        train(jax.random.key(0), runs, data, **how, dtype="float64") for data in pair
    )
    assert_close(away.weights, here.weights)
    for a, b in zip(after, before, strict=True):
        assert_close(a, b)


def test_a_shuffle_is_refused(pair):
    with pytest.raises(SettingsError, match="shuffle needs the inputs in memory"):
        train(jax.random.key(0), Hyperparameters(), pair[1], shuffle=True)


@pytest.mark.slow
def test_figures_are_the_same(pair):
    here, away = pair
    rng = np.random.default_rng(0)
    k, d = here.n_classes, here.n_features
    params = Params(0.1 * rng.normal(size=(3, k, d)), rng.normal(size=(3, k)))
    one = Params(*(a[0] for a in params))
    of = {
        evaluation.evaluate: (one, 0.1),
        evaluation.evaluate_runs: (params, np.full(3, 0.1)),
        evaluation.evaluate_examples: (params,),
        evaluation.ground_truth_probabilities: (one,),
        evaluation.confusion_matrix: (one,),
    }
    for function, (fitted, *rest) in of.items():
        expected, found = (
            function(fitted, data.train, data.standardiser, *rest) for data in (here, away)
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
