"""The optimum for many λ at once: against scikit-learn, and its certificate against the truth."""

import dataclasses
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run_process
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar.data import Split, dataset_from_arrays
from linear_cifar.engine.devices import device_mesh
from linear_cifar.losses import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
)
from linear_cifar.model import Params
from linear_cifar.optimum import basis, solve, solver
from linear_cifar.optimum.batch import descend
from linear_cifar.optimum.certificate import certify
from linear_cifar.optimum.examples import Examples
from linear_cifar.optimum.problem import Problem
from linear_cifar.optimum.solver import solve_chunks
from linear_cifar.settings import SettingsError

LAM = np.array([1e-4, 0.01, 1.0, 10.0])


@pytest.fixture(scope="module")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs[:500], labels[:500]))


def standardised(dataset):
    standardiser = dataset.standardiser
    return (dataset.train.inputs - standardiser.mean) / standardiser.scale


def theirs(dataset, lam, loss):
    """scikit-learn's optimum. Its losses are sums; ours are means, of K binary ones too."""
    inputs, labels, k = standardised(dataset), dataset.train.labels, dataset.n_classes
    settings = {"solver": "newton-cholesky", "tol": 1e-13, "max_iter": 1000}
    if loss is SOFTMAX_CROSS_ENTROPY:
        return (
            LogisticRegression(C=1 / (2 * lam * len(labels)), **settings).fit(inputs, labels).coef_
        )
    of_class = LogisticRegression(C=1 / (2 * lam * len(labels) * k), **settings)
    fits = OneVsRestClassifier(of_class).fit(inputs, labels).estimators_
    return np.concatenate([fit.coef_ for fit in fits])


@pytest.mark.parametrize(
    "loss",
    [SOFTMAX_CROSS_ENTROPY, pytest.param(MULTIPLE_BINARY_CROSS_ENTROPY, marks=pytest.mark.slow)],
    ids=["softmax", "multi_bce"],
)
def test_the_optimum_is_scikit_learn_s_and_its_certificate_bounds_the_distance(digits, loss):
    exact = solve(LAM, digits, loss=loss, tolerance=1e-13, dtype=jnp.float64)
    single = solve(LAM, digits, loss=loss)
    assert exact.converged.all()
    assert single.converged.all()
    assert (single.gap <= 1e-6 * single.cost).all()
    for i, lam in enumerate(LAM):
        weights = theirs(digits, lam, loss)
        size = np.linalg.norm(weights)
        assert np.linalg.norm(exact.params.weights[i] - weights) <= 1e-6 * size
        assert (
            np.linalg.norm(single.params.weights[i] - weights) <= single.distance[i] + 1e-6 * size
        )
    # Not by rounding alone: what it is above the minimum by is within what is certified.
    assert (single.cost - exact.cost <= single.gap + 1e-12).all()
    assert (single.cost - exact.cost > 0).any()


def test_a_bias_that_is_not_optimal_has_no_certificate(digits):
    found = solve([0.1], digits)
    shares = np.full((1, 500), 1 / 500)

    def gap(params, **settings):
        examples = Examples(digits, device_mesh(jax.devices()[:1]))
        of_rows = (shares, np.zeros(1, int), np.array([0.1]))
        return certify(params, examples, *of_rows, SOFTMAX_CROSS_ENTROPY, **settings).gap

    assert gap(found.params, refit_bias=False) == pytest.approx(found.gap, rel=1e-6)
    wrong = Params(found.params.weights, found.params.bias + 1e-3 * np.arange(10))
    assert np.isinf(gap(wrong, refit_bias=False))
    assert gap(wrong) == pytest.approx(found.gap, rel=1e-6)
    # For softmax it is free up to a constant.
    shifted = Params(found.params.weights, found.params.bias + 1)
    assert np.isfinite(gap(shifted, refit_bias=False))


