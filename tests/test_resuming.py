"""--resume continues after any kill and any damage, to the bytes of an uninterrupted run."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from experiments.common import folder
from tests import folders, tiny
from tests.commands import CODES, ROOT, few_examples, files, only_line, run, start

PROJECT = tuple(str(ROOT / name) for name in ("linear_cifar", "experiments"))
CHUNK, SECOND = "chunks/000000-000002.npz", "chunks/000001-000003.npz"


@pytest.fixture(scope="module", autouse=True)
def _reduced():
    with tiny.reduced():
        yield


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return tiny.run_whole("sweep", tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.run_whole("lambda_path", tmp_path_factory.mktemp("path"))


def notes(done):
    return "".join(line for line in done.stderr.splitlines() if line.startswith("note: "))


def times(whole):
    return {path.name: path.stat().st_mtime_ns for path in (whole.out / "chunks").iterdir()}


def restore(whole, state=None):
    folders.write(whole.files if state is None else state, whole.out)


# Kills.


@pytest.mark.parametrize("name", ["sweep", pytest.param("path", marks=pytest.mark.slow)])
def test_a_run_resumes_from_every_state_that_a_kill_could_leave(request, name):
    whole = request.getfixturevalue(name)
    assert len(whole.states) > len(whole.files)
    for state in whole.states:
        restore(whole, state)
        whole.resume()


@few_examples(5)
@given(st.lists(st.tuples(st.integers(0), st.floats(0, 1)), min_size=2, max_size=2))
def test_a_run_resumes_after_two_kills_that_leave_half_a_file(sweep, kills):
    states = sweep.states
    for number, share in kills:
        i = number % (len(states) - 1)
        state, following = dict(states[i]), states[i + 1]
        for name, content in following.items():
            if content and content != state.get(name) and str(Path(name).parent) in (".", *state):
                state[name] = content[: int(share * len(content))]
        restore(sweep, state)
        with folders.every_state(sweep.out) as states:
            sweep.resume()


@pytest.mark.slow
@few_examples(1)
@given(st.floats(0, 1), st.sampled_from([signal.SIGKILL, *CODES]))
@example(0.0, signal.SIGKILL)
def test_a_process_that_gets_a_signal_during_its_work_can_be_resumed(sweep, seconds, number):
    shutil.rmtree(sweep.out)
    process = start("tests.programs.small_sweep", *sweep.line[1:])
    while process.poll() is None and not list(sweep.out.glob("chunks/[0-9]*")):
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    # After its end Python handles no signal.
    assert process.returncode in (0, -number, CODES.get(number)), errors
    assert process.returncode != CODES.get(number) or "interrupted" in errors
    before = times(sweep)
    sweep.resume()
    chunks = {name for name in before if "partial" not in name}
    assert chunks
    assert {name: times(sweep)[name] for name in chunks} == {name: before[name] for name in chunks}


class Calls:
    """A profiler that counts calls and returns of the project's functions, and signals at one."""

    def __init__(self, at=0, number=0):
        self.n, self._at, self._number = 0, at, number

    def __call__(self, frame, *_):
        handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if handled and frame.f_code.co_filename.startswith(PROJECT):
            self.n += 1
            if self.n == self._at:
                signal.raise_signal(self._number)

    def start(self, whole):
        shutil.rmtree(whole.out, ignore_errors=True)
        sys.setprofile(self)
        try:
            return run(*whole.line)
        finally:
            sys.setprofile(None)


@pytest.fixture(scope="module")
def n_calls(sweep):
    calls = Calls()
    calls.start(sweep)
    return calls.n


@pytest.mark.slow
@few_examples(4)
@given(st.integers(0), st.sampled_from(sorted(CODES)))
def test_a_signal_at_any_call_has_its_exit_code_and_costs_nothing(sweep, n_calls, place, number):
    done = Calls(1 + place % n_calls, number).start(sweep)
    assert done.returncode in (0, CODES[number])
    assert done.returncode == 0 or "interrupted" in done.stderr
    assert {path.name for path in sweep.out.parent.iterdir()} <= {"out"}
    sweep.resume()


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


def test_no_flipped_bit_of_a_chunk_gives_another_number(chunk):
    chunks, expected = chunk
    (path,) = chunks.folder.iterdir()
    content = path.read_bytes()
    n_refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        read = list(folder.read_chunks(chunks))
        assert all(same(arrays, expected) for arrays in read), place
        n_refused += not read
    assert n_refused > len(content) / 2


def test_a_damaged_shape_of_a_large_array_is_noticed(chunk):
    """NumPy reads fewer numbers then, and compares no checksum."""
    chunks, expected = chunk
    (path,) = chunks.folder.iterdir()
    folder.write_chunk(chunks, expected["rows"], weights=np.ones((2, 3000)))
    path.write_bytes(path.read_bytes().replace(b"(2, 3000)", b"(2, 1000)"))
    assert not list(folder.read_chunks(chunks))


@pytest.mark.parametrize("damage", [b"", b"PK and no more", "a link to nothing"])
def test_a_damaged_chunk_is_computed_again_and_a_note_names_it(sweep, damage):
    restore(sweep)
    before = times(sweep)
    damage_file(sweep.out / CHUNK, damage)
    assert CHUNK in notes(sweep.resume())
    assert times(sweep)[Path(SECOND).name] == before[Path(SECOND).name]


