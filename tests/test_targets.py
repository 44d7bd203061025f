"""Many binary targets in one solve, against scikit-learn, SciPy and NumPy in float64."""

from functools import cache

import jax
import numpy as np
import pytest
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

from linear_cifar import (
    BINARY_CROSS_ENTROPY,
    MULTIPLE_BINARY_CROSS_ENTROPY,
    Hyperparameters,
    InputError,
    Params,
    binary_cross_entropy,
    binary_cross_entropy_gradient,
    cross_validate,
    dataset_from_arrays,
    lam_to,
    solve,
    sweep,
    train,
    with_validation,
)
from linear_cifar.data import stratified_folds
from linear_cifar.optimum import ExampleWeights, SolveConfig, certified_gap, gap_at, solve_chunks
from tests import oracle
from tests.conftest import on_disk

N, D, T = 200, 8, 10
LAM = np.array([0.01, 0.3, 1e-3, 0.1, 3e-4])  # in no order
EXACT = {"tolerance": 1e-12, "dtype": np.float64}
# Factors of the weights of negative and positive examples.
PAIRS = np.stack([np.linspace(0.5, 3, T), np.linspace(2, 1, T)], axis=1)
WEIGHTINGS = {"equal": {}, "balanced": {"class_weight": "balanced"}}
WEIGHTINGS["both"] = {"class_weight": PAIRS, "weights": 1.0 + np.arange(N) % 3}
each_weighting = pytest.mark.parametrize("weighting", WEIGHTINGS)


@cache
def arrays():
    """Inputs [n, d] and targets [n, T]; a fifth of the labels is unknown."""
    rng = np.random.default_rng(0)
    inputs = 3 + rng.normal(size=(N, D))
    scores = inputs @ rng.normal(size=(D, T)) + rng.logistic(size=(N, T))
    targets = (
        scores > np.quantile(scores, np.linspace(0.3, 0.8, T), axis=0)[np.arange(T), range(T)]
    ).astype(int)
    return inputs, np.where(rng.random((N, T)) < 0.2, -1, targets)


def dataset(targets=None):
    inputs, labels = arrays()
    return dataset_from_arrays((inputs, labels if targets is None else targets))


def standardised():
    inputs, _ = arrays()
    return (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)


@cache
def optimum(weighting="equal"):
    return solve(LAM, dataset(), **EXACT, **WEIGHTINGS[weighting])


def problem(target, weighting="equal"):
    """The known examples of a target: inputs, labels, and weights that sum to 1."""
    is_known = arrays()[1][:, target] >= 0
    inputs, labels = standardised()[is_known], arrays()[1][is_known, target]
    weights = WEIGHTINGS[weighting].get("weights", np.ones(N))[is_known]
    if weighting == "balanced":
        weights = weights / np.bincount(labels)[labels]
    elif weighting == "both":
        weights = weights * PAIRS[target, labels]
    return inputs, labels, weights / weights.sum()


def scikit_learn(target, lam, weighting="equal"):
    inputs, labels, _ = problem(target, weighting)
    settings, weights = {}, None
    n = len(labels)  # scikit-learn scales balanced weights to a mean of 1
    if weighting == "balanced":
        settings = {"class_weight": "balanced"}
    elif weighting == "both":
        settings = {"class_weight": dict(enumerate(PAIRS[target]))}
        weights = WEIGHTINGS["both"]["weights"][arrays()[1][:, target] >= 0]
        n = np.sum(weights * PAIRS[target, labels])
    model = LogisticRegression(
        C=1 / (2 * lam * n), solver="newton-cholesky", tol=1e-13, max_iter=1000, **settings
    )
    return model.fit(inputs, labels, weights)


def true_cost(params, lam, inputs, labels, weights):
    """The cost J and its gradient, of parameters [d + 1] whose last one is the bias."""
    losses, slopes = oracle.binary_cross_entropy(inputs @ params[:-1] + params[-1], labels)
    by_score = weights * slopes
    gradient = np.append(by_score @ inputs + 2 * lam * params[:-1], by_score.sum())
    return weights @ losses + lam * params[:-1] @ params[:-1], gradient


def minimum(lam, *args):
    """The least cost: SciPy finds where the gradient vanishes."""

    def hessian(params, lam, inputs, labels, weights):
        p = special.expit(inputs @ params[:-1] + params[-1])
        columns = np.column_stack([inputs, np.ones(len(inputs))])
        penalty = np.diag([2 * lam] * inputs.shape[1] + [0])
        return columns.T @ (columns * (weights * p * (1 - p))[:, None]) + penalty

    def gradient(params, *args):
        return true_cost(params, *args)[1]

    result = optimize.root(gradient, np.zeros(D + 1), (lam, *args), jac=hessian, tol=1e-14)
    assert np.abs(result.fun).max() < 1e-12
    return true_cost(result.x, lam, *args)[0]


