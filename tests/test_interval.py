"""Certificates between the λ that are solved, and --every_lam, against exact minima."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from linear_cifar import InputError, Params, dataset_from_arrays, solve
from linear_cifar.optimum import Certificate, certified_gap, gap_at, interval_gaps
from tests import folders, tiny
from tests.commands import arrays, finish, only_line, result, run
from tests.planted import examples, measures, optimum, planted, save

SOLVED = np.array([1e-3, 0.02, 0.3, 5.0])
LAM = np.sort(np.exp(np.random.default_rng(0).uniform(*np.log([1e-3, 5]), 200)))
# Converged; three passes from zero; one pass, with biases that are hardly refined.
SETTINGS = {
    "good": {"tolerance": 1e-12},
    "poor": {"tolerance": 1e-12, "max_passes": 3},
    "of poor biases": {"tolerance": 0.9, "max_passes": 1},
}
each_loss = pytest.mark.parametrize("loss", ["softmax", "multi_bce"])
each_setting = pytest.mark.parametrize("setting", SETTINGS)


@cache
def data(setting="good"):
    """The planted training examples; few of the last class remain if biases are to be poor."""
    inputs, labels = planted()["train"]
    n = 20 if setting == "of poor biases" else len(labels)
    rows = (labels < 2) | (np.arange(len(labels)) < n)
    return dataset_from_arrays((inputs[rows], labels[rows]))


@cache
def solutions(loss, setting):
    return solve(SOLVED, data(setting), loss=loss, dtype=jnp.float64, **SETTINGS[setting])


def costs(params, inputs, labels, loss, lam=LAM):
    """J in NumPy at each λ."""
    return measures(params, inputs, labels, loss)[0].mean() + lam * (params[0] ** 2).sum()


@cache
def minima(loss, setting="good"):
    """J* at each λ of `LAM`, and the examples."""
    inputs, labels = data(setting).train
    inputs = (inputs - inputs.mean(axis=0, dtype=float)) / inputs.std(axis=0, dtype=float)
    exact = solve(LAM, data(setting), loss=loss, dtype=jnp.float64, tolerance=1e-11)
    assert exact.converged.all()
    return exact.cost, inputs, labels


def run_of(params, i):
    return Params(params.weights[i], params.bias[i])


@each_loss
@each_setting
def test_the_gap_at_any_lambda_bounds_the_true_one(loss, setting):
    solved = solutions(loss, setting)
    least, *examples_used = minima(loss, setting)
    cost, gap = gap_at(solved.certificate, LAM[:, None])
    assert np.array_equal(solved.gap_at(LAM[:, None]), gap)
    for i in range(len(SOLVED)):
        expected = costs(run_of(solved.params, i), *examples_used, loss)
        np.testing.assert_allclose(cost[:, i], expected, rtol=1e-12)
        above = expected - least
        assert (above >= -1e-11).all()
        assert (above <= gap[:, i] + 1e-11).all()


@each_loss
@pytest.mark.parametrize("setting", ["good", "poor"])
def test_the_gap_at_any_lambda_matches_the_certificate_there(loss, setting):
    solved = solutions(loss, setting)
    for i in range(len(SOLVED)):
        params = Params(*(np.repeat(array[None], 200, 0) for array in run_of(solved.params, i)))
        expected = certified_gap(params, LAM, data(), loss=loss)
        certificate = Certificate(*(field[i] for field in solved.certificate))
        np.testing.assert_allclose(gap_at(certificate, LAM), expected, rtol=1e-6, atol=1e-13)


def test_the_gap_at_its_own_lambda_is_the_one_that_solve_returns():
    solved = solutions("softmax", "of poor biases")
    cost, gap = gap_at(solved.certificate, SOLVED)
    assert np.array_equal(cost, solved.cost)
    assert np.array_equal(gap, solved.gap)
    assert (solved.certificate.divergence > 1e-6 * solved.gap).any()  # the biases are poor


@each_loss
def test_the_gap_of_an_optimum_at_another_lambda_is_a_known_share_of_its_penalty(loss):
    solved = solutions(loss, "good")
    for ratio in (0.5, 1.1, 3.0):
        _, gap = gap_at(solved.certificate, ratio * SOLVED)
        penalties = ratio * SOLVED * np.sum(solved.params.weights**2, axis=(1, 2))
        np.testing.assert_allclose(gap, (ratio - 1) ** 2 / ratio**2 * penalties, rtol=1e-3)


@each_loss
def test_the_gap_includes_the_cost_of_a_poor_bias(loss):
    """A large λ leaves no weights, and the minimum is the entropy of the class frequencies."""
    labels, rng = data("of poor biases").train.labels, np.random.default_rng(1)
    shares = np.bincount(labels) / len(labels)
    best = np.log(shares) if loss == "softmax" else np.log(shares / (1 - shares))
    bias = best + 0.01 * rng.normal(size=3)
    start = Params(np.zeros((1, 3, 8)), bias[None])
    settings = {"loss": loss, "dtype": jnp.float64, **SETTINGS["of poor biases"]}
    solved = solve([1e6], data("of poor biases"), start=start, **settings)
    no_inputs = np.zeros((len(labels), 8))
    cost, least = (
        measures((np.zeros((3, 8)), one), no_inputs, labels, loss)[0].mean() for one in (bias, best)
    )
    assert solved.cost[0] == pytest.approx(cost, rel=1e-6)
    assert cost - least > 1e-6  # the slope has less than 1e-6, divided by λ
    assert cost - least <= gap_at(solved.certificate, 1e6)[1][0]


@each_loss
@each_setting
def test_every_lambda_of_an_interval_has_a_solution_within_its_bound(loss, setting):
    solved = solutions(loss, setting)
    least, *examples_used = minima(loss, setting)
    cost = [costs(run_of(solved.params, i), *examples_used, loss) for i in range(len(SOLVED))]
    relative = np.min([(one - least) / one for one in cost], axis=0)
    bounds = interval_gaps(solved.certificate, SOLVED)
    within = bounds[np.clip(np.searchsorted(SOLVED, LAM) - 1, 0, 2)]
    assert (relative <= within + 1e-11).all()


@each_loss
@each_setting
def test_the_bound_of_an_interval_is_the_largest_gap_on_a_fine_grid(loss, setting):
    certificate = solutions(loss, setting).certificate
    bounds = interval_gaps(certificate, SOLVED)
    for low, high, bound in zip(SOLVED[:-1], SOLVED[1:], bounds, strict=True):
        cost, gap = gap_at(certificate, np.geomspace(low, high, 5001)[:, None])
        largest = np.min(gap / cost, axis=1).max()
        assert largest * (1 - 1e-12) <= bound
        if setting == "good":  # the two neighbours are the best ones
            assert bound == pytest.approx(largest, rel=0.01)


def test_a_solution_that_diverged_does_not_spoil_an_interval():
    certificate = solutions("softmax", "good").certificate
    worse = Certificate(*(np.insert(field, 2, np.nan) for field in certificate))
    assert np.array_equal(*(interval_gaps(one, SOLVED) for one in (certificate, worse)))
    nothing = Certificate(*(np.full(2, np.nan) for _ in certificate))
    assert np.isinf(interval_gaps(nothing, SOLVED)).all()


def test_a_single_solution_certifies_beyond_its_lambda():
    one = solve(0.1, data()).certificate
    cost, gap = gap_at(one, np.array([0.05, 0.1, 0.2]))
    bounds = interval_gaps(one, [0.05, 0.1, 0.2])
    np.testing.assert_allclose(bounds, (gap / cost)[[0, 2]])


def test_impossible_lambda_and_points_are_refused_by_name():
    certificate = solutions("softmax", "good").certificate
    for lam in (0.0, -1.0, [0.1, np.nan]):
        with pytest.raises(InputError, match="lam"):
            gap_at(certificate, lam)
    for points in ([0.1], [0.2, 0.1], [[0.1, 0.2]], [-1.0, 0.1], ["a", "b"]):
        with pytest.raises(InputError, match=r"points|lam"):
            interval_gaps(certificate, points)


def test_certificates_of_several_targets_need_fitting_lambda_and_one_column_for_an_interval():
    inputs, labels = data().train
    targets = dataset_from_arrays((inputs, np.asarray(labels)[:, None] == np.arange(3)))
    optimum = solve(SOLVED, targets)
    with pytest.raises(InputError, match=r"lam is \[4\].*\[4, 3\]"):
        optimum.gap_at(SOLVED)
    with pytest.raises(InputError, match="one target"):
        interval_gaps(optimum.certificate, SOLVED)
    column = Certificate(*(field[:, 1] for field in optimum.certificate))
    alone = solve(SOLVED, dataset_from_arrays((inputs, targets.train.labels[:, 1:2])))
    one = Certificate(*(field[:, 0] for field in alone.certificate))
    bounds = (interval_gaps(c, SOLVED) for c in (column, one))
    np.testing.assert_allclose(*bounds, rtol=1e-3)


# The commands.


PATH = ("--lam=1e-3,0.02,0.3,5", "--every_lam=0.002")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return save(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def path(features, tmp_path_factory):
    """The folder of a path with added λ, and its printed answer."""
    out = tmp_path_factory.mktemp("path") / "out"
    return out, finish("lambda_path", out, f"--features={features}", *PATH).stdout


def test_added_lambda_keep_the_promise_at_every_lambda(path):
    (least, *examples_used), cost = minima("softmax"), []
    for chunk in (path[0] / "chunks").rglob("*.npz"):
        part = arrays(chunk)
        cost += [
            costs(one, *examples_used, "softmax")
            for one in zip(part["weights"], part["bias"], strict=True)
        ]
    relative = np.min([(one - least) / one for one in cost], axis=0)
    actual = result(path[0])
    assert len(cost) == 4 + actual["n_added"] == actual["n_lam"]
    assert relative.max() <= actual["gap_between"] <= 0.002
    assert relative.max() > 0.0002  # four λ have far more, and a hundred far less


def test_added_lambda_have_rows_like_the_others(path):
    rows = pd.read_csv(path[0] / "path.csv")
    assert set(SOLVED) < set(rows.lam)
    assert rows.lam.is_monotonic_increasing
    assert rows.converged.all()
    inputs, labels = examples("validation")
    for row in rows.iloc[::5].itertuples():
        losses, correct = measures(optimum(*examples("train"), row.lam), inputs, labels, "softmax")
        actual = (row.validation_loss, row.validation_accuracy)
        assert actual == pytest.approx((losses.mean(), correct.mean()), rel=1e-3)


def test_the_chosen_parameters_are_those_of_an_added_lambda(path):
    actual = result(path[0])
    assert actual["lam"] not in SOLVED
    weights, _ = optimum(*examples("train"), actual["lam"])
    np.testing.assert_allclose(arrays(path[0] / "params.npz")["weights"], weights, 0, 1e-2)


def test_the_printed_promise_is_rounded_up(path):
    words = path[1].split("has a solution here with a gap of at most ")[1].split()
    proven = result(path[0])["gap_between"]
    assert 100 * proven <= float(words[0]) <= 101 * proven + 0.1


def test_without_the_flag_no_lambda_is_added_and_the_gap_between_is_recorded(features, tmp_path):
    finish("lambda_path", tmp_path / "out", f"--features={features}", PATH[0])
    expected = interval_gaps(solve(SOLVED, data()).certificate, SOLVED).max()
    actual = result(tmp_path / "out")
    assert actual["n_added"] == 0
    assert actual["gap_between"] == pytest.approx(expected, rel=1e-3)


def test_added_lambda_have_no_folds_and_are_not_chosen(features, tmp_path):
    words = (f"--features={features}", *PATH, "--n_folds=2")
    finish("lambda_path", tmp_path / "out", *words)
    rows = pd.read_csv(tmp_path / "out" / "path.csv")
    assert set(rows.lam[rows.folds_loss.notna()]) == set(SOLVED)
    assert result(tmp_path / "out")["lam"] in SOLVED
    assert result(tmp_path / "out")["gap_between"] <= 0.002


def test_a_probe_is_calibrated_at_an_added_lambda(features, tmp_path):
    finish("probe", tmp_path / "out", f"--features={features}", *PATH)
    actual = result(tmp_path / "out")
    assert actual["lam"] not in SOLVED
    assert actual["not_calibrated"] == ""
    assert actual["gap_between"] <= 0.002


@pytest.mark.parametrize(
    ("words", "reason"), [("--max_runs=6", "--max_runs"), ("--max_passes=1", "4 λ have gaps")]
)
def test_a_promise_that_cannot_hold_says_why(features, tmp_path, words, reason):
    done = finish("lambda_path", tmp_path / "out", f"--features={features}", *PATH, words)
    (line,) = (line for line in done.stdout.splitlines() if "misses --every_lam=0.002" in line)
    assert reason in line
    assert result(tmp_path / "out")["gap_between"] > 0.002


def test_every_lam_within_the_tolerance_is_refused(features, tmp_path):
    words = (f"--features={features}", "--every_lam=1e-6", f"--output_dir={tmp_path / 'out'}")
    assert "--tolerance" in only_line(run("experiments.lambda_path", *words))


def test_a_run_resumes_while_lambda_are_added(tmp_path):
    out = tmp_path / "out"
    line = [*tiny.words("lambda_path", out), "--every_lam=0.2"]
    with tiny.reduced(), folders.every_state(out) as states:
        done = run(*line)
    assert done.returncode == 0, done.stderr
    expected = folders.read(out)
    added = [any("added" in name for name in state) for state in states]
    first = added.index(True)
    assert any("added_1/" in name for name in expected)
    for state in states[first - 1 : first + 6 : 2]:
        folders.write(state, out)
        with tiny.reduced():
            resumed = run(*line, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        folders.assert_same(folders.read(out), expected)
