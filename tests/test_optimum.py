"""The exact optimum and its certificate, against scikit-learn and against the truth."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, logsumexp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

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
    certain_predictions,
    certified_gap,
    solve_chunks,
)
from linear_cifar.optimum.prediction import bias_distance
from tests.commands import run_process

LAM = np.array([1e-4, 0.01, 1.0, 10.0])
EXACT = {"tolerance": 1e-11, "dtype": jnp.float64}
BOTH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(scope="module")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs[:500], labels[:500]), test=(inputs[500:], labels[500:]))


def standardised(dataset, split="train"):
    mean, scale = dataset.standardiser
    return (getattr(dataset, split).inputs - mean) / scale


def scikit_learn(dataset, lam, loss):
    """scikit-learn's weights. Its losses are sums; ours are means, over K binary losses too."""
    inputs, labels, k = standardised(dataset), dataset.train.labels, dataset.n_classes
    settings = {"solver": "newton-cholesky", "tol": 1e-13, "max_iter": 1000}
    c = 1 / (2 * lam * len(labels))
    if loss is SOFTMAX_CROSS_ENTROPY:
        return LogisticRegression(C=c, **settings).fit(inputs, labels).coef_
    one_vs_rest = OneVsRestClassifier(LogisticRegression(C=c / k, **settings))
    return np.concatenate([fit.coef_ for fit in one_vs_rest.fit(inputs, labels).estimators_])


def true_cost(params, dataset, lam, loss, weights=None):
    """J in NumPy float64."""
    scores = standardised(dataset) @ params.weights.T + params.bias
    labels, n = dataset.train.labels, len(scores)
    if loss is SOFTMAX_CROSS_ENTROPY:
        losses = logsumexp(scores, axis=1) - scores[np.arange(n), labels]
    else:
        sign = 2 * np.eye(dataset.n_classes)[labels] - 1
        losses = -log_expit(sign * scores).mean(axis=1)
    return np.average(losses, weights=weights) + lam * (params.weights**2).sum()


def run(params, i):
    return Params(params.weights[i], params.bias[i])


@BOTH
def test_the_optimum_is_scikit_learns(digits, loss):
    optimum = solve(LAM, digits, loss=loss, **EXACT)
    assert optimum.converged.all()
    for i, lam in enumerate(LAM):
        expected = scikit_learn(digits, lam, loss)
        error = np.linalg.norm(optimum.params.weights[i] - expected)
        assert error <= optimum.distance[i] + 1e-6 * np.linalg.norm(expected)
        cost = true_cost(run(optimum.params, i), digits, lam, loss)
        assert optimum.cost[i] == pytest.approx(cost, rel=1e-12)


@BOTH
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_the_certificate_bounds_the_true_gap_within_a_factor_of_four(digits, loss, tolerance):
    exact = solve(LAM, digits, loss=loss, **EXACT)
    optimum = solve(LAM, digits, loss=loss, tolerance=tolerance)
    assert (optimum.gap <= tolerance * optimum.cost).all()
    gap = optimum.cost - exact.cost
    assert (gap > 0).any()
    assert (gap <= optimum.gap).all()
    assert (optimum.gap[gap > 1e-9] <= 4 * gap[gap > 1e-9] + 2e-9).all()
    apart = np.linalg.norm(optimum.params.weights - exact.params.weights, axis=(1, 2))
    assert (apart <= optimum.distance + exact.distance).all()


@BOTH
def test_any_parameters_have_a_certified_gap(digits, loss):
    exact = solve([0.1], digits, loss=loss, **EXACT)
    rng = np.random.default_rng(0)
    for size in (0, 1e-4, 1e-2, 1.0):
        noise = size * rng.normal(size=(1, 10, 64))
        params = Params(exact.params.weights + noise, rng.normal(size=(1, 10)))
        cost, gap = certified_gap(params, [0.1], digits, loss=loss)
        assert exact.cost[0] - 1e-12 <= cost[0]
        assert cost[0] - exact.cost[0] <= gap[0] < np.inf
    # At the best bias the gap is ‖∂J/∂W‖²/(4λ), apart from a share of rounding.
    cost, gap = certified_gap(exact.params, [0.1], digits, loss=loss)
    assert gap[0] < 1e-11 * cost[0]


