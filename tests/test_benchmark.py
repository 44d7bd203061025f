"""`experiments.benchmark`: it compares like with like, and writes every ratio and row."""

import csv
import importlib.util
import json
import sys

import jax
import numpy as np
import pytest
from commands import check_every_file, files, only_line, run
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits

from experiments.benchmark import contenders, path, training
from experiments.benchmark.contenders import Contender, make_problem
from experiments.benchmark.timing import take_turns
from linear_cifar import InputError
from linear_cifar.data import dataset_from_arrays, stratified_folds
from linear_cifar.model import Params
from linear_cifar.optimum import solve

QUICK = ("--quick", "--dataset=synthetic")


@pytest.fixture(scope="module")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs[:200], labels[:200]))


@pytest.fixture(scope="module")
def problem(digits):
    return make_problem(digits, seed=0, batch_size=30)


def benchmark(tmp_path, sections, *flags):
    """The finished command, its folder, and the rows by section."""
    out = tmp_path / "run"
    words = (*QUICK, f"--section={sections}", f"--output_dir={out}", *flags)
    done = run("experiments.benchmark", *words, n_images=300)
    assert done.returncode == 0, done.stderr
    content = json.loads((out / "benchmark.json").read_text())
    with (out / "benchmark.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(content["rows"])
    check_every_file(out)
    for name in sections.split(","):
        assert f"\n{name} " in f"\n{done.stdout}"
    return done, out, content


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_training_sections_write_rates_and_ratios_for_any_split_and_batch_size(tmp_path):
    flags = ("--split=full", "--batch_size=50")
    _, out, content = benchmark(tmp_path, "single,sweep", *flags)
    expected = {"benchmark.json", "benchmark.csv", "result.json", "figures/sweep.png"}
    assert files(out) == expected
    sizes = json.loads((out / "result.json").read_text())["dataset"]["sizes"]
    assert content["limits"]["matmul_gflops"] > 0
    for row in content["rows"]:
        assert (row["n"], row["batch_size"]) == (sizes["train"], 50)
        rate = 1e-6 * 4 * row["n"] * row["d"] * 10 / row["milliseconds"]
        assert row["gflops"] == pytest.approx(rate)
        assert row["fraction_of_peak"] == pytest.approx(rate / row["peak_gflops"])
        if row["contender"] == "NumPy":
            assert row["times_numpy"] == 1
    ours = [row for row in content["rows"] if row["contender"] == "ours"]
    assert [row["configurations"] for row in ours] == [1, 1, 4]


@pytest.mark.slow
def test_path_certifies_every_contender(tmp_path):
    _, _, content = benchmark(tmp_path, "path")
    for row in content["rows"]:
        assert row["relative_gap"] < (1e-6 if "ours" in row["contender"] else 1e-3)
        assert row["seconds"] > 0
    firsts = [row for row in content["rows"] if row["times_ours"] == 1]
    assert [row["configurations"] for row in firsts] == [3, 15]  # alone, and in five folds


@pytest.mark.slow
def test_memory_grows_with_the_data(tmp_path):
    _, _, content = benchmark(tmp_path, "memory,path_sizes")
    small, large, path_row = content["rows"]
    more = 1e-6 * (large["n"] * large["d"] - small["n"] * small["d"])  # uint8
    assert large["peak_mb"] - small["peak_mb"] > more
    assert path_row["relative_gap"] <= 1e-6
    assert 0 < path_row["passes"] <= path_row["most_passes"]


@pytest.mark.slow
def test_a_missing_package_is_left_out_with_a_note(tmp_path, monkeypatch):
    for package in ("torch", "sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, package, None)
    done, _, content = benchmark(tmp_path, "single,path")
    assert "note: PyTorch is not installed" in done.stderr
    assert "note: scikit-learn is not installed" in done.stderr
    assert {row["contender"].split(",")[0] for row in content["rows"]} == {"ours", "NumPy"}


def test_rejects_an_unknown_section(tmp_path):
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", "--section=sweep,speed", out)
    assert done.returncode == 1
    assert "single, sweep, path, memory, path_sizes" in done.stderr


# PyTorch is in the extra `bench`, which the tests do without.
TORCH = ["torch_linear", "torch_stacked"] if importlib.util.find_spec("torch") else []


@pytest.mark.parametrize("name", ["numpy_loop", *TORCH, "ours_autodiff"])
def test_contenders_that_train_the_same_agree_and_a_learning_rate_1_percent_off_is_caught(
    problem, name
):
    train = getattr(contenders, name)
    ours = Contender("ours", problem, contenders.ours)
    seconds = training.check_agreement([ours, Contender("theirs", problem, train)])
    assert min(seconds) > 0
    wrong = Contender("wrong", problem._replace(learning_rate=1.01 * problem.learning_rate), train)
    with pytest.raises(InputError, match="wrong trains something else"):
        training.check_agreement([ours, wrong])


def test_a_disagreement_ends_the_command_before_anything_is_timed(tmp_path, monkeypatch):
    def doubled(problem, *rest):
        return contenders.ours(problem._replace(learning_rate=2 * problem.learning_rate), *rest)

    monkeypatch.setattr(contenders, "numpy_loop", doubled)
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", *QUICK, "--section=single", out)
    assert "NumPy trains something else" in only_line(done)
    assert "round 1" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ratios_are_formed_within_each_round(problem):
    names = [Contender(name, problem, contenders.ours) for name in ("ours", "NumPy")]
    seconds = np.array([[1.0, 2.0, 10.0], [3.0, 2.0, 40.0]])
    ours, numpy_row = training.make_rows(names, seconds, peak=np.array([1.0, 1.0, 1.0]))
    ratios = [3.0, 1.0, 4.0]  # the ratio of medians would be 1.5
    assert ours["times_numpy"] == np.median(ratios) == 3
    assert (ours["times_numpy_q1"], ours["times_numpy_q3"]) == (2, 3.5)
    assert numpy_row["times_numpy_q1"] == numpy_row["times_numpy_q3"] == 1


def test_each_round_takes_every_turn_once_in_an_order_of_its_own():
    calls = []
    turns = [(str(i), lambda i=i: calls.append(i) or float(i)) for i in range(5)]
    samples = take_turns(turns, n_rounds=4, seed=1)
    assert (samples == np.arange(5)[:, None]).all()
    rounds = [tuple(calls[5 * k : 5 * k + 5]) for k in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 1


def relative_gap_by_numpy(weights, lam, dataset, selected):
    """‖∂J/∂W‖² / (4λ J) at the best bias, over the selected examples."""
    standardiser = dataset.standardiser
    inputs = (dataset.train.inputs[selected] - standardiser.mean) / standardiser.scale
    one_hot = np.eye(dataset.n_classes)[dataset.train.labels[selected]]
    bias = np.zeros(dataset.n_classes)
    for _ in range(20_000):
        scores = inputs @ weights.T + bias
        p = softmax(scores, axis=1)
        bias_gradient = (p - one_hot).mean(axis=0)
        if abs(bias_gradient).max() < 1e-11:
            break
        bias -= 2 * bias_gradient
    losses = logsumexp(scores, axis=1) - (scores * one_hot).sum(axis=1)
    cost = losses.mean() + lam * (weights**2).sum()
    gradient = (p - one_hot).T @ inputs / len(inputs) + 2 * lam * weights
    return (gradient**2).sum() / (4 * lam) / cost


@pytest.mark.slow
def test_gaps_of_any_weights_match_numpy_whatever_their_bias(digits):
    lam, rng = np.array([0.01, 0.1]), np.random.default_rng(0)
    weights, bias = solve(lam, digits).params
    params = Params(weights + 1e-3 * rng.normal(size=weights.shape), bias + 0.1)
    selected = rng.random((2, 200)) < 0.8
    expected = list(map(relative_gap_by_numpy, params.weights, lam, [digits] * 2, selected))
    assert path.relative_gaps(params, lam, digits, selected) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_scikit_learn_gets_the_same_penalty_and_folds(digits):
    start = Params(np.zeros((10, 64)), np.zeros(10))
    for name, fit in path.sklearn_solvers(digits).items():
        params = Params(*(array[None] for array in fit(0.1, start)))
        assert path.relative_gaps(params, np.array([0.1]), digits) < 1e-4, name
    folds = stratified_folds(jax.random.key(0), digits.train.labels, 5)
    gaps, _ = path.fit_sklearn_folds(np.array([1.0, 0.1]), digits, folds)
    assert gaps.shape == (10,)
    assert gaps.max() < 1e-4
