"""A short part of the campaign on commands, and what it found."""

import gc
import json
import shutil
import signal
import time

import numpy as np
import pytest
from commands import QUICK, interrupt, only_line, run, run_process

from experiments.common import terminal
from experiments.common.resumable import BEGUN
from tests.campaign import corruption, folders, honest, kills, moments, privileges, surroundings
from tests.campaign.parts import folder

SWEEP = "experiments.sweep"


@pytest.fixture(scope="module")
def swept():
    """A sweep as the campaign has it."""
    with folder() as place, honest.reduced(), privileges.given_up():
        yield honest.run_honestly(SWEEP, honest.Path(place) / "sweep")


def resumed(of, left):
    """Goes on with what is left of a sweep, to the whole of it."""
    shutil.rmtree(of.out)
    folders.write(left, of.out)
    done = honest.run([*of.line, "--resume"])
    assert done.returncode == 0, done.stderr
    assert folders.difference(folders.read(of.out), of.whole) is None
    return done


@pytest.mark.parametrize("case", [corruption.case, moments.killed])
def test_a_sweep_goes_on_whatever_became_of_it(swept, case):
    failures = [case(np.random.default_rng((0, n)), {SWEEP: swept}) for n in range(8)]
    assert not list(filter(None, failures))


def test_a_kill_while_what_was_begun_is_put_aside_costs_nothing(swept):
    """The chunks stand without begun.json, which was put aside and isn't written again yet."""
    left = dict(swept.whole)
    left[f"unfit-{BEGUN}"] = left.pop(BEGUN)[:9]
    done = resumed(swept, left)
    assert "nothing to resume" not in done.stderr
    assert "4 runs" not in done.stderr  # no chunk is trained again


@pytest.mark.parametrize("name", ["sweep.csv", "result.json", "params.npz", "figures/heat_map.png"])
@pytest.mark.parametrize("instead", ["a pipe", "a link to nothing", "a link to a device"])
def test_what_has_the_name_of_a_record_is_not_written_into(swept, name, instead):
    shutil.rmtree(swept.out)
    folders.write(swept.whole, swept.out)
    corruption.OF_ALL[instead](np.random.default_rng(0), swept.out / name)
    done = honest.run([*swept.line, "--resume"])
    assert done.returncode == 0, done
    assert folders.difference(folders.read(swept.out), swept.whole) is None


@pytest.mark.parametrize("name", [".begun.json.partial", ".sweep.csv.partial-1"])
def test_what_a_kill_leaves_half_written_goes(swept, name):
    resumed(swept, swept.whole | {name: b"half"})


@pytest.mark.slow
def test_a_setting_of_none_has_to_be_among_what_was_begun():
    with folder() as place, honest.reduced():
        of = honest.run_honestly("experiments.probe", honest.Path(place) / "probe")
        begun = json.loads((of.out / BEGUN).read_text())
        assert begun.pop("n_folds") is None
        (of.out / BEGUN).write_text(json.dumps(begun))
        assert "was begun with other n_folds" in only_line(honest.run([*of.line, "--resume"]))


@pytest.mark.slow
def test_a_signal_after_the_end_says_nothing_of_what_is_written(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    )
    words = (*QUICK, f"--output_dir={tmp_path / 'run'}")
    done = run_process("experiments.baseline", *words, PYTHONPATH=str(tmp_path))
    assert done.returncode == -signal.SIGINT
    assert "written to" in done.stdout
    assert "interrupted" not in done.stderr


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost():
    ended, calls = [], []

    def callback(*_):
        calls.append(None)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    handlers = {number: signal.getsignal(number) for number in terminal.ENDING}
    gc.callbacks.append(callback)
    try:
        with terminal.interrupts() as came:
            gc.collect()
            time.sleep(10)
    except KeyboardInterrupt:
        ended.append(came)
    finally:
        gc.callbacks.remove(callback)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert set(*ended) == {signal.SIGINT}
    assert len(*ended) > 1


@pytest.mark.slow
def test_a_backend_that_is_not_known_is_one_line_or_none(tmp_path):
    words = ("experiments.baseline", *QUICK, f"--output_dir={tmp_path / 'run'}")
    for name in ("nonsense", "cuda"):  # JAX raises errors of different kinds
        done = run_process(*words, JAX_PLATFORMS=name)
        assert f"JAX has no device with JAX_PLATFORMS={name}" in only_line(done)
    assert not list(tmp_path.iterdir())
    assert run_process(*words, MPLBACKEND="nonsense").returncode == 0


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_can_be_interrupted(tmp_path):
    words = ("--distributed", "--coordinator=127.0.0.1:1", "--n_processes=2", "--process_id=1")
    words += (f"--output_dir={tmp_path / 'run'}",)
    done = interrupt("waiting for", "experiments.sweep", *words, by=signal.SIGTERM)
    assert done.returncode == moments.CODES[signal.SIGTERM]
    assert done.stderr.endswith("interrupted: nothing written\n")


def test_an_address_without_a_port_is_refused():
    words = ("--distributed", "--coordinator=there", "--n_processes=1", "--process_id=0")
    assert "has to be ADDRESS:PORT" in only_line(run("experiments.sweep", *words))


@pytest.mark.slow
def test_a_sweep_survives_kills(monkeypatch):
    monkeypatch.setattr(kills, "KILLS", 2)
    with folder() as place:
        of = kills.run_honestly(SWEEP, honest.Path(place) / "sweep")
        assert kills.killed(np.random.default_rng(0), {SWEEP: of}) is None


@pytest.mark.slow
def test_records_are_whole_in_any_surroundings(tmp_path):
    assert surroundings.case(np.random.default_rng(0), tmp_path) is None
