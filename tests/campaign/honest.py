"""Commands that can be gone on with, on tiny data, and what they leave when nothing happens."""

import contextlib
import signal
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest

from experiments.report import plan
from tests import commands
from tests.campaign import folders, privileges
from tests.campaign.folders import Folder
from tests.conftest import undrawn_figures

LONGEST = 10.0  # seconds that a command may take beyond the work that it has to do
_PATH = ("--lam=0.01:10:4:log",)
# By module: what is asked of it beside the folder and the data.
RESUMABLE = {
    "experiments.sweep": (
        "--shuffle",
        "--n_seeds=2",
        "--n_epochs=1",
        "--lam=0,0.1",
        "--learning_rate=0.01",
        "--batch_size=20",
        "--refit",
    ),
    "experiments.lambda_path": (*_PATH, "--n_folds=2"),
    "experiments.probe": (*_PATH, "--n_train=20", "--n_draws=1"),
    "experiments.report": ("--dataset=synthetic", "--quick", "--n_seeds=1"),
}
OTHERS = {
    "experiments.grid_search": (
        "--n_epochs=1",
        "--batch_size=10,20",
        "--learning_rate=0.01",
        "--lam=0,0.1",
    ),
    "experiments.baseline": ("--n_epochs=2", "--batch_size=20"),
}
N_IMAGES = 500  # of a batch, for the report


def make_data(folder: Path) -> Path:
    """Writes features of three classes; the file."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    inputs = rng.normal(size=(120, 5)) + np.eye(5)[labels]
    np.savez(folder / "data.npz", features=inputs.astype(np.float32), labels=labels)
    return folder / "data.npz"


def words(name: str, data: Path, out: Path) -> list[str]:
    """The command line of a command."""
    asked = {**RESUMABLE, **OTHERS}[name]
    own = () if name == "experiments.report" else (f"--features={data}",)
    return [name, *asked, *own, f"--output_dir={out}"]


@contextlib.contextmanager
def reduced() -> Iterator[None]:
    """Figures of a pixel, and a report of as few programs as its page can be made of."""
    with undrawn_figures(), pytest.MonkeyPatch.context() as patch:
        variant = "multi_bce_lam_0.05"
        narrowed = plan.GRIDS["grid_narrowed"]
        key = "40_0.001_0.1"
        grid = narrowed._replace(
            values=narrowed.values | {"batch_size": [40]}, published={key: narrowed.published[key]}
        )
        patch.setitem(plan.VARIANTS, "multi_bce", {variant: plan.VARIANTS["multi_bce"][variant]})
        patch.setitem(plan.GRIDS, "grid_narrowed", grid)
        patch.setattr(plan, "PATH_LAM", (1.0, 10.0, 2))
        yield


class Hang(BaseException):
    """A command takes longer than it may."""


def _hang(*_: Any) -> NoReturn:
    raise Hang


def run(line: list[str], seconds: float = 0) -> commands.Done | str:
    """Runs a command in this process; what it left on the terminal, or that it hangs.

    Args:
      line: its words.
      seconds: that what it has to do takes.
    """
    before = signal.signal(signal.SIGALRM, _hang)
    longest = LONGEST + seconds
    signal.setitimer(signal.ITIMER_REAL, longest)
    try:
        with warnings.catch_warnings(action="error"):
            return commands.run(*line, n_images=N_IMAGES)
    except Hang:
        return f"takes longer than {longest:.0f} seconds"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def one_line(done: commands.Done) -> str | None:
    """What is wrong with a command that ended with an error; None if it is one line."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode != 1 or len(lines) != 1 or "Traceback" in done.stderr:
        return f"exit code {done.returncode}: {done.stderr}"
    return None


def drawn(rng: np.random.Generator, names: Iterable[str]) -> str:
    """One of some commands; a report, which takes longest, a fifth as often."""
    return rng.choice([name for name in names for _ in range(1 if name.endswith("report") else 5)])


class Honest(NamedTuple):
    """What a command leaves."""

    line: list[str]
    out: Path
    moments: list[Folder]  # its folder before each change of it, and at the end
    whole: Folder  # the last of them
    seconds: float  # that it took, with what was compiled for the first time


def run_honestly(name: str, place: Path) -> Honest:
    """Runs a command in this process to its end.

    Args:
      name: its module.
      place: for its data and its folder; taken by this command alone.
    """
    place.mkdir()
    out = place / "out"
    line = words(name, make_data(place), out)
    out.mkdir()
    begun = time.monotonic()
    with folders.every_moment(out) as moments:
        done = commands.run(*line, n_images=N_IMAGES)
    assert done.returncode == 0, done.stderr
    return Honest(line, out, moments, moments[-1], time.monotonic() - begun)


@contextlib.contextmanager
def each_resumable(place: Path) -> Iterator[dict[str, Honest]]:
    """The setting of trials in this process: every command that can be gone on with, by module."""
    with reduced(), privileges.given_up():
        yield {name: run_honestly(name, place / name) for name in RESUMABLE}
