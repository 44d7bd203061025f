"""Result folders: runs appear whole, files of others stay, and nothing trained is lost."""

import csv
import errno
import fcntl
import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments.common import folder
from experiments.common.data import load_data
from tests import folders, tiny
from tests.commands import files, only_line, run

# On a full disk NumPy's archive fails once more when it is garbage-collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
both = pytest.mark.parametrize("name", ["baseline", "sweep"])


@pytest.fixture(scope="module", autouse=True)
def _reduced():
    with tiny.reduced():
        yield


def start(name, out, *words, **settings):
    """A sweep of one chunk, which takes less to compile."""
    simple = ("--noshuffle", "--norefit", "--n_seeds=1") if name == "sweep" else ()
    return run(*tiny.words(name, out), *simple, *words, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of both commands."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("baseline", "sweep"):
        done = start(name, place / name)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def while_loading(monkeypatch):
    """Something happens while both commands load their data, when the work has begun."""

    def arrange(happen):
        def load(*arguments, **settings):
            happen()
            return load_data(*arguments, **settings)

        for name in ("baseline", "sweep"):
            monkeypatch.setattr(f"experiments.{name}.load_data", load)

    return arrange


# Runs appear whole.


def test_a_new_run_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with folders.every_state(place) as states:
        assert start("baseline", place / "out").returncode == 0
    written = {f"out/{name}" for name in files(place / "out")}
    assert {frozenset(written & set(state)) for state in states} == {
        frozenset(),
        frozenset(written),
    }
    assert len(states) > len(written)
    assert [path.name for path in place.iterdir()] == ["out"]


def test_a_run_in_an_empty_folder_gets_its_result_last(tmp_path):
    with folders.every_state(tmp_path) as states:
        assert start("baseline", tmp_path).returncode == 0
    complete = [state.keys() for state in states if "result.json" in state]
    assert complete
    assert all(files(tmp_path) <= state for state in complete)


def link_to_a_folder(out):
    (out.parent / "far").mkdir()
    out.symlink_to("far")


def link_to_nothing(out):
    out.symlink_to("deep/far")


def working_directory(out):
    out.mkdir()
    os.chdir(out)


def leftovers_of_a_kill(out):
    for name in ("chunks", "figures", ".run.partial-0123abcd"):
        (out / name).mkdir(parents=True)
    (out / ".run.partial-0123abcd" / "params.npz").write_text("partial")


@both
@pytest.mark.parametrize(
    "make", [link_to_a_folder, link_to_nothing, working_directory, leftovers_of_a_kill]
)
def test_a_run_can_be_where_a_link_leads_and_in_a_folder_without_files(
    finished, tmp_path, monkeypatch, name, make
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run")
    out = "." if make == working_directory else tmp_path / "run"
    inode = (tmp_path / "run").stat().st_ino if make != link_to_nothing else None
    for words in ((), ("--overwrite",)):
        done = start(name, out, *words)
        assert done.returncode == 0, done.stderr
        new = {path for path in files((tmp_path / "run").resolve()) if ".partial" not in path}
        assert new == files(finished / name)
    # A folder stays the same one, because a mount point can't be renamed.
    assert inode in (None, (tmp_path / "run").stat().st_ino)


@pytest.mark.parametrize(("name", "length"), [("baseline", 250), ("baseline", 300), ("sweep", 300)])
def test_a_name_that_is_too_long_is_one_line(tmp_path, name, length):
    assert "too long" in only_line(start(name, tmp_path / ("x" * length)))
    assert not list(tmp_path.iterdir())


# Files of others.


@pytest.mark.parametrize(
    "foreign", ["data/x.csv", "figures/mine.png", "chunks/mine.npz", ".hidden", "a.npz"]
)
def test_a_foreign_file_stays_foreign_when_the_run_is_resumed(finished, tmp_path, foreign):
    out = shutil.copytree(finished / "sweep", tmp_path / "copy")
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    assert start("sweep", out, "--resume").returncode == 0
    before = folders.read(out)
    assert foreign in only_line(start("sweep", out, "--overwrite"))
    assert folders.read(out) == before


@both
@pytest.mark.parametrize("is_new", [True, False])
def test_a_foreign_file_that_comes_during_a_run_is_kept(
    finished, tmp_path, while_loading, name, is_new
):
    out = tmp_path / "run"
    out.mkdir() if is_new else shutil.copytree(finished / name, out)
    while_loading(lambda: (out / "thesis.txt").write_text("mine"))
    done = start(name, out, "--overwrite")
    if name == "baseline" or not is_new:  # a new sweep can have files of others beside it
        assert str(out) in only_line(done)
    assert (out / "thesis.txt").read_text() == "mine"


def test_overwrite_replaces_an_unfinished_run(finished, tmp_path):
    out, complete = tmp_path / "run", folders.read(finished / "sweep")
    state = {name: complete[name] for name in complete if name.startswith(("started", "chunks"))}
    folders.write(state, out)
    done = start("sweep", out, "--overwrite", "--lam=0,0.5")
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(out / "sweep.csv").lam) == {0, 0.5}
    assert files(out) == files(finished / "sweep")


# Two processes, one folder.


@both
def test_a_folder_is_locked_during_the_run(finished, tmp_path, while_loading, name):
    out, refused = shutil.copytree(finished / name, tmp_path / "run"), []

    def lock():
        try:
            fcntl.flock(os.open(out, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(True)

    while_loading(lock)
    assert start(name, out, "--overwrite").returncode == 0
    assert refused == [True]


def test_a_folder_that_another_process_makes_meanwhile_is_left_alone(tmp_path, while_loading):
    while_loading((tmp_path / "run").mkdir)
    assert "another process" in only_line(start("baseline", tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "lock" in only_line(start("sweep", tmp_path / "run"))
    assert files(tmp_path) == set()


# A full disk.


def test_a_full_disk_keeps_the_run_that_was_to_be_replaced(finished, tmp_path):
    out = shutil.copytree(finished / "baseline", tmp_path / "copy")
    with folders.files_of_at_most(100):
        only_line(start("baseline", out, "--overwrite", "--seed=9"))
    assert folders.read(out) == folders.read(finished / "baseline")


def test_a_full_disk_keeps_trained_parameters_and_says_where(finished, tmp_path):
    size = (finished / "baseline" / "result.json").stat().st_size
    with folders.files_of_at_most(size - 200):  # enough for all other files
        error = only_line(start("baseline", tmp_path / "run"))
    (rescued,) = tmp_path.iterdir()
    assert str(rescued) in error
    expected = (finished / "baseline" / "params.npz").read_bytes()
    assert (rescued / "params.npz").read_bytes() == expected


def test_a_sweep_goes_on_when_there_is_room_again(finished, tmp_path):
    out = tmp_path / "run"
    with folders.files_of_at_most(3000):  # less than a chunk
        assert "chunks" in only_line(start("sweep", out))
    assert files(out) == {"started.json"}
    assert start("sweep", out, "--resume").returncode == 0
    folders.assert_same(folders.read(out), folders.read(finished / "sweep"))


# Files.


def test_json_has_no_nan_and_no_long_float32(tmp_path):
    value = {"a": jnp.float32(0.3908), "b": [np.nan, np.inf, 1], "c": np.arange(3), "d": (None,)}
    folder.write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert read == {"a": 0.3908, "b": [None, None, 1], "c": [0, 1, 2], "d": [None]}


def test_a_table_reads_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": [0.1, np.nan, rng.normal()], "s": ["λ", "a,b", "c"]})
    folder.write_table(tmp_path / "a.csv", table)
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["x", "s"]
    assert [float(row[0] or "nan") for row in rows] == pytest.approx(table.x, rel=0, nan_ok=True)
    assert [row[1] for row in rows] == ["λ", "a,b", "c"]
