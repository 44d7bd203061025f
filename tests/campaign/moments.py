"""A command ends at any moment, in this process: what it leaves can be gone on with.

A SIGKILL is what stands in its folder before a change of it, and perhaps half of what is being
written then. Another signal comes at a call of one of the project's functions, or as one returns.
"""

import contextlib
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tests import commands
from tests.campaign import folders, honest
from tests.campaign.folders import Folder
from tests.campaign.honest import Honest
from tests.campaign.parts import Part

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_OURS = tuple(str(commands.ROOT / name) for name in ("linear_cifar", "experiments"))


def _half_written(rng: np.random.Generator, before: Folder, after: Folder) -> Folder:
    """A moment, and some of the first bytes of a file that is written next."""
    found = dict(before)
    # A folder that is moved comes whole.
    changed = sorted(
        name
        for name, content in after.items()
        if content != before.get(name) and str(Path(name).parent) in {".", *before}
    )
    if changed and (content := after[changed[0]]):
        found[changed[0]] = content[: rng.integers(len(content))]
    return found


def killed(rng: np.random.Generator, of_name: dict[str, Honest]) -> str | None:
    """Goes on after SIGKILLs at changes of a folder, to the bytes of what nothing happened to."""
    name = honest.drawn(rng, of_name)
    of = of_name[name]
    moments, what = of.moments, name
    for _ in range(1 + rng.binomial(2, 0.2)):  # one that goes on can be killed again
        number = int(rng.integers(len(moments)))
        left = moments[number]
        if number + 1 < len(moments) and rng.random() < 0.5:
            left = _half_written(rng, left, moments[number + 1])
        shutil.rmtree(of.out)
        folders.write(left, of.out)
        what += f", killed at change {number} of {len(moments)}"
        with folders.every_moment(of.out) as moments:
            done = honest.run([*of.line, "--resume"], of.seconds)
        if isinstance(done, str):
            return f"{what}: {done}"
        if wrong := folders.difference(folders.read(of.out), of.whole):
            return f"{what}: exit code {done.returncode}, {wrong}\n{done.stderr}"
    return None


class _Calls:
    """Counts what begins and ends in the project's functions; at one of them a signal comes."""

    def __init__(self, at: int | None = None, by: int = 0) -> None:
        self.n = 0
        self._at, self._by = at, by

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        # Before and after a command takes signals, they end its process.
        taken = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if taken and frame.f_code.co_filename.startswith(_OURS):
            self.n += 1
            if self.n == self._at:
                signal.raise_signal(self._by)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While a command runs."""
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)


def _begin_anew(of: Honest) -> list[str]:
    shutil.rmtree(of.out, ignore_errors=True)
    return of.line


@contextlib.contextmanager
def _counted(place: Path) -> Iterator[dict[str, tuple[Honest, int]]]:
    """Every command, and how many calls it makes once everything is compiled."""
    with honest.reduced():
        found = {}
        for name in (*honest.RESUMABLE, *honest.OTHERS):
            of = honest.run_honestly(name, place / name)
            calls = _Calls()
            with calls.counted():
                honest.run(_begin_anew(of))
            found[name] = of, calls.n
        yield found


def signalled(rng: np.random.Generator, of_name: dict[str, tuple[Honest, int]]) -> str | None:
    """A signal at any call: the command ends with its code, and one line says how far it came."""
    name = honest.drawn(rng, of_name)
    of, n_calls = of_name[name]
    by, at = rng.choice(list(CODES)), int(rng.integers(1, n_calls + 1))
    what = f"{name}, {signal.Signals(by).name} at call {at} of {n_calls}"
    line, calls = _begin_anew(of), _Calls(at, int(by))
    with calls.counted():
        done = honest.run(line, of.seconds)
    if isinstance(done, str):
        return f"{what}: {done}"
    if done.returncode not in (0, CODES[by]) or (
        done.returncode and "interrupted" not in done.stderr
    ):
        return f"{what}: exit code {done.returncode}: {done.stderr}"
    if not done.returncode and calls.n >= at and "Exception ignored" in done.stderr:
        return f"{what}: {done.stderr}"
    if wrong := _what_is_left(of, name in honest.RESUMABLE, done):
        return f"{what}: {wrong}\n{done.stderr}"
    return None


def _what_is_left(of: Honest, resumable: bool, ended: commands.Done) -> str | None:
    """What is wrong with what an interrupt leaves."""
    beside = {path.name for path in of.out.parent.iterdir()} - {"data.npz", of.out.name}
    if beside:
        return f"left over: {', '.join(beside)}"
    if not resumable:
        if of.out.exists():
            commands.check_every_file(of.out)
        return None
    done = honest.run([*of.line, "--resume"], of.seconds)
    if isinstance(done, str):
        return f"gone on with, it {done}"
    wrong = folders.difference(folders.read(of.out), of.whole)
    return f"gone on with, {wrong}: {done.stderr}" if wrong else None


PARTS = {
    "killed": Part("states of a kill", 1000, killed, honest.each_resumable),
    "signalled": Part("signals at calls", 500, signalled, _counted, seconds=2),
}
