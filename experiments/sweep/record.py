"""What a sweep leaves on disk beside its chunks, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common import chunks, records
from experiments.common.data import data_title
from experiments.common.output import write_result
from experiments.common.progress import Stopwatch, print_table
from experiments.common.results import Result, write_tables
from experiments.sweep.refit import Refit
from linear_cifar.data import Dataset
from linear_cifar.metrics import Summary, summarise

SHOWN = 10  # rows of the printed table
TITLES = {"lam": "λ", "learning_rate": "η", "batch_size": "batch"}


def write(
    columns: dict[str, list],
    results: Sequence[Result],
    refit: Refit | None,
    dataset: Dataset,
    folder: Path,
    watch: Stopwatch,
) -> None:
    """Writes tables, figures, the best one's parameters and `result.json`; prints the best rows.

    Args:
      columns: the table's axes.
      results: of all configurations, the best first.
      refit: of the best one, if it was refitted.
      dataset: what was trained on.
      folder: to write into.
      watch: takes the times.
    """
    from experiments.sweep.figures import figures  # matplotlib takes half a second

    try:
        with watch.phase("plot"):
            drawn = figures(columns, results, data_title(dataset))
            records.write_figures(folder, drawn)
        _write(columns, results, refit, dataset, folder, watch)
    except OSError as error:
        raise records.RecordError(
            f"cannot write {folder}: {error.strerror or error}; all runs are kept, for --resume"
        ) from error
    _print(columns, results, refit, dataset, folder, watch)


def _write(columns, results, refit, dataset, folder, watch) -> None:
    settings = [name for name in columns if any(r.cell(name) != "" for r in results)]
    deviations = (f"{name}_sd" for name in chunks.FIGURES)
    write_tables(folder, "sweep", results, settings, [*chunks.FIGURES, *deviations, "diverged"])
    best = None if results[0].diverged else results[0]
    if best:
        params = chunks.read_params(folder / "chunks", best)
        records.write_params(folder / records.PARAMS, params)
    refitted = None
    if refit:
        records.write_params(folder / "params_refit.npz", refit.params)
        refitted = {"test_accuracy": refit.test_accuracy.mean(), "by_seed": refit.test_accuracy}
    fixed = results[0].settings
    content = {
        "axes": {name: list(dict.fromkeys(values)) for name, values in columns.items()},
        "n_configurations": len(results),
        "n_diverged": sum(result.diverged for result in results),
        **{name: getattr(fixed, name) for name in ("n_epochs", "shuffle", "split", "seed")},
        "n_seeds": fixed.n_seeds,
        "best": best and best.row(),
        "refit": refitted,
    }
    write_result(folder, "sweep", dataset, watch, **content)


def _print(columns, results, refit, dataset, folder, watch) -> None:
    shown = [n for n in columns if any(r.cell(n) != results[0].cell(n) for r in results)]
    print("  ".join(f"{TITLES.get(name, name):>9}" for name in shown), " validation    test")
    for result in results[:SHOWN]:
        cells = map(result.cell, shown)
        text = "  ".join(f"{c:>9.3g}" if isinstance(c, float) else f"{c!s:>9}" for c in cells)
        accuracies = map(result.mean, ("validation_accuracy", "test_accuracy"))
        numbers = "{:>11.4f}  {:.4f}".format(*accuracies)
        print(text, "diverged".rjust(11) if result.diverged else numbers)
    if len(results) > SHOWN:
        n_diverged = sum(result.diverged for result in results)
        print(f"… {len(results)} in sweep.csv, {n_diverged} of them diverged")
    print()
    summary: list[tuple[str, Any]] = [("data", data_title(dataset))]
    if not results[0].diverged:
        test = summarise(results[0].by_seed["test_accuracy"])
        summary.append(("test accuracy of the best", _spread(test)))
    if refit:
        summary.append(("refitted on all but test data", _spread(summarise(refit.test_accuracy))))
    print_table([*summary, ("seconds", watch), ("written to", folder)])


def _spread(summary: Summary) -> str:
    spread = f" ± {summary.sd:.4f} over {summary.n} seeds" if summary.n > 1 else ""
    return f"{summary.mean:.4f}{spread}"
