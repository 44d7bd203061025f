"""`experiments.benchmark`: it compares like with like, and writes every ratio and row."""

import csv
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.benchmark import contenders, training
from experiments.benchmark.contenders import Contender, make_problem, numpy_loop, ours
from experiments.benchmark.timing import Options, take_turns
from linear_cifar import InputError
from linear_cifar.data import dataset_from_arrays
from tests.commands import check_every_file, files, only_line, run

QUICK = ("--quick", "--dataset=synthetic")


@pytest.fixture(scope="module")
def problem():
    inputs, labels = load_digits(return_X_y=True)
    return make_problem(dataset_from_arrays((inputs[:200], labels[:200])), seed=0, batch_size=30)


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
    expected = {"benchmark.json", "benchmark.csv", "result.json"}
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
        assert row["relative_gap"] < (1e-6 if "ours" in row["contender"] else 1e-4)
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
TORCH = ["torch_linear", "torch_stacked"] if find_spec("torch") else []


@pytest.mark.parametrize("name", ["numpy_loop", *TORCH])
def test_the_check_passes_the_same_training_and_catches_eta_or_lambda_1_percent_off(problem, name):
    train = getattr(contenders, name)
    problem = problem._replace(lam=np.array([1.0]))
    reference = Contender("ours", problem, ours)
    training.check_agreement([reference, Contender("theirs", problem, train)])
    for field in ("learning_rate", "lam"):
        wrong = problem._replace(**{field: 1.01 * getattr(problem, field)})
        with pytest.raises(InputError, match="wrong trains something else"):
            training.check_agreement([reference, Contender("wrong", wrong, train)])


def test_a_disagreement_ends_the_command_before_anything_is_timed(tmp_path, monkeypatch):
    def doubled(problem, *rest):
        return ours(problem._replace(learning_rate=2 * problem.learning_rate), *rest)

    monkeypatch.setattr(contenders, "numpy_loop", doubled)
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", *QUICK, "--section=single", out)
    assert "NumPy trains something else" in only_line(done)
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
