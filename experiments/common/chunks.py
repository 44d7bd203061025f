"""Tables that are kept chunk by chunk, each on disk before the next begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.common import seals, store, training
from experiments.common.progress import Stopwatch
from experiments.common.results import Result, by_seed
from experiments.common.settings import Settings
from linear_cifar.data import SPLITS, Dataset
from linear_cifar.model import Params

NAMES = ("accuracy", "loss")
FIGURES = tuple(f"{split}_{name}" for split in SPLITS for name in NAMES)


class Kept(NamedTuple):
    """What is known of a table's rows, one a configuration and seed."""

    finished: np.ndarray  # [R], bool
    figures: dict[str, np.ndarray]  # `FIGURES`, each [R]; NaN where not finished, or diverged


def train(
    configurations: Sequence[Settings], dataset: Dataset, watch: Stopwatch, folder: Path
) -> tuple[Kept, bool]:
    """Trains every configuration from every seed that the folder doesn't hold yet.

    Of several processes only the first one reads and writes.

    Args:
      configurations: all with the same number of seeds and epochs, and all or none shuffled.
      dataset: what to train on.
      watch: takes the times.
      folder: of the finished chunks.

    Returns:
      What is known at the end, and whether an interrupt came before all was finished.
    """
    described = [settings.described for settings in configurations]
    of = seals.fingerprint("runs", FIGURES, described, dataset.sha256)
    known = _read(folder, of, len(configurations) * configurations[0].n_seeds)

    def keep(trained: training.Trained) -> None:
        figures = by_seed(trained.metrics, NAMES)
        store.write(folder, trained.rows, of=of, **trained.params._asdict(), **figures)
        known.finished[trained.rows] = True
        for name in FIGURES:
            known.figures[name][trained.rows] = figures[name]

    finished = set(np.flatnonzero(known.finished).tolist())
    interrupted = training.train(
        configurations, dataset, watch, keep, measure=False, finished=finished
    )
    return known, interrupted


def results(configurations: Sequence[Settings], kept: Kept) -> list[Result]:
    """The results of the configurations all of whose seeds are finished."""
    n_seeds, found = configurations[0].n_seeds, []
    for index, settings in enumerate(configurations):
        of_seeds = slice(index * n_seeds, (index + 1) * n_seeds)
        if kept.finished[of_seeds].all():
            figures = {name: values[of_seeds] for name, values in kept.figures.items()}
            found.append(Result(index, settings, figures))
    return found


def read_params(folder: Path, result: Result) -> Params:
    """The parameters of a result's first seed, from the chunk that holds it."""
    row = store.read_row(folder, result.index * result.settings.n_seeds)
    return Params(row["weights"], row["bias"])


def _read(folder: Path, of: str, n_rows: int) -> Kept:
    figures = {name: np.full(n_rows, np.nan) for name in FIGURES}
    kept = Kept(np.zeros(n_rows, bool), figures)
    if jax.process_index() == 0:
        seals.make_folder(folder)
        for chunk in store.read(folder, of):
            kept.finished[chunk["rows"]] = True
            for name in FIGURES:
                kept.figures[name][chunk["rows"]] = chunk[name]
    if jax.process_count() > 1:
        # In bytes: a float64 would be rounded on the way.
        shared = multihost_utils.broadcast_one_to_all(
            [np.frombuffer(a.tobytes(), np.uint8) for a in (kept.finished, *figures.values())]
        )
        arrays = [np.asarray(a).tobytes() for a in shared]
        finished = np.frombuffer(arrays[0], bool).copy()
        columns = (np.frombuffer(a, float).copy() for a in arrays[1:])
        kept = Kept(finished, dict(zip(FIGURES, columns, strict=True)))
    return kept
