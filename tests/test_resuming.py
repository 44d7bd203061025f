"""--resume continues after any kill and any damage, to the bytes of an uninterrupted run."""

import json
import shutil
import signal

import numpy as np
import pytest

from experiments.common import folder
from tests.campaign import damage, folders, kills, privileges, small
from tests.commands import files, only_line, run, run_process
from tests.conftest import undrawn_figures

SWEEP, GRID, PATH, PROBE = (
    f"experiments.{name}" for name in ("sweep", "grid_search", "lambda_path", "probe")
)


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with undrawn_figures():
        yield


@pytest.fixture(scope="module", params=small.RESUMABLE)
def whole(request, tmp_path_factory):
    """An uninterrupted run of each command; a test may change its folder."""
    return small.run_uninterrupted(request.param, tmp_path_factory.mktemp("run") / "place")


def notes(done):
    return [line for line in done.stderr.splitlines() if line.startswith("note: ")]


def chunks_in(folder):
    return {name for name in folder if name.startswith("chunks/") and "partial" not in name}


# Kills.


def test_a_run_resumes_from_every_state_that_a_kill_could_leave(whole):
    """Eight of them; `python -m tests.campaign --only=killed` tries the others."""
    numbers = np.linspace(0, len(whole.states) - 1, 8).round().astype(int)
    for number in numbers:
        folders.write(whole.states[number], whole.out)
        assert whole.resume() is None, number


def test_a_process_that_is_killed_resumes_with_its_finished_chunks(whole):
    """It is killed while it writes its second chunk."""
    shutil.rmtree(whole.out)
    ends = {"END_AFTER_CHUNKS": "1", "END_WITH": "SIGKILL"}
    assert run_process("tests.campaign.program", *whole.line, **ends).returncode == -signal.SIGKILL
    left = folders.read(whole.out)
    (chunk,) = chunks_in(left)
    assert any("partial" in name for name in left)
    written = (whole.out / chunk).stat().st_mtime_ns
    assert whole.resume() is None
    assert (whole.out / chunk).stat().st_mtime_ns == written


@pytest.mark.parametrize("number", kills.CODES)
def test_an_interrupted_run_says_how_to_continue(whole, number):
    shutil.rmtree(whole.out)
    done = small.run(whole.line, interrupt_at="%]", by=number)
    assert done.returncode == kills.CODES[number]
    assert f"--resume --output_dir={whole.out}" in done.stderr.splitlines()[-1]
    assert whole.resume() is None


def test_a_run_resumes_after_signals_and_damage_of_any_kind(whole):
    runs = {whole.line[0]: whole}
    with privileges.given_up():
        for case in (kills.killed, damage.damaged):
            failures = [case(np.random.default_rng((0, n)), runs) for n in range(4)]
            assert not list(filter(None, failures))


# Chunks.


@pytest.fixture
def chunk(tmp_path):
    """A small chunk, and the run that it belongs to."""
    chunks = folder.chunks_of(tmp_path, {"lam": [0.1, 0.2, 0.3]})
    rows = np.array([0, 2])
    arrays = {"cost": np.array([0.5, 2.0]), "weights": np.arange(4, dtype="f4").reshape(2, 2)}
    folder.write_chunk(chunks, rows, **arrays)
    return chunks, {"rows": rows, **arrays}


