"""--resume continues after any kill and any damage, to the bytes of an uninterrupted run."""

import json
import shutil
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from experiments.common import folder
from tests import folders, tiny
from tests.commands import CODES, ROOT, few_examples, only_line, result, run

PROJECT = tuple(str(ROOT / name) for name in ("linear_cifar", "experiments"))
DAMAGED, FOREIGN = "chunks/000000-000002.npz", "chunks/000001-000003.npz"


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
    """The notes on stderr, as one text."""
    return "".join(line for line in done.stderr.splitlines() if line.startswith("note: "))


def write_times(finished):
    return {path.name: path.stat().st_mtime_ns for path in (finished.out / "chunks").iterdir()}


@pytest.mark.parametrize("name", ["sweep", pytest.param("path", marks=pytest.mark.slow)])
def test_a_run_resumes_from_every_state_that_a_kill_could_leave(request, name):
    finished = request.getfixturevalue(name)
    assert len(finished.states) > len(finished.files)
    for state in finished.states:
        folders.write(state, finished.out)
        finished.resume()


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
        folders.write(state, sweep.out)
        with folders.every_state(sweep.out) as states:
            sweep.resume()


def signalled(finished, at=0, number=0):
    """Runs the command, with a signal at call or return `at` of our functions; and counts those."""
    n = 0

    def profile(frame, *_):
        nonlocal n
        handled = all(signal.getsignal(each) is not signal.SIG_DFL for each in CODES)
        if handled and frame.f_code.co_filename.startswith(PROJECT):
            n += 1
            if n == at:
                signal.raise_signal(number)

    shutil.rmtree(finished.out, ignore_errors=True)
    sys.setprofile(profile)
    try:
        return run(*finished.line), n
    finally:
        sys.setprofile(None)


@pytest.fixture(scope="module")
def n_calls(sweep):
    return signalled(sweep)[1]


@pytest.mark.slow
@few_examples(4)
@given(st.integers(0), st.sampled_from(sorted(CODES)))
def test_a_signal_at_any_call_has_its_exit_code_and_costs_nothing(sweep, n_calls, place, number):
    done, _ = signalled(sweep, 1 + place % n_calls, number)
    assert done.returncode in (0, CODES[number])
    assert done.returncode == 0 or "interrupted" in done.stderr
    assert {path.name for path in sweep.out.parent.iterdir()} <= {"out"}
    sweep.resume()


def test_a_flipped_bit_in_any_byte_of_a_chunk_never_gives_another_number(tmp_path):
    chunks = folder.chunks_of(tmp_path, {"lam": [0.1, 0.2, 0.3]})
    weights = np.arange(4, dtype="f4").reshape(2, 2)
    folder.write_chunk(chunks, np.array([0, 2]), weights=weights)
    (path,) = chunks.folder.iterdir()
    content, n_refused = path.read_bytes(), 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        parts = list(folder.read_chunks(chunks))
        for part in parts:
            assert part.keys() == {"rows", "weights"}
            assert part["rows"].tolist() == [0, 2]
            assert part["weights"].dtype == np.float32
            np.testing.assert_array_equal(part["weights"], weights)
        n_refused += not parts
    assert n_refused > len(content) / 2


def test_a_damaged_shape_of_a_large_array_is_noticed(tmp_path):
    """NumPy reads fewer numbers then, and compares no checksum."""
    chunks = folder.chunks_of(tmp_path)
    folder.write_chunk(chunks, np.array([0, 2]), weights=np.ones((2, 3000)))
    (path,) = chunks.folder.iterdir()
    path.write_bytes(path.read_bytes().replace(b"(2, 3000)", b"(2, 1000)"))
    assert not list(folder.read_chunks(chunks))


def test_a_damaged_or_foreign_chunk_is_computed_again_and_a_note_names_it(sweep, tmp_path):
    assert run(*tiny.words("sweep", tmp_path), "--seed=1").returncode == 0
    folders.write(sweep.files, sweep.out)
    (sweep.out / DAMAGED).write_bytes(b"PK and no more")
    shutil.copy(tmp_path / FOREIGN, sweep.out / FOREIGN)
    lines = notes(sweep.resume())
    assert DAMAGED in lines
    assert FOREIGN in lines


@pytest.mark.parametrize("content", [b'{"exp', b"[1]", b"[" * 100_000])
def test_chunks_are_used_even_if_the_settings_are_lost(sweep, content):
    folders.write(sweep.files, sweep.out)
    before = write_times(sweep)
    (sweep.out / "started.json").write_bytes(content)
    sweep.resume()
    assert write_times(sweep) == before


def test_resuming_on_another_machine_prints_a_note(sweep):
    folders.write(sweep.files, sweep.out)
    started = json.loads(sweep.files["started.json"]) | {"machine": {"n_devices": 64}}
    (sweep.out / "started.json").write_text(json.dumps(started))
    assert "n_devices" in notes(sweep.resume())


JSON = st.none() | st.integers() | st.floats() | st.text(max_size=3)
JSON |= st.lists(JSON, max_size=2) | st.dictionaries(st.text(), st.lists(JSON), max_size=2)
NAMES = ("started.json", "result.json", DAMAGED, "sweep.csv", "params.npz")
KEYS = ("experiment", "machine", "files", "data", "lam", "seed")
INSTEAD = {
    "nothing": lambda path: None,
    "a folder": lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "no permission": lambda path: (path.write_text("mine"), path.chmod(0)),
}


@few_examples(6)
@given(
    name=st.sampled_from(NAMES),
    damage=st.tuples(st.integers(0), st.integers(0, 99), st.binary(max_size=9))
    | st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=1)
    | st.sampled_from(sorted(INSTEAD)),
)
@example("started.json", {"lam": "\ud800\n"})
@example("started.json", {"seed": 10**400})
@example("result.json", {"files": [[]]})
@example(DAMAGED, "a folder")
def test_a_damaged_file_gives_the_same_bytes_or_one_line(sweep, name, damage):
    folders.write(sweep.files, sweep.out)
    path, content = sweep.out / name, sweep.files[name]
    if isinstance(damage, str):
        path.unlink()
        INSTEAD[damage](path)
    elif isinstance(damage, dict):
        value = json.loads(content) if path.suffix == ".json" else {}
        path.write_text(json.dumps(value | damage))
    else:
        start, length, new = damage
        start %= len(content) + 1
        path.write_bytes(content[:start] + new + content[start + length :])
    with folders.permissions_apply():
        done = run(*sweep.line, "--resume")
    if done.returncode:
        only_line(done)
        assert name != DAMAGED or isinstance(damage, str)  # it is computed again
    else:
        folders.assert_same(folders.read(sweep.out), sweep.files)


OTHER = {
    "sweep": ("--lam=0", "--shuffle=false", "--n_epochs=2", "--seed=1", "--batch_size=10"),
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


def test_another_select_keeps_every_finished_row(sweep):
    chunks = {name for name in sweep.files if name.startswith("chunks/")}
    folders.write(next(state for state in sweep.states if chunks & set(state)), sweep.out)
    before = write_times(sweep)
    assert run(*sweep.line, "--select=loss", "--resume").returncode == 0
    assert write_times(sweep).items() >= before.items()
    assert result(sweep.out)["select"] == "loss"
    after = folders.read(sweep.out)
    assert {name: after[name] for name in chunks} == {name: sweep.files[name] for name in chunks}
