"""Grids of configurations, trained a batch size at a time, measured and recorded."""

import csv
import math
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner, runs
from experiments.settings import Settings
from linear_cifar import records, sweep
from linear_cifar.datasets import Dataset, Split
from linear_cifar.evaluation import evaluate
from linear_cifar.model import Params
from linear_cifar.training import epochs

SPLITS = ("train", "validation", "test")
BY_SEED = "grid_by_seed.csv"


class Axes(NamedTuple):
    """The values that a grid combines."""

    batch_size: list[int]
    learning_rate: list[float]
    lam: list[float]


def key(row: dict[str, Any]) -> str:
    """A configuration's key in the report's manner, as 50_0.001_0.1."""
    return f"{row['batch_size']}_{row['learning_rate']}_{row['lam']}"


def rank(row: dict[str, Any]) -> float:
    """Orders rows by falling validation accuracy, the diverged ones last."""
    return math.inf if row["diverged"] else -row["validation_accuracy"]


def train(
    axes: Axes, fixed: Settings, dataset: Dataset, watch: runner.Stopwatch
) -> tuple[list[dict[str, Any]], list[Params]]:
    """Trains every configuration from every seed; an interrupt keeps the finished batch sizes.

    Args:
      axes: what to combine.
      fixed: all else, `lam`, `learning_rate` and `batch_size` aside.
      dataset: what to train on.
      watch: takes the times.

    Returns:
      A row a configuration, with accuracies as means over seeds, and `*_by_seed`; and each one's
      parameters of the first seed.
    """
    rows: list[dict[str, Any]] = []
    params: list[Params] = []
    n_steps = fixed.n_epochs * len(axes.batch_size) * (fixed.n_seeds if fixed.shuffle else 1)
    steps = _steps(axes, fixed, dataset, watch, rows, params)
    try:
        for _ in runner.progress(steps, n_steps, str):
            pass
    except KeyboardInterrupt:
        if not rows:
            raise
    return rows, params


def _steps(axes, fixed, dataset, watch, rows, params) -> Iterator[str]:
    """Trains an epoch of a batch size at a time, and adds to the rows after each batch size."""
    combined = sweep.grid(learning_rate=axes.learning_rate, lam=axes.lam)
    splits = {name: jax.tree.map(jnp.asarray, getattr(dataset, name)) for name in SPLITS}
    for batch_size in axes.batch_size:
        settings = replace(fixed, batch_size=batch_size)
        trained = yield from _train_batch_size(combined, settings, dataset, watch)  # [S, C, …]
        with watch.phase("evaluate"):
            accuracies = {name: _accuracies(trained, splits[name], dataset) for name in SPLITS}
        rates, lams = np.asarray(combined.learning_rate), np.asarray(combined.lam)
        for i, (rate, lam) in enumerate(zip(rates, lams, strict=True)):
            row = {"batch_size": batch_size, "learning_rate": float(rate), "lam": float(lam)}
            for name in SPLITS:
                by_seed = accuracies[name][:, i]
                row |= {f"{name}_accuracy": by_seed.mean(), f"{name}_accuracy_by_seed": by_seed}
            row["diverged"] = bool(np.isnan(row["train_accuracy"]))
            rows.append(row)
            params.append(jax.tree.map(lambda a, i=i: a[0, i], trained))


def _train_batch_size(combined, settings, dataset, watch) -> Generator[str, None, Params]:
    """Yields a text an epoch; returns the parameters with leading axes [seeds, configurations]."""
    trained, n = [], len(combined.lam)
    for key, hyperparameters in sweep.calls(settings.keys, combined, settings.shuffle):
        steps = epochs(key, hyperparameters, dataset, **settings.keywords, measure=False)
        for epoch, (state, _) in enumerate(runs.timed(steps, watch)):
            last = state
            if epoch:
                yield f"batches of {settings.batch_size}, {n} × {settings.n_seeds} runs"
        trained.append(last.params)
    return sweep.collect(trained, settings.n_seeds, n)


def _accuracies(params: Params, split: Split, dataset: Dataset) -> np.ndarray:
    def accuracy(params):
        return evaluate(params, split, dataset.standardiser, np.float32(0)).accuracy

    # A float32 fraction in seven digits is the fraction of the counts again.
    on_device = jax.tree.map(jnp.asarray, params)
    return np.asarray(jax.vmap(jax.vmap(accuracy))(on_device), float).round(7)


def write(
    experiment: str,
    axes: Axes,
    fixed: Settings,
    dataset: Dataset,
    rows: list[dict[str, Any]],
    params: list[Params],
    folder: Path,
    watch: runner.Stopwatch,
) -> dict[str, Any]:
    """Writes a grid's record and figures into a folder; returns what `result.json` says."""
    with watch.phase("plot"):
        _plot(experiment, axes, fixed, dataset, rows, folder)
    names = [name for name in rows[0] if not name.endswith("_by_seed")]
    columns = [*names, *(f"{name}_accuracy_sd" for name in SPLITS if fixed.n_seeds > 1)]
    for row in rows:
        row |= {f"{n}_accuracy_sd": np.std(row[f"{n}_accuracy_by_seed"], ddof=1) for n in SPLITS
                if fixed.n_seeds > 1}  # fmt: skip
    records.write_csv(folder / "grid.csv", columns, ([row[c] for c in columns] for row in rows))
    if fixed.n_seeds > 1:
        _write_by_seed(rows, fixed.seed, folder)
    accuracies = {key(row): round(row["validation_accuracy"], 6) for row in rows}
    records.write_json(folder / "grid.json", accuracies)
    validation = np.array([row["validation_accuracy"] for row in rows])
    best = None
    if not np.isnan(validation).all():
        chosen = sweep.best(validation)
        best = {"key": key(rows[chosen]), **rows[chosen]}
        records.write_params(folder / records.PARAMS, params[chosen])
    result = {
        **runner.describe_source(experiment, dataset),
        "grid": axes._asdict(),
        **{name: value for name, value in asdict(fixed).items() if name not in Axes._fields},
        "best": best,
        "interrupted": len(rows) < len(axes.batch_size) * len(axes.learning_rate) * len(axes.lam),
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

    shape = (len(axes.learning_rate), len(axes.lam))
    accuracy = np.array([row["validation_accuracy"] for row in rows])
    maps = accuracy.reshape(-1, *shape)
    title = f"{experiment}: validation accuracy after {fixed.n_epochs} epochs"
    low_high = (np.nanmin(maps), np.nanmax(maps)) if np.isfinite(maps).any() else (0, 1)
    figures = {
        f"batch_{batch_size}": plots.plot_grid(
            values, axes.learning_rate, axes.lam, low_high,
            f"{title}, batches of {batch_size}\n{runner.data_title(dataset)}",
        )
        for batch_size, values in zip(axes.batch_size, maps, strict=False)
    }  # fmt: skip
    records.write_figures(folder, figures)
