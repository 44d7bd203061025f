"""Properties of what is fitted: training against plain NumPy, optima against SciPy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from linear_cifar.data import dataset_from_arrays, few_shot, stratified_folds, stratified_subset
from linear_cifar.estimators import LinearProbe
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters
from linear_cifar.optimum import certain_predictions, cross_validate, solve
from linear_cifar.penalties import lam_to
from linear_cifar.training import TrainConfig, epochs, sweep, train
from tests import oracle
from tests.campaign import properties
from tests.campaign.figures import NAMES, losses_of, near
from tests.campaign.properties import GENERATORS, attempt, of

N, D, K = 24, 4, 3
SEEDS = st.integers(0, 5).map(jax.random.key)
LAM = st.floats(1e-4, 100)


def examples(rng: np.random.Generator, scale: float = 1.0):
    """Random examples with every class, more or less separable."""
    labels = rng.permutation(np.arange(N) % K)
    inputs = rng.normal(size=(N, D)) + rng.choice([0.0, 0.5, 3.0]) * np.eye(D)[labels]
    held_out = (scale * rng.normal(size=(8, D)), rng.integers(0, K, 8))
    return dataset_from_arrays((scale * inputs, labels), held_out, held_out)


def standardised(data) -> np.ndarray:
    return (data.train.inputs - data.train.inputs.mean(axis=0)) / data.train.inputs.std(axis=0)


@of(
    500,
    0.06,
    rng=GENERATORS,
    key=SEEDS,
    lam=st.floats(0, 2),
    rate=st.floats(1e-6, 0.5),
    factor=st.floats(1, 10),
    every=st.integers(1, 4),
    batch_size=st.sampled_from([1, 5, 7, 24]),
    loss=NAMES,
)
def training(rng, key, lam, rate, factor, every, batch_size, loss):
    data = examples(rng, rng.choice([1e-3, 1.0, 1e4]))
    config = TrainConfig(LOSSES[loss], n_epochs=3, batch_size=batch_size, dtype=jnp.float64)
    run = Hyperparameters(lam, rate, factor, every)
    params, history = train(key, run, data, config)
    first = next(epochs(key, run, data, config))[0].params
    weights, bias, rows = oracle.train(
        first.weights,
        first.bias,
        data,
        lam=lam,
        learning_rate=rate,
        n_epochs=3,
        loss=loss,
        batch_size=batch_size,
        decay_factor=factor,
        decay_every=every,
    )
    near(params.weights, weights, 1e-9, 1 + np.abs(weights).max())
    near(params.bias, bias, 1e-9, 1 + np.abs(bias).max())
    found = (history.train_loss, history.train_cost, history.validation_loss)
    for ours, column in zip(found, (0, 1, 3), strict=True):
        near(ours, rows[:, column], 1e-8, 1 + np.abs(rows).max())
    swept = sweep(key, run._replace(lam=np.array([lam])), data, config)
    near(swept[0].weights[0], weights, 1e-9, 1 + np.abs(weights).max())


@of(
    200,
    0.03,
    rng=GENERATORS,
    key=SEEDS,
    lam=st.floats(0, 1e3),
    rate=st.floats(0, 1e300, exclude_min=True),
    optimizer=st.sampled_from(["sgd", "momentum", "adam"]),
    shuffle=st.booleans(),
)
def diverging(rng, key, lam, rate, optimizer, shuffle):
    data = examples(rng)
    run = Hyperparameters(lam, rate)
    config = TrainConfig(n_epochs=2, batch_size=5, shuffle=shuffle, optimizer=OPTIMIZERS[optimizer])
    found = attempt(train, key, run, data, config)
    if found is None:
        assert not 1e-44 < rate < 1e38
        return
    params, history = found
    for split in ("train", "validation"):
        cost, accuracy = (
            np.asarray(getattr(history, f"{split}_{w}")) for w in ("cost", "accuracy")
        )
        assert np.array_equal(np.isfinite(cost), np.isfinite(accuracy))
        assert ((accuracy >= 0) & (accuracy <= 1))[np.isfinite(accuracy)].all()
    last = np.isfinite(history.train_cost[-1])
    assert np.isfinite(params.weights).all() or not last


def minimum(data, lam: float, loss: str, weights: np.ndarray) -> float:
    """The least cost that SciPy finds."""
    x, y = standardised(data), data.train.labels

    def cost(flat):
        w, b = flat[: K * D].reshape(K, D), flat[K * D :]
        s = x @ w.T + b
        of_example, p = losses_of(s, y, loss)
        g = (p - np.eye(K)[y]) * weights[:, None] / (1 if loss == "softmax" else K)
        gradient = np.concatenate([(g.T @ x + 2 * lam * w).ravel(), g.sum(axis=0)])
        return weights @ of_example + lam * (w**2).sum(), gradient

    return optimize.minimize(
        cost,
        np.zeros(K * D + K),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9},
    ).fun


@of(
    500,
    0.15,
    rng=GENERATORS,
    lam=st.tuples(LAM, LAM),
    loss=NAMES,
    weighted=st.booleans(),
    dtype=st.sampled_from([jnp.float32, jnp.float64]),
)
def optima(rng, lam, loss, weighted, dtype):
    data = examples(rng, rng.choice([1e-3, 1.0, 1e4]))
    given = rng.choice([0.0, 1.0, 2.5], N) + 1e-3 if weighted else None
    found = solve(lam, data, loss=LOSSES[loss], dtype=dtype, weights=given)
    weights = np.full(N, 1 / N) if given is None else given / given.sum()
    assert found.converged.all()
    x = standardised(data)
    for i, value in enumerate(lam):
        of_example = losses_of(
            x @ found.params.weights[i].T + found.params.bias[i], data.train.labels, loss
        )[0]
        cost = weights @ of_example + value * (found.params.weights[i] ** 2).sum()
        near(found.cost[i], cost, 1e-9)
        least = minimum(data, value, loss, weights)
        assert least >= found.cost[i] - found.gap[i] - 1e-9 * (1 + least)
        assert found.cost[i] <= least * (1 + 2e-6) + 1e-9
    if given is None:
        sure = certain_predictions(
            type(found.params)(*(a[0] for a in found.params)),
            found.distance[0],
            lam[0],
            data,
            data.test,
            LOSSES[loss],
        )
        exact = solve(lam[:1], data, loss=LOSSES[loss], dtype=jnp.float64, tolerance=1e-12)
        both = [
            standardise_test(data) @ p.weights[0].T + p.bias[0]
            for p in (found.params, exact.params)
        ]
        assert (both[0].argmax(axis=1) == both[1].argmax(axis=1))[sure].all()


def standardise_test(data) -> np.ndarray:
    mean, deviation = data.train.inputs.mean(axis=0), data.train.inputs.std(axis=0)
    return (data.test.inputs - mean) / deviation


@of(100, 0.2, rng=GENERATORS, key=SEEDS, lam=LAM, loss=NAMES)
def cross_validations(rng, key, lam, loss):
    data = examples(rng)
    found = cross_validate(key, [lam], data, 3, loss=LOSSES[loss])
    folds = stratified_folds(key, data.train.labels, 3)
    x, y = standardised(data), data.train.labels
    for fold in range(3):
        alone = solve([lam], data, loss=LOSSES[loss], weights=(folds != fold) * 1.0)
        s = x[folds == fold] @ alone.params.weights[0].T + alone.params.bias[0]
        near(found.loss[fold, 0], losses_of(s, y[folds == fold], loss)[0].mean(), 2e-2)


@of(150, 0.3, rng=GENERATORS, lam=LAM, two=st.booleans(), loss=NAMES, text=st.booleans())
def probes(rng, lam, two, loss, text):
    k = 2 if two else 3
    labels = rng.permutation(np.arange(N) % k)
    inputs = rng.normal(size=(N, D))
    y = np.array(["a", "b", "c"])[labels] if text else labels
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        probe = LinearProbe(lam, loss).fit(inputs, y)
    assert probe.gap_ <= 1e-6 * probe.cost_
    assert set(probe.predict(inputs)) <= set(y.tolist())
    near(probe.predict_proba(inputs).sum(axis=1), 1, 1e-12)
    if loss == "softmax":
        c = float(lam_to(lam, N, k).C)
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(inputs, y)
        near(probe.coef_, theirs.coef_, 1e-3, 1e-1)


@of(500, 0.004, key=SEEDS, labels=st.lists(st.integers(-1, 3), max_size=12), n=st.integers(-1, 14))
def subsets(key, labels, n):
    y = np.array(labels, int)
    valid = len(y) > 0 and (y >= 0).all()
    rows = attempt(stratified_subset, key, y, n)
    assert (rows is not None) == (valid and len(np.unique(y)) <= n <= len(y))
    if rows is not None:
        assert np.array_equal(rows, np.unique(rows))
        assert len(rows) == n
        drawn = np.array([(y[rows] == c).sum() for c in np.unique(y)])
        share = n * np.unique(y, return_counts=True)[1] / len(y)
        assert drawn.min() >= 1
        assert (np.abs(drawn - share) < 1).all() or (share < 1).any()
    few = attempt(few_shot, key, y, n)
    counts = np.bincount(y) if valid else np.zeros(1)
    assert (few is not None) == (valid and 1 <= n <= counts.min())
    if few is not None:
        assert (np.bincount(y[few]) == n).all()
    folds = attempt(stratified_folds, key, y, n)
    assert (folds is not None) == (2 <= n <= len(y))
    if folds is not None:
        assert np.ptp(np.bincount(folds, minlength=n)) <= 1
        for c in np.unique(y):
            assert np.ptp(np.bincount(folds[y == c], minlength=n)) <= 1


PARTS = properties.parts(globals())
