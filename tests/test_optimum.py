"""The exact optimum and its certificate, against scikit-learn and against NumPy in float64."""

import itertools
from functools import cache, partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from linear_cifar import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    InputError,
    Params,
    Split,
    cross_validate,
    dataset_from_arrays,
    device_mesh,
    solve,
)
from linear_cifar.data import stratified_folds
from linear_cifar.optimum import (
    SolveConfig,
    certain_predictions,
    certified_gap,
    lbfgs,
    solve_chunks,
)
from linear_cifar.optimum.descent import COMPILE_COST
from tests.conftest import each_loss, on_disk
from tests.oracle import LINKS, losses_and_gradient

LAM = np.array([0.01, 1.0, 1e-3])  # in no order
EXACT = {"tolerance": 1e-11, "dtype": jnp.float64}


def clusters(n=300, d=8, k=3, spread=0.5, scale=1.0, n_classes=3, **settings):
    """Normal inputs around one centre per class; most problems have one shape, to compile once."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % k)
    inputs = 3 + scale * (rng.normal(size=(n, d)) + spread * rng.normal(size=(k, d))[labels])
    names = [str(i) for i in range(n_classes)]
    return dataset_from_arrays((inputs, labels), class_names=names, **settings)


PROBLEMS = {
    "overlapping": clusters,
    "separable": partial(clusters, spread=20),
    "a class without examples": partial(clusters, k=2),
    "a constant feature": partial(clusters, scale=np.array([0, *[1] * 7])),
    "badly scaled": partial(clusters, scale=np.geomspace(0.01, 100, 8), standardise="none"),
    "two classes": partial(clusters, k=2, n_classes=2),
    "wide": partial(clusters, 60, 100, scale=0.1, standardise="centre"),
    "too wide to decompose": partial(clusters, 40, 8200),  # in a file
    "digits": lambda: dataset_from_arrays([a[:301] for a in load_digits(return_X_y=True)]),
}


@cache
def dataset(name):
    return PROBLEMS[name]()


def standardised(data):
    x, deviation = data.train.inputs, data.train.inputs.std(axis=0)
    x = x if data.standardise == "none" else x - x.mean(axis=0)
    return x / np.where(deviation > 0, deviation, 1) if data.standardise == "scale" else x


def example_weights(name):
    """Integers for each λ, 0 among them."""
    return np.random.default_rng(1).integers(0, 3, (len(LAM), len(dataset(name).train.labels)))


def problem(name, i, loss, weighted=False):
    """The arguments of the oracles: inputs, labels, λ, loss and weights of the examples."""
    labels = dataset(name).train.labels
    weights = example_weights(name)[i] if weighted else np.ones(len(labels))
    return standardised(dataset(name)), labels, LAM[i], loss, weights


def minimum(k, x, labels, lam, loss, weights):
    """The optimum of scikit-learn; a class without examples has no weights and no probability.

    Its losses are sums, and ours are means, over K binary losses too. For softmax with two classes
    it has the difference of our two vectors.
    """
    *_, rotation = np.linalg.svd(x, full_matrices=False)  # optimal weights lie in the rows' span

    def fit(targets, C):
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-11, max_iter=1000)
        model.fit(x @ rotation.T, targets, sample_weight=weights / weights.sum())
        return model.coef_ @ rotation, model.intercept_

    matrix, bias, present = np.zeros((k, x.shape[1])), np.full(k, -1e3), np.unique(labels)
    if loss is MULTIPLE_BINARY_CROSS_ENTROPY:
        for i in present:
            matrix[[i]], bias[[i]] = fit(labels == i, 1 / (2 * lam * k))
    elif len(present) == 2:
        difference, offset = fit(labels, 1 / lam)
        matrix[present], bias[present] = np.outer([-0.5, 0.5], difference), [-0.5, 0.5] * offset
    else:
        matrix[present], bias[present] = fit(labels, 1 / (2 * lam))
    return Params(matrix, bias)


@cache
def minimum_of(name, i, loss, weighted=False):
    return minimum(dataset(name).n_classes, *problem(name, i, loss, weighted))


def true_cost(params, x, labels, lam, loss, weights):
    """J in NumPy float64."""
    losses, _ = losses_and_gradient(x @ params.weights.T + params.bias, labels, loss.name)
    return np.average(losses, weights=weights) + lam * (params.weights**2).sum()


def at_best_bias(matrix, x, labels, lam, loss, weights):
    """W with its best bias: the mean of dl/ds is 0, and for softmax the mean of the bias, too."""

    def slope(bias):
        _, by_logit = losses_and_gradient(x @ matrix.T + bias, labels, loss.name)
        mean = np.average(by_logit, axis=0, weights=weights)
        return mean + (bias.mean() if loss is SOFTMAX_CROSS_ENTROPY else 0)

    result = optimize.root(slope, np.zeros(len(matrix)), tol=1e-13)
    assert np.abs(result.fun).max() < 1e-12
    return Params(matrix, result.x)


def slope_norm(params, x, labels, lam, loss, weights):
    """‖M + 2λW‖ in NumPy float64."""
    _, by_logit = losses_and_gradient(x @ params.weights.T + params.bias, labels, loss.name)
    gradient = (by_logit * weights[:, None]).T @ x / weights.sum()
    return np.linalg.norm(gradient + 2 * lam * params.weights)


def run(params, i):
    return Params(params.weights[i], params.bias[i])


# loss, dtype, storage, devices, whether examples have weights: few, because each is compiled
IN_MEMORY = ("softmax", "float64", "memory", 1, False)
ON_DISK = ("multi_bce", "float32", "file", 2, True)
OTHERS = [("softmax", "float32", "file", 1, True), ("multi_bce", "float64", "memory", 2, False)]
ONE_SHAPE = list(PROBLEMS)[:5]
FAST = [
    *itertools.product((*ONE_SHAPE, "two classes", "wide"), [IN_MEMORY]),
    *itertools.product((*ONE_SHAPE, "digits"), [ON_DISK]),
]
SLOW = [
    ("too wide to decompose", ON_DISK),
    *itertools.product((*ONE_SHAPE, "digits"), OTHERS),
    *zip(("two classes", "wide"), OTHERS, strict=True),
]


@pytest.mark.parametrize(
    ("name", "setting"),
    [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part)),
)
def test_the_optimum_matches_scikit_learn(name, setting, monkeypatch):
    loss, dtype, storage, n_devices, weighted = setting
    loss, data = LOSSES[loss], dataset(name)
    tolerance, precision = (1e-12, 1e-5) if dtype == "float64" else (1e-7, 1e-2)
    optimum = solve(
        LAM,
        data if storage == "memory" else on_disk(data, monkeypatch),
        loss=loss,
        dtype=dtype,
        tolerance=tolerance,
        mesh=device_mesh() if n_devices == 2 else None,
        weights=example_weights(name) if weighted else None,
    )
    assert optimum.converged.all()
    present = np.unique(data.train.labels)
    for i in range(len(LAM)):
        x, *_ = args = problem(name, i, loss, weighted)
        params, expected = run(optimum.params, i), minimum_of(name, i, loss, weighted)
        assert optimum.cost[i] == pytest.approx(true_cost(params, *args), rel=1e-12)
        above = optimum.cost[i] - true_cost(expected, *args)
        assert -1e-13 <= above <= optimum.gap[i] + 1e-13
        assert optimum.gap[i] <= tolerance * optimum.cost[i]
        size = np.linalg.norm(expected.weights)
        error = np.linalg.norm(params.weights - expected.weights)
        assert error <= min(optimum.distance[i] + 1e-7 * size, precision * size)
        bias, expected_bias = params.bias[present], expected.bias[present]
        if loss is SOFTMAX_CROSS_ENTROPY:  # it is free up to a constant
            bias, expected_bias = bias - bias.mean(), expected_bias - expected_bias.mean()
        np.testing.assert_allclose(bias, expected_bias, rtol=precision, atol=precision)
        scores = x @ params.weights.T + params.bias
        absent = np.setdiff1d(np.arange(data.n_classes), present)
        assert (scores[:, absent] < scores.max(axis=1, keepdims=True) - 10).all()


@each_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_the_certificate_matches_its_formula_at_the_optimal_bias(loss, weighted):
    """‖M + 2λW‖²/(4λ), at most 1 + κe/(2λ) times J − J*; M = mean (∂l/∂s) xᵀ, and κe its slope."""
    name, rng = "overlapping", np.random.default_rng(0)
    best = [minimum_of(name, i, loss, weighted) for i in range(3)]
    noise = np.array([1.0, 1e-2, 1e-3])[:, None, None] * rng.normal(size=(3, 3, 8))
    params = Params(noise + [p.weights for p in best], rng.normal(size=(3, 3)))
    weights = example_weights(name) if weighted else None
    cost, gap = certified_gap(params, LAM, dataset(name), loss=loss, weights=weights)
    for i, lam in enumerate(LAM):
        x, *_, shares = args = problem(name, i, loss, weighted)
        optimal = at_best_bias(params.weights[i], *args)
        assert cost[i] == pytest.approx(true_cost(optimal, *args), rel=1e-10)
        assert gap[i] == pytest.approx(slope_norm(optimal, *args) ** 2 / (4 * lam), rel=1e-6)
        true_gap = true_cost(optimal, *args) - true_cost(best[i], *args)
        curvature = np.linalg.norm((x * shares[:, None]).T @ x, 2) / shares.sum()
        curvature *= 1 / 2 if loss is SOFTMAX_CROSS_ENTROPY else 1 / 12
        assert true_gap <= gap[i] <= (1 + curvature / (2 * lam)) * true_gap * (1 + 1e-6)


@each_loss
@pytest.mark.parametrize("scale", [0.1, 30.0])  # of the weights
def test_the_certificate_finds_the_best_bias_from_far_away(loss, scale):
    rng, args = np.random.default_rng(0), problem("overlapping", 1, loss)
    params = Params(scale * rng.normal(size=(8, 3, 8)), 100 * rng.normal(size=(8, 3)))
    cost, _ = certified_gap(params, np.full(8, LAM[1]), dataset("overlapping"), loss=loss)
    for i in range(8):
        best = at_best_bias(params.weights[i], *args)
        assert cost[i] == pytest.approx(true_cost(best, *args), rel=1e-9)


def assert_bounded(optimum, lam, data, weights=None, rounding=1e-12):
    """The cost is above scikit-learn's by at most its gap."""
    weights = np.ones(len(data.train.labels)) if weights is None else weights
    for i in range(len(lam)):
        args = (standardised(data), data.train.labels, lam[i], SOFTMAX_CROSS_ENTROPY, weights)
        above = optimum.cost[i] - true_cost(minimum(data.n_classes, *args), *args)
        assert -rounding < above <= optimum.gap[i] + rounding


