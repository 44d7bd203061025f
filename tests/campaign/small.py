"""Commands on tiny features, which take a fraction of a second in this process once compiled."""

import contextlib
import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tests import commands
from tests.campaign import folders, privileges
from tests.campaign.folders import Folder
from tests.conftest import undrawn_figures

LONGEST = 60  # seconds that a command may take, with compiling
# Each leaves several chunks.
_PATH = ("--lam=0.01:10:4:log", "--memory_gb=2e-5")
RESUMABLE = {
    "experiments.sweep": (
        *("--shuffle", "--n_seeds=2", "--n_epochs=1", "--lam=0,0.1", "--learning_rate=0.01"),
        *("--batch_size=20", "--refit"),
    ),
    "experiments.grid_search": (
        *("--n_epochs=1", "--batch_size=10,20", "--learning_rate=0.01", "--lam=0,0.1"),
    ),
    "experiments.lambda_path": (*_PATH, "--n_folds=2"),
    "experiments.probe": (*_PATH, "--n_train=20", "--n_draws=1"),
}
COMMANDS = {**RESUMABLE, "experiments.baseline": ("--n_epochs=2", "--batch_size=20")}


def write_data(place: Path) -> Path:
    """Writes features of three classes and returns the file."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    inputs = rng.normal(size=(120, 5)) + np.eye(5)[labels]
    np.savez(place / "data.npz", features=inputs.astype(np.float32), labels=labels)
    return place / "data.npz"


def words(name: str, data: Path, out: Path) -> list[str]:
    """A command line, the command first."""
    return [name, *COMMANDS[name], f"--features={data}", f"--output_dir={out}"]


class HangError(BaseException):
    """A command takes longer than it may."""


def _hang(*_: Any) -> NoReturn:
    raise HangError(f"takes longer than {LONGEST} seconds")


def run(line: Sequence[str], **settings: Any) -> commands.Done:
    """`commands.run` with a limit of time, and warnings as errors."""
    before = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        with warnings.catch_warnings(action="error"):
            return commands.run(*line, **settings)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def error_in(done: commands.Done) -> str | None:
    """What is wrong with an end by an error; None if it is exit code 1 and one line."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode != 1 or len(lines) != 1 or "Traceback" in done.stderr:
        return f"exit code {done.returncode}: {done.stderr}"
    return None


class Run(NamedTuple):
    """An uninterrupted run."""

    line: list[str]
    out: Path
    states: list[Folder]  # of its folder, in order
    whole: Folder  # the last one

    def resume(self) -> str | None:
        """Resumes the folder as it is now; how the result differs from the whole run."""
        done = run([*self.line, "--resume"])
        if done.returncode:
            return f"exit code {done.returncode}: {done.stderr}"
        wrong = folders.difference(folders.read(self.out), self.whole)
        return wrong and f"{wrong}\n{done.stderr}"


def run_uninterrupted(name: str, place: Path) -> Run:
    """Runs a command in this process, in a new folder of its own."""
    place.mkdir()
    out = place / "out"
    line = words(name, write_data(place), out)
    with folders.every_state(out) as states:
        done = commands.run(*line)
    assert done.returncode == 0, done.stderr
    return Run(line, out, [state for state in states if state], states[-1])


@contextlib.contextmanager
def uninterrupted_runs(place: Path, names: Sequence[str] = tuple(RESUMABLE)) -> Iterator[dict]:
    """Runs by command, for the cases of a campaign."""
    with undrawn_figures(), privileges.given_up():
        yield {name: run_uninterrupted(name, place / name) for name in names}