@pytest.mark.parametrize("lam", [1e-10, 1e-3])
def test_the_certificate_stays_a_bound_where_only_rounding_remains(lam):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 300)
    data = dataset_from_arrays((rng.normal(size=(300, 4)), labels))
    finest = solve([lam], data, tolerance=1e-18, dtype=jnp.float64)
    loose = solve([lam], data, tolerance=1e-4, dtype=jnp.float64)
    assert not finest.converged[0]
    assert 0 < finest.gap[0] < 1e-11
    assert loose.cost[0] - finest.cost[0] <= loose.gap[0]
    assert finest.cost[0] - loose.cost[0] <= finest.gap[0]


@BOTH
def test_a_class_without_examples_is_driven_away_and_certified(digits, loss):
    names = [str(k) for k in range(11)]
    empty = dataset_from_arrays((digits.train.inputs, digits.train.labels), class_names=names)
    optimum = solve([0.1], empty, loss=loss)
    assert optimum.converged.all()
    scores = standardised(digits) @ optimum.params.weights[0].T + optimum.params.bias[0]
    assert (scores[:, 10] < scores[:, :10].max(axis=1) - 10).all()
    if loss is SOFTMAX_CROSS_ENTROPY:
        assert optimum.cost == pytest.approx(solve([0.1], digits).cost, rel=1e-6)


