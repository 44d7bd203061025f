"""`experiments.benchmark`: that it compares what is comparable, and what it writes of it."""

import csv
import json

import jax
import numpy as np
import pytest
from commands import check_every_file, files, only_line, run
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits

from experiments.benchmark import contenders, measuring, path, processes, table, timing
from experiments.benchmark.contenders import Layout
from experiments.benchmark.sections import SECTIONS
from experiments.benchmark.timing import Turn, rest, spread, take_turns
from linear_cifar.data import dataset_from_arrays, stratified_folds
from linear_cifar.model import Params
from linear_cifar.optimum import solve

QUICK = ("--quick", "--dataset=synthetic")


@pytest.fixture
def short_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(timing, "N_EPOCHS", 3)


@pytest.mark.slow
@pytest.mark.usefixtures("short_turns", "undrawn")
def test_a_quick_run_of_what_trains_writes_rows_with_every_ratio(tmp_path):
    out = tmp_path / "run"
    sections = ["single", "sweep", "batch_size", "full_data", "cost", "accuracy", "path"]
    done = run(
        "experiments.benchmark",
        *QUICK,
        f"--section={','.join(sections)}",
        f"--output_dir={out}",
        n_images=300,
    )
    assert done.returncode == 0, done.stderr
    figures = {f"figures/{name}.png" for name in sections if name not in ("accuracy", "path")}
    assert files(out) == {"benchmark.json", "benchmark.csv", "result.json"} | figures
    check_every_file(out)
    found = json.loads((out / "benchmark.json").read_text())
    assert all(found["limits"][name] > 0 for name in ("matmul_gflops", "bandwidth_gb_s"))
    with (out / "benchmark.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"])
    rows = {name: [r for r in found["rows"] if r["section"] == name] for name in sections}
    assert all(rows.values())
    assert [row["configurations"] for row in rows["sweep"] if row["contender"] == "ours"] == [1, 4]
    for row in rows["single"]:
        rate = 1e-6 * 4 * row["n"] * row["d"] * 10 / row["milliseconds"]
        assert row["gflops"] == pytest.approx(rate)
        assert 0 < row["fraction_of_peak_q1"] <= row["fraction_of_peak_q3"] < 2
    fastest = min(
        (r for r in rows["single"] if "NumPy" in r["contender"]),
        key=lambda row: row["milliseconds"],
    )
    assert fastest["times_numpy"] == 1
    assert rows["accuracy"][0]["times_ours"] == rows["path"][0]["times_ours"] == 1
    for row in rows["path"]:
        if "ours" in row["contender"]:
            assert row["timed"] == row["configurations"]
        else:
            assert 0 < row["timed"] < row["configurations"]
            assert (row["relative_gap"] > 1e-6) == ("never" in row["contender"])
    for name in sections:
        assert f"\n{name} " in f"\n{done.stdout}"


def test_a_contender_that_trains_something_else_ends_it_before_anything_is_timed(
    tmp_path, monkeypatch
):
    wrong = Layout(False, lambda w, x: x @ w.T, lambda g, x: 1.01 * g.T @ x)
    monkeypatch.setitem(contenders.LAYOUTS, "x Wᵀ, Gᵀ x", wrong)
    monkeypatch.setattr(measuring, "take_turns", lambda *_: pytest.fail("something was timed"))
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", *QUICK, "--section=single", out)
    assert "NumPy, x Wᵀ, Gᵀ x doesn't train as ours does" in only_line(done)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("section", ["memory", "path_sizes"])
def test_memory_is_that_of_a_process(tmp_path, monkeypatch, section):
    for sizes in ("SIZES", "QUICK_PATH"):
        monkeypatch.setattr(processes, sizes, ((500, 64, 10, 2),))
    out = tmp_path / "run"
    done = run("experiments.benchmark", *QUICK, f"--section={section}", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((out / "benchmark.json").read_text())["rows"]
    assert (row["configurations"], row["n"], row["d"]) == (2, 500, 64)
    assert 150 < row["peak_mb"] < 1000
    if section == "path_sizes":
        assert row["relative_gap"] <= 1e-6
        assert 0 < row["passes"] <= row["most_passes"]


def test_commands_are_run_from_beginning_to_end(monkeypatch):
    started = []
    monkeypatch.setattr(processes, "_run", lambda module, words: started.append((module, words)))
    processes._command("baseline", ["--n_epochs=1"])
    ((module, words),) = started
    assert module == "experiments.baseline"
    assert words[0] == "--n_epochs=1"
    assert words[1].startswith("--output_dir=")


def test_a_section_that_there_is_not_is_refused(tmp_path):
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", "--section=sweep,speed", out)
    assert done.returncode == 1
    assert all(name in done.stderr for name in SECTIONS)


def test_every_turn_is_taken_once_a_round_in_an_order_of_its_own():
    taken = []
    turns = [Turn(str(i), lambda i=i: taken.append(i) or float(i)) for i in range(5)]
    samples = take_turns(turns, n_rounds=4, seed=1)
    assert (samples == np.arange(5)[:, None]).all()
    rounds = [tuple(taken[5 * k : 5 * k + 5]) for k in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 1


def test_a_rest_ends_when_nothing_spins():
    rest()
    assert spread("x", np.array([3.0, 1.0, 2.0])) == {"x": 2.0, "x_q1": 1.5, "x_q3": 2.5}


def test_figures_have_their_quartiles_where_there_are_some():
    row = {"ms": 6.54, "ms_q1": 6.3, "ms_q3": 6.91, "part": 0.941, "none": None}
    assert table.with_quartiles(row, "ms", ".1f") == "6.5 (6.3–6.9)"
    assert table.with_quartiles(row | {"part_q1": 0.9, "part_q3": 0.95}, "part", ".0%") == (
        "94 % (90–95)"
    )
    assert table.with_quartiles(row | {"ms_q1": 6.54, "ms_q3": 6.54}, "ms", ".1f") == "6.5"
    assert table.with_quartiles(row, "none", ".1f") == ""


@pytest.fixture(scope="module")
def digits():
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs[:200], labels[:200]))


