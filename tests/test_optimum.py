"""The exact optimum and its certificate, against scikit-learn and against NumPy in float64."""

import dataclasses
import importlib
import itertools
import json
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special
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
from linear_cifar.data import LazyRows, stratified_folds
from linear_cifar.optimum import (
    ExampleWeights,
    SolveConfig,
    certain_predictions,
    certified_gap,
    solve_chunks,
)
from tests.commands import run_process

LAM = np.array([0.01, 1.0, 1e-3])  # in no order
EXACT = {"tolerance": 1e-11, "dtype": jnp.float64}
BOTH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


class Problem(NamedTuple):
    inputs: np.ndarray
    labels: np.ndarray
    n_classes: int = 3
    standardise: str = "scale"


def clusters(n=300, d=8, k=3, spread=0.5):
    """Normal inputs around one centre per class."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(n) % k)
    return 3 + rng.normal(size=(n, d)) + spread * rng.normal(size=(k, d))[labels], labels


def one_constant_feature():
    inputs, labels = clusters()
    inputs[:, 3] = 7
    return Problem(inputs, labels)


def badly_scaled_features():
    inputs, labels = clusters()
    return Problem(inputs * np.geomspace(1e-2, 1e2, 8), labels, standardise="none")


PROBLEMS = {
    "overlapping": lambda: Problem(*clusters()),
    "digits": lambda: Problem(*(a[:300] for a in load_digits(return_X_y=True)), 10),
    "wide": lambda: Problem(*clusters(60, 100)),
    "too wide to decompose": lambda: Problem(*clusters(40, 8200)),
    "two classes": lambda: Problem(*clusters(k=2), 2),
    "separable": lambda: Problem(*clusters(spread=20)),
    "a class without examples": lambda: Problem(*clusters(k=2)),
    "a constant feature": one_constant_feature,
    "badly scaled": badly_scaled_features,
}


@cache
def problem(name):
    return PROBLEMS[name]()


@cache
def dataset(name):
    inputs, labels, k, standardise = problem(name)
    names = [str(i) for i in range(k)]
    return dataset_from_arrays((inputs, labels), class_names=names, standardise=standardise)


def standardised(inputs, like=None):
    """Inputs with the mean and deviation of others."""
    like = inputs if like is None else like
    deviation = like.std(axis=0)
    return (inputs - like.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


@cache
def features(name):
    inputs, _, _, standardise = problem(name)
    return standardised(inputs) if standardise == "scale" else inputs


@cache
def example_weights(name):
    """Integers for each λ, 0 among them."""
    return np.random.default_rng(1).integers(0, 3, (len(LAM), len(problem(name).labels)))


def minimum(x, labels, k, lam, loss, weights=None):
    """The optimum of scikit-learn; a class without examples has weights of 0 and no probability.

    Its losses are sums, and ours are means, over K binary losses too. For softmax with two classes
    it has the difference of our two vectors.
    """
    weights = np.ones(len(x)) if weights is None else weights
    shares, present = weights / weights.sum(), np.unique(labels)
    *_, rotation = np.linalg.svd(x, full_matrices=False)  # optimal weights lie in the rows' span
    reduced = x @ rotation.T

    def fit(targets, C):
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-11, max_iter=1000)
        model.fit(reduced, targets, sample_weight=shares)
        return model.coef_ @ rotation, model.intercept_

    matrix, bias = np.zeros((k, x.shape[1])), np.full(k, -np.inf)
    if loss is not SOFTMAX_CROSS_ENTROPY:
        for i in present:
            matrix[[i]], bias[[i]] = fit(labels == i, 1 / (2 * lam * k))
    elif len(present) == 2:
        difference, offset = fit(labels, 1 / lam)
        matrix[present], bias[present] = (
            np.array([[-0.5], [0.5]]) @ difference,
            [-0.5, 0.5] * offset,
        )
    else:
        matrix[present], bias[present] = fit(labels, 1 / (2 * lam))
    return Params(matrix, bias)


@cache
def minima(name, loss, weighted=False):
    """The optimum for each λ, computed once."""
    weights = example_weights(name) if weighted else [None] * len(LAM)
    _, labels, k, _ = problem(name)
    return [
        minimum(features(name), labels, k, *args)
        for args in zip(LAM, [loss] * 3, weights, strict=True)
    ]


def true_cost(params, x, labels, lam, loss, weights=None):
    """J in NumPy float64."""
    scores = x @ params.weights.T + params.bias
    if loss is SOFTMAX_CROSS_ENTROPY:
        losses = special.logsumexp(scores, axis=1) - scores[np.arange(len(x)), labels]
    else:
        sign = 2 * np.eye(len(params.bias))[labels] - 1
        losses = -special.log_expit(sign * scores).mean(axis=1)
    return np.average(losses, weights=weights) + lam * (params.weights**2).sum()


def logit_gradient(scores, labels, loss):
    """dl/ds of each example, from the definition."""
    targets = np.eye(scores.shape[1])[labels]
    if loss is SOFTMAX_CROSS_ENTROPY:
        return special.softmax(scores, axis=1) - targets
    return (special.expit(scores) - targets) / scores.shape[1]


def best_bias(matrix, x, labels, loss, weights=None):
    """The bias at which the mean of dl/ds vanishes, for softmax the one whose mean is 0."""
    scores = x @ matrix.T

    def slope(bias):
        mean = np.average(logit_gradient(scores + bias, labels, loss), axis=0, weights=weights)
        return mean + (bias.mean() if loss is SOFTMAX_CROSS_ENTROPY else 0)

    result = optimize.root(slope, np.zeros(len(matrix)), tol=1e-13)
    assert np.abs(result.fun).max() < 1e-12
    return result.x


def slope_norm(params, x, labels, lam, loss, weights=None):
    """‖M + 2λW‖ in NumPy float64."""
    by_logit = logit_gradient(x @ params.weights.T + params.bias, labels, loss)
    shares = np.ones(len(x)) if weights is None else weights
    mean = (by_logit * (shares / shares.sum())[:, None]).T @ x
    return np.linalg.norm(mean + 2 * lam * params.weights)


def run(params, i):
    return Params(params.weights[i], params.bias[i])


def on_disk(data, monkeypatch, n_rows=100):
    """The data set with its inputs in a file that is read a few rows at a time."""
    inputs = np.asarray(data.train.inputs)
    n_bytes = n_rows * inputs[0].nbytes
    monkeypatch.setattr(importlib.import_module("linear_cifar.data.blocks"), "BLOCK_BYTES", n_bytes)
    rows = LazyRows(lambda start, stop: inputs[start:stop].copy(), inputs.shape, inputs.dtype)
    return dataclasses.replace(data, train=Split(rows, data.train.labels))


# loss, dtype, storage, devices, whether examples have weights: few, because each is compiled
IN_MEMORY = ("softmax", "float64", "memory", 1, False)
ON_DISK = ("multi_bce", "float32", "file", 2, True)
OTHERS = [
    ("softmax", "float32", "file", 1, True),
    ("multi_bce", "float64", "memory", 2, False),
]
SMALL = (
    "overlapping",
    "separable",
    "a class without examples",
    "a constant feature",
    "badly scaled",
)
FAST = [
    *itertools.product((*SMALL, "wide", "two classes"), [IN_MEMORY]),
    *itertools.product((*SMALL, "digits", "too wide to decompose"), [ON_DISK]),
]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *FAST,
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(PROBLEMS, OTHERS)
        ),
    ],
)
def test_the_optimum_is_scikit_learns(name, setting, monkeypatch):
    loss, dtype, storage, n_devices, weighted = setting
    loss, (_, labels, k, _), x = LOSSES[loss], problem(name), features(name)
    data = dataset(name) if storage == "memory" else on_disk(dataset(name), monkeypatch)
    tolerance, precision = (1e-11, 1e-5) if dtype == "float64" else (1e-6, 1e-2)
    mesh = device_mesh() if n_devices == 2 else None
    weights = example_weights(name) if weighted else None
    settings = {"loss": loss, "dtype": dtype, "tolerance": tolerance, "mesh": mesh}
    optimum = solve(LAM, data, weights=weights, **settings)
    assert optimum.converged.all()
    present = np.unique(labels)
    for i, lam in enumerate(LAM):
        args = (x, labels, lam, loss, weights[i] if weighted else None)
        params, expected = run(optimum.params, i), minima(name, loss, weighted)[i]
        assert optimum.cost[i] == pytest.approx(true_cost(params, *args), rel=1e-12)
        above = optimum.cost[i] - true_cost(expected, *args)
        assert -1e-13 <= above <= optimum.gap[i] + 1e-13
        assert optimum.gap[i] <= tolerance * optimum.cost[i]
        error, size = (
            np.linalg.norm(w) for w in (params.weights - expected.weights, expected.weights)
        )
        assert error <= min(optimum.distance[i] + 1e-7 * size, precision * size)
        bias, expected_bias = params.bias[present], expected.bias[present]
        if loss is SOFTMAX_CROSS_ENTROPY:  # it is free up to a constant
            bias, expected_bias = bias - bias.mean(), expected_bias - expected_bias.mean()
        np.testing.assert_allclose(bias, expected_bias, rtol=precision, atol=precision)
        scores = x @ params.weights.T + params.bias
        absent = np.setdiff1d(np.arange(k), present)
        assert (scores[:, absent] < scores.max(axis=1, keepdims=True) - 10).all()


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_the_certificate_is_the_bound_of_the_design_at_the_optimal_bias(loss, weighted):
    """gap = ‖M + 2λW‖²/(4λ) for any W, and at most 1 + κe/(2λ) times J − J*, κe ≥ the curvature."""
    name, (_, labels, k, _), x = "overlapping", problem("overlapping"), features("overlapping")
    rng, noise = np.random.default_rng(0), np.array([1.0, 1e-2, 1e-3])
    best = minima(name, loss, weighted)
    matrices = np.stack(
        [p.weights + s * rng.normal(size=(k, 8)) for p, s in zip(best, noise, strict=True)]
    )
    weights = example_weights(name) if weighted else None
    params = Params(matrices, rng.normal(size=(len(LAM), k)))
    cost, gap = certified_gap(params, LAM, dataset(name), loss=loss, weights=weights)
    for i, lam in enumerate(LAM):
        shares = weights[i] if weighted else np.ones(len(x))
        args = (x, labels, lam, loss, shares)
        optimal = Params(matrices[i], best_bias(matrices[i], x, labels, loss, shares))
        assert cost[i] == pytest.approx(true_cost(optimal, *args), rel=1e-10)
        assert gap[i] == pytest.approx(slope_norm(optimal, *args) ** 2 / (4 * lam), rel=1e-6)
        true_gap = true_cost(optimal, *args) - true_cost(best[i], *args)
        most = np.linalg.norm((x * shares[:, None]).T @ x, 2) / shares.sum()
        curvature = most * (1 / 2 if loss is SOFTMAX_CROSS_ENTROPY else 1 / (4 * k))
        assert true_gap <= gap[i] <= (1 + curvature / (2 * lam)) * true_gap * (1 + 1e-6)


@BOTH
def test_solve_reports_the_certificate_of_its_parameters(loss):
    name, (_, labels, *_), x = "overlapping", problem("overlapping"), features("overlapping")
    weights, config = example_weights(name), SolveConfig(loss, tolerance=0.02, max_passes=4)
    *_, step = solve_chunks(LAM, dataset(name), config, weights=weights)
    optimum = step.optimum
    for row, i in enumerate(step.rows):
        params, lam = run(optimum.params, row), LAM[i]
        norm = slope_norm(params, x, labels, lam, loss, weights[i])
        assert optimum.gap[row] == pytest.approx(norm**2 / (4 * lam), rel=0.05)
        assert optimum.distance[row] == pytest.approx(norm / (2 * lam), rel=0.05)
        error = np.linalg.norm(params.weights - minima(name, loss, True)[i].weights)
        assert error <= optimum.distance[row]
    np.testing.assert_allclose(step.relative_gap, optimum.gap / optimum.cost, rtol=1e-12)
    assert np.array_equal(optimum.converged, optimum.gap <= 0.02 * optimum.cost)
    assert set(optimum.converged.tolist()) == {False, True}


def test_the_certificate_stays_a_bound_where_only_rounding_remains():
    lam, data, x = np.array([1e-3, 1e-10, 1.0]), dataset("overlapping"), features("overlapping")
    finest = solve(lam, data, tolerance=1e-18, dtype=jnp.float64)
    assert not finest.converged.any()
    labels = problem("overlapping").labels
    for i in range(3):
        expected = minimum(x, labels, 3, lam[i], SOFTMAX_CROSS_ENTROPY)
        cost = true_cost(expected, x, labels, lam[i], SOFTMAX_CROSS_ENTROPY)
        assert 0 < finest.gap[i] < 1e-11
        assert finest.cost[i] - cost <= finest.gap[i]


@pytest.mark.parametrize("x64", [True, False])
def test_the_certificate_uses_the_inputs_as_they_are_stored(x64):
    """In float32 these lose half of their digits."""
    inputs, labels = clusters()
    inputs += 9e4
    x = standardised(inputs)
    with jax.enable_x64(x64):
        optimum = solve(LAM, dataset_from_arrays((inputs, labels)))
    for i, lam in enumerate(LAM):
        expected = minimum(x, labels, 3, lam, SOFTMAX_CROSS_ENTROPY)
        above = optimum.cost[i] - true_cost(expected, x, labels, lam, SOFTMAX_CROSS_ENTROPY)
        assert -1e-12 < above <= optimum.gap[i] + 1e-12


def test_a_class_of_tiny_weight_gets_its_bias():
    rng, labels = np.random.default_rng(2), (np.arange(300) < 15) * 1
    inputs = rng.normal(size=(300, 8))
    inputs[:, 0] += 8 * labels
    lam, weights, x = [1.0, 1e-6, 100.0], np.where(labels == 1, 1e-6, 1.0), standardised(inputs)
    data = dataset_from_arrays((inputs, labels))
    optimum = solve(lam, data, weights=weights, dtype=jnp.float64)
    assert optimum.converged[[0, 2]].all()
    for i in range(3):
        args = (x, labels, lam[i], SOFTMAX_CROSS_ENTROPY, weights)
        least = true_cost(minimum(x, labels, 2, *args[2:]), *args)
        assert abs(optimum.cost[i] - least) <= optimum.gap[i] + 1e-14


@pytest.mark.slow
def test_three_devices_give_scikit_learns_optimum():
    """300 examples and 64 features are no multiples of three devices."""
    cost, converged = json.loads(run_process("tests.programs.solve_digits", 3).stdout)
    assert all(converged)
    for i, lam in enumerate(LAM):
        args = (features("digits"), problem("digits").labels, lam, SOFTMAX_CROSS_ENTROPY)
        expected = minima("digits", SOFTMAX_CROSS_ENTROPY)[i]
        assert cost[i] == pytest.approx(true_cost(expected, *args), rel=1e-10)


def test_later_chunks_start_from_the_first_and_resume_with_the_same_bits():
    lam, data = np.geomspace(0.001, 10, 32), dataset("overlapping")
    first, second = (step for step in solve_chunks(lam, data) if step.optimum)
    assert sorted(first.rows + second.rows) == list(range(32))
    finished = {
        row: Params(weights, bias)
        for row, weights, bias in zip(first.rows, *first.optimum.params, strict=True)
    }
    again = [step for step in solve_chunks(lam, data, finished=finished) if step.optimum]
    assert [step.rows for step in again] == [second.rows]
    assert np.array_equal(again[0].optimum.params.weights, second.optimum.params.weights)
    cold = solve(lam[list(second.rows)], data)
    assert second.optimum.passes.mean() < 0.7 * cold.passes.mean()
    everything = finished | dict.fromkeys(second.rows, finished[first.rows[0]])
    assert not list(solve_chunks(lam, data, finished=everything))


def test_memory_bytes_bound_how_many_lambda_go_together():
    config = SolveConfig(memory_bytes=1, max_passes=1, dtype=jnp.float64)
    chunks = solve_chunks(np.geomspace(0.001, 10, 9), dataset("overlapping"), config)
    rows = [step.rows for step in chunks if step.optimum]
    assert sorted(rows) == [(i,) for i in range(9)]


@pytest.mark.slow
def test_as_many_lambda_as_possible_share_the_passes_over_a_file(monkeypatch):
    lam, config = np.geomspace(0.001, 10, 40), SolveConfig(max_passes=1)
    sizes = [
        [len(step.rows) for step in solve_chunks(lam, data, config) if step.optimum]
        for data in (dataset("overlapping"), on_disk(dataset("overlapping"), monkeypatch))
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
    name = "overlapping"
    one = solve(LAM[0], dataset(name), dtype=jnp.float64)
    expected = minima(name, SOFTMAX_CROSS_ENTROPY)[0]
    assert one.cost.shape == one.gap.shape == one.passes.shape == ()
    np.testing.assert_allclose(one.params.weights, expected.weights, atol=1e-2)
    again = solve(LAM[0], dataset(name), dtype=jnp.float64, start=one.params)
    assert again.passes < one.passes


def test_what_misses_the_tolerance_is_not_converged():
    optimum = solve([1e-6, 100.0, 1e-5], dataset("overlapping"), max_passes=4)
    assert optimum.converged.tolist() == [False, True, False]
    assert optimum.passes.max() == 5
    assert optimum.gap[0] > 1e-6 * optimum.cost[0]


def test_a_descent_takes_about_as_many_passes_as_were_measured():
    passes = [
        step.passes for step in solve_chunks(LAM, dataset("overlapping"), SolveConfig(**EXACT))
    ]
    assert (np.diff(passes, axis=0) >= 0).all()
    assert passes[-1].max() <= 1.5 * 19


@pytest.mark.slow
def test_slow_progress_does_not_end_a_descent():
    """The gap stays where it is for more than fifty passes, while the cost falls."""
    inputs, labels = load_digits(return_X_y=True)
    few = dataset_from_arrays((inputs[:400], labels[:400]))
    optimum = solve([1e-6], few, dtype=jnp.float64, max_passes=3000)
    assert optimum.converged.all()
    assert optimum.passes[0] > 500


def test_a_run_stops_when_its_result_is_unchanged():
    lam, data, settings = np.array([1e-7, 10.0, 1e-9]), dataset("separable"), {**EXACT}

    def constant(params):
        return np.zeros(len(params.bias))

    optimum = solve(lam, data, **settings, stop_when_unchanged=constant)
    assert optimum.unchanged.tolist() == [True, False, True]
    assert optimum.converged.tolist() == [False, True, False]
    looks = itertools.count()

    def changing(params):
        return np.full(len(params.bias), next(looks))

    settings["max_passes"] = 120
    assert not solve(lam, data, **settings, stop_when_unchanged=changing).unchanged.any()
    assert next(looks) == 4
    with pytest.raises(InputError, match="stop_when_unchanged"):
        solve(lam, data, **settings, stop_when_unchanged=lambda _: np.zeros(1))


@pytest.mark.parametrize(
    ("lam", "settings", "name"),
    [
        ([0.1, 0.0], {}, "lam is 0"),
        ([np.nan], {}, "lam"),
        ([1e39], {}, "lam in float32"),
        ([1e-38], {}, "lam in float32"),
        ([[0.1]], {}, "lam"),
        ([], {}, "lam"),
        ([0.1], {"weights": np.ones(3)}, "weights"),
        ([0.1], {"weights": -np.ones(300)}, "weights"),
        ([0.1], {"weights": np.full(300, np.inf)}, "weights"),
        ([0.1], {"weights": np.zeros(300)}, "weights"),
        ([0.1], {"weights": ExampleWeights(np.ones((1, 299)), [0])}, "weights"),
        ([0.1], {"loss": "hinge"}, "loss"),
        ([0.1], {"tolerance": 0.0}, "tolerance"),
        ([0.1], {"max_passes": 0}, "max_passes"),
        ([0.1], {"dtype": jnp.float16}, "dtype"),
        ([0.1], {"start": Params(np.zeros((1, 3, 3)), np.zeros((1, 3)))}, "start"),
    ],
)
def test_impossible_arguments_are_refused_by_name(lam, settings, name):
    with pytest.raises(InputError, match=name):
        solve(lam, dataset("overlapping"), **settings)


def test_float64_needs_x64():
    with jax.enable_x64(False), pytest.raises(InputError, match="x64"):
        solve([0.1], dataset("overlapping"), dtype=jnp.float64)


@pytest.mark.parametrize(
    "loss",
    [pytest.param(SOFTMAX_CROSS_ENTROPY, marks=pytest.mark.slow), MULTIPLE_BINARY_CROSS_ENTROPY],
    ids=str,
)
def test_cross_validation_measures_each_fold_with_a_fit_without_it(loss):
    key, n_folds, lam = jax.random.key(1), 4, np.array([1e-3, 1.0])
    data, (_, labels, k, _), x = (
        dataset("overlapping"),
        problem("overlapping"),
        features("overlapping"),
    )
    result = cross_validate(key, lam, data, n_folds, loss=loss, tolerance=1e-10)
    folds = stratified_folds(key, labels, n_folds)
    assert result.loss.shape == result.accuracy.shape == result.converged.shape == (4, 2)
    for fold, i in itertools.product(range(n_folds), range(2)):
        outside, inside = folds != fold, folds == fold
        params = minimum(x[outside], labels[outside], k, lam[i], loss)
        scores = x[inside] @ params.weights.T + params.bias
        mean_loss = true_cost(params, x[inside], labels[inside], 0, loss)
        assert result.loss[fold, i] == pytest.approx(mean_loss, rel=1e-4)
        right = scores.argmax(axis=1) == labels[inside]
        assert result.accuracy[fold, i] == pytest.approx(right.mean(), abs=1e-6)
    assert result.converged.all()
    few = cross_validate(key, [1e-8, 100.0], data, n_folds, loss=loss, max_passes=4)
    assert few.converged.tolist() == [[False, True]] * n_folds


def as_split(standardised_inputs, data):
    """Examples whose standardised inputs are these."""
    mean, scale = data.standardiser
    return Split(standardised_inputs * scale + mean, np.zeros(len(standardised_inputs), int))


@BOTH
@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_predictions_called_certain_are_the_optimums_and_the_rest_is_within_the_bound(loss, size):
    """Far out along features that don't matter, predictions change at the very bound."""
    rng, labels = np.random.default_rng(0), np.arange(300) % 2
    x = standardised(rng.normal(size=(300, 8)) + 2 * labels[:, None] * np.eye(8)[0])
    data = dataset_from_arrays((x, labels))
    best = minimum(x, labels, 2, 0.1, loss)
    direction = np.outer([1, -1], np.eye(8)[1]) / np.sqrt(2)
    near = best.weights + size * direction
    params = Params(near, best_bias(near, x, labels, loss))
    slope = best.weights[1] - best.weights[0]
    far = 1e4 * np.repeat([-1, 1], 2000)[:, None] * np.eye(8)[1]
    reach = np.tile(np.linspace(-4, 4, 2000), 2) * 1e4 * size
    far = far + (reach - far @ slope)[:, None] * slope / (slope @ slope)
    certain = certain_predictions(params, size, 0.1, data, as_split(far, data), loss)
    predictions, expected = (np.argmax(far @ p.weights.T + p.bias, axis=1) for p in (params, best))
    assert (predictions != expected).any()
    assert (predictions == expected)[certain].all()
    lead = np.abs((far @ params.weights.T + params.bias) @ [-1, 1])
    assert certain[lead > 1.1 * np.sqrt(2) * size * np.linalg.norm(far, axis=1)].all()


