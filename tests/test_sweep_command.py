"""`experiments.sweep`: its record, its axes, and how it goes on after whatever ended it."""

import csv
import json
import re
import resource
import shutil
import signal

import jax
import numpy as np
import pytest
from commands import few, files, only_line, run, start

from experiments.common import records
from experiments.sweep import record
from linear_cifar.data import with_validation
from linear_cifar.metrics import evaluate
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import TrainConfig, train

SMALL_SWEEP = "tests.programs.small_sweep"
# Six chunks of one program, for each seed has an order of its own.
CHUNKS = (
    "--dataset=synthetic",
    "--shuffle",
    "--n_seeds=6",
    "--lam=0,0.1",
    "--n_epochs=2",
    "--learning_rate=0.001,0.01",
)
ONE = ("--dataset=synthetic", "--lam=0", "--learning_rate=0.01", "--n_epochs=1")


def sweep(out, *words):
    return run("experiments.sweep", *words, f"--output_dir={out}")


def read(out, name="sweep.csv"):
    with (out / name).open() as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "whole"
    done = sweep(out, *CHUNKS, "--refit")
    assert done.returncode == 0, done.stderr
    assert "4 configurations × 6 seeds" in done.stderr
    assert "refitted on all but test data" in done.stdout
    return out


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the whole sweep, to change."""
    return shutil.copytree(whole, tmp_path / "copy")


# The record.


def test_a_sweep_leaves_the_whole_record_sorted(whole):
    assert {name for name in files(whole) if not name.startswith("chunks/")} == {
        "begun.json",
        "sweep.csv",
        "sweep_by_seed.csv",
        "result.json",
        "params.npz",
        "params_refit.npz",
        "figures/accuracy_over_lam.png",
        "figures/heat_map.png",
        "figures/validation_and_test.png",
    }
    rows, by_seed = read(whole), read(whole, "sweep_by_seed.csv")
    result = records.read_result(whole)
    assert (len(rows), len(by_seed)) == (4, 24)
    accuracy = [float(row["validation_accuracy"]) for row in rows]
    assert accuracy == sorted(accuracy, reverse=True)
    best = {"lam": float(rows[0]["lam"]), "learning_rate": float(rows[0]["learning_rate"])}
    assert {name: result["best"][name] for name in best} == best
    of_best = [row for row in by_seed if all(float(row[n]) == v for n, v in best.items())]
    values = [float(row["validation_accuracy"]) for row in of_best]
    assert accuracy[0] == pytest.approx(np.mean(values))
    assert float(rows[0]["validation_accuracy_sd"]) == pytest.approx(np.std(values, ddof=1))


def test_its_runs_are_those_of_train_and_the_refit_one_on_validation_data_too(whole):
    best = records.read_result(whole)["best"]
    runs = Hyperparameters(lam=best["lam"], learning_rate=best["learning_rate"])
    config = TrainConfig(n_epochs=2, shuffle=True, measure=False)
    for data, name in ((few(), "params.npz"), (with_validation(few()), "params_refit.npz")):
        expected, _ = train(jax.random.key(0), runs, data, config)
        params = records.read_params(whole / name)
        np.testing.assert_allclose(params.weights, expected.weights, atol=1e-5)
        test = evaluate(expected, data.test, data.standardiser, 0.0)
        record = best if name == "params.npz" else records.read_result(whole)["refit"]
        by_seed = record.get("test_accuracy_by_seed") or record["by_seed"]
        assert by_seed[0] == pytest.approx(float(test.accuracy), abs=3e-3)  # an example of 400


def test_a_diverging_configuration_is_last_and_said_to_be(copy):
    """In a folder whose sweep it replaces."""
    done = sweep(
        copy,
        "--dataset=synthetic",
        "--lam=1",
        "--learning_rate=1e30,0.001",
        "--n_epochs=1",
        "--overwrite",
    )
    assert done.returncode == 0, done.stderr
    rows = read(copy)
    assert [row["diverged"] for row in rows] == ["False", "True"]
    assert rows[1]["validation_accuracy"] == "nan"
    result = json.loads((copy / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["n_diverged"] == 1
    assert "diverged" in done.stdout
    assert not {"sweep_by_seed.csv", "params_refit.npz"} & files(copy)


@pytest.mark.slow
def test_random_configurations_of_all_optimisers(tmp_path):
    out = tmp_path / "run"
    words = (
        "--lam=1e-4:1:log",
        "--learning_rate=1e-4:1e-2:log",
        "--optimizer=sgd,momentum,adam",
        "--n_random=9",
        "--n_epochs=1",
        "--dataset=synthetic",
        "--select=loss",
    )
    done = sweep(out, *words)
    assert done.returncode == 0, done.stderr
    rows = read(out)
    assert len(rows) == len({row["lam"] for row in rows}) == 9
    assert all(1e-4 <= float(row["learning_rate"]) <= 1e-2 for row in rows)
    loss = [float(row["validation_loss"]) for row in rows]
    assert loss == sorted(loss)
    assert {row["optimizer"] for row in rows} == {"sgd", "momentum", "adam"}
    for name, optimizer in (("b1", "adam"), ("momentum", "momentum")):
        assert all(bool(row[name]) == (row["optimizer"] == optimizer) for row in rows)


# What ends a sweep, and how it goes on.


@pytest.mark.slow
def test_a_folder_in_use_is_refused_and_an_interrupt_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    words = (*ONE, "--n_epochs=2000")
    with start(SMALL_SWEEP, *words, f"--output_dir={out}") as first:
        seen = []
        for line in first.stderr:
            seen.append(line)
            if "200/2000" in line:
                break
        assert "in use by another process" in only_line(sweep(out, *words, "--resume"))
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, [*seen, errors]
    how = f"the same command with --resume --output_dir={out} goes on"
    assert f"0 of 1 runs are finished; {how}" in errors
    assert files(out) == {"begun.json"}


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path):
    """A file of at most 300 kB: the chunk of one run with sgd passes, that of four others not."""
    out = tmp_path / "run"
    words = (*ONE, "--optimizer=sgd,momentum", "--momentum=0.1,0.2,0.3,0.4")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        done = sweep(out, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "what is finished before is kept" in only_line(done)
    assert "5 configurations" in done.stderr  # those that differ in what isn't read are one
    assert files(out) == {"begun.json", "chunks/000000-000000.npz"}
    done = sweep(out, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(read(out)) == 5


def test_it_goes_on_with_another_machine_and_says_so(copy, whole):
    begun = json.loads((copy / "begun.json").read_text())
    begun["machine"]["n_devices"] = 64
    begun["machine"]["versions"]["jax"] = "0.1"
    (copy / "begun.json").write_text(json.dumps(begun))
    next(copy.glob("chunks/*")).unlink()
    done = sweep(copy, *CHUNKS, "--refit", "--resume")
    assert done.returncode == 0, done.stderr
    (note,) = re.findall("^note: begun with .*", done.stderr, re.MULTILINE)
    assert "'jax': '0.1'" in note
    assert f"n_devices 64, now {jax.device_count()}" in note
    assert "device cpu" not in note  # which is the same
    assert (copy / "sweep.csv").read_bytes() == (whole / "sweep.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--n_epochs=9", "--resume"), "begun with other epochs:"),
        (("--seed=1", "--lam=0", "--resume"), "begun with other axes, seeds:"),
        (("--split=full", "--resume"), "begun with other data:"),
        ((), "holds a sweep: --resume it, --overwrite it"),
    ],
)
def test_a_sweep_of_something_else_is_refused_and_kept(whole, words, message):
    before = contents(whole)
    assert message in only_line(sweep(whole, *CHUNKS, *words))
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "holds something other than a sweep"),
        ("whole", "holds a sweep"),
        ("other/file/run", "cannot write to"),
    ],
)
def test_a_folder_is_known_to_be_usable_before_data_are_loaded(copy, monkeypatch, name, message):
    other = copy.parent / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    copy.rename(copy.parent / "whole")
    monkeypatch.setattr("experiments.sweep.__main__.load_data", lambda *_: pytest.fail("loaded"))
    for overwrite in ((), ("--overwrite",))[: 1 + (name == "other")]:
        assert message in only_line(sweep(copy.parent / name, *ONE, *overwrite))
    assert files(other) == {"file"}


def test_damaged_data_leave_no_folder_and_one_that_was_there_as_it_was(copy):
    archive = copy.parent / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    before = contents(copy)
    for out, words in ((copy.parent / "run", ()), (copy, ("--overwrite",))):
        done = sweep(out, "--dataset=cifar10", f"--data_dir={archive}", *words)
        assert "is corrupt" in only_line(done)
    assert {path.name for path in copy.parent.iterdir()} == {"copy", archive.name}
    assert contents(copy) == before


def test_a_rate_that_float32_rounds_to_0_is_refused_before_anything_is_begun(tmp_path):
    done = sweep(tmp_path / "run", *ONE, "--learning_rate=0.01,1e-60")
    assert "learning_rate is 0.0: it has to be above 0" in only_line(done)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_after_the_last_run_says_how_to_go_on_too(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "write", interrupt)
    done = sweep(tmp_path / "run", *ONE)
    assert done.returncode == 130
    assert "interrupted: the same command with --resume" in done.stderr
    monkeypatch.undo()
    assert sweep(tmp_path / "run", *ONE, "--resume").returncode == 0