@pytest.mark.slow
def test_weights_of_zero_and_one_leave_examples_out(digits):
    folds = np.ones((2, 500))
    folds[0, :100] = folds[1, 100:200] = 0
    found = solve([0.01, 0.01], digits, weights=folds, tolerance=1e-10, dtype=jnp.float64)
    for i, kept in enumerate(folds > 0):
        split = Split(digits.train.inputs[kept], digits.train.labels[kept])
        alone = solve(
            [0.01], dataclasses.replace(digits, train=split), tolerance=1e-10, dtype=jnp.float64
        )
        np.testing.assert_allclose(found.params.weights[i], alone.params.weights[0], atol=2e-5)
        assert found.cost[i] == pytest.approx(alone.cost[0], rel=1e-9)
    doubled = solve([0.01], digits, weights=1.0 + (np.arange(500) < 250))
    assert doubled.converged.all()


@pytest.mark.parametrize(("n", "most"), [(40, 8192), (40, 10)])
def test_wide_and_too_large_inputs_have_the_same_optimum(digits, monkeypatch, n, most):
    monkeypatch.setattr(basis, "MOST", most)
    inputs, labels = digits.train.inputs[:n], digits.train.labels[:n]
    few = dataset_from_arrays((inputs, labels))
    found = solve([0.1], few, tolerance=1e-13, dtype=jnp.float64)
    assert found.converged.all()
    expected = theirs(few, 0.1, SOFTMAX_CROSS_ENTROPY)
    np.testing.assert_allclose(found.params.weights[0], expected, atol=1e-6)


def test_the_first_chunk_starts_the_others_whether_it_was_solved_now_or_before(digits):
    lam = np.geomspace(0.01, 10, 40)
    steps = [step for step in solve_chunks(lam, digits) if step.optimum]
    assert sorted(row for step in steps for row in step.rows) == list(range(40))
    first, second, third = (step.rows for step in steps)
    assert {0, 39} <= set(first)
    assert min(second) > max(third)
    finished = {
        row: Params(weights, bias)
        for step in steps[:2]
        for row, weights, bias in zip(step.rows, *step.optimum.params, strict=True)
    }
    (again,) = (s for s in solve_chunks(lam, digits, finished=finished) if s.optimum)
    assert again.rows == third
    assert np.array_equal(again.optimum.params.weights, steps[2].optimum.params.weights)


def test_with_few_at_once_there_are_still_several_to_start_from(digits, monkeypatch):
    lam = np.geomspace(0.01, 10, 14)
    together = solve(lam, digits)
    monkeypatch.setattr(solver, "_AT_ONCE", 2)
    steps = [step for step in solve_chunks(lam, digits) if step.optimum]
    assert all(len(step.rows) == 2 for step in steps)
    found = {row: step for step in steps for row in step.rows}
    firsts = [row for step in steps[:4] for row in step.rows]
    assert {0, 13} <= set(firsts)
    for row, step in found.items():
        place = step.rows.index(row)
        assert step.optimum.converged[place]
        assert step.optimum.cost[place] == pytest.approx(together.cost[row], rel=2e-6)
    rest = [row for row in found if row not in firsts]
    passes = [found[row].optimum.passes[found[row].rows.index(row)] for row in rest]
    assert np.mean(passes) < 0.6 * together.passes[rest].mean()


def test_a_start_that_is_worse_than_zero_is_not_used(digits):
    mesh = device_mesh(jax.devices()[:1])
    problem = Problem(digits, SOFTMAX_CROSS_ENTROPY, jnp.float32, mesh)
    shares = np.full((1, 500), 1 / 500)
    runs, blocks = (
        problem.of_runs(np.array([0.1]), shares, np.zeros(1, int)),
        problem.blocks(shares),
    )

    def end(start):
        *_, last = descend(problem, runs, blocks, start, np.array([1e-6]), 100)
        return last

    near = solve([0.2], digits).params
    expected = end(None)
    for factor in (np.nan, -100):
        start = Params(*(factor * array for array in near))
        assert np.array_equal(end(start).params.weights, expected.params.weights)
    assert not np.array_equal(end(near).params.weights, expected.params.weights)


@pytest.mark.slow
def test_devices_share_lambda_and_change_nothing(digits):
    settings = {"tolerance": 1e-12, "dtype": jnp.float64}
    alone = solve(LAM, digits, **settings)
    shared = solve(LAM, digits, mesh=device_mesh(), **settings)
    assert shared.converged.all()
    apart = np.linalg.norm(shared.params.weights - alone.params.weights, axis=(1, 2))
    assert (apart <= shared.distance + alone.distance).all()
    np.testing.assert_allclose(shared.cost, alone.cost, rtol=1e-12)


