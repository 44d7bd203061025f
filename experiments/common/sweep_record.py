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
from experiments.common.progress import Stopwatch, print_table
from linear_cifar import Dataset, Params
from linear_cifar.data import SPLITS
from linear_cifar.metrics import paired_difference, summarise

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
N_SHOWN = 10  # rows of the printed ranking
MAX_PRINTED = (40, 9)  # rows and columns of the printed table of λ × learning rate
FILES = {"sweep": "sweep", "grid_search": "grid"}
KEY = ("batch_size", "learning_rate", "lam")  # of grid.json, in the report's order
COLUMNS = tuple(f"{split}_{name}" for split in SPLITS for name in ("accuracy", "loss", "cost"))


class Record(NamedTuple):
    """What a sweep did."""

    experiment: str
    axes: Mapping[str, np.ndarray]  # columns of the table that was asked for
    runs: "pd.DataFrame"
    measures: Mapping[str, np.ndarray]  # [R]
    results: "pd.DataFrame"  # by configuration, the best first
    refit: Any  # `sweep.Refit`, or None


def write(record: Record, chunks: Chunks, dataset: Dataset, path: Path, watch: Stopwatch) -> None:
    """Writes everything into the folder and prints the answer."""
    with folder.write_errors(f"cannot write {path}", "; all runs are kept, for --resume"):
        with watch.phase("plot"):
            from experiments.common.sweep_figures import figures  # matplotlib takes half a second

            drawn = figures(record.results, record.axes, FLAGS.n_epochs, data_title(dataset))
            folder.write_figures(path, drawn)
        _write_tables(record, dataset, path)
        _write_result(record, chunks, dataset, path, watch)
    _print(record, dataset, path, watch)


def _write_tables(record: Record, dataset: Dataset, path: Path) -> None:
    stem = FILES[record.experiment]
    results = record.results
    settings = training.read_settings(results)
    names = [name for name in COLUMNS if name in results]
    deviations = [f"{name}_sd" for name in names if f"{name}_sd" in results]
    table = settings.join(results[[*names, *deviations, "diverged"]])
    table["ties_with_best"] = _ties(record, dataset)
    folder.write_table(path / f"{stem}.csv", table)
    if record.runs.seed.nunique() > 1:
        by_seed = training.read_settings(record.runs).assign(
            seed=record.runs.seed, **{name: record.measures[name] for name in names}
        )
        folder.write_table(path / f"{stem}_by_seed.csv", by_seed)
    if record.experiment == "grid_search":
        accuracies = {grid_key(row): row.validation_accuracy for row in results.itertuples()}
        rounded = {key: round(value, 6) for key, value in accuracies.items()}
        folder.write_json(path / "grid.json", rounded)
    grid = _lam_by_rate(results, record.axes)
    if FLAGS.table and grid is None:
        print("note: the configurations make no grid, so there is no --table", file=sys.stderr)
    for form in FLAGS.table if grid is not None else ():
        flat = grid.reset_index().map(lambda cell: f"{cell:g}" if np.isreal(cell) else str(cell))
        ending, text = {
            "markdown": ("md", _markdown(flat)),
            "latex": ("tex", _latex(flat)),
            "csv": ("csv", flat.to_csv(index=False)),
        }[form]
        folder.write_text(path / f"table.{ending}", text)


def grid_key(row: Any) -> str:
    """A configuration as the report writes it: 50_0.001_0.1."""
    return "_".join(str(getattr(row, name)) for name in KEY)


def _ties(record: Record, dataset: Dataset) -> np.ndarray:
    """Whether each configuration can't be told from the best by its validation accuracy."""
    results = record.results
    best = results.validation_accuracy.iloc[0]
    if record.runs.seed.nunique() == 1:  # within one standard error over the examples
        error = np.sqrt(best * (1 - best) / len(dataset.validation.labels))
        return (results.validation_accuracy >= best - error).to_numpy()
    accuracy = record.measures["validation_accuracy"]
    by_seed = {c: accuracy[record.runs.configuration == c] for c in results.index}
    pairs = [paired_difference(by_seed[results.index[0]], by_seed[c]) for c in results.index]
    return np.array([pair.estimate == 0 or pair.low <= 0 for pair in pairs])