def test_the_certificate_stays_a_bound_where_only_rounding_remains():
    lam, data = [1e-3, 1e-10, 1.0], dataset("overlapping")
    finest = solve(lam, data, tolerance=1e-18, dtype=jnp.float64)
    assert not finest.converged.any()
    assert (finest.gap < 1e-11).all()
    assert_bounded(finest, lam, data, rounding=1e-15)


@pytest.mark.parametrize("x64", [True, False])
def test_the_certificate_uses_the_inputs_as_they_are_stored(x64):
    """In float32 these lose half of their digits."""
    inputs, labels = dataset("overlapping").train
    data = dataset_from_arrays((9e4 + inputs, labels))
    with jax.enable_x64(x64):
        optimum = solve(LAM, data)
    assert_bounded(optimum, LAM, data)


def test_a_class_of_tiny_weight_gets_its_bias():
    labels = (np.arange(300) < 15).astype(int)
    inputs = np.random.default_rng(2).normal(size=(300, 8)) + 8 * labels[:, None] * np.eye(8)[0]
    data, lam, weights = dataset_from_arrays((inputs, labels)), [1.0, 1e-6, 100.0], 1e-6**labels
    optimum = solve(lam, data, weights=weights, dtype=jnp.float64)
    assert optimum.converged[[0, 2]].all()
    assert_bounded(optimum, lam, data, weights, rounding=1e-14)


