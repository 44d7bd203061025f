"""Every λ solved, with all the examples and without each fold, kept chunk by chunk."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.common import seals, store
from experiments.common.histograms import true_class_probabilities
from experiments.common.progress import Stopwatch, progress
from linear_cifar.data import SPLITS, Dataset, Standardiser, with_validation
from linear_cifar.metrics import (
    accuracy_interval,
    evaluate_examples,
    fold_metrics,
    summarise,
)
from linear_cifar.model import Params
from linear_cifar.optimum import (
    Optimum,
    SolveConfig,
    SolveStep,
    certain_predictions,
    fold_weights,
    solve,
    solve_chunks,
)
from linear_cifar.training import device_mesh

OPTIMUM = ("cost", "gap", "distance", "passes", "converged", "settled")
NAMES = ("loss", "accuracy")
# Of a split's examples: the mean, its standard error, and the ends of its 95 % interval.
ENDS = ("", "_error", "_low", "_high")
FIGURES = tuple(f"{split}_{name}{end}" for split in SPLITS for name in NAMES for end in ENDS)
HELD_OUT = tuple(f"held_out_{name}" for name in NAMES)
# Gap over cost of a refit: then few predictions are left open, and it takes few more passes.
FINE = 1e-10
COLUMNS = (*OPTIMUM, "weight_norm", *FIGURES, *HELD_OUT)


class Problems(NamedTuple):
    """What is solved: R rows, each a λ and the fold that is left out."""

    path: np.ndarray  # λ of the path, [C], ascending
    lam: np.ndarray  # [R]
    fold: np.ndarray  # [R]; −1 where none is left out
    folds: np.ndarray  # of training examples, [n]


def problems(
    path: np.ndarray, others: Sequence[float], dataset: Dataset, folds: np.ndarray | None
) -> Problems:
    """Every λ with all examples, and those of the path without each of the folds as well.

    Args:
      path: λ, [C], ascending.
      others: further λ, which are not on the path.
      dataset: whose training examples are fitted to.
      folds: of the training examples, [n]; None for none.
    """
    whole = np.unique([*path, *others])
    n_folds = 0 if folds is None else int(folds.max()) + 1
    lam = np.concatenate([whole, np.tile(path, n_folds)])
    left_out = np.concatenate([np.full(len(whole), -1), np.repeat(np.arange(n_folds), len(path))])
    none = np.zeros(len(dataset.train.labels), int)
    return Problems(path, lam, left_out, none if folds is None else folds)


def solve_all(
    what: Problems,
    dataset: Dataset,
    how: SolveConfig,
    folder: pathlib.Path,
    watch: Stopwatch,
    for_predictions: bool = False,
) -> tuple[dict[str, np.ndarray], bool]:
    """Solves every row that the folder doesn't hold yet, and measures it.

    Args:
      what: the rows.
      dataset: whose training examples are fitted to.
      how: loss, tolerance and the most passes.
      folder: of the finished chunks.
      watch: takes the times.
      for_predictions: end a descent where its predictions of validation examples (of training ones,
        where there are none) no longer change.

    Returns:
      `COLUMNS`, each [R], NaN where not finished; and whether an interrupt came before the end.
    """
    columns = {name: np.full(len(what.lam), np.nan) for name in COLUMNS}
    asked = (how.loss.name, how.tolerance, how.max_passes, np.dtype(how.dtype).name)
    of = seals.fingerprint("optima", COLUMNS, what._asdict(), asked, dataset.sha256)
    seals.make_folder(folder)
    for part in store.read(folder, of):
        for name in COLUMNS:
            columns[name][part["rows"]] = part[name]
    finished = _Finished(folder, np.flatnonzero(np.isfinite(columns["cost"])))
    steps = solve_chunks(
        what.lam,
        dataset,
        how,
        weights=fold_weights(what.folds, what.fold),
        mesh=device_mesh(),
        finished=finished,
        stop_when_unchanged=partial(predictions_of, dataset) if for_predictions else None,
    )
    shown = _Shown(len(what.lam), len(finished), how.tolerance)
    try:
        timed = _timed(steps, watch)
        for step in progress(timed, shown.total, shown.describe, shown.position):
            if step.optimum:
                rows = np.array(step.rows)
                with watch.phase("evaluate"):
                    found = _measured(step.optimum, rows, what, dataset, how)
                store.write(folder, rows, of=of, **step.optimum.params._asdict(), **found)
                for name in COLUMNS:
                    columns[name][rows] = found[name]
                shown.add(step)
    except KeyboardInterrupt:
        return columns, True
    return columns, False


def predictions_of(dataset: Dataset, params: Params) -> np.ndarray:
    """The classes [C, n] that validation examples, or training ones without any, are given."""
    split = dataset.validation if len(dataset.validation.labels) else dataset.train
    in_float32 = Params(*(np.asarray(a, np.float32) for a in params))
    measure = jax.vmap(evaluate_examples, in_axes=(0, None, None))
    return np.asarray(measure(in_float32, split, dataset.standardiser).predicted)


class _Finished(Mapping[int, Params]):
    """The parameters of rows that are on disk, read when they are asked for."""

    def __init__(self, folder: pathlib.Path, rows: np.ndarray) -> None:
        self._folder, self._rows = folder, set(rows.tolist())

    def __getitem__(self, row: int) -> Params:
        if row not in self._rows:
            raise KeyError(row)
        of_row = store.read_row(self._folder, row)
        return Params(of_row["weights"], of_row["bias"])

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _timed(steps: Iterator[SolveStep], watch: Stopwatch) -> Iterator[SolveStep]:
    while True:
        with watch.phase("train"):
            step = next(steps, None)
        if step is None:
            return
        yield step


def _measured(
    optimum: Optimum, rows: np.ndarray, what: Problems, dataset: Dataset, how: SolveConfig
) -> dict[str, np.ndarray]:
    """`COLUMNS` of some rows."""
    params = optimum.params
    fields = optimum._asdict() | {"settled": optimum.unchanged}
    found = {name: np.asarray(fields[name], float) for name in OPTIMUM}
    found["weight_norm"] = np.linalg.norm(params.weights, axis=(1, 2))
    for split in SPLITS:
        found |= figures(split, params, dataset, how)
    found |= {name: np.full(len(rows), np.nan) for name in HELD_OUT}
    if (what.fold[rows] >= 0).any():  # else it would take a pass for nothing
        left_out, index = np.unique(what.fold[rows], return_inverse=True)
        examples = what.folds == left_out[:, None]
        of_folds = fold_metrics(params, examples, index, dataset, how.loss)
        found |= zip(HELD_OUT, of_folds, strict=True)
    return found


def figures(
    split: str, params: Params, dataset: Dataset, how: SolveConfig
) -> dict[str, np.ndarray]:
    """`FIGURES` of a split, each [C], of parameters [C, K, d] and [C, K]."""
    measure = jax.vmap(partial(evaluate_examples, loss=how.loss), in_axes=(0, None, None))
    measured = measure(params, getattr(dataset, split), dataset.standardiser)
    found: dict[str, np.ndarray] = {}
    for name, values in zip(NAMES, (measured.loss, measured.correct), strict=True):
        s = summarise(np.asarray(values))
        low, high = accuracy_interval(s.mean, s.n) if name == "accuracy" else (s.low, s.high)
        ends = (s.mean, s.sd / np.sqrt(max(s.n, 1)), low, high)
        found |= {
            f"{split}_{name}{end}": np.asarray(values)
            for end, values in zip(ENDS, ends, strict=True)
        }
    return found


class Refit(NamedTuple):
    """The chosen λ fitted to training and validation data."""

    lam: float
    optimum: Optimum  # [1]
    standardiser: Standardiser  # of what it was fitted to
    columns: dict[str, np.ndarray]  # `FIGURES` of the test examples, each [1]
    at_optimum: tuple[float, float]  # between which the exact optimum's test accuracy is


def refit(lam: float, dataset: Dataset, how: SolveConfig, watch: Stopwatch) -> Refit:
    """Fits one λ to training and validation data, more finely than the path, and tests it."""
    both = with_validation(dataset)
    how = how._replace(tolerance=min(how.tolerance, FINE))
    with watch.phase("train"):
        optimum = solve([lam], both, **how._asdict(), mesh=device_mesh())
    with watch.phase("evaluate"):
        found = figures("test", optimum.params, both, how)
        params = Params(*(a[0] for a in optimum.params))
        sure = certain_predictions(
            params, float(optimum.distance[0]), lam, both, both.test, how.loss
        )
        _, right = true_class_probabilities(params, how.loss.name, both)
        low = float(np.mean(sure & right))
        return Refit(lam, optimum, both.standardiser, found, (low, low + float(np.mean(~sure))))


class _Shown:
    """What the progress says."""

    def __init__(self, n_rows: int, n_finished: int, tolerance: float) -> None:
        self.total = n_rows - n_finished
        self._n_done, self._tolerance, self._worst = 0, tolerance, 0.0

    def add(self, step: SolveStep) -> None:
        """Counts a finished chunk."""
        self._n_done += len(step.rows)
        self._worst = max(self._worst, float(step.relative_gap.max()))

    def position(self, step: SolveStep) -> int:
        """How many rows are finished, those of the chunk by their estimates."""
        if step.optimum:
            return self._n_done + len(step.rows)
        estimated = self._n_done + int((step.relative_gap <= self._tolerance).sum())
        return min(estimated, self.total - 1)

    def describe(self, step: SolveStep) -> str:
        """How far the chunk is."""
        worst = max(self._worst, float(step.relative_gap.max()))
        kind = "certified" if step.optimum else "estimated"
        return (
            f"{self.position(step)} of {self.total} finished; {step.passes.max()} passes, "
            f"worst gap {worst:.1e} of the cost ({kind})"
        )
