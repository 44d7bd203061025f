"""Grids of batch size × learning rate × λ, trained, measured and recorded."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import runner, tables
from experiments.settings import Settings
from experiments.tables import SPLITS
from linear_cifar import records, search
from linear_cifar.datasets import Dataset

BY_SEED = "grid_by_seed.csv"


class Axes(NamedTuple):
    """The values that a grid combines."""

    batch_size: list[int]
    learning_rate: list[float]
    lam: list[float]


def key(row: dict[str, Any]) -> str:
    """A configuration's key in the report's manner, as 50_0.001_0.1."""
    return f"{row['batch_size']}_{row['learning_rate']}_{row['lam']}"


def run(
    experiment: str,
    axes: Axes,
    fixed: Settings,
    dataset: Dataset,
    folder: Path,
    watch: runner.Stopwatch,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains a grid and writes its record into a folder; an interrupt keeps what is finished.

    Args:
      experiment: the name in the record.
      axes: what to combine.
      fixed: all else.
      dataset: what to train on.
      folder: to write into.
      watch: takes the times.

    Returns:
      What `result.json` says, and the rows of the finished configurations.
    """
    columns = search.grid(**axes._asdict())
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    configurations = [replace(fixed, **dict(zip(columns, v, strict=True))) for v in values]
    chunks = folder / "chunks"
    known, interrupted = tables.train(configurations, dataset, watch, chunks)
    rows = tables.rows(configurations, known)
    if not rows:
        raise KeyboardInterrupt
    result = _write(experiment, axes, fixed, dataset, rows, folder, watch, interrupted)
    shutil.rmtree(chunks)
    return result, rows


def _write(experiment, axes, fixed, dataset, rows, folder, watch, interrupted) -> dict[str, Any]:
    with watch.phase("plot"):
        _plot(experiment, axes, fixed, dataset, rows, folder)
    names = [*Axes._fields, *(f"{name}_accuracy" for name in SPLITS), "diverged"]
    names += [f"{name}_accuracy_sd" for name in SPLITS if fixed.n_seeds > 1]
    records.write_csv(folder / "grid.csv", names, ([row[n] for n in names] for row in rows))
    if fixed.n_seeds > 1:
        _write_by_seed(rows, fixed.seed, folder)
    accuracies = {key(row): round(row["validation_accuracy"], 6) for row in rows}
    records.write_json(folder / "grid.json", accuracies)
    first = tables.ranked(rows)[0]
    best = None if first["diverged"] else {"key": key(first), **first}
    if best:
        params = tables.read_params(folder / "chunks", first["index"] * fixed.n_seeds)
        records.write_params(folder / records.PARAMS, params)
    described = fixed.described
    described |= described.pop("hyperparameters")
    result = {
        **runner.describe_source(experiment, dataset),
        "grid": axes._asdict(),
        **{name: value for name, value in described.items() if name not in Axes._fields},
        "best": best,
        "interrupted": interrupted,
        "seconds": watch.seconds,
    }
    records.write_json(folder / records.RESULT, result)
    return result


def _write_by_seed(rows: list[dict[str, Any]], first_seed: int, folder: Path) -> None:
    names = (*Axes._fields, *(f"{name}_accuracy" for name in SPLITS))
    by_seed = (
        (first_seed + seed, *(row[n] for n in Axes._fields),
         *(row[f"{n}_accuracy_by_seed"][seed] for n in SPLITS))
        for row in rows
        for seed in range(len(row["test_accuracy_by_seed"]))
    )  # fmt: skip
    records.write_csv(folder / BY_SEED, ("seed", *names), by_seed)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads a grid's rows back: by key, with accuracies as means and `*_by_seed`."""
    path = folder / BY_SEED
    with (path if path.exists() else folder / "grid.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        setting: dict[str, Any] = {"batch_size": int(line["batch_size"])}
        setting |= {n: float(line[n]) for n in ("learning_rate", "lam")}
        row = rows.setdefault(
            key(setting), {**setting, **{f"{n}_accuracy_by_seed": [] for n in SPLITS}}
        )
        for name in SPLITS:
            row[f"{name}_accuracy_by_seed"].append(float(line[f"{name}_accuracy"]))
    for row in rows.values():
        row |= {f"{n}_accuracy": np.mean(row[f"{n}_accuracy_by_seed"]) for n in SPLITS}
    return rows


def _plot(experiment, axes, fixed, dataset, rows, folder) -> None:
    from linear_cifar import plots

    finished = [size for size in axes.batch_size if any(r["batch_size"] == size for r in rows)]
    maps = np.full((len(finished), len(axes.learning_rate), len(axes.lam)), np.nan)
    for row in rows:
        cell = (axes.learning_rate.index(row["learning_rate"]), axes.lam.index(row["lam"]))
        maps[finished.index(row["batch_size"]), *cell] = row["validation_accuracy"]
    title = f"{experiment}: validation accuracy after {fixed.n_epochs} epochs"
    low_high = (np.nanmin(maps), np.nanmax(maps)) if np.isfinite(maps).any() else (0, 1)
    figures = {
        f"batch_{batch_size}": plots.plot_grid(
            values, axes.learning_rate, axes.lam, low_high,
            f"{title}, batches of {batch_size}\n{runner.data_title(dataset)}",
        )
        for batch_size, values in zip(finished, maps, strict=True)
    }  # fmt: skip
    records.write_figures(folder, figures)