def test_later_chunks_start_from_the_first():
    lam, data = np.geomspace(0.001, 10, 32), dataset("overlapping")
    config = SolveConfig(memory_bytes=46_000)  # for 16 λ
    first, second = (step for step in solve_chunks(lam, data, config) if step.optimum)
    assert sorted(first.rows + second.rows) == list(range(32))
    cold = solve(lam[list(second.rows)], data)
    assert second.optimum.passes.mean() < 0.7 * cold.passes.mean()


def test_memory_bytes_bound_how_many_lambda_go_together():
    config = SolveConfig(memory_bytes=1, max_passes=1, dtype=jnp.float64)
    chunks = solve_chunks(np.geomspace(0.001, 10, 9), dataset("overlapping"), config)
    rows = [step.rows for step in chunks if step.optimum]
    assert sorted(rows) == [(i,) for i in range(9)]


@pytest.mark.slow
def test_more_lambda_share_a_pass_over_a_file_than_over_memory(monkeypatch):
    lam, config = np.geomspace(0.001, 10, 200), SolveConfig(max_passes=1)
    data = clusters(2000, 150)
    sizes = [
        [len(step.rows) for step in solve_chunks(lam, examples, config) if step.optimum]
        for examples in (data, on_disk(data, monkeypatch, 1000))
    ]
    assert len(sizes[0]) > len(sizes[1]) == 2


