"""Whatever has become of what a command left, --resume gives what nothing had happened to."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from commands import only_line, run

from experiments.common import seals, store

pytestmark = pytest.mark.usefixtures("undrawn")
# Two chunks of one program, for each seed has an order of its own.
CHUNKS = (
    "--dataset=synthetic",
    "--shuffle",
    "--n_seeds=2",
    "--n_epochs=1",
    "--lam=0,0.1",
    "--learning_rate=0.01",
)


def sweep(out, *words):
    return run("experiments.sweep", *CHUNKS, *words, f"--output_dir={out}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "whole"
    done = sweep(out)
    assert done.returncode == 0, done.stderr
    assert len(list((out / "chunks").iterdir())) == 2
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed(**changes):
    """The arrays of a chunk, some of them changed and without its last lines."""

    def change(path):
        with np.load(path) as part:
            path.write_bytes(saved(**{**part, **{n: f(part[n]) for n, f in changes.items()}}))

    return change


def damaged(damage):
    return lambda path: path.write_bytes(damage(path.read_bytes()))


def replaced(make):
    def replace(path):
        path.unlink()
        make(path)

    return replace


def flipped(place):
    def flip(content):
        content = bytearray(content)
        content[place] ^= 4
        return bytes(content)

    return damaged(flip)


def folder_of_one(path):
    path.mkdir()
    (path / "mine").write_text("mine")


ANY_FILE = {
    "empty": damaged(lambda content: b""),
    "cut": damaged(lambda content: content[: len(content) // 2]),
    "noise": damaged(lambda content: np.random.default_rng(0).bytes(len(content))),
    "a folder": replaced(folder_of_one),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a pipe": replaced(os.mkfifo),
}
CHUNK = ANY_FILE | {
    "without its last byte": damaged(lambda content: content[:-1]),
    "a bit of its first bytes": flipped(6),
    "a bit in the middle": flipped(5000),
    "a bit of its names": flipped(-400),
    "a bit of its checksum": flipped(-20),
    "an .npy": damaged(lambda content: np.zeros(3).tobytes()),
    "nothing in it": damaged(lambda content: saved()),
    "rows of -1": changed(rows=lambda rows: rows * 0 - 1),
    "rows swapped": changed(rows=lambda rows: rows[::-1]),
    "rows of bool": changed(rows=lambda rows: rows > 0),
    "accuracies of 7": changed(test_accuracy=lambda values: values * 0 + 7),
    "weights of another shape": changed(weights=lambda values: values[..., :7]),
}
BEGUN = ANY_FILE | {
    "not UTF-8": damaged(lambda content: b"\xff\xfe"),
    "a list": damaged(lambda content: b"[1]"),
    "null": damaged(lambda content: b"null"),
    "deep": damaged(lambda content: b"[" * 100_000),
}


def check_same(out, whole):
    for path in [*whole.glob("*.csv"), *whole.glob("*.npz"), *whole.glob("chunks/*")]:
        assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("damage", CHUNK.values(), ids=CHUNK)
def test_a_chunk_that_does_not_fit_is_trained_again(copy, whole, damage):
    damage(min((copy / "chunks").iterdir()))
    (copy / "sweep.csv").unlink()
    done = sweep(copy, "--resume")
    assert done.returncode == 0, done.stderr
    (note,) = (line for line in done.stderr.splitlines() if "made again" in line)
    assert "chunks/000000-" in note
    check_same(copy, whole)


def test_a_chunk_of_another_sweep_under_the_same_name_is_trained_again(copy, whole, tmp_path):
    other = tmp_path / "other"
    assert sweep(other, "--learning_rate=0.1").returncode == 0
    for path in (other / "chunks").iterdir():
        shutil.copy(path, copy / "chunks")
    done = sweep(copy, "--resume")
    assert done.stderr.count("is of something else: kept as unfit-") == 2
    check_same(copy, whole)


@pytest.mark.parametrize("damage", BEGUN.values(), ids=BEGUN)
def test_what_was_begun_can_be_lost_and_the_chunks_are_still_used(copy, whole, damage):
    damage(copy / "begun.json")
    times = {path: path.stat().st_mtime_ns for path in (copy / "chunks").iterdir()}
    done = sweep(copy, "--resume")
    assert done.returncode == 0, done.stderr
    assert "begun.json can't be read" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (copy / "chunks").iterdir()} == times
    assert json.loads((copy / "begun.json").read_text())["seeds"] == [0, 2]
    check_same(copy, whole)


@pytest.mark.parametrize("machine", [None, 3, {}, {"versions": None}])
def test_a_machine_that_is_not_told_is_another_one(copy, machine):
    begun = json.loads((copy / "begun.json").read_text()) | {"machine": machine}
    (copy / "begun.json").write_text(json.dumps(begun))
    done = sweep(copy, "--resume")
    assert done.returncode == 0, done.stderr
    assert "note: begun with" in done.stderr


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), os.mkfifo])
def test_chunks_that_are_no_folder_are_put_aside(copy, whole, make):
    shutil.rmtree(copy / "chunks")
    make(copy / "chunks")
    done = sweep(copy, "--resume")
    assert done.returncode == 0, done.stderr
    assert "chunks is no folder: kept as unfit-chunks" in done.stderr
    check_same(copy, whole)


def test_what_is_put_aside_twice_is_the_last(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "part").write_text(content)
        seals.put_aside(tmp_path / "part", "is damaged")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["second"]


def test_nothing_to_resume_is_said(tmp_path):
    done = sweep(tmp_path / "nothing", "--resume")
    assert done.returncode == 0
    assert "nothing holds nothing to resume: begun anew" in done.stderr


def test_resume_without_a_folder_is_refused():
    assert "--resume needs --output_dir" in only_line(run("experiments.sweep", "--resume"))


def test_a_write_that_fails_without_a_way_to_clean_up_is_one_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(store.RecordError, match="Read-only file system; what is finished before"):
        store.write(tmp_path, [0], values=np.zeros(1))


def test_a_row_that_is_damaged_meanwhile_is_not_believed(tmp_path):
    store.write(tmp_path, [0, 1], values=np.arange(2))
    assert store.read_row(tmp_path, 1) == {"values": 1}
    flipped(200)(tmp_path / "000000-000001.npz")
    with pytest.raises(store.RecordError, match="holds nothing of row 1: --resume does it again"):
        store.read_row(tmp_path, 1)


SEALED = ANY_FILE | {"of another size": damaged(lambda content: content + b"\n")}


@pytest.mark.parametrize("name", ["result.json", "figures/a.png", seals.SEAL])
@pytest.mark.parametrize("damage", SEALED.values(), ids=SEALED)
def test_a_part_of_a_report_is_known_to_be_whole(tmp_path, name, damage):
    (tmp_path / "figures").mkdir()
    (tmp_path / "result.json").write_text('{"test_accuracy": 0.3}')
    (tmp_path / "figures/a.png").write_bytes(b"a picture")
    seals.seal(tmp_path, "this")
    assert not seals.unfit(tmp_path, "this")
    assert seals.unfit(tmp_path, "that") == "is of something else"
    damage(tmp_path / name)
    if name != seals.SEAL or damage is not SEALED["of another size"]:
        assert "is damaged" in seals.unfit(tmp_path, "this")


@pytest.mark.parametrize("change", ["an entry more", "an entry less"])
def test_a_part_with_other_files_is_damaged(tmp_path, change):
    (tmp_path / "result.json").write_text("{}")
    seals.seal(tmp_path, "this")
    if change == "an entry less":
        (tmp_path / "result.json").unlink()
    else:
        (tmp_path / "grid_by_seed.csv").write_text("")
    assert seals.unfit(tmp_path, "this") == "is damaged"


@pytest.mark.parametrize("link_to", ["there", "not/there"])
def test_a_sweep_can_stand_where_a_link_leads(tmp_path, link_to):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(link_to)
    done = sweep(tmp_path / "link")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / link_to / "sweep.csv").exists()
    assert sweep(tmp_path / "link", "--resume").returncode == 0


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    assert "File name too long" in only_line(sweep(tmp_path / ("x" * 300)))
