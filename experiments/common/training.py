"""The loop by which every command trains: chunk by chunk, an epoch at a time, with its progress."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.common.progress import Stopwatch, progress
from experiments.common.settings import Settings, as_table
from linear_cifar.data import SPLITS, Dataset
from linear_cifar.engine.devices import device_mesh
from linear_cifar.engine.plan import groups
from linear_cifar.engine.state import EpochMetrics, History, stack_history
from linear_cifar.engine.tables import ChunkEpoch, sweep_epochs
from linear_cifar.evaluation import Metrics
from linear_cifar.model import Params


class Trained(NamedTuple):
    """A chunk of runs at the end of its training, as numpy arrays."""

    rows: np.ndarray  # [c], of the table: a row a configuration and seed
    params: Params  # [c, K, d], [c, K]
    history: History  # [c, epochs + 1]; [c, 0] unless measured
    metrics: dict[str, Metrics]  # by split, [c]


def train(
    configurations: Sequence[Settings],
    dataset: Dataset,
    watch: Stopwatch,
    keep: Callable[[Trained], None],
    *,
    measure: bool,
    finished: Collection[int] = (),
) -> bool:
    """Trains every configuration from every seed, and hands on what is finished.

    Args:
      configurations: all with the same number of seeds and epochs, and all or none shuffled.
      dataset: what to train on.
      watch: takes the times.
      keep: is given each chunk before the next begins.
      measure: measure every epoch, and after an interrupt keep what the finished epochs gave,
        where all rows are in the chunk that was interrupted.
      finished: rows to leave out.

    Returns:
      Whether an interrupt came before all was finished.

    Raises:
      KeyboardInterrupt: it came before anything could be kept.
    """
    table, how = as_table(configurations)
    steps = sweep_epochs(
        table, dataset, how._replace(measure=measure), mesh=device_mesh(), finished=finished
    )
    validates = bool(len(dataset.validation.labels))
    shown = _Shown(configurations, len(table.keys), len(finished), validates)
    last: ChunkEpoch | None = None
    kept = False
    measured: list[EpochMetrics] = []
    try:
        for step in progress(_timed(steps, watch), shown.total, shown.describe, shown.position):
            last, measured = step, measured if step.epoch else []
            if step.metrics is not None:
                measured.append(step.metrics)
            if step.finished:
                trained = _trained(step, measured, watch)
                shown.add(trained)
                keep(trained)
                kept = True
    except KeyboardInterrupt:
        if measure and last is not None and len(last.rows) == len(table.keys):
            if not kept:
                keep(_trained(last, measured, watch))
            print(f"interrupted after epoch {last.epoch}", file=sys.stderr)
        elif measure:
            raise  # some runs have not begun
        return True
    return False


def _timed(steps: Iterator[ChunkEpoch], watch: Stopwatch) -> Iterator[ChunkEpoch]:
    """Passes steps on once they are measured, training and measuring timed apart."""
    while True:
        with watch.phase("train"):
            step = next(steps, None)
        if step is None:
            return
        with watch.phase("evaluate"):
            jax.block_until_ready(step.metrics)
        yield step


def _trained(step: ChunkEpoch, measured: Sequence[EpochMetrics], watch: Stopwatch) -> Trained:
    with watch.phase("evaluate"):
        metrics = measured[-1]._asdict() if measured else {}
        metrics |= {split: step.evaluate(split) for split in SPLITS if split not in metrics}
        params = step.params
        history = stack_history(measured, len(step.rows), params.bias.dtype)
        return Trained(step.rows, params, jax.device_get(history), metrics)


def check(configurations: Sequence[Settings], dataset: Dataset) -> None:
    """Raises `SettingsError` where not every configuration can be trained on the data."""
    groups(*as_table(configurations), len(dataset.train.labels))


class _Shown:
    """What the progress says: epochs of runs done, and the best that there is."""

    def __init__(
        self, configurations: Sequence[Settings], n_rows: int, n_finished: int, validates: bool
    ) -> None:
        self._configurations, self._validates = configurations, validates
        self._n_rows, self._n_finished, self._n_kept = n_rows, n_finished, n_finished
        self._best = np.nan
        self.total = (n_rows - n_finished) * configurations[0].n_epochs

    def add(self, trained: Trained) -> None:
        """Counts a finished chunk."""
        self._n_finished += len(trained.rows)
        self._best = np.fmax(self._best, np.fmax.reduce(trained.metrics["validation"].accuracy))

    def position(self, step: ChunkEpoch) -> int:
        """How many epochs of runs are done."""
        done = self._n_finished - self._n_kept
        return done * self._configurations[0].n_epochs + len(step.rows) * step.epoch

    def describe(self, step: ChunkEpoch) -> str:
        """The epoch, and what is known after it."""
        first = self._configurations[step.rows[0] // self._configurations[0].n_seeds]
        words = [f"epoch {step.epoch} of {first.n_epochs}"]
        if self._n_rows > 1:
            words.append(f"{len(step.rows)} runs, batches of {first.batch_size}")
        if step.metrics is not None:
            words.append(f"cost {np.mean(step.metrics.train.cost):.4f}")
            if self._validates:
                accuracy = np.mean(step.metrics.validation.accuracy)
                words.append(f"validation accuracy {accuracy:.4f}")
        text = ", ".join(words)
        if self._n_rows > len(step.rows):
            text += f"; {self._n_finished} of {self._n_rows} finished"
            text += f", best {self._best:.4f}" if np.isfinite(self._best) else ""
        return text
