"""Tables of configurations: trained, measured on all three splits, and kept chunk by chunk."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import runner
from experiments.settings import Settings, as_table
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.devices import device_mesh, place_dataset
from linear_cifar.model import Params
from linear_cifar.search import ranking
from linear_cifar.sweep import Step, steps

SPLITS = ("train", "validation", "test")
FIGURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss"))


class Progress(NamedTuple):
    """What is known of a table's rows, one a configuration and seed."""

    finished: np.ndarray  # [R], bool
    figures: dict[str, np.ndarray]  # `FIGURES`, each [R]; NaN where not finished, or diverged


def train(
    configurations: Sequence[Settings], dataset: Dataset, watch: runner.Stopwatch, folder: Path
) -> tuple[Progress, bool]:
    """Trains every configuration from every seed that the folder doesn't hold yet.

    Each finished chunk is written before the next begins. Of several processes only the first one
    reads and writes.

    Args:
      configurations: all with the same number of seeds and epochs, and all or none shuffled.
      dataset: what to train on.
      watch: takes the times.
      folder: of the finished chunks.

    Returns:
      What is known at the end, and whether an interrupt came before all was finished.
    """
    key, hyperparameters, keywords = as_table(configurations)
    mesh, n_epochs = device_mesh(), configurations[0].n_epochs
    placed = place_dataset(dataset, mesh)
    splits = [getattr(placed, name) for name in SPLITS]
    known = _read(folder, len(key))
    n_kept = int(known.finished.sum())
    training = steps(
        key, hyperparameters, placed, mesh=mesh, measure=False,
        finished=set(np.flatnonzero(known.finished).tolist()), **keywords,
    )  # fmt: skip

    def measured() -> Iterator[Step]:
        for step in runner.timed(training, watch):
            if step.finished:
                with watch.phase("evaluate"):
                    metrics = step.evaluate(splits, placed.standardiser)
                for split, of_split in zip(SPLITS, metrics, strict=True):
                    # A float32 fraction in seven digits is the fraction of the counts again.
                    accuracy = np.asarray(of_split.accuracy, float).round(7)
                    known.figures[f"{split}_accuracy"][step.rows] = accuracy
                    known.figures[f"{split}_loss"][step.rows] = of_split.loss
                _write(folder, step, known)
                known.finished[step.rows] = True
            yield step

    def position(step: Step) -> int:
        done = known.finished.sum() - len(step.rows) * known.finished[step.rows[0]]
        return int(done * n_epochs + len(step.rows) * step.epoch) - n_kept * n_epochs

    def describe(step: Step) -> str:
        first = configurations[step.rows[0] // configurations[0].n_seeds]
        accuracy = known.figures["validation_accuracy"]
        best = f", best {np.nanmax(accuracy):.4f}" if np.isfinite(accuracy).any() else ""
        return (
            f"epoch {step.epoch} of {n_epochs}, {len(step.rows)} runs, batches of "
            f"{first.batch_size}; {known.finished.sum()} of {len(key)} finished{best}"
        )

    total = (len(key) - n_kept) * n_epochs
    try:
        for _ in runner.progress(measured(), total, describe, position):
            pass
    except KeyboardInterrupt:
        return known, True
    return known, False


def read_params(folder: Path, row: int) -> Params:
    """The parameters of one row, from the chunk that holds it."""
    for path in _chunk_files(folder):
        with np.load(path) as chunk:
            (index,) = np.nonzero(chunk["rows"] == row)
            if index.size:
                return Params(chunk["weights"][index[0]], chunk["bias"][index[0]])
    raise records.RecordError(f"{folder} holds no parameters of row {row}")


def rows(configurations: Sequence[Settings], known: Progress) -> list[dict[str, Any]]:
    """A row a configuration all of whose seeds are finished.

    Returns:
      Rows with all settings, figures as means over seeds (NaN where one diverged), their standard
      deviations as `*_sd` and values as `*_by_seed`, whether one `diverged`, and the `index`.
    """
    n_seeds, described = configurations[0].n_seeds, []
    for index, settings in enumerate(configurations):
        of_seeds = slice(index * n_seeds, (index + 1) * n_seeds)
        if not known.finished[of_seeds].all():
            continue
        settings_of_row = settings.described
        row = {"index": index, **settings_of_row.pop("hyperparameters"), **settings_of_row}
        for name in FIGURES:
            by_seed = known.figures[name][of_seeds]
            row |= {name: by_seed.mean().round(9), f"{name}_by_seed": by_seed}
            if n_seeds > 1:
                row[f"{name}_sd"] = by_seed.std(ddof=1)
        row["diverged"] = not all(math.isfinite(row[name]) for name in FIGURES)
        described.append(row)
    return described


def ranked(rows_of: Sequence[dict[str, Any]], by: str = "accuracy") -> list[dict[str, Any]]:
    """The rows with the best by validation first, the diverged ones last."""
    accuracy, loss = (
        np.array([math.nan if row["diverged"] else row[f"validation_{name}"] for row in rows_of])
        for name in ("accuracy", "loss")
    )
    return [rows_of[i] for i in ranking(accuracy, loss, by)]


def _chunk_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.npz"))


def _write(folder: Path, step: Step, known: Progress) -> None:
    params = step.params  # by all processes
    if jax.process_index():
        return
    name = f"{step.rows[0]:06d}-{step.rows[-1]:06d}.npz"
    partial = folder / f".{name}.partial"
    try:
        folder.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            figures = {name: values[step.rows] for name, values in known.figures.items()}
            np.savez(file, rows=step.rows, weights=params.weights, bias=params.bias, **figures)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise records.RecordError(
            f"cannot write {folder / name}: {error.strerror}; what is finished before is kept"
        ) from error


def _read(folder: Path, n_rows: int) -> Progress:
    figures = {name: np.full(n_rows, np.nan) for name in FIGURES}
    known = Progress(np.zeros(n_rows, bool), figures)
    if jax.process_index() == 0:
        for path in _chunk_files(folder):
            with np.load(path) as chunk:
                known.finished[chunk["rows"]] = True
                for name in FIGURES:
                    known.figures[name][chunk["rows"]] = chunk[name]
    if jax.process_count() > 1:
        # In bytes: a float64 would be rounded on the way.
        shared = multihost_utils.broadcast_one_to_all(
            [np.frombuffer(a.tobytes(), np.uint8) for a in (known.finished, *figures.values())]
        )
        arrays = [np.asarray(a).tobytes() for a in shared]
        finished = np.frombuffer(arrays[0], bool).copy()
        columns = (np.frombuffer(a, float).copy() for a in arrays[1:])
        known = Progress(finished, dict(zip(FIGURES, columns, strict=True)))
    return known
