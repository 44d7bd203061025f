"""`experiments.benchmark`: it compares like with like, and its numbers are what their names say."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import optimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from experiments.benchmark import contenders, training
from experiments.benchmark.contenders import Contender, make_problem, numpy_loop, ours
from experiments.benchmark.timing import Options, take_turns
from linear_cifar import InputError
from linear_cifar.data import dataset_from_arrays
from tests.commands import check_every_file, few_images, only_line
from tests.oracle import softmax
from tests.planted import finish, result
from tests.test_runs import standardised

QUICK = ("--quick", "--dataset=synthetic")
SECTIONS = ("single", "sweep", "path", "memory", "path_sizes")


@pytest.fixture(scope="module")
def problem():
    inputs, labels = load_digits(return_X_y=True)
    return make_problem(dataset_from_arrays((inputs[:200], labels[:200])), seed=0, batch_size=30)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, and the rows by section."""
    out = tmp_path_factory.mktemp("benchmark") / "out"
    done = finish("benchmark", out, *QUICK, "--batch_size=50", n_images=300)
    check_every_file(out)
    rows = json.loads((out / "benchmark.json").read_text())["rows"]
    assert len((out / "benchmark.csv").read_text().splitlines()) == 1 + len(rows)
    assert all(f"\n{name} " in f"\n{done.stdout}" for name in SECTIONS)
    return out, {name: [row for row in rows if row["section"] == name] for name in SECTIONS}


@pytest.mark.slow
def test_rates_are_operations_over_time_and_ratios_are_to_numpy(made):
    out, sections = made
    for row in sections["single"] + sections["sweep"]:
        assert (row["n"], row["d"], row["batch_size"]) == (300, 3072, 50)
        rate = 1e-6 * 4 * row["n"] * row["d"] * 10 / row["milliseconds"]
        assert row["gflops"] == pytest.approx(rate)
        assert row["fraction_of_peak"] == pytest.approx(rate / row["peak_gflops"])
        if row["contender"] == "NumPy":
            assert row["times_numpy"] == 1
    counts = [r["configurations"] for r in sections["sweep"] if r["contender"] == "ours"]
    assert counts == [1, 4]
    assert result(out)["limits"]["matmul_gflops"] > 0


def certified_gap(weights, inputs, labels, lam):
    """The gap over the cost at the best bias, in float64."""
    targets = np.eye(len(weights))[labels]

    def loss(bias):
        losses, slopes = softmax(inputs @ weights.T + bias, targets)
        return losses.mean(), slopes.mean(axis=0)

    fit = optimize.minimize(loss, np.zeros(len(weights)), jac=True, tol=1e-14)
    slopes = softmax(inputs @ weights.T + fit.x, targets)[1] / len(labels)
    gap = ((slopes.T @ inputs + 2 * lam * weights) ** 2).sum() / (4 * lam)
    return gap / (fit.fun + lam * (weights**2).sum())


@pytest.mark.slow
def test_every_contender_of_a_path_has_its_certified_gap(made):
    rows = {row["contender"]: row for row in made[1]["path"]}
    for name, row in rows.items():
        assert row["relative_gap"] < (1e-6 if "ours" in name else 1e-4)
    with few_images(300):
        inputs, labels = (array[:100] for array in standardised("train"))
    inputs = inputs[:, ::16]
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    gaps = []
    for lam in (0.1, 10):  # every second of three λ is timed
        fit = LogisticRegression(C=1 / (2 * lam * len(labels)), tol=1e-4, max_iter=3000)
        gaps.append(certified_gap(fit.fit(inputs, labels).coef_, inputs, labels, lam))
    assert rows["scikit-learn lbfgs, float64"]["relative_gap"] == pytest.approx(max(gaps), rel=0.01)
    firsts = [row["configurations"] for row in rows.values() if row["times_ours"] == 1]
    assert firsts == [3, 15]  # alone, and in five folds


@pytest.mark.slow
def test_memory_grows_with_the_data(made):
    small, large = made[1]["memory"]
    more = 1e-6 * (large["n"] * large["d"] - small["n"] * small["d"])  # uint8
    assert large["peak_mb"] - small["peak_mb"] > more
    (row,) = made[1]["path_sizes"]
    assert row["relative_gap"] <= 1e-6
    assert 0 < row["passes"] <= row["most_passes"]


@pytest.mark.slow
def test_a_missing_package_is_left_out_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = finish("benchmark", tmp_path / "run", *QUICK, "--section=single", n_images=300)
    assert "note: PyTorch is not installed" in done.stderr
    rows = json.loads((tmp_path / "run" / "benchmark.json").read_text())["rows"]
    assert {row["contender"].split(",")[0] for row in rows} == {"ours", "NumPy"}


# PyTorch is in the extra `bench`, which the tests do without.
TORCH = ["torch_linear", "torch_stacked"] if find_spec("torch") else []


@pytest.mark.parametrize("name", ["numpy_loop", *TORCH])
def test_the_check_passes_the_same_training_and_catches_eta_or_lambda_1_percent_off(problem, name):
    train = getattr(contenders, name)
    problem = problem._replace(lam=np.array([1.0]))
    reference = Contender("ours", problem, ours)
    training.check_agreement([reference, Contender("theirs", problem, train)])
    for field in ("learning_rate", "lam"):
        wrong = problem._replace(**{field: 1.01 * getattr(problem, field)})
        with pytest.raises(InputError, match="wrong"):
            training.check_agreement([reference, Contender("wrong", wrong, train)])


def test_a_disagreement_ends_the_command_before_anything_is_timed(tmp_path, monkeypatch):
    def doubled(problem, *rest):
        return ours(problem._replace(learning_rate=2 * problem.learning_rate), *rest)

    monkeypatch.setattr(contenders, "numpy_loop", doubled)
    done = finish("benchmark", tmp_path / "run", *QUICK, "--section=single", code=1)
    assert "NumPy" in only_line(done)
    assert "round 1" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ratios_are_formed_within_each_round(problem, monkeypatch):
    seconds = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 10.0], [3.0, 2.0, 40.0]])
    monkeypatch.setattr(training, "take_turns", lambda *_: seconds)  # the first are GFLOP/s
    both = [Contender("ours", problem, ours), Contender("NumPy", problem, numpy_loop)]
    our_row, numpy_row = training.measure(both, Options(30, seed=0, n_rounds=3, quick=True))
    ratios = [3.0, 1.0, 4.0]  # the ratio of medians would be 1
    assert our_row["times_numpy"] == np.median(ratios) == 3
    assert (our_row["times_numpy_q1"], our_row["times_numpy_q3"]) == (2, 3.5)
    assert numpy_row["times_numpy_q1"] == numpy_row["times_numpy_q3"] == 1


def test_each_round_takes_every_turn_once_in_an_order_of_its_own():
    calls = []
    turns = [(str(i), lambda i=i: calls.append(i) or float(i)) for i in range(5)]
    samples = take_turns(turns, n_rounds=4, seed=1)
    assert (samples == np.arange(5)[:, None]).all()
    rounds = [tuple(calls[5 * k : 5 * k + 5]) for k in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 1