def best_bias(weights, *args):
    """The bias at which the mean derivative is 0."""

    def slope(bias):
        return true_cost(np.append(weights, bias), *args)[1][-1]

    return optimize.brentq(slope, -200, 200, xtol=1e-13)


def test_the_derivative_matches_finite_differences():
    scores, targets = np.linspace(-8, 8, 40), np.arange(40) % 2
    step = 1e-5
    above, below = (binary_cross_entropy(scores + h, targets) for h in (step, -step))
    gradient = binary_cross_entropy_gradient(scores, targets)
    np.testing.assert_allclose(gradient, (above - below) / (2 * step), atol=1e-9)
    for actual, expected in zip(
        (binary_cross_entropy(scores, targets), gradient),
        oracle.binary_cross_entropy(scores, targets),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert np.isnan(binary_cross_entropy(np.zeros(2), np.array([-1, 2]))).all()


@each_weighting
def test_each_target_is_scikit_learns_logistic_regression(weighting):
    fitted = optimum(weighting)
    assert fitted.converged.all()
    for i, t in np.ndindex(len(LAM), T):
        model = scikit_learn(t, LAM[i], weighting)
        weights, bias = fitted.params.weights[i, t], fitted.params.bias[i, t]
        error = np.linalg.norm(weights - model.coef_[0])
        assert error <= 1e-5 * np.linalg.norm(model.coef_)
        assert bias == pytest.approx(model.intercept_[0], rel=1e-5, abs=1e-5)
        cost, _ = true_cost(np.append(weights, bias), LAM[i], *problem(t, weighting))
        assert fitted.cost[i, t] == pytest.approx(cost, rel=1e-12)


def test_c_of_a_target_counts_its_known_labels():
    _, labels, _ = problem(3)
    penalties = lam_to(LAM[0], len(labels), 1, BINARY_CROSS_ENTROPY)
    np.testing.assert_allclose(penalties.C, scikit_learn(3, LAM[0]).C)


@each_weighting
def test_the_gap_of_an_optimum_bounds_its_distance_from_the_minimum(weighting):
    loose = solve(LAM, dataset(), tolerance=1e-3, dtype=np.float64, **WEIGHTINGS[weighting])
    for fitted in (optimum(weighting), loose):
        for i, t in np.ndindex(len(LAM), T):
            above = fitted.cost[i, t] - minimum(LAM[i], *problem(t, weighting))
            assert -1e-14 <= above <= fitted.gap[i, t] + 1e-14


@each_weighting
def test_the_certificate_of_any_parameters_is_its_formula_at_the_best_bias(weighting):
    """‖M + 2λw‖²/(4λ), and never below J − J*."""
    rng = np.random.default_rng(1)
    size = np.geomspace(1e-3, 10, T)[:, None]
    weights = optimum(weighting).params.weights + size * rng.normal(size=(len(LAM), T, D))
    params = Params(weights, rng.normal(size=(len(LAM), T)))
    costs, gaps = certified_gap(params, LAM, dataset(), **WEIGHTINGS[weighting])
    for i, t in np.ndindex(len(LAM), T):
        args, w = (LAM[i], *problem(t, weighting)), weights[i, t]
        cost, gradient = true_cost(np.append(w, best_bias(w, *args)), *args)
        assert costs[i, t] == pytest.approx(cost, rel=1e-9)
        assert gaps[i, t] == pytest.approx(gradient[:-1] @ gradient[:-1] / (4 * LAM[i]), rel=1e-5)
        assert gaps[i, t] >= costs[i, t] - minimum(*args)


def test_the_certificate_of_a_target_holds_at_every_other_lambda():
    loose = solve(LAM, dataset(), tolerance=1e-3, dtype=np.float64, **WEIGHTINGS["both"])
    for factor in (0.3, 5):
        costs, gaps = gap_at(loose.certificate, factor * LAM[:, None])
        for i, t in np.ndindex(len(LAM), T):
            args, params = problem(t, "both"), (loose.params.weights[i, t], loose.params.bias[i, t])
            cost, _ = true_cost(np.append(*params), factor * LAM[i], *args)
            assert costs[i, t] == pytest.approx(cost, rel=1e-12)
            assert cost - minimum(factor * LAM[i], *args) <= gaps[i, t]


def test_one_hot_targets_are_multiple_binary_cross_entropy_with_k_times_the_penalty():
    labels = np.argmax(standardised()[:, :4] + np.random.default_rng(2).normal(size=(N, 4)), axis=1)
    classes = dataset_from_arrays((arrays()[0], labels))
    joint = solve(LAM, classes, loss=MULTIPLE_BINARY_CROSS_ENTROPY, **EXACT)
    separate = solve(4 * LAM, dataset(np.eye(4, dtype=int)[labels]), **EXACT)
    np.testing.assert_allclose(separate.cost.mean(axis=1), joint.cost, rtol=1e-11)
    np.testing.assert_allclose(separate.params.weights, joint.params.weights, atol=1e-5)
    np.testing.assert_allclose(separate.params.bias, joint.params.bias, atol=1e-5)


def test_folds_have_scikit_learns_metrics_of_refitted_models():
    key, n_folds = jax.random.key(3), 4
    result = cross_validate(key, LAM, dataset(), n_folds, tolerance=1e-11, class_weight="balanced")
    folds = stratified_folds(key, np.zeros(N, int), n_folds)
    inputs, (_, targets) = standardised(), arrays()
    for fold, t in np.ndindex(n_folds, T):
        is_known = targets[:, t] >= 0
        outside, inside = is_known & (folds != fold), is_known & (folds == fold)
        labels = targets[inside, t]
        for i, lam in enumerate(LAM[:3]):
            model = LogisticRegression(
                C=1 / (2 * lam * outside.sum()),
                class_weight="balanced",
                solver="newton-cholesky",
                tol=1e-13,
            ).fit(inputs[outside], targets[outside, t])
            scores = model.decision_function(inputs[inside])
            expected = {
                "auroc": roc_auc_score(labels, scores),
                "average_precision": average_precision_score(labels, scores),
                "accuracy": accuracy_score(labels, scores > 0),
            }
            for name, value in expected.items():
                assert getattr(result, name)[fold, i, t] == pytest.approx(value, abs=1e-9)
            loss = log_loss(labels, model.predict_proba(inputs[inside]))
            assert result.loss[fold, i, t] == pytest.approx(loss, rel=1e-4)


def test_targets_without_both_labels_have_constant_optima_and_change_no_bit_of_the_others():
    _, targets = arrays()
    constant = [np.where(targets[:, 0] >= 0, label, -1) for label in (0, 1)]
    odd = [*constant, np.full(N, -1)]
    fitted = solve(LAM, dataset(np.column_stack([*odd, targets])), **EXACT)
    assert not fitted.params.weights[:, :2].any()
    assert fitted.params.bias[:, :2].tolist() == [[-1e4, 1e4]] * len(LAM)
    assert not fitted.cost[:, :2].any()
    assert not fitted.gap[:, :2].any()
    assert fitted.converged[:, :3].tolist() == [[True, True, False]] * len(LAM)
    for array in (fitted.params.bias, fitted.cost, fitted.gap, fitted.distance):
        assert np.isnan(array[:, 2]).all()
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, 3:], b), fitted, optimum())
    assert gap_at(fitted.certificate, 1.0)[1][0, :3].tolist() == pytest.approx(
        [0, 0, np.nan], nan_ok=True
    )
    data, zeros = dataset(np.column_stack(odd)), Params(np.zeros((5, 3, D)), np.zeros((5, 3)))
    for array in certified_gap(zeros, LAM, data):
        assert array.tolist() == [pytest.approx([0, 0, np.nan], nan_ok=True)] * len(LAM)