def binary_optimum(inputs, labels, lam, shares):
    """The optimum of two classes: the cost, by scikit-learn's one vector in float64."""
    model = LogisticRegression(C=1 / lam, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    model.fit(inputs, labels, sample_weight=shares)
    margins = (2 * labels - 1) * model.decision_function(inputs)
    return shares @ np.logaddexp(0, -margins) + lam / 2 * (model.coef_**2).sum()


@pytest.mark.parametrize("x64", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_certificate_has_the_inputs_as_they_are_stored(x64):
    """In float32 these would lose half of their digits."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    inputs = 9e4 + rng.normal(size=(200, 3)) + labels[:, None]
    dataset = dataset_from_arrays((inputs, labels))
    with jax.enable_x64(x64):
        found = solve([1e-2, 1.0], dataset)
    for i, lam in enumerate((1e-2, 1.0)):
        least = binary_optimum(standardised(dataset), labels, lam, np.full(200, 1 / 200))
        assert -1e-12 < found.cost[i] - least <= found.gap[i] + 1e-12


def test_a_class_of_tiny_weight_has_its_bias():
    rng = np.random.default_rng(2)
    labels = (np.arange(60) < 3).astype(int)
    inputs = rng.normal(size=(60, 4))
    inputs[:, 0] += 8 * labels
    dataset, weights = dataset_from_arrays((inputs, labels)), np.where(labels == 1, 1e-6, 1.0)
    found = solve([1e-6, 1.0, 100.0], dataset, weights=weights)
    assert found.converged[1:].all()
    for i, lam in enumerate((1e-6, 1.0, 100.0)):
        least = binary_optimum(standardised(dataset), labels, lam, weights / weights.sum())
        assert abs(found.cost[i] - least) <= found.gap[i] + 1e-14


def test_lambda_that_are_nearly_equal_start_the_others(digits):
    found = solve([3.0] * 9 + [np.nextafter(3, 4)] * 9, digits)
    assert found.converged.all()


@pytest.mark.parametrize("lam", [1e39, 1e-38])
def test_lambda_beyond_the_dtype_is_refused(digits, lam):
    message = f"lam is {lam}: in float32 it has to be from 1.17"
    with pytest.raises(SettingsError, match=re.escape(message)):
        solve([lam], digits)


@pytest.mark.slow
def test_as_many_devices_as_there_are_give_the_same_to_rounding():
    """500 examples and 64 features are no multiples of three devices."""
    alone, *others = (
        json.loads(run_process("tests.programs.solve_digits", n).stdout) for n in (1, 3)
    )
    for costs, passes, converged in others:
        np.testing.assert_allclose(costs, alone[0], rtol=1e-11)
        np.testing.assert_allclose(passes, alone[1], rtol=0.1)
        assert all(converged)


def test_what_is_not_reached_is_said_not_to_be(digits):
    found = solve([1e-4, 10.0], digits, max_passes=5)
    assert found.converged.tolist() == [False, True]
    assert found.gap[0] > 1e-6 * found.cost[0]
    too_fine = solve([1e-3], digits, tolerance=1e-15)
    assert not too_fine.converged.any()
    assert too_fine.gap[0] < 1e-6 * too_fine.cost[0]


@pytest.mark.parametrize(
    ("lam", "settings", "message"),
    [
        ([0.1, 0.0], {}, "lam is 0: without a penalty the cost may have no minimum"),
        ([np.nan], {}, "lam is nan"),
        (0.1, {}, r"lam has to be a list of values, \[C\]"),
        ([0.1], {"weights": np.ones(3)}, r"weights have to be \[500\] or \[1, 500\], not \[3\]"),
        ([0.1], {"weights": -np.ones(500)}, "at least 0"),
        ([0.1], {"weights": np.zeros(500)}, "above 0 for an example at least"),
        ([0.1], {"loss": "softmax"}, "loss is 'softmax'"),
        ([0.1], {"tolerance": 0.0}, "tolerance is 0.0: it has to be above 0"),
        ([0.1], {"max_passes": 0}, "max_passes is 0: it has to be from 1"),
    ],
)
def test_what_cannot_be_solved_is_refused(digits, lam, settings, message):
    with pytest.raises(SettingsError, match=message):
        solve(lam, digits, **settings)


def test_float64_needs_x64(digits):
    with jax.enable_x64(False), pytest.raises(SettingsError, match="x64"):
        solve([0.1], digits, dtype=jnp.float64)


def test_a_binary_loss_s_scale_is_the_mean_over_classes(digits):
    """With K classes λ is that of a class's own problem over K."""
    one, k = MULTIPLE_BINARY_CROSS_ENTROPY, digits.n_classes
    found = solve([0.1 / k], digits, loss=one, tolerance=1e-12, dtype=jnp.float64)
    of_class = LogisticRegression(C=1 / (2 * 0.1 * 500), tol=1e-12, max_iter=10_000)
    coef = of_class.fit(standardised(digits), digits.train.labels == 3).coef_[0]
    np.testing.assert_allclose(found.params.weights[0, 3], coef, atol=1e-5)


def test_the_smallest_data_have_their_optimum():
    inputs, labels = np.eye(2, 3), np.array([0, 1])
    found = solve([0.1, 1.0], dataset_from_arrays((inputs, labels)))
    assert found.converged.all()
    assert np.isfinite(found.params.weights).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_class_without_examples_is_driven_away_and_certified(digits, loss):
    names = [str(k) for k in range(11)]
    empty = dataset_from_arrays((digits.train.inputs, digits.train.labels), class_names=names)
    found = solve([0.1], empty, loss=loss)
    assert found.converged.all()
    scores = standardised(digits) @ found.params.weights[0].T + found.params.bias[0]
    assert (scores[:, 10] < scores[:, :10].max(axis=1) - 10).all()


def test_reports_stay_what_they_were_when_they_came(digits):
    steps = list(solve_chunks([1e-4], digits))
    passes = [int(step.passes[0]) for step in steps]
    assert passes == sorted(passes)
    assert passes[0] < passes[-1]


def test_a_descent_ends_where_what_is_watched_stays_the_same(digits):
    """At 1e-12 the smallest λ takes far more than 75 passes."""
    how = {"tolerance": 1e-12, "dtype": jnp.float64}
    found = solve([1e-5, 10.0], digits, **how, watched=lambda params: np.zeros(len(params.bias)))
    assert found.settled.tolist() == [True, False]
    assert found.converged.tolist() == [False, True]
    assert 75 <= found.passes[0] <= 77

    looks = itertools.count()

    def changing(params):
        return np.full(len(params.bias), next(looks))

    assert not solve([1e-5], digits, **how, max_passes=260, watched=changing).settled.any()


@pytest.mark.slow
def test_slow_progress_is_no_end(digits):
    """The gap stays where it is for more than fifty passes, while the cost falls."""
    few = dataset_from_arrays((digits.train.inputs[:400], digits.train.labels[:400]))
    found = solve([1e-6], few, dtype=jnp.float64, max_passes=3000)
    assert found.converged.all(), (found.passes, found.gap / found.cost)
    assert found.passes[0] > 500


def test_what_is_watched_may_be_a_buffer_and_has_to_be_an_array_of_runs(digits):
    buffer, looks = np.zeros(1), itertools.count()

    def watched(params):
        buffer[:] = next(looks)
        return buffer

    how = {"tolerance": 1e-12, "dtype": jnp.float64, "max_passes": 120}
    assert not solve([1e-5], digits, **how, watched=watched).settled.any()
    for wrong in (lambda params: 1.0, lambda params: np.zeros(3), 5):
        with pytest.raises(SettingsError, match="watched"):
            solve([1e-5], digits, **how, watched=wrong)


def test_a_loss_without_second_derivatives_of_its_own_has_them_differentiated(digits):
    own = SOFTMAX_CROSS_ENTROPY._replace(name="own", logit_hessian=None)
    found, expected = (
        solve([0.1, 1.0], digits, loss=loss) for loss in (own, SOFTMAX_CROSS_ENTROPY)
    )
    np.testing.assert_allclose(found.cost, expected.cost, rtol=1e-9)
    np.testing.assert_allclose(found.params.bias, expected.params.bias, atol=1e-9)