def test_chunks_of_another_run_are_computed_again(sweep, tmp_path):
    assert run(*tiny.words("sweep", tmp_path), "--seed=1").returncode == 0
    restore(sweep)
    shutil.copytree(tmp_path / "chunks", sweep.out / "chunks", dirs_exist_ok=True)
    assert notes(sweep.resume()).count("another run") == len(list((tmp_path / "chunks").iterdir()))


# started.json.


@pytest.mark.parametrize("content", [b'{"exp', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_chunks_are_used_although_the_settings_are_lost(sweep, content):
    restore(sweep)
    before = times(sweep)
    (sweep.out / "started.json").write_bytes(content)
    sweep.resume()
    assert times(sweep) == before


@pytest.mark.parametrize("machine", [None, {"n_devices": 64}])
def test_another_machine_is_a_note(sweep, machine):
    restore(sweep)
    started = json.loads((sweep.out / "started.json").read_text()) | {"machine": machine}
    (sweep.out / "started.json").write_text(json.dumps(started))
    assert "n_devices" in notes(sweep.resume())


def test_nothing_to_resume_is_a_note(sweep):
    shutil.rmtree(sweep.out)
    assert "nothing to resume" in notes(sweep.resume())


def test_resume_needs_a_folder():
    assert "--output_dir" in only_line(run("experiments.sweep", "--resume"))


def test_figures_of_an_earlier_format_go(sweep, tmp_path):
    out = tmp_path / "copy"  # because this process knows what it wrote into the other folder
    folders.write(sweep.files, out)
    before = files(out)
    done = run(*tiny.words("sweep", out), "--resume", "--figure_format=pdf")
    assert done.returncode == 0, done.stderr
    assert files(out) == {name.replace(".png", ".pdf") for name in before}


# Any file.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=4,
)
NAMES = ("started.json", "result.json", CHUNK, "sweep.csv", "params.npz")
KEYS = ("experiment", "machine", "files", "data", "lam", "seed")
INSTEAD = {
    "nothing": lambda path: None,
    "a folder": lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "no permission": lambda path: (path.write_text("mine"), path.chmod(0)),
}


def damage_file(path, damage):
    """Puts bytes or something else in the place of a file, of a part, or of a JSON value."""
    content = path.read_bytes()
    if isinstance(damage, str):
        path.unlink()
        INSTEAD[damage](path)
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    elif isinstance(damage, dict):
        value = json.loads(content) if path.suffix == ".json" else {}
        path.write_text(json.dumps(value | damage))
    else:
        start, length, new = damage
        start %= len(content) + 1
        path.write_bytes(content[:start] + new + content[start + length :])


@few_examples(10)
@given(
    name=st.sampled_from(NAMES),
    damage=st.tuples(st.integers(0), st.integers(0, 99), st.binary(max_size=9))
    | st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=1)
    | st.sampled_from(sorted(INSTEAD)),
)
@example("started.json", {"lam": "\ud800\n"})
@example("started.json", {"seed": 10**400})
@example("result.json", {"files": [[]]})
@example(CHUNK, "a folder")
def test_a_damaged_file_gives_the_same_bytes_or_one_line(sweep, name, damage):
    restore(sweep)
    damage_file(sweep.out / name, damage)
    with folders.permissions_apply():
        done = run(*sweep.line, "--resume")
    if done.returncode:
        only_line(done)
        assert name != CHUNK or isinstance(damage, str)  # it is computed again
    else:
        folders.assert_same(folders.read(sweep.out), sweep.files)


# Other settings.

OTHER = {
    "sweep": ("--lam=0", "--shuffle=false", "--n_epochs=2", "--seed=1", "--batch_size=10"),
    "grid_search": ("--lam=0", "--learning_rate=0.1", "--n_epochs=2", "--seed=1"),
    "lambda_path": ("--lam=0.1", "--loss=multi_bce", "--n_folds=3", "--tolerance=1e-3", "--seed=1"),
    "probe": ("--lam=0.1", "--loss=multi_bce", "--tolerance=1e-3", "--max_passes=9"),
}


@pytest.mark.parametrize("name", OTHER)
def test_resume_with_another_setting_is_refused_and_names_it(tmp_path, monkeypatch, name):
    line = tiny.words(name, tmp_path / "run")
    with monkeypatch.context() as patch:  # it ends once it is started
        patch.setattr(folder, "chunks_of", mock.Mock(side_effect=KeyboardInterrupt))
        assert run(*line).returncode == 130
    before = folders.read(tmp_path)
    assert set(before) == {"run", "run/started.json"}
    for word in OTHER[name]:
        flag = word.strip("-").split("=")[0]
        assert flag in only_line(run(*line, word, "--resume"))
    assert "data" in only_line(run(*line, "--test_fraction=0.3", "--resume"))
    assert folders.read(tmp_path) == before


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", ["sweep", pytest.param("path", marks=pytest.mark.slow)])
def test_another_choice_keeps_every_finished_row(request, name, complete):
    whole = request.getfixturevalue(name)
    words = ["--select=loss", *(["--one_standard_error"] if name == "path" else [])]
    chunks = {name for name in whole.files if name.startswith("chunks/")}
    unfinished = (state for state in whole.states if chunks & set(state))
    restore(whole, whole.files if complete else next(unfinished))
    before = times(whole)
    done = run(*whole.line, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert times(whole).items() >= before.items()
    result = json.loads((whole.out / "result.json").read_text())
    assert "loss" in (result.get("chosen_by"), result["select"])
    after = folders.read(whole.out)
    assert {name: after[name] for name in chunks} == {name: whole.files[name] for name in chunks}
    assert files(whole.out) == {name for name, content in whole.files.items() if content}
