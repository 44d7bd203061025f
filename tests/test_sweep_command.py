"""`experiments.sweep` and `experiments.benchmark`, run as a user runs them."""

import csv
import json
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_commands import ROOT, environment, files, interrupt, only_line, run

from experiments import axes
from linear_cifar import records
from linear_cifar.datasets import with_validation
from linear_cifar.evaluation import evaluate
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import train

# Six chunks of one program, for each seed has an order of its own.
CHUNKS = ("--dataset=synthetic", "--shuffle", "--n_seeds=6", "--lam=0,0.1", "--n_epochs=2")
CHUNKS += ("--learning_rate=0.001,0.01",)


def sweep(out, *words):
    return ("experiments.sweep", *words, f"--output_dir={out}")


def read(out, name="sweep.csv"):
    with (out / name).open() as file:
        return list(csv.DictReader(file))


def start(*words, **changes):
    return subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment(**changes), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def await_chunks(out, n, process):
    deadline = time.monotonic() + 120
    while len(list(out.glob("chunks/[0-9]*"))) < n:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "whole"
    done = run(*sweep(out, *CHUNKS, "--refit"))
    assert done.returncode == 0, done.stderr
    assert "4 configurations × 6 seeds" in done.stderr
    assert "refitted on all but test data" in done.stdout
    return out


def test_a_sweep_leaves_the_whole_record_sorted(whole, synthetic):
    assert {name for name in files(whole) if not name.startswith("chunks/")} == {
        "begun.json", "sweep.csv", "sweep_by_seed.csv", "result.json", "params.npz",
        "params_refit.npz", "figures/accuracy_over_lam.png", "figures/heat_map.png",
        "figures/validation_and_test.png",
    }  # fmt: skip
    rows, by_seed, result = (
        read(whole),
        read(whole, "sweep_by_seed.csv"),
        records.read_result(whole),
    )
    assert len(rows) == 4
    assert len(by_seed) == 24
    accuracy = [float(row["validation_accuracy"]) for row in rows]
    assert accuracy == sorted(accuracy, reverse=True)
    best = {"lam": float(rows[0]["lam"]), "learning_rate": float(rows[0]["learning_rate"])}
    assert {name: result["best"][name] for name in best} == best
    of_best = [row for row in by_seed if all(float(row[n]) == v for n, v in best.items())]
    values = [float(row["validation_accuracy"]) for row in of_best]
    assert accuracy[0] == pytest.approx(np.mean(values))
    assert float(rows[0]["validation_accuracy_sd"]) == pytest.approx(np.std(values, ddof=1))
    hyperparameters = Hyperparameters(**best)
    _, history = train(jax.random.key(3), hyperparameters, synthetic, n_epochs=2, shuffle=True)
    assert float(of_best[3]["validation_accuracy"]) == pytest.approx(
        float(history.validation_accuracy[-1]), abs=3e-4
    )
    both = with_validation(synthetic)
    refitted, _ = train(
        jax.random.key(0), hyperparameters, both, n_epochs=2, shuffle=True, measure=False
    )
    params = records.read_params(whole / "params_refit.npz")
    np.testing.assert_allclose(params.weights, refitted.weights, atol=1e-5)
    test = evaluate(refitted, both.test, both.standardiser, 0.0)
    assert result["refit"]["by_seed"][0] == pytest.approx(float(test.accuracy), abs=3e-4)