def test_the_only_positive_example_of_a_target_is_fitted():
    inputs, targets = standardised(), arrays()[1].copy()
    targets[:, 0] = np.arange(N) == 5
    fitted = solve(LAM, dataset(targets), **EXACT)
    assert fitted.converged.all()
    weights = np.full(N, 1 / N)
    for i, lam in enumerate(LAM):
        above = fitted.cost[i, 0] - minimum(lam, inputs, targets[:, 0], weights)
        assert -1e-14 <= above <= fitted.gap[i, 0] + 1e-14


def assert_same_optimum(actual, expected):
    """Equal to the tolerance: ‖W − W*‖ is at most the root of the gap over λ."""
    for a, b in zip(actual.params, expected.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actual.cost, expected.cost, rtol=1e-12)


def test_an_optimum_does_not_depend_on_the_other_targets():
    targets = arrays()[1].copy()
    targets[:, 1::2] = targets[::-1, 1::2]  # another problem for every other target
    fitted = solve(LAM, dataset(targets), **EXACT)
    even = jax.tree.map(lambda array: array[:, ::2], (fitted, optimum()))
    assert_same_optimum(*even)
    assert not np.allclose(fitted.params.weights, optimum().params.weights, atol=0.01)


def test_each_target_may_have_its_own_lambda():
    turns = (np.arange(len(LAM))[:, None] + np.arange(T)) % len(LAM)
    fitted = solve(LAM[turns], dataset(), **EXACT)
    expected = jax.tree.map(lambda array: array[turns, np.arange(T)], optimum())
    assert_same_optimum(fitted, expected)


