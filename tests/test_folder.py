"""Result folders: runs appear whole, files of others stay, and an error is one line."""

import contextlib
import csv
import errno
import fcntl
import json
import os
import resource
import shutil

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments.common import folder
from experiments.common.data import load_data
from linear_cifar import Params
from tests.campaign import folders, privileges, small
from tests.commands import files, only_line, run, run_process
from tests.conftest import undrawn_figures

BASELINE, SWEEP, GRID = (f"experiments.{name}" for name in ("baseline", "sweep", "grid_search"))


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with undrawn_figures():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write_data(tmp_path_factory.mktemp("data"))


def line(name, data, out):
    """A sweep of one chunk, which takes less to compile."""
    simple = ("--noshuffle", "--norefit", "--n_seeds=1") if name == SWEEP else ()
    return [*small.words(name, data, out), *simple]


def start(name, data, out, *words, **settings):
    return run(*line(name, data, out), *words, **settings)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run by command."""
    place = tmp_path_factory.mktemp("runs")
    for name in (BASELINE, SWEEP):
        done = start(name, data, place / name)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(params=[BASELINE, SWEEP])
def name(request):
    return request.param


@pytest.fixture
def copy(finished, name, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished / name, tmp_path / "copy")


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """What a full disk is to a process: a longer file can't be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Runs appear whole.


def test_a_new_run_appears_whole_or_not_at_all(data, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with folders.every_state(place) as states:
        assert start(BASELINE, data, place / "out").returncode == 0
    whole = {f"out/{name}" for name in files(place / "out")}
    seen = {frozenset(whole & set(state)) for state in states}
    assert seen == {frozenset(), frozenset(whole)}
    assert len(states) > len(whole)
    assert [path.name for path in place.iterdir()] == ["out"]


def link_to_a_folder(out):
    (out.parent / "far").mkdir()
    out.symlink_to("far")


def link_to_nothing(out):
    out.symlink_to("deep/far")


def empty_folder_one_is_in(out):
    out.mkdir()
    os.chdir(out)


@pytest.mark.parametrize("make", [link_to_a_folder, link_to_nothing, empty_folder_one_is_in])
def test_a_run_can_be_where_a_link_leads_and_in_an_empty_folder(
    finished, data, tmp_path, monkeypatch, name, make
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run")
    out = "." if make == empty_folder_one_is_in else tmp_path / "run"
    for words in ((), ("--overwrite",)):
        done = start(name, data, out, *words)
        assert done.returncode == 0, done.stderr
        assert files((tmp_path / "run").resolve()) == files(finished / name)


def test_a_mount_point_can_hold_a_run_although_it_cannot_be_renamed(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    inode = out.stat().st_ino
    for _ in range(2):
        assert start(BASELINE, data, out, "--overwrite").returncode == 0
    assert out.stat().st_ino == inode


# What --overwrite replaces.


def test_overwrite_replaces_a_finished_run(copy, finished, data, name):
    refused = start(name, data, copy)
    assert "--overwrite" in only_line(refused)
    assert "[" not in refused.stderr  # no progress: it is refused before anything is trained
    done = start(name, data, copy, "--overwrite", "--seed=9", "--figure_format=pdf")
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "result.json").read_text())["seed"] == 9
    expected = {path.replace(".png", ".pdf") for path in files(finished / name)}
    assert files(copy) == expected


def test_overwrite_replaces_an_unfinished_run(data, tmp_path):
    out = tmp_path / "run"
    assert start(GRID, data, out, interrupt_at="100 %").returncode == 130
    assert len(files(out)) == 2  # started.json and a chunk
    done = start(GRID, data, out, "--overwrite", "--lam=0.5")
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(out / "grid.csv").lam) == {0.5}


FOREIGN = ("thesis.txt", "data/x.csv", "figures/mine.png", "chunks/mine.npz", ".hidden", "a.npz")


@pytest.mark.parametrize("foreign", FOREIGN)
def test_overwrite_refuses_a_run_with_a_foreign_file(copy, data, name, foreign):
    (copy / foreign).parent.mkdir(exist_ok=True)
    (copy / foreign).write_text("mine")
    before = folders.read(copy)
    assert foreign in only_line(start(name, data, copy, "--overwrite"))
    assert folders.read(copy) == before


@pytest.mark.parametrize("foreign", ["thesis.txt", "figures/mine.png"])
def test_a_foreign_file_stays_foreign_when_the_run_is_resumed(finished, data, tmp_path, foreign):
    out = shutil.copytree(finished / SWEEP, tmp_path / "copy")
    (out / foreign).write_text("mine")
    assert start(SWEEP, data, out, "--resume").returncode == 0
    assert foreign in only_line(start(SWEEP, data, out, "--overwrite"))
    assert (out / foreign).read_text() == "mine"


