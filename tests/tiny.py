"""Every command on data so small that it takes a fraction of a second once it is compiled."""

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from absl.flags import FLAGS

from experiments import gradient_check
from experiments.common import data
from linear_cifar import Dataset
from tests import folders
from tests.commands import SCRATCH, Outcome, module_of, run
from tests.conftest import undrawn_figures
from tests.folders import Folder

_PATH = ("--lam=0.01,10", "--memory_gb=2e-5")
_RUN = ("--n_epochs=2", "--batch_size=20")
_IMAGES = ("--dataset=synthetic",)
# Each writes several chunks.
RESUMABLE = {
    "sweep": (
        *("--shuffle", "--n_seeds=2", "--n_epochs=1", "--lam=0,0.1", "--learning_rate=0.01"),
        "--batch_size=20",
    ),
    "grid_search": ("--n_epochs=1", "--batch_size=10,20", "--learning_rate=0.01", "--lam=0,0.1"),
    "lambda_path": (*_PATH, "--n_folds=2"),
    "probe": (*_PATH, "--n_train=20", "--n_per_class=1", "--n_draws=1"),
}
COMMANDS = {
    **RESUMABLE,
    **dict.fromkeys(("baseline", "step_decay", "loss_comparison"), _RUN),
    "full_data": (*_IMAGES, "--n_epochs=2", "--batch_size=500"),
    "gradient_check": _IMAGES,
    "benchmark": (*_IMAGES, "--quick", "--section=single"),
    "report": (*_IMAGES, "--quick"),
}


@cache
def data_file() -> Path:
    """Features of three classes; 108 examples train."""
    rng, labels = np.random.default_rng(0), np.arange(150) % 3
    inputs = rng.normal(size=(150, 5)) + np.eye(5)[labels]
    path = Path(SCRATCH.name) / "data.npz"
    np.savez(path, features=inputs.astype(np.float32), labels=labels)
    return path


def words(name: str, out: Path | str, features: Path | None = None) -> list[str]:
    """The command line of a tiny run, the command first."""
    source = [] if _IMAGES[0] in COMMANDS[name] else [f"--features={features or data_file()}"]
    return [f"experiments.{name}", *COMMANDS[name], *source, f"--output_dir={out}"]


@contextlib.contextmanager
def reduced() -> Iterator[None]:
    """Commands that can't be reduced by their flags do less, and no figure is drawn."""

    def load() -> Dataset:
        is_named = FLAGS.dataset != "synthetic"
        return data.load_data() if is_named else data.load_features(data_file())

    def section(*_: Any) -> list[dict[str, Any]]:
        return [{"contender": "ours", "milliseconds": 1.0, "peak_gflops": 2.0}]

    with (
        mock.patch.dict(module_of("experiments.benchmark").SECTIONS, single=section),
        mock.patch.multiple(gradient_check, LAMS=(0.1,), N_EXAMPLES=(5,)),
        mock.patch.object(gradient_check, "load_data", load),
        undrawn_figures(),
    ):
        yield


class UninterruptedRun(NamedTuple):
    """A finished run, and the states that its folder went through."""

    line: list[str]
    out: Path
    states: list[Folder]  # of its folder, in order
    files: Folder  # in the end

    def resume(self) -> Outcome:
        """Resumes the folder as it is now; asserts the files of the uninterrupted run."""
        done = run(*self.line, "--resume")
        assert done.returncode == 0, done.stderr
        folders.assert_same(folders.read(self.out), self.files)
        return done


def run_whole(name: str, place: Path) -> UninterruptedRun:
    """Runs a command in a new folder."""
    line = words(name, place / "out")
    with folders.every_state(place / "out") as states:
        done = run(*line)
    assert done.returncode == 0, done.stderr
    return UninterruptedRun(line, place / "out", [state for state in states if state], states[-1])
