"""What commands that solve a path of λ are asked alike."""

import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import axes, distributed, flags, resumable, terminal
from experiments.common.solving import Problems
from linear_cifar.data import N_FOLDS, Dataset, stratified_folds
from linear_cifar.losses import LOSSES
from linear_cifar.optimum import DEFAULTS, LAM, SolveConfig, check_lam
from linear_cifar.training import await_others

FLAGS = absl_flags.FLAGS
# Memory too: chunks are cut by it.
_ASKED = (
    "loss",
    "tolerance",
    "max_passes",
    "n_folds",
    "select",
    "one_standard_error",
    "seed",
    "memory_gb",
)
_STATE_SHARE = 0.25  # of --memory_gb, for what descents keep


def define(lam: str) -> None:
    """Defines the flags of data, of the path and of the choice of λ.

    Args:
      lam: the axis of λ, if none is given.
    """
    flags.define("loss", "split", "tolerance", "max_passes", "select")
    flags.define_features()
    axes.define(settings={**flags.SETTINGS, "lam": LAM}, lam=lam)
    absl_flags.DEFINE_integer(
        "n_folds",
        None,
        f"Choose λ by {N_FOLDS.help}, and not on validation data; --seed deals them out.",
        2,
    )
    absl_flags.DEFINE_bool(
        "one_standard_error",
        False,
        "Choose the largest λ that is within one standard error of the best, over the folds or "
        "over the validation examples.",
    )
    resumable.define_flags()
    distributed.define_flags()


def lam() -> np.ndarray:
    """λ, [C], ascending.

    Raises:
      InputError: more of them than may be asked for, or one beyond the dtype.
    """
    values, n_folds = np.unique(axes.columns(["lam"])["lam"]), FLAGS.n_folds or 0
    flags.check_runs(f"{len(values)} λ, {n_folds} folds", len(values) * (1 + n_folds))
    check_lam(values)
    return values


def solver() -> SolveConfig:
    """How to solve."""
    memory = DEFAULTS.memory_bytes
    if FLAGS.memory_gb is not None:
        memory = int(_STATE_SHARE * 1e9 * FLAGS.memory_gb)
    return DEFAULTS._replace(
        loss=LOSSES[FLAGS.loss],
        tolerance=FLAGS.tolerance,
        max_passes=FLAGS.max_passes,
        memory_bytes=memory,
    )


def needed() -> tuple[str, ...]:
    """The splits that have to have examples."""
    return ("test",) if FLAGS.n_folds else ("validation", "test")


def folds(dataset: Dataset) -> np.ndarray | None:
    """The folds of the training examples, [n], if λ is chosen by folds."""
    if FLAGS.n_folds is None:
        return None
    return stratified_folds(jax.random.key(FLAGS.seed), dataset.train.labels, FLAGS.n_folds)


def begin(held: resumable.Held | None, lam: np.ndarray, what: Problems, dataset: Dataset) -> None:
    """Begins in the folder, or goes on there, if this process holds it; the others wait for that.

    Args:
      held: the folder; None in a process that isn't the first one.
      lam: of the path, [C].
      what: is solved.
      dataset: of the examples.
    """
    if held:
        asked = {name: FLAGS[name].value for name in _ASKED}
        held.begin({"lam": lam.tolist(), **asked, "data": dataset.sha256})
        print(f"{len(what.lam)} optima, in {held.folder}", file=sys.stderr)
    await_others()


def say_interrupted(columns: dict[str, np.ndarray], what: Problems, folder: Path) -> int:
    """Says how far it came and how to go on; returns the exit code."""
    n_finished = int(np.isfinite(columns["cost"]).sum())
    done = f"{n_finished} of {len(what.lam)} optima are finished"
    print(f"interrupted: {done}; {resumable.goes_on(folder)}", file=sys.stderr)
    return terminal.INTERRUPTED