def binary_minimum(inputs, labels, lam, shares):
    """The least cost of two classes, from scikit-learn's one vector in float64."""
    model = LogisticRegression(C=1 / lam, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    model.fit(inputs, labels, sample_weight=shares)
    margins = (2 * labels - 1) * model.decision_function(inputs)
    return shares @ np.logaddexp(0, -margins) + lam / 2 * (model.coef_**2).sum()


@pytest.mark.parametrize("x64", [True, False])
def test_the_certificate_uses_the_inputs_as_they_are_stored(x64):
    """In float32 these lose half of their digits."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    inputs = 9e4 + rng.normal(size=(200, 3)) + labels[:, None]
    dataset = dataset_from_arrays((inputs, labels))
    with jax.enable_x64(x64):
        optimum = solve([1e-2, 1.0], dataset)
    for i, lam in enumerate((1e-2, 1.0)):
        minimum = binary_minimum(standardised(dataset), labels, lam, np.full(200, 1 / 200))
        assert -1e-12 < optimum.cost[i] - minimum <= optimum.gap[i] + 1e-12


def test_a_class_of_tiny_weight_gets_its_bias():
    rng = np.random.default_rng(2)
    labels = (np.arange(60) < 3).astype(int)
    inputs = rng.normal(size=(60, 4))
    inputs[:, 0] += 8 * labels
    dataset, weights = dataset_from_arrays((inputs, labels)), np.where(labels == 1, 1e-6, 1.0)
    optimum = solve([1e-6, 1.0, 100.0], dataset, weights=weights)
    assert optimum.converged[1:].all()
    for i, lam in enumerate((1e-6, 1.0, 100.0)):
        shares = weights / weights.sum()
        minimum = binary_minimum(standardised(dataset), labels, lam, shares)
        assert abs(optimum.cost[i] - minimum) <= optimum.gap[i] + 1e-14


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_weights_leave_examples_out_and_repeat_them(digits, storage):
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, (2, 500)).astype(float)
    dataset = digits
    if storage == "file":
        inputs = digits.train.inputs
        rows = LazyRows(lambda start, stop: inputs[start:stop].copy(), inputs.shape, inputs.dtype)
        dataset = dataclasses.replace(digits, train=Split(rows, digits.train.labels))
    optimum = solve([0.01, 0.01], dataset, weights=weights, **EXACT)
    shared = solve([0.01, 0.01], dataset, weights=ExampleWeights(weights, [1, 0]), **EXACT)
    np.testing.assert_allclose(shared.cost, optimum.cost[::-1], rtol=1e-10)
    for i, of_run in enumerate(weights):
        rows = np.repeat(np.arange(500), of_run.astype(int))
        split = Split(digits.train.inputs[rows], digits.train.labels[rows])
        alone = solve([0.01], dataclasses.replace(digits, train=split), **EXACT)
        assert optimum.cost[i] == pytest.approx(alone.cost[0], rel=1e-10)


@pytest.mark.parametrize("loss", [MULTIPLE_BINARY_CROSS_ENTROPY])
def test_inputs_in_several_blocks_of_a_file_give_the_optimum_of_memory(digits, monkeypatch, loss):
    monkeypatch.setattr("linear_cifar.optimum.data_pass.block_rows", lambda _: 150)
    inputs = digits.train.inputs
    rows = LazyRows(lambda start, stop: inputs[start:stop].copy(), inputs.shape, inputs.dtype)
    in_file = dataclasses.replace(digits, train=Split(rows, digits.train.labels))
    expected = solve(LAM, digits, loss=loss, **EXACT)
    optimum = solve(LAM, in_file, loss=loss, mesh=device_mesh(), **EXACT)
    assert optimum.converged.all()
    np.testing.assert_allclose(optimum.cost, expected.cost, rtol=1e-10)


@pytest.mark.parametrize(("n", "max_side"), [(40, 8192), (40, 10)])
def test_wide_and_undecomposed_inputs_have_the_same_optimum(digits, monkeypatch, n, max_side):
    monkeypatch.setattr("linear_cifar.optimum.basis.MAX_SIDE", max_side)
    few = dataset_from_arrays((digits.train.inputs[:n], digits.train.labels[:n]))
    optimum = solve([0.1], few, **EXACT)
    assert optimum.converged.all()
    expected = scikit_learn(few, 0.1, SOFTMAX_CROSS_ENTROPY)
    np.testing.assert_allclose(optimum.params.weights[0], expected, atol=1e-5)


@pytest.mark.slow
def test_as_many_devices_as_you_like_give_the_same_up_to_rounding(digits):
    """500 examples and 64 features are no multiples of three devices."""
    cost, converged = json.loads(run_process("tests.programs.solve_digits", 3).stdout)
    np.testing.assert_allclose(cost, solve(LAM, digits, **EXACT).cost, rtol=1e-10)
    assert all(converged)


def test_later_chunks_start_from_the_first_and_resume_with_the_same_bits(digits):
    lam = np.geomspace(0.01, 10, 40)
    steps = [step for step in solve_chunks(lam, digits) if step.optimum]
    assert sorted(row for step in steps for row in step.rows) == list(range(40))
    assert {0, 39} <= set(steps[0].rows)
    finished = {
        row: Params(weights, bias)
        for step in steps[:2]
        for row, weights, bias in zip(step.rows, *step.optimum.params, strict=True)
    }
    (again,) = (step for step in solve_chunks(lam, digits, finished=finished) if step.optimum)
    assert again.rows == steps[2].rows
    assert np.array_equal(again.optimum.params.weights, steps[2].optimum.params.weights)
    cold = solve(lam[list(again.rows)], digits)
    assert again.optimum.passes.mean() < 0.7 * cold.passes.mean()


def test_a_start_worse_than_zero_is_replaced_and_its_pass_counts(digits):
    near = solve([0.2], digits).params
    cold = solve([0.1], digits)
    for factor in (np.nan, -100):
        bad = solve([0.1], digits, start=Params(*(factor * array for array in near)))
        assert np.array_equal(bad.params.weights, cold.params.weights)
        assert bad.passes[0] == cold.passes[0] + 1
    assert solve([0.1], digits, start=near).passes[0] < cold.passes[0]


def test_a_scalar_lambda_gives_one_optimum_without_an_axis(digits):
    one, several = solve(0.1, digits), solve([0.1], digits)
    assert one.params.weights.shape == (10, 64)
    assert one.cost == several.cost[0]


def test_what_misses_the_tolerance_is_not_converged(digits):
    optimum = solve([1e-4, 10.0], digits, max_passes=5)
    assert optimum.converged.tolist() == [False, True]
    assert optimum.gap[0] > 1e-6 * optimum.cost[0]


def test_progress_counts_passes_upwards(digits):
    passes = [int(step.passes[0]) for step in solve_chunks([1e-4], digits)]
    assert passes == sorted(passes)
    assert passes[0] < passes[-1]


def test_slow_progress_does_not_end_a_descent(digits):
    """The gap stays where it is for more than fifty passes, while the cost falls."""
    few = dataset_from_arrays((digits.train.inputs[:400], digits.train.labels[:400]))
    optimum = solve([1e-6], few, dtype=jnp.float64, max_passes=3000)
    assert optimum.converged.all()
    assert optimum.passes[0] > 500


def test_a_run_stops_when_its_result_is_unchanged(digits):
    def constant(params):
        return np.zeros(len(params.bias))

    optimum = solve([1e-5, 10.0], digits, **EXACT, stop_when_unchanged=constant)
    assert optimum.unchanged.tolist() == [True, False]
    assert optimum.converged.tolist() == [False, True]
    buffer, looks = np.zeros(1), itertools.count()

    def changing(_):
        buffer[:] = next(looks)
        return buffer

    settings = {**EXACT, "max_passes": 120}
    assert not solve([1e-5], digits, **settings, stop_when_unchanged=changing).unchanged.any()
    with pytest.raises(InputError, match="stop_when_unchanged"):
        solve([1e-5], digits, **settings, stop_when_unchanged=lambda _: np.zeros(3))


@pytest.mark.parametrize(
    ("lam", "settings", "name"),
    [
        ([0.1, 0.0], {}, "lam is 0"),
        ([np.nan], {}, "lam"),
        ([1e39], {}, "lam in float32"),
        ([1e-38], {}, "lam in float32"),
        ([[0.1]], {}, "lam"),
        ([0.1], {"weights": np.ones(3)}, "weights"),
        ([0.1], {"weights": -np.ones(500)}, "weights"),
        ([0.1], {"weights": np.zeros(500)}, "weights"),
        ([0.1], {"weights": ExampleWeights(np.ones((1, 499)), [0])}, "weights"),
        ([0.1], {"loss": "hinge"}, "loss"),
        ([0.1], {"tolerance": 0.0}, "tolerance"),
        ([0.1], {"max_passes": 0}, "max_passes"),
        ([0.1], {"dtype": jnp.float16}, "dtype"),
        ([0.1], {"start": Params(np.zeros((1, 3, 3)), np.zeros((1, 3)))}, "start"),
    ],
)
def test_impossible_arguments_are_refused_by_name(digits, lam, settings, name):
    with pytest.raises(InputError, match=name):
        solve(lam, digits, **settings)


def test_float64_needs_x64(digits):
    with jax.enable_x64(False), pytest.raises(InputError, match="x64"):
        solve([0.1], digits, dtype=jnp.float64)


def test_cross_validation_measures_each_fold_with_a_fit_without_it(digits):
    key, lam = jax.random.key(1), np.array([0.01, 1.0])
    result = cross_validate(key, lam, digits, 3, tolerance=1e-8)
    folds = stratified_folds(key, digits.train.labels, 3)
    inputs, labels = standardised(digits), digits.train.labels
    for fold, (i, of_run) in itertools.product(range(3), enumerate(lam)):
        fitted, left_out = folds != fold, folds == fold
        c = 1 / (2 * of_run * fitted.sum())
        model = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
        model.fit(inputs[fitted], labels[fitted])
        losses = -model.predict_log_proba(inputs[left_out])[range(left_out.sum()), labels[left_out]]
        assert result.loss[fold, i] == pytest.approx(losses.mean(), rel=1e-3)
        accuracy = model.score(inputs[left_out], labels[left_out])
        assert result.accuracy[fold, i] == pytest.approx(accuracy, abs=0.01)
    assert result.converged.all()


@BOTH
def test_certain_predictions_are_those_of_the_exact_optimum(digits, loss):
    lam = np.array([1e-3, 0.1])
    exact = solve(lam, digits, loss=loss, **EXACT)
    shares = []
    for tolerance in (1e-2, 1e-6, 1e-10):
        near = solve(lam, digits, loss=loss, tolerance=tolerance, dtype=jnp.float64)
        for i, of_run in enumerate(lam):
            params, distance = run(near.params, i), near.distance[i]
            certain = certain_predictions(params, distance, of_run, digits, digits.test, loss)
            ours, theirs = (
                np.argmax(standardised(digits, "test") @ p.weights.T + p.bias, axis=1)
                for p in (params, run(exact.params, i))
            )
            assert (ours == theirs)[certain].all()
            shares.append(certain.mean())
    assert shares[0] < 0.9
    assert min(shares[-2:]) > 0.98


def test_the_bound_of_predictions_is_in_float64_for_jax_parameters_too(digits):
    optimum = solve(0.1, digits)
    certain = []
    for as_array in (np.float32, jnp.float32):
        params = jax.tree.map(as_array, optimum.params)
        loss = SOFTMAX_CROSS_ENTROPY
        with jax.enable_x64(False):
            certain.append(bias_distance(params, 1e-12, 0.1, digits, loss))
    assert certain[0] == certain[1]


def test_nothing_is_certain_without_a_bound(digits):
    names = [str(k) for k in range(11)]
    empty = dataset_from_arrays((digits.train.inputs, digits.train.labels), class_names=names)
    optimum = solve(0.1, empty)
    test, loss = digits.test, SOFTMAX_CROSS_ENTROPY
    assert not certain_predictions(optimum.params, optimum.distance, 0.1, empty, test, loss).any()
