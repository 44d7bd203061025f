"""Cost and gradient over a whole data set, and a solver that isn't SGD on top of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from linear_cifar.data import dataset_from_arrays
from linear_cifar.engine import full_batch as module
from linear_cifar.engine.devices import device_mesh
from linear_cifar.engine.full_batch import full_batch
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params, init_params
from linear_cifar.objective import cost, cost_gradient
from linear_cifar.settings import SettingsError


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_l_bfgs_over_the_seam_meets_scikit_learn_for_three_lambdas_at_once():
    inputs, labels = load_digits(return_X_y=True)
    data = dataset_from_arrays((inputs, labels))
    lam, shape = np.array([0.01, 0.1, 1.0]), (3, 10, 64)
    objective = full_batch(data, n_runs=3)

    def total(flat):
        params = Params(*np.split(flat, [np.prod(shape)]))
        params = Params(params.weights.reshape(shape), params.bias.reshape(3, 10))
        costs, gradients = objective(params, lam)
        return costs.sum(), np.concatenate([np.ravel(g) for g in gradients])

    start = np.zeros(np.prod(shape) + 30)
    options = {"maxiter": 10_000, "ftol": 1e-16, "gtol": 1e-8}
    found = minimize(total, start, jac=True, method="L-BFGS-B", options=options)
    weights = found.x[: np.prod(shape)].reshape(shape)
    standardised = (inputs - data.standardiser.mean) / data.standardiser.scale
    for i in range(3):
        theirs = LogisticRegression(C=1 / (2 * lam[i] * len(labels)), tol=1e-9, max_iter=10_000)
        np.testing.assert_allclose(weights[i], theirs.fit(standardised, labels).coef_, atol=1e-6)


def runs(dataset, n, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), n)
    return jax.vmap(
        lambda key: init_params(key, dataset.n_features, dataset.n_classes, 0.1, dtype)
    )(keys)


@pytest.mark.parametrize(("loss", "size"), [("softmax", 64), ("multi_bce", 400), ("softmax", 1000)])
def test_cost_and_gradient_are_those_of_the_whole_split(small, monkeypatch, loss, size):
    monkeypatch.setattr(module, "_BATCH", size)  # with a remainder of 16, and without
    module._cost_and_gradient.clear_cache()
    params, lam = runs(small, 4), np.array([0.0, 0.1, 1.0, 10.0])
    costs, gradients = full_batch(small, 4, loss=LOSSES[loss])(params, lam)
    inputs = small.standardiser(jnp.asarray(small.train.inputs), jnp.float64)
    labels = jnp.asarray(small.train.labels)
    for i in range(4):
        one = (Params(params.weights[i], params.bias[i]), inputs, labels, lam[i], LOSSES[loss])
        assert_close(costs[i], cost(*one))
        assert_close(gradients.weights[i], cost_gradient(*one).weights)
        assert_close(gradients.bias[i], cost_gradient(*one).bias)


@pytest.mark.parametrize("n_runs", [1, 4])
def test_devices_share_the_work_and_change_nothing(small, n_runs):
    params, lam = runs(small, n_runs), np.full(n_runs, 0.1)
    alone = full_batch(small, n_runs)(params, lam)
    shared = full_batch(small, n_runs, mesh=device_mesh())(params, lam)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        assert_close(b, a)
    assert len(shared[1].weights.sharding.device_set) == 2


def test_float32_stays_float32_and_new_values_compile_nothing(small):
    objective = full_batch(small, 2)
    costs, gradients = objective(runs(small, 2, jnp.float32), [0.1, 0.2])
    assert {costs.dtype, gradients.weights.dtype} == {jnp.dtype("float32")}
    before = module._cost_and_gradient._cache_size()
    objective(runs(small, 2, jnp.float32), np.array([0.5, 3.0]))
    assert module._cost_and_gradient._cache_size() == before


def test_runs_that_devices_cannot_share_evenly_are_refused(small):
    with pytest.raises(SettingsError, match="3 runs can't be split evenly over 2 devices"):
        full_batch(small, 3, mesh=device_mesh())


def test_arrays_of_other_shapes_and_a_negative_lambda_are_refused(small):
    objective = full_batch(small, 2)
    params = runs(small, 2)
    for lam in (0.1, [0.1], [[0.1, 0.2]]):
        with pytest.raises(SettingsError, match=r"weights have to be \[C, 10, 192\], biases"):
            objective(params, lam)
    with pytest.raises(SettingsError, match="not \\[10, 192\\], "):
        objective(jax.tree.map(lambda a: a[0], params), [0.1])
    with pytest.raises(SettingsError, match=r"lam is -0.1: it has to be at least 0"):
        objective(params, [0.1, -0.1])