def test_a_start_worse_than_zero_is_replaced_and_its_pass_counts():
    data = dataset("overlapping")
    near = solve(1.01 * LAM, data).params
    cold = solve(LAM, data)
    for factor in (np.nan, -100):
        bad = solve(LAM, data, start=Params(*(factor * array for array in near)))
        assert np.array_equal(bad.params.weights, cold.params.weights)
        assert np.array_equal(bad.passes, cold.passes + 1)
    assert solve(LAM, data, start=near).passes.sum() < 0.7 * cold.passes.sum()


def test_a_scalar_lambda_gives_one_optimum_without_an_axis():
    one, path = (solve(lam, dataset("overlapping")) for lam in (LAM[2], LAM))
    assert one.cost.shape == one.gap.shape == one.passes.shape == ()
    np.testing.assert_allclose(one.params.weights, path.params.weights[2], atol=1e-2)


def test_a_run_that_misses_its_tolerance_is_not_converged_but_has_its_bound():
    lam, data = [1e-6, 100.0, 1e-5], dataset("overlapping")
    optimum = solve(lam, data, max_passes=4)
    assert optimum.converged.tolist() == [False, True, False]
    assert np.array_equal(optimum.converged, optimum.gap <= 1e-6 * optimum.cost)
    assert optimum.passes.max() == 5
    assert_bounded(optimum, lam, data)


def test_runs_that_finish_early_leave_and_change_nothing_for_the_slow_one(monkeypatch):
    """They leave at once if compiling costs nothing, and never if it costs too much."""
    take_runs = mock.Mock(side_effect=lbfgs.take_runs)
    monkeypatch.setattr(lbfgs, "take_runs", take_runs)
    lam, data, optima = np.where(np.arange(8) == 5, 1e-5, 10.0), dataset("overlapping"), []
    for cost, n_leavings in ((np.inf, 0), (0.0, 1)):
        monkeypatch.setitem(COMPILE_COST, True, cost)
        optima.append(solve(lam, data))
        assert take_runs.call_count == n_leavings
    assert optima[1].passes[5] > 5 * optima[1].passes[0]
    np.testing.assert_allclose(*(optimum.passes for optimum in optima), rtol=0.1)
    assert optima[1].converged.all()
    assert_bounded(optima[1], lam, data)


