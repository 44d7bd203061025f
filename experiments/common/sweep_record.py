"""The record of a sweep: tables, figures, the best configuration, and the printed answer."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from experiments.common import folder, training
from experiments.common.data import data_title
from experiments.common.folder import Chunks
from experiments.common.progress import Stopwatch, mean_and_sd, print_table
from experiments.common.run_record import REPORTED
from linear_cifar import Dataset, Params
from linear_cifar.data import SPLITS
from linear_cifar.metrics import paired_test

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
N_SHOWN = 10  # rows of the printed ranking
MAX_PRINTED = (40, 9)  # rows and columns of the printed table of λ × learning rate
TABLE_STEM = {"sweep": "sweep", "grid_search": "grid"}
GRID_KEY = ("batch_size", "learning_rate", "lam")  # of grid.json, in the report's order
MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))


class Record(NamedTuple):
    """A trained sweep."""

    experiment: str
    axes: Mapping[str, np.ndarray]  # columns of the table that was asked for
    runs: "pd.DataFrame"
    results: "pd.DataFrame"  # by configuration, the best first
    refit: tuple[Params, np.ndarray] | None  # of the best, and test accuracies by seed

    @property
    def varied(self) -> list[str]:
        """The axes with several values."""
        return [name for name in self.axes if self.results[name].nunique() > 1]

    @property
    def is_best(self) -> "pd.Series":
        """Whether each run is of the best configuration."""
        return self.runs.configuration == self.results.index[0]


def write(record: Record, chunks: Chunks, dataset: Dataset, path: Path, watch: Stopwatch) -> None:
    """Writes figures, tables, parameters and `result.json`."""
    with watch.phase("plot"):
        from experiments.common.sweep_figures import figures  # matplotlib takes half a second

        drawn = figures(record.results, record.varied, FLAGS.n_epochs, data_title(dataset))
        folder.write_figures(path, drawn)
    _write_tables(record, dataset, path)
    _write_result(record, chunks, dataset, path, watch)


def _write_tables(record: Record, dataset: Dataset, path: Path) -> None:
    stem, results = TABLE_STEM[record.experiment], record.results
    names = [*MEASURES, *(f"{name}_sd" for name in MEASURES)]
    table = training.shown_settings(results)
    table = table.join(results[[name for name in names if name in results]])
    table = table.assign(diverged=results.diverged, ties_with_best=_ties(record, dataset))
    folder.write_table(path / f"{stem}.csv", table)
    if record.runs.seed.nunique() > 1:
        by_seed = training.shown_settings(record.runs).join(record.runs[["seed", *MEASURES]])
        folder.write_table(path / f"{stem}_by_seed.csv", by_seed)
    if record.experiment == "grid_search":
        cells = results.to_dict("records")
        accuracies = {grid_key(cell): round(cell["validation_accuracy"], 6) for cell in cells}
        folder.write_json(path / "grid.json", accuracies)
    grid = _lam_by_rate(record)
    if FLAGS.table and grid is None:
        print("note: the configurations make no grid, so there is no --table", file=sys.stderr)
        return
    for form in FLAGS.table:
        flat = grid.reset_index().map(lambda cell: f"{cell:g}" if np.isreal(cell) else str(cell))
        suffix, write = {"markdown": ("md", _markdown), "latex": ("tex", _latex)}.get(
            form, ("csv", lambda table: table.to_csv(index=False))
        )
        folder.write_text(path / f"table.{suffix}", write(flat))


def grid_key(row: Mapping[str, Any]) -> str:
    """A configuration as the report writes it: 50_0.001_0.1."""
    return "_".join(str(row[name]) for name in GRID_KEY)


def _ties(record: Record, dataset: Dataset) -> np.ndarray:
    """Whether each configuration's validation accuracy isn't significantly below the best one's."""
    results = record.results
    best = results.validation_accuracy.iloc[0]
    if record.runs.seed.nunique() == 1:  # within one standard error over the examples
        error = np.sqrt(best * (1 - best) / len(dataset.validation.labels))
        return (results.validation_accuracy >= best - error).to_numpy()
    by_seed = dict(list(record.runs.groupby("configuration").validation_accuracy))
    best_by_seed = by_seed[results.index[0]].to_numpy()
    pairs = [paired_test(best_by_seed, by_seed[c].to_numpy()) for c in results.index]
    return np.array([pair.estimate == 0 or pair.low <= 0 for pair in pairs])


