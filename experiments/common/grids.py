"""Grids of batch size × learning rate × λ, trained, measured and recorded."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import chunks, records
from experiments.common.data import data_title
from experiments.common.output import write_result
from experiments.common.progress import Stopwatch
from experiments.common.results import Result, ranked, write_tables
from experiments.common.settings import Settings
from linear_cifar import selection
from linear_cifar.data import SPLITS, Dataset

COLUMNS = ("batch_size", "learning_rate", "lam")  # what a grid combines, by their values
ACCURACIES = tuple(f"{split}_accuracy" for split in SPLITS)
GRID, BY_SEED = "grid.csv", "grid_by_seed.csv"


def key(settings: Settings) -> str:
    """A configuration's key in the report's manner, as 50_0.001_0.1."""
    return "_".join(str(settings.flat[name]) for name in COLUMNS)


def run(
    experiment: str,
    values: dict[str, list],
    fixed: Settings,
    dataset: Dataset,
    folder: Path,
    watch: Stopwatch,
) -> tuple[dict[str, Any], list[Result]]:
    """Trains a grid and writes its record into a folder; an interrupt keeps what is finished.

    Args:
      experiment: the name in the record.
      values: of each of the `COLUMNS`.
      fixed: all else.
      dataset: what to train on.
      folder: to write into.
      watch: takes the times.

    Returns:
      What `result.json` says, and the results of the finished configurations, best first.
    """
    table = {name: column.tolist() for name, column in selection.grid(**values).items()}
    cells = (dict(zip(table, cell, strict=True)) for cell in zip(*table.values(), strict=True))
    configurations = [fixed.but(**cell) for cell in cells]
    parts = folder / "chunks"
    kept, interrupted = chunks.train(configurations, dataset, watch, parts)
    results = chunks.results(configurations, kept)
    if not results:
        raise KeyboardInterrupt
    with watch.phase("plot"):
        _plot(experiment, values, results, dataset, folder)
    deviations = (f"{name}_sd" for name in ACCURACIES)
    write_tables(folder, "grid", results, COLUMNS, [*ACCURACIES, "diverged", *deviations])
    accuracies = {key(r.settings): round(r.mean("validation_accuracy"), 6) for r in results}
    records.write_json(folder / "grid.json", accuracies)
    in_order = ranked(results)
    first, best = in_order[0], None
    if not first.diverged:
        best = {"key": key(first.settings), **first.row()}
        records.write_params(folder / records.PARAMS, chunks.read_params(parts, first))
    settings = {name: value for name, value in fixed.flat.items() if name not in COLUMNS}
    content = {"grid": values, **settings, "best": best, "interrupted": interrupted}
    shutil.rmtree(parts)
    return write_result(folder, experiment, dataset, watch, **content), in_order


def read(folder: Path) -> dict[str, Result]:
    """Reads a grid's results back, by key: their accuracies, and of the settings the `COLUMNS`."""
    path = folder / BY_SEED
    with (path if path.exists() else folder / GRID).open() as file:
        lines = list(csv.DictReader(file))
    found: dict[Settings, list[dict[str, str]]] = {}
    for line in lines:
        of_cell = {name: float(line[name]) for name in ("learning_rate", "lam")}
        settings = Settings.of(batch_size=int(line["batch_size"]), **of_cell)
        found.setdefault(settings, []).append(line)
    return {
        key(settings): Result(
            index,
            settings.but(n_seeds=len(of_seeds)),
            {name: np.array([float(line[name]) for line in of_seeds]) for name in ACCURACIES},
        )
        for index, (settings, of_seeds) in enumerate(found.items())
    }


def _plot(
    experiment: str, values: dict[str, list], results: Sequence[Result], dataset: Dataset, folder
) -> None:
    from linear_cifar import plots

    sizes, rates, lams = (values[name] for name in COLUMNS)
    finished = [size for size in sizes if any(r.settings.batch_size == size for r in results)]
    maps = np.full((len(finished), len(rates), len(lams)), np.nan)
    for result in results:
        h = result.settings.hyperparameters
        cell = (rates.index(h.learning_rate), lams.index(h.lam))
        maps[finished.index(result.settings.batch_size), *cell] = result.mean("validation_accuracy")
    title = f"{experiment}: validation accuracy after {results[0].settings.n_epochs} epochs"
    low_high = (np.nanmin(maps), np.nanmax(maps)) if np.isfinite(maps).any() else (0, 1)
    figures = {
        f"batch_{batch_size}": plots.plot_grid(
            of_size,
            rates,
            lams,
            low_high,
            f"{title}, batches of {batch_size}\n{data_title(dataset)}",
        )
        for batch_size, of_size in zip(finished, maps, strict=True)
    }
    records.write_figures(folder, figures)