def test_a_run_stops_when_its_result_is_unchanged():
    lam, data, looks = [1e-7, 10.0, 1e-9], dataset("separable"), itertools.count()
    optimum = solve(lam, data, **EXACT, stop_when_unchanged=lambda params: 0 * params.bias)
    assert optimum.unchanged.tolist() == [True, False, True]
    assert optimum.converged.tolist() == [False, True, False]
    settings = {"stop_when_unchanged": lambda params: 0 * params.bias + next(looks)}
    assert not solve(lam, data, **EXACT, **settings, max_passes=120).unchanged.any()
    assert next(looks) > 2


def test_impossible_arguments_are_refused_by_name():
    data, wrong = dataset("overlapping"), {"loss": ["hinge"], "dtype": [jnp.float16]}
    wrong |= {"lam": [[0.1, 0.0], [1e-38], [[0.1]]], "max_passes": [0], "tolerance": [0, np.nan]}
    wrong |= {"weights": [np.ones(3), -np.ones(300), np.zeros(300)]}
    wrong |= {"start": [Params(np.zeros((1, 3, 3)), np.zeros((1, 3)))]}
    for name, value in ((name, value) for name, values in wrong.items() for value in values):
        with pytest.raises(InputError, match=name):
            solve(**{"lam": [0.1], "dataset": data, name: value})
    with jax.enable_x64(False), pytest.raises(InputError, match="x64"):
        solve([0.1], data, dtype=jnp.float64)


def test_cross_validation_measures_each_fold_with_a_fit_without_it():
    key, n_folds, lam, data = jax.random.key(1), 4, np.array([1e-3, 1.0]), dataset("overlapping")
    loss = MULTIPLE_BINARY_CROSS_ENTROPY
    result = cross_validate(key, lam, data, n_folds, loss=loss, tolerance=1e-10)
    x, labels, *_ = problem("overlapping", 0, loss)
    folds = stratified_folds(key, labels, n_folds)
    for fold, i in np.ndindex(n_folds, 2):
        inside, outside = folds == fold, folds != fold
        params = minimum(3, x[outside], labels[outside], lam[i], loss, np.ones(outside.sum()))
        args = (x[inside], labels[inside], 0, loss, np.ones(inside.sum()))
        assert result.loss[fold, i] == pytest.approx(true_cost(params, *args), rel=1e-4)
        accuracy = np.mean(predictions(params, x[inside]) == labels[inside])
        assert result.accuracy[fold, i] == pytest.approx(accuracy)
    stopped = cross_validate(key, [1e-8, 100.0], data, n_folds, loss=loss, max_passes=4)
    assert stopped.converged.tolist() == [[False, True]] * n_folds


def predictions(params, x):
    return np.argmax(x @ params.weights.T + params.bias, axis=1)


def certain_of(params, distance, x, data, loss):
    """Which predictions are certain, for λ = 0.01 and examples whose standardised inputs are x."""
    mean, scale = data.standardiser
    split = Split(x * scale + mean, np.zeros(len(x), int))
    return certain_predictions(params, distance, LAM[0], data, split, loss)


