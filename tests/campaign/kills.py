"""Processes end by signals, again and again until one ends by itself; nothing is lost by it."""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests import commands
from tests.campaign import folders, honest
from tests.campaign.folders import Folder
from tests.campaign.moments import CODES
from tests.campaign.parts import Part

KILLS = 4  # of a case
# With the signals as a shell leaves them, whoever runs the campaign.
PROGRAM = (
    "env",
    "--default-signal=INT,TERM,HUP",
    sys.executable,
    "-m",
    "tests.campaign.program",
)
DISTRIBUTED = ("experiments.lambda_path", "experiments.probe")
LOST_SECONDS = 2  # of --heartbeat_seconds
LOST_WITHIN = 60  # seconds, in which a process has to end after another one
LOST = re.compile(
    "^error: (another process was lost|cannot join the other processes)", re.MULTILINE
)
Random = np.random.Generator


class Honest(NamedTuple):
    """What a command leaves in a process of its own, and how long that takes."""

    line: list[str]
    out: Path
    whole: Folder
    seconds: float


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # below 0 if a signal ended it
    errors: str
    seconds: float  # since the last signal that it was sent, or its start


def _start(line: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *line],
        cwd=commands.ROOT,
        env=commands.environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _end(
    processes: Sequence[subprocess.Popen[str]], signals: Sequence[tuple[float, int, int]]
) -> list[Ended]:
    """Sends signals, each after some seconds to a process by its place; awaits all ends."""
    begun = last = time.monotonic()
    with contextlib.ExitStack() as ending:
        for process in processes:
            ending.callback(process.kill)
        for after, place, number in sorted(signals):
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[place].wait(max(begun + after - time.monotonic(), 0))
            if processes[place].poll() is None:
                processes[place].send_signal(number)
                last = time.monotonic()
        ended = []
        for process in processes:
            _, errors = process.communicate(timeout=90)
            ended.append(Ended(process.returncode, errors, time.monotonic() - last))
        return ended


@contextlib.contextmanager
def _each(place: Path) -> Iterator[dict[str, Honest]]:
    """Every command that can be gone on with: run to its end, once more where that compiled."""
    yield {name: run_honestly(name, place / name) for name in honest.RESUMABLE}


def run_honestly(name: str, place: Path, n_processes: int = 1) -> Honest:
    place.mkdir()
    out = place / "out"
    line = honest.words(name, honest.make_data(place), out)
    for _ in range(2):
        shutil.rmtree(out, ignore_errors=True)
        begun = time.monotonic()
        for ended in _end(_started(line, n_processes), []):
            assert ended.code == 0, ended.errors
        seconds = time.monotonic() - begun
    return Honest(line, out, folders.read(out), seconds)


def _started(line: list[str], n_processes: int) -> list[subprocess.Popen[str]]:
    if n_processes == 1:
        return [_start(line)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = (
        *line,
        "--distributed",
        f"--coordinator=127.0.0.1:{port}",
        f"--n_processes={n_processes}",
        f"--heartbeat_seconds={LOST_SECONDS}",
    )
    return [_start([*joined, f"--process_id={i}"]) for i in range(n_processes)]


def _go_on_to_the_end(of: Honest, n_processes: int = 1) -> str | None:
    """What is wrong with what comes of a folder in the end."""
    for ended in _end(_started([*of.line, "--resume"], n_processes), []):
        if ended.code:
            return f"exit code {ended.code} in the end: {ended.errors}"
    return folders.difference(folders.read(of.out), of.whole)


def _case(rng: Random, of: Honest, by: Sequence[int]) -> str | None:
    """Signals at any moments, and the same command with --resume each time."""
    shutil.rmtree(of.out, ignore_errors=True)
    what = ""
    for _ in range(KILLS):
        number, after = int(rng.choice(by)), float(rng.uniform(0, of.seconds))
        what += f"{signal.Signals(number).name} after {after:.2f} s, "
        again = [(after + float(rng.exponential(0.1)), 0, number)] if rng.random() < 0.2 else []
        (ended,) = _end(_started([*of.line, "--resume"], 1), [(after, 0, number), *again])
        if wrong := _badly_ended(ended, number, bool(again)):
            return f"{what}{wrong}"
    wrong = _go_on_to_the_end(of)
    return f"{what}{wrong}" if wrong else None


def _badly_ended(ended: Ended, by: int, twice: bool) -> str | None:
    """What is wrong with the end that a signal gave to a process; None if nothing is."""
    if ended.code not in (0, -by, CODES.get(by)):
        return f"exit code {ended.code}: {ended.errors}"
    if ended.code == CODES.get(by) and "interrupted" not in ended.errors and not twice:
        return f"nothing is said: {ended.errors}"
    if "Traceback" in ended.errors and _reached_us(ended.errors):
        return ended.errors
    if ended.code and ended.seconds > honest.LONGEST:
        return f"{ended.seconds:.1f} s until its end"
    return None


def _reached_us(errors: str) -> bool:
    """Whether a traceback is of more than Python's own start."""
    return str(commands.ROOT) in errors


def killed(rng: Random, of_name: dict[str, Honest]) -> str | None:
    """SIGKILLs."""
    return _of_any(rng, of_name, [signal.SIGKILL])


def interrupted(rng: Random, of_name: dict[str, Honest]) -> str | None:
    """Signals that can be answered."""
    return _of_any(rng, of_name, [*CODES, signal.SIGTERM])


def _of_any(rng: Random, of_name: dict[str, Honest], by: Sequence[int]) -> str | None:
    name = rng.choice([*of_name])
    failure = _case(rng, of_name[name], by)
    return f"{name}, {failure}" if failure else None


@contextlib.contextmanager
def _each_of_two(place: Path) -> Iterator[dict[str, Honest]]:
    yield {name: run_honestly(name, place / name, 2) for name in DISTRIBUTED}


def of_two(rng: Random, of_name: dict[str, Honest]) -> str | None:
    """A signal to one of two processes, or to both at about the same time; then both go on."""
    name = rng.choice([*of_name])
    of = of_name[name]
    shutil.rmtree(of.out, ignore_errors=True)
    number, after = int(rng.choice([signal.SIGKILL, *CODES])), float(rng.uniform(0, of.seconds))
    places = [[0], [1], [0, 1]][rng.integers(3)]
    signals = [(after + float(rng.exponential(0.05)) * i, i, number) for i in places]
    what = f"{name}, {signal.Signals(number).name} to {places} after {after:.2f} s, "
    for place, ended in enumerate(_end(_started([*of.line, "--resume"], 2), signals)):
        wrong = None
        by_signal = place in places and ended.code in (-number, CODES.get(number))
        if not by_signal and ended.code and not LOST.search(ended.errors):
            wrong = "badly ended"
        elif ended.seconds > LOST_WITHIN:
            wrong = f"{ended.seconds:.1f} s until its end"
        elif "Traceback" in ended.errors and _reached_us(ended.errors):
            wrong = "a traceback"
        if wrong:
            return f"{what}process {place}: {wrong}, exit code {ended.code}: {ended.errors}"
    wrong = _go_on_to_the_end(of, 2)
    return f"{what}{wrong}" if wrong else None


PARTS = {
    "killed": Part("SIGKILLs", 200, killed, _each, per_case=KILLS, seconds=17),
    "interrupted": Part("other signals", 100, interrupted, _each, per_case=KILLS, seconds=15),
    "of_two": Part("signals to one of two", 20, of_two, _each_of_two, seconds=35),
}