def _lam_by_rate(record: Record) -> Any:
    """Validation accuracies as text, a column per λ; None if the table is no grid."""
    import pandas as pd

    results = record.results
    others = [name for name in record.varied if name not in ("lam", "learning_rate")]
    rows = [*others, "learning_rate"]
    n_cells = results.lam.nunique() * len(results[rows].drop_duplicates())
    if n_cells != len(results):
        return None
    accuracy = results.validation_accuracy.map("{:.4f}".format)
    if "validation_accuracy_sd" in results:
        accuracy += results.validation_accuracy_sd.map(" ± {:.4f}".format)
    text = results[[*rows, "lam"]].assign(text=accuracy.where(~results.diverged, "diverged"))
    table = pd.pivot(text, index=rows, columns="lam", values="text").sort_index()
    return table.rename(columns="λ = {:g}".format).rename_axis(columns=None)


def _markdown(table: "pd.DataFrame") -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(table: "pd.DataFrame") -> str:
    text = table.to_latex(index=False, escape=True)
    return text.replace("λ", r"$\lambda$").replace("±", r"$\pm$")


def _write_result(
    record: Record, chunks: Chunks, dataset: Dataset, path: Path, watch: Stopwatch
) -> None:
    results = record.results
    best = refit = None
    if not results.diverged.iloc[0]:
        measures = results.drop(columns=list(training.SETTINGS)).iloc[0].to_dict()
        best = measures | training.shown_settings(results.iloc[:1]).iloc[0].to_dict()
        if record.experiment == "grid_search":
            best["key"] = grid_key(best)
        first_seed = int(np.flatnonzero(record.is_best)[0])
        folder.write_params(path / "params.npz", folder.row_params(chunks, first_seed))
    if record.refit:
        params, accuracy = record.refit
        folder.write_params(path / "params_refit.npz", params)
        refit = {"test_accuracy": accuracy.mean(), "test_accuracy_by_seed": accuracy}
    names = ("n_epochs", "shuffle", "split", "seed", "n_seeds", "select")
    content = {
        "axes": {name: list(dict.fromkeys(values)) for name, values in record.axes.items()},
        "n_configurations": len(results),
        "n_diverged": int(results.diverged.sum()),
        **{name: FLAGS[name].value for name in names},
        **{name: best and best[name] for name in REPORTED},
        "diverged": best is None,
        "best": best,
        "refit": refit,
    }
    folder.write_result(path, record.experiment, dataset, watch, **content)


def print_answer(record: Record, dataset: Dataset, path: Path, watch: Stopwatch) -> None:
    """Prints the ranking, the table of λ × learning rate, and the test of the best."""
    results = record.results
    several = record.runs.seed.nunique() > 1
    _print_ranking(record, dataset, several)
    text = _lam_by_rate(record)
    if text is not None and text.size > 1 and np.all(np.array(text.shape) <= MAX_PRINTED):
        spread = f" ± sd of {FLAGS.n_seeds} seeds" if several else ""
        print(f"\nvalidation accuracy{spread}\n{text.to_string()}")
    lines: list[tuple[str, Any]] = [("data", data_title(dataset))]
    if results.diverged.iloc[0]:
        lines.append(("best", "none: every configuration diverged"))
    else:
        test = record.runs.test_accuracy[record.is_best].to_numpy()
        lines.append(("test accuracy of the best", mean_and_sd(test)))
    if record.refit:
        accuracy = mean_and_sd(record.refit[1])
        lines.append(("refitted with validation data", f"test accuracy {accuracy}"))
    if several and not FLAGS.shuffle:
        lines.append(("seeds", "differ in the initial parameters; --shuffle varies the order too"))
    print()
    print_table([*lines, ("seconds", watch), ("written to", path)])


def _print_ranking(record: Record, dataset: Dataset, several: bool) -> None:
    results = record.results
    top = results.iloc[:N_SHOWN]
    settings = training.shown_settings(results).reindex(columns=record.varied)
    ranking = settings.iloc[:N_SHOWN].fillna("")
    ranking["validation accuracy"] = top.validation_accuracy.map("{:.4f}".format)
    if several:
        ranking["sd"] = top.validation_accuracy_sd.map("{:.4f}".format)
    ranking[""] = np.where(_ties(record, dataset)[:N_SHOWN], "=", "")
    ranking.loc[top.diverged, "validation accuracy"] = "diverged"
    print(ranking.to_string(index=False, float_format=lambda value: f"{value:.6g}"))
    if (rest := len(results) - len(top)) > 0:
        name = f"{TABLE_STEM[record.experiment]}.csv"
        print(f"and {rest} more in {name}; {results.diverged.sum()} diverged")
    rule = "a paired t-test over the seeds" if several else "one standard error of its accuracy"
    print(f"= not significantly worse than the best by {rule}, on validation data")