def test_a_foreign_file_in_an_empty_folder_during_the_run_is_kept(data, tmp_path, monkeypatch):
    def load_and_write(*arguments, **settings):
        (tmp_path / "thesis.txt").write_text("mine")
        return load_data(*arguments, **settings)

    monkeypatch.setattr(f"{BASELINE}.load_data", load_and_write)
    assert str(tmp_path) in only_line(start(BASELINE, data, tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_foreign_file_that_comes_during_the_run_is_kept(copy, data, name, monkeypatch):
    def load_and_write(*arguments, **settings):
        (copy / "thesis.txt").write_text("mine")
        return load_data(*arguments, **settings)

    monkeypatch.setattr(f"{name}.load_data", load_and_write)
    only_line(start(name, data, copy, "--overwrite"))
    assert (copy / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("other", "old"), [(BASELINE, SWEEP), (GRID, SWEEP), (GRID, BASELINE)])
@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_a_run_of_another_command_is_refused(finished, data, other, old, words):
    before = folders.read(finished / old)
    only_line(start(other, data, finished / old, *words))
    assert folders.read(finished / old) == before


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_a_folder_or_file_that_is_no_run_is_refused(data, tmp_path, name, words):
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        assert str(out) in only_line(start(name, data, out, *words))
    assert files(tmp_path) == {"thesis.txt"}


def test_folders_that_a_kill_left_empty_are_no_obstacle(data, tmp_path, name):
    for folder_left in ("chunks", "figures", ".run.partial-0123abcd"):
        (tmp_path / "run" / folder_left).mkdir(parents=True)
    (tmp_path / "run" / ".run.partial-0123abcd" / "params.npz").write_text("partial")
    done = start(name, data, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


def test_a_folder_that_another_process_makes_meanwhile_is_left_alone(data, tmp_path, monkeypatch):
    def load_and_make(*arguments, **settings):
        (tmp_path / "run").mkdir()
        return load_data(*arguments, **settings)

    monkeypatch.setattr(f"{BASELINE}.load_data", load_and_make)
    assert "another process" in only_line(start(BASELINE, data, tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())


# What can't be written.


def test_a_full_disk_leaves_nothing_of_a_run(data, tmp_path, name):
    with files_of_at_most(100):
        done = start(name, data, tmp_path / "deep" / "run")
    assert str(tmp_path / "deep" / "run") in only_line(done)
    assert files(tmp_path) == set()


def test_a_full_disk_keeps_the_run_that_was_to_be_replaced(finished, data, tmp_path):
    out = shutil.copytree(finished / BASELINE, tmp_path / "copy")
    with files_of_at_most(100):
        only_line(start(BASELINE, data, out, "--overwrite", "--seed=9"))
    assert folders.read(out) == folders.read(finished / BASELINE)


def test_a_full_disk_keeps_trained_parameters_and_says_where(finished, data, tmp_path):
    size = (finished / BASELINE / "result.json").stat().st_size
    with files_of_at_most(size - 200):  # enough for all other files
        error = only_line(start(BASELINE, data, tmp_path / "run"))
    (left,) = tmp_path.iterdir()
    assert str(left) in error
    expected = (finished / BASELINE / "params.npz").read_bytes()
    assert (left / "params.npz").read_bytes() == expected


def test_a_sweep_goes_on_when_there_is_room_again(finished, data, tmp_path):
    out = tmp_path / "run"
    with files_of_at_most(3000):  # less than a chunk
        assert "chunks" in only_line(start(SWEEP, data, out))
    assert files(out) == {"started.json"}
    assert start(SWEEP, data, out, "--resume").returncode == 0
    assert folders.difference(folders.read(out), folders.read(finished / SWEEP)) is None


def test_a_folder_without_permission_is_refused_before_the_work(copy, data, tmp_path, name):
    (tmp_path / "locked").mkdir(mode=0o555)
    copy.chmod(0o555)
    cases = [(tmp_path / "locked", ()), (tmp_path / "locked" / "run", ()), (copy, ("--overwrite",))]
    cases += [(copy, ("--resume",))] if name == SWEEP else []
    before = folders.read(tmp_path)
    with privileges.given_up():
        for out, words in cases:
            done = start(name, data, out, *words)
            assert str(out) in only_line(done)
            assert "[" not in done.stderr
    copy.chmod(0o755)
    assert folders.read(tmp_path) == before


@pytest.mark.parametrize("length", [250, 300])
def test_a_name_that_is_too_long_is_one_line(data, tmp_path, name, length):
    if name == BASELINE or length == 300:  # a sweep needs no longer, hidden name beside it
        assert "too long" in only_line(start(name, data, tmp_path / ("x" * length)))
    assert not list(tmp_path.iterdir())


# Two processes, one folder.


def test_a_second_process_is_refused_while_the_first_one_works(copy, data, name, monkeypatch):
    """The second one starts where the first one loads its data."""
    refused = []

    def load_in_both(*arguments, **settings):
        refused.append(run_process(*line(name, data, copy), "--overwrite"))
        return load_data(*arguments, **settings)

    monkeypatch.setattr(f"{name}.load_data", load_in_both)
    done = start(name, data, copy, "--overwrite", "--seed=9")
    assert done.returncode == 0, done.stderr
    assert "in use" in only_line(*refused)
    assert json.loads((copy / "result.json").read_text())["seed"] == 9


def test_a_file_system_without_locks_is_one_line(data, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "lock" in only_line(start(SWEEP, data, tmp_path / "run"))
    assert files(tmp_path) == set()


# Files.


def test_json_has_no_nan_and_no_long_float32(tmp_path):
    value = {"a": jnp.float32(0.3908), "b": [np.nan, np.inf, 1], "c": np.arange(3), "d": (None,)}
    folder.write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert read == {"a": 0.3908, "b": [None, None, 1], "c": [0, 1, 2], "d": [None]}


def test_tables_and_params_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"n": [1, 2, 3], "x": [0.1, np.nan, rng.normal()], "s": ["λ", "a,b", "c"]})
    folder.write_table(tmp_path / "a.csv", table)
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["n", "x", "s"]
    assert [float(row[1] or "nan") for row in rows] == pytest.approx(table.x, rel=0, nan_ok=True)
    assert [(row[0], row[2]) for row in rows] == [("1", "λ"), ("2", "a,b"), ("3", "c")]
    for dtype in ("f4", "f8"):
        params = Params(rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=2).astype(dtype))
        folder.write_params(tmp_path / "p.npz", params)
        with np.load(tmp_path / "p.npz") as arrays:
            for name, array in params._asdict().items():
                assert arrays[name].dtype == array.dtype
                assert np.array_equal(arrays[name], array)