def same(read, expected):
    return read.keys() == expected.keys() and all(
        (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        and np.array_equal(read[name], array)
        for name, array in expected.items()
    )


@pytest.mark.parametrize("bit", [2, 4])
def test_no_flipped_bit_of_a_chunk_gives_another_number(chunk, bit):
    """These make another digit of a shape: (2,) becomes (0,) or (6,)."""
    chunks, expected = chunk
    (path,) = chunks.folder.iterdir()
    content = path.read_bytes()
    n_refused = 0
    row = {name: array[1] for name, array in expected.items() if name != "rows"}
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        try:
            assert same(folder.read_row(chunks, 2), row), place
        except folder.FolderError:
            n_refused += 1
        assert all(same(read, expected) for read in folder.read_chunks(chunks)), place
    assert n_refused > len(content) / 2


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "not an archive": lambda path: path.write_bytes(b"PK and no more"),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_chunk_is_computed_again(whole, kind):
    folders.write(whole.whole, whole.out)
    path = min((whole.out / "chunks").iterdir())
    DAMAGE[kind](path)
    done = run(*whole.line, "--resume")
    assert done.returncode == 0, done.stderr
    assert any(f"{whole.out / 'chunks'}/0" in note for note in notes(done))
    assert folders.difference(folders.read(whole.out), whole.whole) is None


def test_a_chunk_of_another_run_is_computed_again(whole, tmp_path):
    other = {SWEEP: "--seed=1", GRID: "--n_epochs=2", PATH: "--tolerance=0.1"}
    line = [*whole.line[:-1], other.get(whole.line[0], "--loss=multi_bce")]
    assert run(*line, f"--output_dir={tmp_path / 'other'}").returncode == 0
    folders.write(whole.whole, whole.out)
    names = sorted(path.name for path in (whole.out / "chunks").iterdir())
    foreign = sorted((tmp_path / "other" / "chunks").iterdir())
    for name, path in zip(names, foreign, strict=False):
        shutil.copy(path, whole.out / "chunks" / name)
    done = run(*whole.line, "--resume")
    assert done.stderr.count("another run") >= min(len(names), len(foreign))
    assert folders.difference(folders.read(whole.out), whole.whole) is None


# started.json.

STARTED = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:9]),
    "a list": lambda path: path.write_bytes(b"[1]"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return small.run_uninterrupted(GRID, tmp_path_factory.mktemp("grid") / "place")


def times(run):
    return {path.name: path.stat().st_mtime_ns for path in (run.out / "chunks").iterdir()}


@pytest.mark.parametrize("kind", STARTED)
def test_chunks_are_used_although_the_settings_are_lost(grid, kind):
    folders.write(grid.whole, grid.out)
    before = times(grid)
    STARTED[kind](grid.out / "started.json")
    assert grid.resume() is None
    assert times(grid) == before


@pytest.mark.parametrize("machine", [None, {"versions": None}, {"n_devices": 64}])
def test_another_machine_is_a_note(grid, machine):
    folders.write(grid.whole, grid.out)
    started = json.loads((grid.out / "started.json").read_text()) | {"machine": machine}
    (grid.out / "started.json").write_text(json.dumps(started))
    done = run(*grid.line, "--resume")
    assert done.returncode == 0, done.stderr
    assert "n_devices" in "".join(notes(done))
    assert folders.difference(folders.read(grid.out), grid.whole) is None


def test_nothing_to_resume_is_a_note(grid):
    shutil.rmtree(grid.out)
    done = run(*grid.line, "--resume")
    assert "resume" in "".join(notes(done))
    assert folders.difference(folders.read(grid.out), grid.whole) is None


def test_resume_needs_a_folder():
    assert "--output_dir" in only_line(run(GRID, "--resume"))


# Other settings.

OTHER = {
    SWEEP: ("--lam=0", "--shuffle=false", "--n_epochs=2", "--seed=1", "--batch_size=10"),
    GRID: ("--lam=0", "--learning_rate=0.1", "--n_epochs=2", "--seed=1"),
    PATH: ("--lam=0.1", "--loss=multi_bce", "--n_folds=3", "--tolerance=1e-3", "--seed=1"),
    PROBE: ("--lam=0.1", "--loss=multi_bce", "--tolerance=1e-3", "--max_passes=9"),
}


def test_resume_with_another_setting_is_refused_and_names_it(whole):
    folders.write(whole.whole, whole.out)
    for word in OTHER[whole.line[0]]:
        name = word.removeprefix("--").split("=")[0]
        assert name in only_line(run(*whole.line, word, "--resume"))
    assert folders.read(whole.out) == whole.whole


def test_resume_with_other_data_is_refused(whole):
    folders.write(whole.whole, whole.out)
    word = "--test_fraction=0.3"
    assert "data" in only_line(run(*whole.line, word, "--resume"))
    assert folders.read(whole.out) == whole.whole


@pytest.mark.parametrize("finished", [True, False])
def test_another_choice_keeps_every_finished_row(whole, finished):
    words = ["--select=loss"]
    if whole.line[0] in (PATH, PROBE):
        words.append("--one_standard_error")
    state = whole.whole
    if not finished:
        state = next(state for state in whole.states if len(chunks_in(state)) >= 1)
    folders.write(state, whole.out)
    before = times(whole)
    done = run(*whole.line, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert times(whole).items() >= before.items()
    result = json.loads((whole.out / "result.json").read_text())
    assert "loss" in (result.get("chosen_by"), result["select"])
    expected = {name: whole.whole[name] for name in chunks_in(whole.whole)}
    assert {name: folders.read(whole.out)[name] for name in expected} == expected
    assert files(whole.out) == {name for name, content in whole.whole.items() if content}
