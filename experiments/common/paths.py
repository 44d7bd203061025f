"""What came of a λ path: its table, and the choice of λ on examples that were not fitted to."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from experiments.common import records
from experiments.common.solving import COLUMNS, HELD_OUT, NAMES, Problems
from linear_cifar.selection import best, one_standard_error

TABLE = "path.csv"
FLAGGED = ("converged", "settled")  # columns of true and false


class Path(NamedTuple):
    """What came of the path."""

    lam: np.ndarray  # [C], ascending
    rows: np.ndarray  # of λ in the table of what was solved, [C]
    columns: dict[str, np.ndarray]  # those of `solving` and of folds, each [C]
    costs: dict[float, float]  # the least cost at every λ, those beside the path too
    all_optima: dict[str, Any]  # folds' too: how many, and how well they converged


def as_path(what: Problems, columns: dict[str, np.ndarray]) -> Path:
    """The rows that belong to the path, with the means over folds."""
    whole = what.fold < 0
    lam = what.lam[whole]
    rows = np.searchsorted(lam, what.path)
    of_path = {name: columns[name][rows] for name in COLUMNS if name not in HELD_OUT}
    of_path["relative_gap"] = of_path["gap"] / of_path["cost"]
    if not whole.all():
        for name in NAMES:
            of_folds = columns[f"held_out_{name}"][~whole].reshape(-1, len(rows))
            error = of_folds.std(axis=0, ddof=1) / np.sqrt(len(of_folds))
            of_path |= {f"folds_{name}": of_folds.mean(axis=0), f"folds_{name}_error": error}
    costs = dict(zip(lam.tolist(), columns["cost"][whole].tolist(), strict=True))
    n = len(what.lam)
    n_converged, n_settled = (int(columns[name].sum()) for name in FLAGGED)
    every = {
        "n": n,
        "n_converged": n_converged,
        "n_settled": n_settled,
        "n_unfinished": n - n_converged - n_settled,  # by rounding, or too few passes
        "worst_relative_gap": np.max(columns["gap"] / columns["cost"]),
        "mean_passes": columns["passes"].mean(),
    }
    return Path(what.path, rows, of_path, costs, every)


def summary(path: Path) -> str:
    """What came of the optima, in a line."""
    every = path.all_optima
    words = [f"{every['n']}, of which {every['n_converged']} are certified"]
    words += [f"{every['n_settled']} settled"] if every["n_settled"] else []
    if every["n_unfinished"]:
        words.append(f"{every['n_unfinished']} as near as rounding or --max_passes let them")
    return ", ".join(words)


def row(path: Path, place: int) -> dict[str, Any]:
    """A λ of the path with its columns."""
    of_place = {name: _plain(name, values)[place] for name, values in path.columns.items()}
    return {"lam": float(path.lam[place]), **of_place}


def write_table(folder: pathlib.Path, path: Path) -> None:
    """Writes `path.csv`, a row a λ."""
    columns = (_plain(name, values) for name, values in path.columns.items())
    rows = zip(path.lam, *columns, strict=True)
    records.write_csv(folder / TABLE, ("lam", *path.columns), rows)


def _plain(name: str, values: np.ndarray) -> list[Any]:
    kind: Any = int if name == "passes" else bool if name in FLAGGED else float
    return [kind(value) for value in values]


class Choice(NamedTuple):
    """Places in the path."""

    best: int
    one_standard_error: int  # the largest λ within one standard error of the best
    chosen: int  # one of both
    source: str  # what it rests on: "folds" or "validation"
    select: str  # and "accuracy" or "loss" of that


def choose(path: Path, select: str, within_error: bool) -> Choice:
    """Chooses by the folds where there are any, else by the validation examples.

    Args:
      path: with its columns.
      select: "accuracy" or "loss".
      within_error: choose by the rule of one standard error.
    """
    source = "folds" if "folds_loss" in path.columns else "validation"
    of_source = {name: path.columns[f"{source}_{name}"] for name in ("accuracy", "loss")}
    first = best(of_source["accuracy"], of_source["loss"], select)
    errors = path.columns[f"{source}_{select}_error"]
    second = one_standard_error(path.lam, of_source[select], errors, select)
    chosen = second if within_error else first
    return Choice(first, second, chosen, source, select)


def note_an_end(path: Path, choice: Choice) -> None:
    """Says so where the best λ is at an end of the path."""
    last = len(path.lam) - 1
    if last and choice.best in (0, last):
        end = "largest" if choice.best else "smallest"
        print(f"note: the best λ is the {end} one: look beyond it")


def plot(path: Path, choice: Choice, title: str) -> Any:
    """The figure of accuracy and loss over λ.

    Args:
      path: is drawn.
      choice: is marked.
      title: says which loss and data.
    """
    from linear_cifar import plots  # matplotlib takes half a second

    of_name = {name: _curves(path.columns, name) for name in NAMES}
    chosen = {"best": float(path.lam[choice.best])}
    if choice.one_standard_error != choice.best:
        chosen["one standard error"] = float(path.lam[choice.one_standard_error])
    title = f"The optimum over λ, {title}"
    return plots.plot_path(path.lam, of_name["accuracy"], of_name["loss"], chosen, title)


def plot_passes(path: Path, title: str) -> Any:
    """The figure of the passes over the data that each λ took, and their mean."""
    from linear_cifar import plots

    passes = path.columns["passes"]
    mean = float(np.mean(passes))
    figure = plots.new_figure(title, (6.5, 4))
    ax = figure.subplots()
    ax.plot(path.lam, passes, marker=".", color="C0")
    ax.axhline(mean, color="0.4", ls="--", label=f"mean {mean:.1f}")
    ax.set_ylim(bottom=0)
    plots.scale_lam(ax, path.lam)
    plots.label_axes(ax, "λ", "passes over the data")
    return figure


def _curves(columns: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    from linear_cifar import plots

    curves = {
        f"{label} (95 % of examples)": plots.Curve(
            *(columns[f"{split}_{name}{end}"] for end in ("", "_low", "_high"))
        )
        for label, split in (("training", "train"), ("validation", "validation"), ("test", "test"))
        if np.isfinite(columns[f"{split}_{name}"]).any()  # else it has no examples
    }
    if f"folds_{name}" in columns:
        mean, error = columns[f"folds_{name}"], columns[f"folds_{name}_error"]
        curves["folds (± one standard error)"] = plots.Curve(mean, mean - error, mean + error)
    return curves