def bias_bound(params, distance, x, labels, lam, loss, weights):
    """B, the bound of ‖b − b*‖ that linear_cifar/optimum/prediction.py derives, in NumPy."""
    scores, k = x @ params.weights.T + params.bias, len(params.bias)
    p, most = LINKS[loss.name](scores), 1 / (4 * k)
    if loss is SOFTMAX_CROSS_ENTROPY:
        most = 1 / 2
        curvature = np.linalg.eigvalsh(np.diag(p.mean(axis=0)) - p.T @ p / len(x))[1]
    else:
        curvature = (p * (1 - p)).mean(axis=0).min() / k
    slope = slope_norm(params, x, labels, lam, loss, weights)
    _, by_logit = losses_and_gradient(scores, labels, loss.name)
    rest, lengths = np.linalg.norm(by_logit.mean(axis=0)), np.linalg.norm(x, axis=1)
    reach = 1 + 2 * distance * lengths.max()
    constant = 2 * slope * distance * reach + 2 * most * np.mean(lengths**2) * distance**2
    linear = 4 * slope * distance + 2 * rest * reach
    return np.roots([curvature - 4 * rest, -linear, -constant]).max()


@each_loss
@pytest.mark.parametrize("size", [0.1, 1e-8])
def test_predictions_called_certain_are_beyond_the_derived_bound(loss, size):
    args, rng = problem("overlapping", 0, loss), np.random.default_rng(0)
    best = minimum_of("overlapping", 0, loss)
    noise = rng.normal(size=best.weights.shape)
    matrix = best.weights + size * noise / np.linalg.norm(noise)
    bias = at_best_bias(matrix, *args).bias + 0.2 * size * rng.normal(size=3)
    params = Params(matrix, bias)
    tie = np.linalg.pinv(matrix[:2] - matrix[[2, 0]]) @ (bias[[2, 0]] - bias[:2])
    far = np.geomspace(1e-9, 1e3, 20_000)[:, None]
    points = tie + far * rng.normal(size=(20_000, matrix.shape[1]))
    scores = np.sort(points @ params.weights.T + params.bias)
    bound = size * np.linalg.norm(points, axis=1) + bias_bound(params, size, *args)
    certain = certain_of(params, size, points, dataset("overlapping"), loss)
    assert 0.1 < certain.mean() < 0.9
    assert np.array_equal(certain, scores[:, 2] - scores[:, 1] > np.sqrt(2) * bound)


@each_loss
@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_predictions_called_certain_are_the_optimums(loss, size):
    """Far out along a direction that doesn't matter, predictions change at the very bound."""
    data, args = dataset("two classes"), problem("two classes", 0, loss)
    best = minimum_of("two classes", 0, loss)
    slope = best.weights[1] - best.weights[0]
    across = np.linalg.svd(slope[None])[2][1]  # a unit vector orthogonal to the slope
    params = at_best_bias(best.weights + size / np.sqrt(2) * np.outer([1, -1], across), *args)
    leads, sides = np.meshgrid(np.linspace(-4, 4, 2000) * 1e4 * size, [-1e4, 1e4])
    points = np.outer(leads, slope / (slope @ slope)) + np.outer(sides, across)
    certain = certain_of(params, size, points, data, loss)
    same = predictions(params, points) == predictions(best, points)
    assert not same.all()
    assert same[certain].all()


@each_loss
@pytest.mark.parametrize(("tolerance", "least", "most"), [(1e-2, 0, 0.9), (1e-8, 0.95, 1)])
def test_nearly_all_predictions_are_certain_at_a_precise_optimum(loss, tolerance, least, most):
    data, (x, *_) = dataset("overlapping"), problem("overlapping", 0, loss)
    near = solve(LAM, data, loss=loss, tolerance=tolerance, dtype=jnp.float64)
    params, best = run(near.params, 0), minimum_of("overlapping", 0, loss)
    certain = certain_of(params, near.distance[0], x, data, loss)
    assert (predictions(params, x) == predictions(best, x))[certain].all()
    assert least <= certain.mean() <= most


def test_nothing_is_certain_without_a_bound():
    data, loss = dataset("a class without examples"), SOFTMAX_CROSS_ENTROPY
    optimum = solve(LAM, data, dtype=jnp.float64)
    x, *_ = problem("a class without examples", 0, loss)
    assert not certain_of(run(optimum.params, 0), optimum.distance[0], x, data, loss).any()
