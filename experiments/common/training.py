"""The call by which every command trains, chunk by chunk, with its progress and its figures."""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common.progress import Progress, Stopwatch
from experiments.common.settings import Settings, as_table
from linear_cifar.data import SPLITS, Dataset
from linear_cifar.metrics import Metrics, evaluate
from linear_cifar.model import Params
from linear_cifar.training import (
    History,
    SweepChunk,
    device_mesh,
    fetch,
    shard_runs,
    sweep,
)


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
    keys, table, config = as_table(configurations)
    shown = _Shown(configurations, finished, bool(len(dataset.validation.labels)))
    last: SweepChunk | None = None
    kept = False

    def on_epoch(step: SweepChunk) -> None:
        nonlocal last
        last = step
        shown.epoch(step)

    def on_chunk(chunk: SweepChunk) -> None:
        nonlocal kept
        with watch.phase("evaluate"):
            measured = _measured(chunk, configurations, dataset)
            trained = Trained(chunk.rows, chunk.params, chunk.history, measured)
        shown.chunk(trained)
        keep(trained)
        kept = True

    try:
        with watch.phase("train"):
            sweep(
                keys,
                table,
                dataset,
                config._replace(measure=measure),
                mesh=device_mesh(),
                finished=finished,
                on_epoch=on_epoch,
                on_chunk=on_chunk,
            )
    except KeyboardInterrupt:
        if measure and last is not None and len(last.rows) == len(keys):
            if not kept:
                params = jax.tree.map(lambda a: a[: len(keys)], fetch(last.params))
                on_chunk(last._replace(params=params))
            print(f"interrupted after epoch {last.epoch}", file=sys.stderr)
        elif measure:
            raise  # some runs have not begun
        return True
    return False


def check(configurations: Sequence[Settings], dataset: Dataset) -> None:
    """Raises `InputError` where not every configuration can be trained on the data."""
    keys, table, config = as_table(configurations)
    sweep(keys, table, dataset, config._replace(measure=False), finished=range(len(keys)))


def _measured(
    chunk: SweepChunk, configurations: Sequence[Settings], dataset: Dataset
) -> dict[str, Metrics]:
    """The metrics of a chunk's runs by split, [c]: the last ones of its history, else measured."""
    metrics = {}
    if chunk.history.train_cost.shape[1]:
        last = [column[:, -1] for column in chunk.history]
        metrics = {"train": Metrics(*last[:3]), "validation": Metrics(*last[3:])}
    of_runs = [configurations[row // configurations[0].n_seeds] for row in chunk.rows]
    lam = np.array([settings.hyperparameters.lam for settings in of_runs], float)
    for split in SPLITS:
        if split not in metrics:
            metrics[split] = evaluate_runs(
                chunk.params, lam, split, dataset, of_runs[0].loss_function
            )
    return metrics


def evaluate_runs(params: Params, lam: np.ndarray, split: str, dataset: Dataset, loss: Any) -> Any:
    """`metrics.evaluate` of runs in one pass over the data, by all devices.

    Args:
      params: [C, K, d] and [C, K].
      lam: λ of each run, [C].
      split: "train", "validation" or "test"; its inputs may be in a file.
      dataset: that has the split.
      loss: the loss per example.

    Returns:
      `Metrics`, NumPy, [C].
    """
    mesh, n_runs = device_mesh(), len(lam)
    # Copies of the last run make their number a multiple of the devices'.
    padded = np.minimum(np.arange(-(-n_runs // mesh.size) * mesh.size), n_runs - 1)
    runs = shard_runs(jax.tree.map(lambda a: np.asarray(a)[padded], (params, lam)), mesh)
    measure = jax.vmap(partial(evaluate, loss=loss), in_axes=(0, None, None, 0))
    metrics = measure(runs[0], getattr(dataset, split), dataset.standardiser, runs[1])
    return jax.tree.map(lambda a: a[:n_runs], fetch(metrics))


class _Shown:
    """What the progress says: epochs of runs done, and the best that there is."""

    def __init__(
        self, configurations: Sequence[Settings], finished: Collection[int], validates: bool
    ) -> None:
        self._configurations, self._finished = configurations, set(finished)
        self._validates = validates
        self._n_epochs, n_seeds = configurations[0].n_epochs, configurations[0].n_seeds
        self._n_rows = len(configurations) * n_seeds
        self._n_done, self._best = 0, np.nan
        self._progress = Progress((self._n_rows - len(self._finished)) * self._n_epochs)

    def chunk(self, trained: Trained) -> None:
        """Counts a finished chunk."""
        self._n_done += len(trained.rows)
        self._best = np.fmax(self._best, np.fmax.reduce(trained.metrics["validation"].accuracy))

    def epoch(self, step: SweepChunk) -> None:
        """Shows the epoch with its metrics."""
        n_runs = len(set(step.rows.tolist()) - self._finished)
        done = self._n_done * self._n_epochs + n_runs * step.epoch
        self._progress.show(done, lambda: self._text(step))

    def _text(self, step: SweepChunk) -> str:
        first = self._configurations[step.rows[0] // self._configurations[0].n_seeds]
        words = [f"epoch {step.epoch} of {first.n_epochs}"]
        if self._n_rows > 1:
            words.append(f"{len(step.rows)} runs, batches of {first.batch_size}")
        if step.history.train_cost.size:
            words.append(f"cost {np.mean(step.history.train_cost[:, -1]):.4f}")
            if self._validates:
                accuracy = np.mean(step.history.validation_accuracy[:, -1])
                words.append(f"validation accuracy {accuracy:.4f}")
        text = ", ".join(words)
        if self._n_rows > len(step.rows):
            text += f"; {len(self._finished) + self._n_done} of {self._n_rows} finished"
            text += f", best {self._best:.4f}" if np.isfinite(self._best) else ""
        return text