def test_weights_of_each_lambda_apply_to_all_targets():
    weights = np.random.default_rng(4).integers(0, 3, (2, N)).astype(float)
    lam, index = np.full(len(LAM), LAM[0]), np.array([0, 1, 0, 1, 1])
    fitted = solve(lam, dataset(), weights=ExampleWeights(weights, index), **EXACT)
    for row, t in [(0, 0), (1, 0), (3, 4)]:
        inputs, labels, _ = problem(t)
        shares = weights[index[row], arrays()[1][:, t] >= 0]
        args = (LAM[0], inputs, labels, shares / shares.sum())
        above = fitted.cost[row, t] - minimum(*args)
        assert -1e-14 <= above <= fitted.gap[row, t] + 1e-14


def test_chunks_that_fit_into_little_memory_have_the_same_optima():
    fitted = solve(LAM, dataset(), memory_bytes=2**16, **EXACT)
    assert_same_optimum(fitted, optimum())
    lam, target = np.repeat(LAM, T), np.tile(np.arange(T), len(LAM))
    config = SolveConfig(memory_bytes=2**16, max_passes=1, dtype=np.float64)
    steps = solve_chunks(lam, dataset(), config, target=target)
    rows = [step.rows for step in steps if step.optimum]
    assert sorted(sum(rows, ())) == list(range(len(LAM) * T))
    assert 1 < max(map(len, rows)) < len(LAM) * T


def test_inputs_in_a_file_give_the_same_optima(monkeypatch):
    data = on_disk(dataset(), monkeypatch)
    assert_same_optimum(solve(LAM, data, **EXACT), optimum())


def test_a_start_near_the_optimum_saves_passes():
    near = optimum().params
    assert (
        solve(1.01 * LAM, dataset(), start=near, **EXACT).passes.sum()
        < 0.8 * optimum().passes.sum()
    )


def test_a_row_of_one_target_alone_starts_near_its_optimum():
    start = Params(*(array[:1, 2:3] for array in optimum().params))
    steps = solve_chunks(LAM[:1], dataset(), SolveConfig(**EXACT), target=[2], start=start)
    (alone,) = [step.optimum for step in steps if step.optimum]
    assert alone.passes[0] < 0.8 * optimum().passes[0, 2]


def test_joining_no_validation_examples_leaves_the_targets_as_they_are():
    labels = with_validation(dataset()).train.labels
    assert np.array_equal(labels, dataset().train.labels)


def test_impossible_targets_are_refused_by_name():
    inputs, targets = arrays()
    two, text = np.where(targets == 1, 2, targets), targets.astype(str)
    wrong = {
        "199": targets[1:],
        "has 2": two,
        "U": text,
        "not .200, 10, 1": targets[..., None],
    }
    wrong["inf"] = np.where(targets == 1, np.inf, targets)
    for message, labels in wrong.items():
        with pytest.raises(InputError, match=message) as error:
            dataset_from_arrays((inputs, labels))
        assert "\n" not in str(error.value)
    names = {"different": ["a"] * T, "3 class_names for 10 targets": list("abc")}
    for message, class_names in names.items():
        with pytest.raises(InputError, match=message):
            dataset_from_arrays((inputs, targets), class_names=class_names)
    with pytest.raises(InputError, match="same targets"):
        dataset_from_arrays((inputs, targets), (inputs, targets[:, 1:]))


def test_impossible_arguments_are_refused_by_name():
    data, classes = dataset(), dataset_from_arrays((arrays()[0], np.arange(N) % 2))
    wrong = {"lam": [np.ones((5, T + 1)), np.ones((1, 5, T))], "weights": [np.ones(T), -np.ones(N)]}
    wrong["class_weight"] = [
        "equal",
        [1, 0],
        np.ones((T + 1, 2)),
        [1, np.nan],
        [1, np.inf],
        [1, 2, 3],
    ]
    wrong["start"] = [Params(np.zeros((*c, d)), np.zeros(c)) for c, d in [((T, 5), D), ((5, T), 7)]]
    for name, value in ((name, value) for name, values in wrong.items() for value in values):
        with pytest.raises(InputError, match=name) as error:
            solve(**{"lam": LAM, "dataset": data, name: value})
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="class_weight is for targets"):
        solve(LAM, classes, class_weight="balanced")
    for target in (None, [0] * 4, [0, 1, 2, 3, T], [0, 1, 2, 3, -1], [0.0] * 5):
        with pytest.raises(InputError, match="target"):
            next(solve_chunks(LAM, data, target=target))
    for function, table in ((train, Hyperparameters()), (sweep, Hyperparameters(lam=LAM))):
        with pytest.raises(InputError, match="has 10 targets"):
            function(jax.random.key(0), table, data)