def relative_gap_by_numpy(weights, lam, dataset, counts):
    """‖∂J/∂W‖² / (4λ J) at the best bias, with the examples that count."""
    standardiser = dataset.standardiser
    inputs = (dataset.train.inputs[counts] - standardiser.mean) / standardiser.scale
    one_hot = np.eye(dataset.n_classes)[dataset.train.labels[counts]]
    bias = np.zeros(dataset.n_classes)
    for _ in range(100_000):
        scores = inputs @ weights.T + bias
        p = softmax(scores, axis=1)
        by_bias = (p - one_hot).mean(axis=0)
        if abs(by_bias).max() < 1e-11:
            break
        bias -= 2 * by_bias
    losses = logsumexp(scores, axis=1) - (scores * one_hot).sum(axis=1)
    cost = losses.mean() + lam * (weights**2).sum()
    gradient = (p - one_hot).T @ inputs / len(inputs) + 2 * lam * weights
    return (gradient**2).sum() / (4 * lam) / cost


@pytest.mark.slow
def test_coefficients_of_others_have_the_gap_that_numpy_finds_whatever_their_bias(digits):
    lam = np.array([0.01, 0.1])
    rng = np.random.default_rng(0)
    found = solve(lam, digits).params
    off = Params(found.weights + 1e-3 * rng.normal(size=found.weights.shape), found.bias + 0.1)
    counts = rng.random((2, 200)) < 0.8
    for weights, rows in ((None, np.ones((2, 200), bool)), (counts, counts)):
        expected = [
            relative_gap_by_numpy(*of, digits, row)
            for *of, row in zip(off.weights, lam, rows, strict=True)
        ]
        gaps = path.relative_gaps(off, lam, digits, weights)
        assert gaps == pytest.approx(expected, rel=1e-6)
        assert (gaps > 1e-6).all()
    assert (path.relative_gaps(found, lam, digits) <= 1e-6).all()


@pytest.mark.slow
def test_everyone_who_fits_a_path_comes_to_the_same_optimum(digits):
    solvers = path._solvers(digits)
    assert {"scikit-learn newton-cholesky, float32"} < {solver.name for solver in solvers}
    start = Params(np.zeros((10, 64)), np.zeros(10))
    for solver in solvers:
        params = solver.fit(0.1, start, 1e-6)
        (gap,) = path.relative_gaps(Params(*(a[None] for a in params)), np.array([0.1]), digits)
        assert gap < 1e-5, solver.name


def test_a_hessian_that_does_not_fit_is_left_out_and_said_to_be(digits, monkeypatch, capsys):
    monkeypatch.setattr(path, "HESSIAN_BYTES", 8 * 640**2 - 1)
    assert not any("cholesky" in solver.name for solver in path._solvers(digits))
    assert "note: newton-cholesky is left out" in capsys.readouterr().err


def test_the_first_tolerance_that_gets_there_counts_or_else_the_best(digits, monkeypatch):
    monkeypatch.setattr(path, "rest", lambda: None)
    (optimum,) = zip(*solve([0.1], digits).params, strict=True)
    zero = Params(np.zeros((10, 64)), np.zeros(10))
    tried = []

    def shrunk(*shares):
        """Fits that are a share of the optimum, one after the other."""
        tried.clear()

        def fit(lam, start, tolerance):
            assert (lam, start) == (0.1, zero)
            tried.append(tolerance)
            return Params(*(shares[len(tried) - 1] * a for a in optimum))

        return path.climb(fit, 0.1, zero, digits)

    assert shrunk(0.9, 1).relative_gap <= 1e-6
    assert tried == [1e-4, 1e-6]
    gaps = [shrunk(share, *[np.nan] * 2).relative_gap for share in (0.9, 0.99, 0.5)]
    assert shrunk(0.9, 0.99, 0.5).relative_gap == gaps[1] == min(gaps)
    assert tried == [1e-4, 1e-6, 1e-8]
    assert shrunk(*[np.nan] * 3).relative_gap == np.inf
    monkeypatch.setattr(path, "LIMIT", 0)
    assert shrunk(0.9, 1).relative_gap == gaps[0]
    assert tried == [1e-4]


def test_a_path_takes_the_mean_of_what_was_timed_for_every_lam_and_says_who_falls_short():
    fits = [path.Fitted(1e-7, 1.0), path.Fitted(3e-5, 5.0)]
    row = path.row_of_others("they", fits, 41, 10.0)
    assert (row["seconds"], row["times_ours"]) == (123.0, 12.3)
    assert (row["configurations"], row["timed"], row["relative_gap"]) == (41, 2, 3e-5)
    assert row["contender"] == "they: 1 of 2 never get to 1e-06"
    assert path.row_of_others("they", fits[:1], 41, 10.0)["contender"] == "they"


def test_folds_of_others_leave_out_what_ours_do(digits):
    folds = stratified_folds(jax.random.key(0), digits.train.labels, 5)
    fits = path._fit_folds(np.array([1.0, 0.1]), digits, folds)
    assert len(fits) == 10
    assert max(fit.relative_gap for fit in fits) < 1e-4