def test_a_sweep_killed_twice_is_bit_for_bit_an_uninterrupted_one(whole, tmp_path):
    out = tmp_path / "killed"
    for n, resume in ((1, ()), (3, ("--resume",))):
        process = start(*sweep(out, *CHUNKS, "--refit", *resume))
        await_chunks(out, n, process)
        kill(process)
        assert len(list(out.glob("chunks/[0-9]*"))) < 6
        assert not (out / "result.json").exists()
    times = {path: path.stat().st_mtime_ns for path in out.glob("chunks/[0-9]*")}
    done = run(*sweep(out, *CHUNKS, "--refit", "--resume"))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing trained again
    assert files(out) == files(whole)
    for name in ("sweep.csv", "sweep_by_seed.csv", "params.npz", "params_refit.npz"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for path in whole.glob("chunks/*"):
        assert (out / "chunks" / path.name).read_bytes() == path.read_bytes()


def test_a_second_process_on_a_folder_and_other_settings_are_refused(tmp_path):
    out = tmp_path / "run"
    first = start(*sweep(out, "--dataset=synthetic", "--n_epochs=1000"))
    while not (out / "begun.json").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    second = run(*sweep(out, "--dataset=synthetic", "--n_epochs=1000", "--resume"))
    assert "in use by another process" in only_line(second)
    kill(first)
    other = run(*sweep(out, "--dataset=synthetic", "--n_epochs=9", "--resume"))
    assert "begun with other epochs" in only_line(other)
    assert "--resume it, --overwrite it" in only_line(run(*sweep(out, "--dataset=synthetic")))


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    words = ("--dataset=synthetic", "--lam=0", "--learning_rate=0.01", "--n_epochs=1000")
    code, _, errors = interrupt("100/", *sweep(out, *words))
    assert code == 130, errors
    assert f"0 of 1 runs are finished; --resume --output_dir={out} goes on" in errors


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, whole):
    out = tmp_path / "run"
    # A file of at most 300 kB: the chunks of one run pass, that of four doesn't.
    words = ("--dataset=synthetic", "--n_epochs=1", "--lam=0,0.1,0.2,0.3", "--learning_rate=0.01")
    command = " ".join(sweep(out, *words, "--batch_size=500,50"))
    limited = f"ulimit -f 300; exec {sys.executable} -m {command}"
    done = subprocess.run(["bash", "-c", limited], cwd=ROOT, env=environment(), text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert "what is finished before is kept" in only_line(done)
    assert (out / "begun.json").exists()
    assert not list(out.glob("chunks/*"))


def test_a_diverging_configuration_is_last_and_said_to_be(tmp_path):
    out = tmp_path / "run"
    done = run(*sweep(out, "--dataset=synthetic", "--lam=1", "--learning_rate=0.001,1e30",
                      "--batch_size=500", "--n_epochs=1"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read(out)
    assert [row["diverged"] for row in rows] == ["False", "True"]
    assert rows[1]["validation_accuracy"] == "nan"
    result = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["n_diverged"] == 1
    assert "diverged" in done.stdout


def test_random_configurations_of_all_optimisers(tmp_path):
    out = tmp_path / "run"
    words = ("--lam=1e-4:1:log", "--learning_rate=1e-4:1e-2:log", "--optimizer=sgd,momentum,adam",
             "--n_random=9", "--batch_size=500", "--n_epochs=1", "--dataset=synthetic",
             "--select=loss")  # fmt: skip
    done = run(*sweep(out, *words))
    assert done.returncode == 0, done.stderr
    rows = read(out)
    assert len(rows) == 9
    assert len({row["lam"] for row in rows}) == 9
    assert all(1e-4 <= float(row["learning_rate"]) <= 1e-2 for row in rows)
    loss = [float(row["validation_loss"]) for row in rows]
    assert loss == sorted(loss)
    assert {bool(row["b1"]) == (row["optimizer"] == "adam") for row in rows} == {True}


@pytest.mark.parametrize(
    ("text", "of", "values"),
    [("0,0.1", float, [0, 0.1]), ("1e-3:1:4:log", float, [0.001, 0.01, 0.1, 1]),
     ("0:1:3", float, [0, 0.5, 1]), ("10,50", int, [10, 50]), ("sgd,adam", str, ["sgd", "adam"])],
)  # fmt: skip
def test_an_axis_is_a_list_or_a_range(text, of, values):
    assert axes._parse(text, of).values == values


@pytest.mark.parametrize("text", ["1:0.1:3", "0:1:3:log", "x", "", "1:2:3:4", "1:2:lin", "1:2:x"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 (its message is absl's affair)
        axes._parse(text, float)


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--lam=1:0.1:3", "another form"), ("--learning_rate=0:1:3", "the value 0"),
     ("--batch_size=1:9:3", "another form"), ("--optimizer=sdg", "the value sdg"),
     ("--lam=0:1", "a range needs N"), ("--coordinator=127.0.0.1:1", "--distributed"),
     ("--lam=nan", "the value nan")],
)  # fmt: skip
def test_a_bad_axis_is_refused_by_name(tmp_path, flag, message):
    done = run(*sweep(tmp_path / "run", "--dataset=synthetic", flag))
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_flag_of_a_sweep():
    shown = run("experiments.sweep", "--helpshort").stdout
    for flag in ("lam", "learning_rate", "optimizer", "momentum", "b1", "n_random", "n_seeds",
                 "select", "[no]refit", "[no]resume", "[no]distributed", "coordinator",
                 "n_processes", "process_id"):  # fmt: skip
        assert f"--{flag}:" in shown


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def two_processes(out, *words):
    """The same sweep in two processes, of two devices each."""
    join = ("--distributed", f"--coordinator=127.0.0.1:{free_port()}", "--n_processes=2")
    return [
        start(*sweep(out, *words, *join, f"--process_id={i}"), JAX_NUM_CPU_DEVICES="2")
        for i in range(2)
    ]


def test_two_processes_give_the_results_of_one_and_one_of_them_writes(whole, tmp_path):
    out = tmp_path / "two"
    processes = two_processes(out, *CHUNKS)
    shown = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], shown
    assert "written to" in shown[0][0]
    assert "written to" not in shown[1][0]
    assert "finished" in shown[0][1]
    assert "finished" not in shown[1][1]
    one, two = ({(r["lam"], r["learning_rate"], r["seed"]): r for r in read(p, "sweep_by_seed.csv")}
                for p in (whole, out))  # fmt: skip
    assert one.keys() == two.keys()
    for key, row in one.items():
        for name in ("train", "validation", "test"):
            assert float(row[f"{name}_loss"]) == pytest.approx(float(two[key][f"{name}_loss"]),
                                                              rel=1e-5)  # fmt: skip
    for path in whole.glob("chunks/*"):
        with np.load(path) as a, np.load(out / "chunks" / path.name) as b:
            np.testing.assert_allclose(a["weights"], b["weights"], atol=1e-6)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_the_sweep_goes_on(whole, tmp_path, lost):
    out = tmp_path / "two"
    words = [word.replace("--n_epochs=2", "--n_epochs=4") for word in CHUNKS]
    processes = two_processes(out, *words)
    await_chunks(out, 1, processes[lost])
    kill(processes[lost])
    left = processes[1 - lost]
    begun = time.monotonic()
    _, errors = left.communicate(timeout=60)
    assert time.monotonic() - begun < 60
    assert left.returncode != 0
    assert errors.splitlines()[-1].startswith("error: another process was lost"), errors
    if lost:
        done = run(*sweep(out, *words, "--resume"))
        assert done.returncode == 0, done.stderr
    else:
        again = two_processes(out, *words, "--resume")
        shown = [process.communicate(timeout=120) for process in again]
        assert [process.returncode for process in again] == [0, 0], shown
    assert len(read(out, "sweep_by_seed.csv")) == 24


def test_an_unknown_section_is_refused_by_name(tmp_path):
    done = run("experiments.benchmark", "--section=sweep,speed", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "--section" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_benchmark_writes_limits_and_rows(tmp_path):
    out = tmp_path / "run"
    done = run("experiments.benchmark", "--quick", "--section=sweep,memory",
               "--dataset=synthetic", f"--output_dir={out}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "benchmark.json").read_text(), parse_constant=pytest.fail)
    assert found["limits"].keys() == {"matmul_gflops", "bandwidth_gb_s"}
    assert all(value > 0 for value in found["limits"].values())
    names = {"section", "contender", "configurations", "milliseconds", "gflops", "fraction_of_peak"}
    assert all(names <= row.keys() for row in found["rows"])
    timed = [row for row in found["rows"] if row["section"] != "memory"]
    assert {row["section"] for row in timed} == {"sweep"}
    for row in timed:
        assert row["gflops"] == pytest.approx(4 * 10000 * 3072 * 10 / row["milliseconds"] / 1e6)
        peak = found["limits"]["matmul_gflops"]
        assert row["fraction_of_peak"] == pytest.approx(row["gflops"] / peak)
    assert any(row["contender"].startswith("NumPy") for row in timed)
    assert {row["configurations"] for row in timed if row["contender"] == "ours"} == {1, 4}
    assert 100 < next(r["peak_mb"] for r in found["rows"] if r["section"] == "memory") < 1000
    assert {"benchmark.csv", "figures/sweep.png", "result.json"} <= files(out)
    assert len(read(out, "benchmark.csv")) == len(found["rows"])
