"""Commands that end by signals at any moment, and --resume afterwards."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from tests import commands
from tests.campaign import folders, small
from tests.campaign.folders import Folder

Random = np.random.Generator
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
N_KILLS = 4  # in a row
# In a process of its own, with the signals as a shell leaves them.
PROGRAM = (
    *("env", "--default-signal=INT,TERM,HUP"),
    *(sys.executable, "-m", "tests.campaign.program"),
)
_OURS = tuple(str(commands.ROOT / name) for name in ("linear_cifar", "experiments"))


# In this process.


def half_written(rng: Random, before: Folder, after: Folder) -> Folder:
    """A state, with the first bytes of the file that is written next."""
    state = dict(before)
    changed = sorted(name for name in after if after[name] != before.get(name))
    if changed and (content := after[changed[0]]) and str(Path(changed[0]).parent) in (".", *state):
        state[changed[0]] = content[: rng.integers(len(content))]
    return state


def killed(rng: Random, runs: dict[str, small.Run]) -> str | None:
    """SIGKILLs: a run is resumed from a state that one could leave, perhaps twice."""
    name = rng.choice(list(runs))
    run, text = runs[name], name
    states = run.states
    for _ in range(1 + rng.binomial(1, 0.3)):
        number = int(rng.integers(len(states)))
        state, following = states[number], states[min(number + 1, len(states) - 1)]
        state = half_written(rng, state, following) if rng.random() < 0.5 else state
        text += f", killed in state {number} of {len(states)}"
        folders.write(state, run.out)
        with folders.every_state(run.out) as states:
            wrong = run.resume()
        if wrong:
            return f"{text}: {wrong}"
    return None


class _Calls:
    """A profiler that counts calls and returns of the project's functions, and signals at one."""

    def __init__(self, at: int | None = None, number: int = 0) -> None:
        self.n, self._at, self._number = 0, at, number

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        # Before and after a command handles signals, they end its process.
        handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if handled and frame.f_code.co_filename.startswith(_OURS):
            self.n += 1
            if self.n == self._at:
                signal.raise_signal(self._number)

    def run(self, run: small.Run) -> commands.Done:
        """Runs a command from the start."""
        folders.write({}, run.out)
        run.out.rmdir()
        sys.setprofile(self)
        try:
            return small.run(run.line)
        finally:
            sys.setprofile(None)


@contextlib.contextmanager
def counted_runs(place: Path) -> Iterator[dict[str, tuple[small.Run, int]]]:
    """Runs by command, each with the number of its calls once everything is compiled."""
    with small.uninterrupted_runs(place, tuple(small.COMMANDS)) as runs:
        counted = {}
        for name, run in runs.items():
            calls = _Calls()
            calls.run(run)
            counted[name] = run, calls.n
        yield counted


def signalled(rng: Random, runs: dict[str, tuple[small.Run, int]]) -> str | None:
    """A signal at any call gives its exit code and a line, and costs nothing but time."""
    name = rng.choice(list(runs))
    run, n_calls = runs[name]
    number, at = rng.choice(list(CODES)), int(rng.integers(1, n_calls + 1))
    text = f"{name}, {signal.Signals(number).name} at call {at} of {n_calls}"
    done = _Calls(at, int(number)).run(run)
    if done.returncode not in (0, CODES[number]) or (
        done.returncode and "interrupted" not in done.stderr
    ):
        return f"{text}: exit code {done.returncode}: {done.stderr}"
    beside = {path.name for path in run.out.parent.iterdir()} - {"data.npz", run.out.name}
    if beside:
        return f"{text}: {', '.join(beside)} is left over"
    if name in small.RESUMABLE:
        wrong = run.resume()
        return f"{text}: {wrong}" if wrong else None
    if run.out.exists():
        commands.check_every_file(run.out)
    return None


# In processes of their own.


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    errors: str


class ProcessRun(NamedTuple):
    """An uninterrupted run in processes of its own."""

    line: list[str]
    out: Path
    whole: Folder
    seconds: float

    def resume(self) -> str | None:
        """Resumes the folder as it is now; how the result differs from the whole run."""
        ended = _run([*self.line, "--resume"])
        if ended.code:
            return f"exit code {ended.code} in the end: {ended.errors}"
        return folders.difference(folders.read(self.out), self.whole)


def _run(line: Sequence[str], after: float = 0, number: int = 0) -> Ended:
    """Runs a command, and sends it a signal after some seconds; none if that is 0."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    settings = {"cwd": commands.ROOT, "env": commands.environment(), **streams}
    with subprocess.Popen([*PROGRAM, *line], **settings) as process:
        if number:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    return Ended(process.returncode, errors)


def run_uninterrupted(name: str, place: Path) -> ProcessRun:
    """Runs a command twice, because the first time compiles."""
    place.mkdir()
    out = place / "out"
    line = small.words(name, small.write_data(place), out)
    for words in (line, [*line, "--overwrite"]):
        started = time.monotonic()
        ended = _run(words)
        assert ended.code == 0, ended.errors
    return ProcessRun(line, out, folders.read(out), time.monotonic() - started)


@contextlib.contextmanager
def process_runs(place: Path) -> Iterator[dict[str, ProcessRun]]:
    """Runs by command, each in a process of its own."""
    yield {name: run_uninterrupted(name, place / name) for name in small.RESUMABLE}


def _badly_ended(ended: Ended, number: int) -> str | None:
    """What is wrong with the end of a process that got a signal; None if nothing is."""
    if ended.code not in (0, -number, CODES.get(number)):
        return f"exit code {ended.code}: {ended.errors}"
    if ended.code == CODES.get(number) and "interrupted" not in ended.errors:
        return f"it says nothing: {ended.errors}"
    # A signal during Python's own start gives Python's own traceback.
    if "Traceback" in ended.errors and str(commands.ROOT) in ended.errors:
        return ended.errors
    return None


def process_killed(rng: Random, runs: dict[str, ProcessRun]) -> str | None:
    """Signals to processes again and again at random, half of them SIGKILLs."""
    name = rng.choice(list(runs))
    run, text = runs[name], name
    folders.write({}, run.out)
    for _ in range(N_KILLS):
        number = int(rng.choice([*CODES, *[signal.SIGKILL] * 3]))
        after = float(rng.uniform(0, run.seconds))
        text += f", {signal.Signals(number).name} after {after:.2f} s"
        ended = _run([*run.line, "--resume"], after, number)
        if wrong := _badly_ended(ended, number):
            return f"{text}: {wrong}"
    wrong = run.resume()
    return f"{text}: {wrong}" if wrong else None