def _lam_by_rate(results: "pd.DataFrame", axes: Mapping[str, np.ndarray]) -> Any:
    """Validation accuracies as text, a column per λ; None if the table is no grid."""
    import pandas as pd

    varied = [name for name in axes if results[name].nunique() > 1]
    rows = [name for name in varied if name not in ("lam", "learning_rate")] + ["learning_rate"]
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
    results, runs = record.results, record.runs
    best = None
    if not results.diverged.iloc[0]:
        first = results.iloc[0].to_dict()
        settings = training.read_settings(results.iloc[:1]).iloc[0].to_dict()
        best = {k: v for k, v in first.items() if k not in training.SETTINGS} | settings
        if record.experiment == "grid_search":
            best["key"] = grid_key(results.iloc[0])
        row = int(np.flatnonzero(runs.configuration == results.index[0])[0])
        arrays = folder.read_row(chunks, row)
        folder.write_params(path / "params.npz", Params(arrays["weights"], arrays["bias"]))
    refit = None
    if record.refit:
        folder.write_params(path / "params_refit.npz", record.refit.params)
        accuracy = record.refit.test_accuracy
        refit = {"test_accuracy": accuracy.mean(), "test_accuracy_by_seed": accuracy}
    content = {
        "axes": {name: list(dict.fromkeys(values)) for name, values in record.axes.items()},
        "n_configurations": len(results),
        "n_diverged": int(results.diverged.sum()),
        **{name: FLAGS[name].value for name in ("n_epochs", "shuffle", "split", "seed", "n_seeds")},
        "select": FLAGS.select,
        "best": best,
        "refit": refit,
    }
    folder.write_result(path, record.experiment, dataset, watch, **content)


def _print(record: Record, dataset: Dataset, path: Path, watch: Stopwatch) -> None:
    results = record.results
    several = record.runs.seed.nunique() > 1
    _print_ranking(record, dataset, several)
    text = _lam_by_rate(results, record.axes)
    if text is not None and text.size > 1 and np.all(np.array(text.shape) <= MAX_PRINTED):
        spread = f" ± sd of {FLAGS.n_seeds} seeds" if several else ""
        print(f"\nvalidation accuracy{spread}\n{text.to_string()}")
    lines: list[tuple[str, Any]] = [("data", data_title(dataset))]
    if results.diverged.iloc[0]:
        lines.append(("best", "none: every configuration diverged"))
    else:
        best = record.runs.configuration == results.index[0]
        test = record.measures["test_accuracy"][best]
        lines.append(("test accuracy of the best", _mean_and_sd(test)))
    if record.refit:
        trained_on = "refitted with validation data"
        lines.append((trained_on, f"test accuracy {_mean_and_sd(record.refit.test_accuracy)}"))
    if several and not FLAGS.shuffle:
        lines.append(("seeds", "differ in the initial parameters; --shuffle varies the order too"))
    print()
    print_table([*lines, ("seconds", watch), ("written to", path)])


def _print_ranking(record: Record, dataset: Dataset, several: bool) -> None:
    results = record.results
    varied = [name for name in record.axes if results[name].nunique() > 1]
    ranking = training.read_settings(results).reindex(columns=varied).iloc[:N_SHOWN].fillna("")
    top = results.iloc[:N_SHOWN]
    ranking["validation accuracy"] = top.validation_accuracy.map("{:.4f}".format)
    if several:
        ranking["sd"] = top.validation_accuracy_sd.map("{:.4f}".format)
    ranking[""] = np.where(_ties(record, dataset)[:N_SHOWN], "=", "")
    ranking.loc[top.diverged, "validation accuracy"] = "diverged"
    print(ranking.to_string(index=False, float_format=lambda value: f"{value:.6g}"))
    rest = len(results) - len(top)
    if rest > 0:
        name = f"{FILES[record.experiment]}.csv"
        print(f"and {rest} more in {name}; {results.diverged.sum()} diverged")
    rule = "a paired t-test over the seeds" if several else "one standard error of its accuracy"
    print(f"= can't be told from the best by {rule} ({len(dataset.validation.labels)} examples)")


def _mean_and_sd(values: np.ndarray) -> str:
    summary = summarise(values)
    spread = f" ± {summary.sd:.4f} (sd of {summary.n} seeds)" if summary.n > 1 else ""
    return f"{summary.mean:.4f}{spread}"
