"""What a sweep leaves on disk beside its chunks, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import runner, tables
from experiments.settings import Settings
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.model import Params
from linear_cifar.statistics import summarise

SHOWN = 10  # rows of the printed table
TITLES = {"lam": "λ", "learning_rate": "η", "batch_size": "batch"}


class Refit(NamedTuple):
    """The best configuration trained on training and validation data."""

    test_accuracy: np.ndarray  # [S]
    params: Params  # of the first seed


def write(
    columns: dict[str, list],
    fixed: Settings,
    rows: list[dict[str, Any]],
    refit: Refit | None,
    dataset: Dataset,
    folder: Path,
    watch: runner.Stopwatch,
) -> None:
    """Writes tables, figures, the best one's parameters and `result.json`; prints the best rows.

    Args:
      columns: the table's axes.
      fixed: what all configurations share.
      rows: of `tables.ranked`.
      refit: of the best one, if it was refitted.
      dataset: what was trained on.
      folder: to write into.
      watch: takes the times.
    """
    try:
        with watch.phase("plot"):
            _plot(columns, fixed, rows, dataset, folder)
        result = _write(columns, fixed, rows, refit, dataset, folder, watch)
    except OSError as error:
        raise records.RecordError(
            f"cannot write {folder}: {error.strerror or error}; all runs are kept, for --resume"
        ) from error
    _print(columns, rows, result, dataset, folder)


def _write(columns, fixed, rows, refit, dataset, folder, watch) -> dict[str, Any]:
    settings = [name for name in columns if any(name in row for row in rows)]
    figures = [*tables.FIGURES, *(f"{n}_sd" for n in tables.FIGURES if fixed.n_seeds > 1)]
    names = [*settings, *figures, "diverged"]
    table = ([row.get(name, "") for name in names] for row in rows)
    records.write_csv(folder / "sweep.csv", names, table)
    if fixed.n_seeds > 1:
        by_seed = (
            (fixed.seed + seed, *(row.get(name, "") for name in settings),
             *(row[f"{name}_by_seed"][seed] for name in tables.FIGURES))
            for row in rows
            for seed in range(fixed.n_seeds)
        )  # fmt: skip
        names = ["seed", *settings, *tables.FIGURES]
        records.write_csv(folder / "sweep_by_seed.csv", names, by_seed)
    best = None if rows[0]["diverged"] else rows[0]
    if best:
        params = tables.read_params(folder / "chunks", best["index"] * fixed.n_seeds)
        records.write_params(folder / records.PARAMS, params)
    refitted = None
    if refit:
        records.write_params(folder / "params_refit.npz", refit.params)
        refitted = {"test_accuracy": refit.test_accuracy.mean(), "by_seed": refit.test_accuracy}
    result = {
        **runner.describe_source("sweep", dataset),
        "axes": {name: list(dict.fromkeys(values)) for name, values in columns.items()},
        "n_configurations": len(rows),
        "n_diverged": sum(row["diverged"] for row in rows),
        "n_epochs": fixed.n_epochs,
        "shuffle": fixed.shuffle,
        "split": fixed.split,
        "seed": fixed.seed,
        "n_seeds": fixed.n_seeds,
        "best": best,
        "refit": refitted,
        "seconds": watch.seconds,
    }
    records.write_json(folder / records.RESULT, result)
    return result


def _print(columns, rows, result, dataset, folder) -> None:
    shown = [n for n in columns if any(row.get(n) != rows[0].get(n) for row in rows)]
    print("  ".join(f"{TITLES.get(name, name):>9}" for name in shown), " validation    test")
    for row in rows[:SHOWN]:
        cells = (row.get(name, "") for name in shown)
        text = "  ".join(f"{c:>9.3g}" if isinstance(c, float) else f"{c!s:>9}" for c in cells)
        numbers = f"{row['validation_accuracy']:>11.4f}  {row['test_accuracy']:.4f}"
        print(text, "diverged".rjust(11) if row["diverged"] else numbers)
    if len(rows) > SHOWN:
        print(f"… {len(rows)} in sweep.csv, {result['n_diverged']} of them diverged")
    print()
    summary: list[tuple[str, Any]] = [("data", runner.data_title(dataset))]
    if result["best"]:
        test = summarise(rows[0]["test_accuracy_by_seed"])
        summary.append(("test accuracy of the best", _spread(test)))
    if result["refit"]:
        refitted = summarise(result["refit"]["by_seed"])
        summary.append(("refitted on all but test data", _spread(refitted)))
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    runner.print_table([*summary, ("seconds", seconds), ("written to", folder)])


def _spread(summary) -> str:
    spread = f" ± {summary.sd:.4f} over {summary.n} seeds" if summary.n > 1 else ""
    return f"{summary.mean:.4f}{spread}"


def _plot(columns, fixed, rows, dataset, folder) -> None:
    from linear_cifar import plots

    data = f"{fixed.n_epochs} epochs · {runner.data_title(dataset)}"
    accuracy, test = (
        np.array([np.nan if row["diverged"] else row[f"{split}_accuracy"] for row in rows])
        for split in ("validation", "test")
    )
    figures = {"validation_and_test": plots.plot_validation_and_test(accuracy, test, data)}
    others = [n for n in columns if n not in ("lam", "learning_rate")]
    panels: dict[tuple, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["index"]):
        panels.setdefault(tuple(row.get(name, "") for name in others), []).append(row)
    varied = [i for i, _ in enumerate(others) if len({panel[i] for panel in panels}) > 1]
    for panel, members in panels.items():
        words = [f"{others[i]}_{panel[i]}" for i in varied if panel[i] != ""]
        suffix = "".join(f"_{word}" for word in words)
        title = ", ".join([*(word.replace("_", " ") for word in words), data])
        figures |= _panel(members, suffix, f"Validation accuracy, {title}")
    records.write_figures(folder, figures)


def _panel(members: Sequence[dict[str, Any]], suffix: str, title: str) -> dict[str, Any]:
    """The figures of the configurations that differ in λ and η alone."""
    from linear_cifar import plots

    lam, rate, accuracy, sd = (
        np.array([row.get(name, 0.0) for row in members], float)
        for name in ("lam", "learning_rate", "validation_accuracy", "validation_accuracy_sd")
    )
    accuracy[[row["diverged"] for row in members]] = np.nan
    lams, rates = np.unique(lam), np.unique(rate)
    if len(members) == len(lams) * len(rates):
        cells = (np.searchsorted(rates, rate), np.searchsorted(lams, lam))
        mean, spread = np.full((2, len(rates), len(lams)), np.nan)
        mean[cells], spread[cells] = accuracy, sd
        ends = (np.nanmin(mean), np.nanmax(mean)) if np.isfinite(mean).any() else (0.0, 1.0)
        return {
            f"accuracy_over_lam{suffix}": plots.plot_over_lam(lams, rates, mean, spread, title),
            f"heat_map{suffix}": plots.plot_grid(mean, rates.tolist(), lams.tolist(), ends, title),
        }
    return {f"drawn{suffix}": plots.plot_drawn(lam, rate, accuracy, title)}
