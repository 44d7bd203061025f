"""`experiments.benchmark`: it compares like with like, and its numbers are what their names say."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.benchmark import contenders, timing, training
from experiments.benchmark.contenders import Contender, make_problem, numpy_loop, ours
from linear_cifar import InputError
from linear_cifar.data import dataset_from_arrays
from tests.commands import check_every_file, finish


@pytest.fixture(scope="module")
def problem():
    inputs, labels = load_digits(return_X_y=True)
    data = dataset_from_arrays((inputs[:200], labels[:200]))
    return make_problem(data, seed=0, batch_size=30)._replace(lam=np.array([1.0]))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Contenders don't rest before their turns, and turns are short."""
    monkeypatch.setattr(timing, "REST_SECONDS", 0)
    monkeypatch.setattr(training, "TURN_SECONDS", 0)


@pytest.mark.slow
def test_every_section_has_rows_with_consistent_numbers(tmp_path):
    words = ("--quick", "--dataset=synthetic", "--batch_size=50")
    finish("benchmark", tmp_path / "run", *words, n_images=300)
    check_every_file(tmp_path / "run")
    sections = {}
    for row in json.loads((tmp_path / "run" / "benchmark.json").read_text())["rows"]:
        sections.setdefault(row["section"], []).append(row)
    for row in sections["single"] + sections["sweep"]:
        assert (row["n"], row["d"], row["batch_size"]) == (300, 3072, 50)
        rate = 1e-6 * 4 * row["n"] * row["d"] * 10 / row["milliseconds"]
        assert row["gflops"] == pytest.approx(rate)
        assert row["fraction_of_peak"] == pytest.approx(rate / row["peak_gflops"])
        assert (row["times_numpy"] == 1) or row["contender"] != "NumPy"
    for row in sections["path"]:  # scikit-learn's certificate, too
        if "cyanure" not in row["contender"]:  # which may be installed, and stops at a larger gap
            assert row["relative_gap"] < (1e-6 if "ours" in row["contender"] else 1e-4)
    firsts = [row["configurations"] for row in sections["path"] if row["times_ours"] == 1]
    assert firsts == [3, 15]  # alone, and in five folds
    small, large = sections["memory"]
    more = 1e-6 * (large["n"] * large["d"] - small["n"] * small["d"])  # uint8
    assert large["peak_mb"] - small["peak_mb"] > more
    (row,) = sections["path_sizes"]
    assert row["relative_gap"] <= 1e-6
    assert 0 < row["passes"] <= row["most_passes"]


# PyTorch is in the extra `bench`, which the fast tests do without.
TORCH = [pytest.param(name, marks=pytest.mark.slow) for name in ("torch_linear", "torch_stacked")]


@pytest.mark.parametrize("name", ["numpy_loop", *TORCH])
def test_the_check_passes_the_same_training_and_catches_eta_or_lambda_1_percent_off(problem, name):
    train, reference = getattr(contenders, name), Contender("ours", problem, ours)
    training.check_agreement([reference, Contender("theirs", problem, train)])
    for field in ("learning_rate", "lam"):
        wrong = problem._replace(**{field: 1.01 * getattr(problem, field)})
        with pytest.raises(InputError, match="wrong"):
            training.check_agreement([reference, Contender("wrong", wrong, train)])


def test_ratios_are_formed_within_each_round(problem, monkeypatch):
    seconds = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 10.0], [3.0, 2.0, 40.0]])
    monkeypatch.setattr(training, "take_turns", lambda *_: seconds)  # the first are GFLOP/s
    both = [Contender("ours", problem, ours), Contender("NumPy", problem, numpy_loop)]
    row, _ = training.measure(both, timing.Options(30, seed=0, n_rounds=3, quick=True))
    ratios = [row[name] for name in ("times_numpy_q1", "times_numpy", "times_numpy_q3")]
    assert ratios == [2, 3, 3.5]  # of 3, 1 and 4; the ratio of medians would be 1


def test_each_round_takes_every_turn_once_in_an_order_of_its_own():
    calls = []
    turns = [(str(i), lambda i=i: calls.append(i) or float(i)) for i in range(5)]
    samples = timing.take_turns(turns, n_rounds=4, seed=1)
    assert (samples == np.arange(5)[:, None]).all()
    rounds = np.reshape(calls, (4, 5))
    assert (np.sort(rounds) == np.arange(5)).all()
    assert len(np.unique(rounds, axis=0)) > 1
