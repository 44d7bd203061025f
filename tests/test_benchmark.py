"""`experiments.benchmark`: that it compares what is comparable, and what it writes of it."""

import csv
import json

import numpy as np
import pytest
from commands import check_every_file, files, only_line, run

from experiments.benchmark import contenders, processes, table, timing
from experiments.benchmark.contenders import Layout
from experiments.benchmark.sections import SECTIONS
from experiments.benchmark.timing import Turn, rest, spread, take_turns

QUICK = ("--quick", "--dataset=synthetic")


@pytest.fixture
def short_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(timing, "N_EPOCHS", 3)


@pytest.mark.slow
@pytest.mark.usefixtures("short_turns", "undrawn")
def test_a_quick_run_of_what_trains_writes_rows_with_every_ratio(tmp_path):
    out = tmp_path / "run"
    sections = ["single", "sweep", "batch_size", "full_data", "cost", "accuracy"]
    done = run(
        "experiments.benchmark",
        *QUICK,
        f"--section={','.join(sections)}",
        f"--output_dir={out}",
        n_images=300,
    )
    assert done.returncode == 0, done.stderr
    figures = {f"figures/{name}.png" for name in sections if name != "accuracy"}
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
    assert rows["accuracy"][0]["times_ours"] == 1
    for name in sections:
        assert f"\n{name} " in f"\n{done.stdout}"


def test_a_contender_that_trains_something_else_ends_it_before_anything_is_timed(
    tmp_path, monkeypatch
):
    wrong = Layout(False, lambda w, x: x @ w.T, lambda g, x: 1.01 * g.T @ x)
    monkeypatch.setitem(contenders.LAYOUTS, "x Wᵀ, Gᵀ x", wrong)
    monkeypatch.setattr(timing, "take_turns", lambda *_: pytest.fail("something was timed"))
    out = f"--output_dir={tmp_path / 'run'}"
    done = run("experiments.benchmark", *QUICK, "--section=single", out)
    assert "NumPy, x Wᵀ, Gᵀ x doesn't train as ours does" in only_line(done)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_a_process_that_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SIZES", ((500, 64, 10, 2),))
    out = tmp_path / "run"
    done = run("experiments.benchmark", *QUICK, "--section=memory", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((out / "benchmark.json").read_text())["rows"]
    assert (row["configurations"], row["n"], row["d"]) == (2, 500, 64)
    assert 150 < row["peak_mb"] < 1000


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
