"""Result folders: runs appear whole, files of others stay, and nothing trained is lost."""

import fcntl
import os
import shutil

import pandas as pd
import pytest

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


def start(name, out, *words):
    """A sweep of one chunk, which takes less to compile."""
    simple = ("--noshuffle", "--n_seeds=1") if name == "sweep" else ()
    return run(*tiny.words(name, out), *simple, *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for name in ("baseline", "sweep"):
        assert start(name, place / name).returncode == 0
    return place


def while_loading(patch, action):
    """Calls a function when a command has begun to work and loads its data."""

    def load(*arguments, **settings):
        action()
        return load_data(*arguments, **settings)

    for name in ("baseline", "sweep"):
        patch.setattr(f"experiments.{name}.load_data", load)


def test_a_new_run_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with folders.every_state(place) as states:
        assert start("baseline", place / "out").returncode == 0
    written = set(files(place))
    assert {frozenset(written & set(state)) for state in states} == {
        frozenset(),
        frozenset(written),
    }
    assert len(states) > len(written)
    assert {path.split("/")[0] for path in written} == {"out"}


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


def leftovers_of_a_kill(out):
    for name in ("chunks", "figures", ".run.partial-0123abcd"):
        (out / name).mkdir(parents=True)
    (out / ".run.partial-0123abcd" / "params.npz").write_text("partial")


@both
@pytest.mark.parametrize("make", [link_to_a_folder, link_to_nothing, leftovers_of_a_kill])
def test_a_run_goes_where_a_link_leads_or_into_a_folder_without_files_of_others(
    finished, tmp_path, name, make
):
    out = tmp_path / "run"
    make(out)
    inode = out.stat().st_ino if out.exists() else None
    for words in ((), ("--overwrite",)):
        done = start(name, out, *words)
        assert done.returncode == 0, done.stderr
        new = {path for path in files(out.resolve()) if ".partial" not in path}
        assert new == files(finished / name)
    # A folder stays the same one, because a mount point can't be renamed.
    assert inode in (None, out.stat().st_ino)


@pytest.mark.parametrize("foreign", ["figures/mine.png", "chunks/mine.npz", ".hidden"])
def test_a_foreign_file_in_a_resumed_run_still_prevents_overwriting(finished, tmp_path, foreign):
    out = shutil.copytree(finished / "sweep", tmp_path / "copy")
    (out / foreign).write_text("mine")
    assert start("sweep", out, "--resume").returncode == 0
    before = folders.read(out)
    assert foreign in only_line(start("sweep", out, "--overwrite"))
    assert folders.read(out) == before


@both
def test_a_foreign_file_that_comes_during_a_run_is_kept(finished, tmp_path, monkeypatch, name):
    out = shutil.copytree(finished / name, tmp_path / "run")
    while_loading(monkeypatch, lambda: (out / "thesis.txt").write_text("mine"))
    assert "thesis.txt" in only_line(start(name, out, "--overwrite"))
    assert (out / "thesis.txt").read_text() == "mine"


def test_overwrite_replaces_an_unfinished_run(finished, tmp_path):
    out, complete = tmp_path / "run", folders.read(finished / "sweep")
    state = {name: complete[name] for name in complete if name.startswith(("started", "chunks"))}
    folders.write(state, out)
    done = start("sweep", out, "--overwrite", "--lam=0,0.5")
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(out / "sweep.csv").lam) == {0, 0.5}
    assert files(out) == files(finished / "sweep")


@both
def test_a_folder_is_locked_during_the_run(finished, tmp_path, monkeypatch, name):
    out = shutil.copytree(finished / name, tmp_path / "run")

    def lock():
        with pytest.raises(BlockingIOError):
            fcntl.flock(os.open(out, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)

    while_loading(monkeypatch, lock)
    assert start(name, out, "--overwrite").returncode == 0


def test_a_folder_that_another_process_makes_meanwhile_is_left_alone(tmp_path, monkeypatch):
    while_loading(monkeypatch, (tmp_path / "run").mkdir)
    assert "another process" in only_line(start("baseline", tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())


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