@BOTH
def test_predictions_that_only_the_bias_changes_are_not_called_certain(loss):
    data, x, labels = dataset("overlapping"), features("overlapping"), problem("overlapping").labels
    best = minimum(x, labels, 3, 0.1, loss)
    params = Params(best.weights, best.bias + np.array([1e-4, -1e-4, 0]))
    towards = np.linalg.pinv(best.weights[:2] - best.weights[[2, 0]])  # equal scores at 0
    origin = -towards @ (best.bias[:2] - best.bias[[2, 0]])
    points = origin + np.random.default_rng(0).normal(scale=3e-4, size=(2000, 2)) @ towards.T
    certain = certain_predictions(params, 0.0, 0.1, data, as_split(points, data), loss)
    predictions, expected = (
        np.argmax(points @ p.weights.T + p.bias, axis=1) for p in (params, best)
    )
    assert (predictions != expected).any()
    assert (predictions == expected)[certain].all()
    assert certain.any()


@BOTH
def test_nearly_all_predictions_are_certain_at_a_precise_optimum(loss):
    shares, name = [], "overlapping"
    for tolerance in (1e-2, 1e-8):
        near = solve(LAM, dataset(name), loss=loss, tolerance=tolerance, dtype=jnp.float64)
        for i, lam in enumerate(LAM):
            params, data = run(near.params, i), dataset(name)
            args = (near.distance[i], lam, data, data.train, loss)
            certain = certain_predictions(params, *args)
            predictions, expected = (
                np.argmax(features(name) @ p.weights.T + p.bias, axis=1)
                for p in (params, minima(name, loss)[i])
            )
            assert (predictions == expected)[certain].all()
            shares.append(certain.mean())
    assert min(shares[:3]) < 0.9
    assert min(shares[3:]) > 0.95


def test_nothing_is_certain_without_a_bound():
    data, loss = dataset("a class without examples"), SOFTMAX_CROSS_ENTROPY
    optimum = solve(LAM, data)
    args = (optimum.distance[0], LAM[0], data, data.train, loss)
    assert not certain_predictions(run(optimum.params, 0), *args).any()
