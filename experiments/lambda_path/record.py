"""What a λ path leaves on disk beside its chunks, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.common import paths, records, solving, store
from experiments.common.data import data_title
from experiments.common.output import write_result
from experiments.common.paths import Choice
from experiments.common.progress import Stopwatch, print_table
from experiments.lambda_path.stopping import Stopped
from linear_cifar.data import Dataset
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params

FLAGS = flags.FLAGS


def write(
    path: paths.Path,
    choice: Choice,
    refit: solving.Refit,
    stopped: Sequence[Stopped],
    dataset: Dataset,
    folder: Path,
    watch: Stopwatch,
) -> None:
    """Writes the table, figures, parameters and `result.json`; prints what was chosen.

    Args:
      path: solved.
      choice: of λ.
      refit: of the chosen λ.
      stopped: runs of gradient descent.
      dataset: what was fitted to.
      folder: to write into.
      watch: takes the times.
    """
    from experiments.lambda_path.figures import Drawn, draw  # matplotlib takes half a second

    title = f"{LOSSES[FLAGS.loss].title} · {data_title(dataset)}"
    runs = [_distance(run, path) for run in stopped]
    content = _content(path, choice, refit, runs)
    try:
        with watch.phase("plot"):
            drawn = draw(Drawn(path, choice, runs, dataset, title), folder / "chunks")
            records.write_figures(folder, drawn)
        paths.write_table(folder, path)
        own = store.read_row(folder / "chunks", int(path.rows[choice.chosen]))
        records.write_params(folder / records.PARAMS, Params(own["weights"], own["bias"]))
        first = Params(refit.optimum.params.weights[0], refit.optimum.params.bias[0])
        records.write_params(folder / "params_refit.npz", first)
        write_result(folder, "lambda_path", dataset, watch, **content)
    except OSError as error:
        raise records.RecordError(
            f"cannot write {folder}: {error.strerror or error}; all optima are kept, for --resume"
        ) from error
    _print(path, choice, content, title, folder, watch)


def _distance(run: Stopped, path: paths.Path) -> dict[str, Any]:
    """How far above the least cost a run of gradient descent stopped."""
    cost, least = run.outcome.result.mean("train_cost"), path.costs[run.lam]
    return {
        "title": run.title,
        "lam": run.lam,
        "cost": cost,
        "optimum_cost": least,
        "relative_excess": (cost - least) / least,
        "test_accuracy": run.outcome.result.mean("test_accuracy"),
    }


def _content(path, choice: Choice, refit: solving.Refit, runs: list) -> dict[str, Any]:
    test = {name: float(values[0]) for name, values in refit.columns.items()}
    optimum = refit.optimum
    names = ("loss", "split", "tolerance", "max_passes", "n_folds", "select", "seed")
    return {
        **{name: FLAGS[name].value for name in names},
        "n_lam": len(path.lam),
        "optima": path.all_optima,
        "chosen_by": f"{choice.source}_{choice.select}",
        "best": paths.row(path, choice.best),
        "one_standard_error": paths.row(path, choice.one_standard_error),
        "refit": {
            "lam": refit.lam,
            **{name: getattr(optimum, name)[0] for name in ("cost", "gap", "converged")},
            **test,
            "test_accuracy_at_optimum": refit.at_optimum,
        },
        "gradient_descent": runs,
    }


def _print(path, choice: Choice, content: dict, title: str, folder: Path, watch) -> None:
    n, every = len(path.lam), path.all_optima
    best, simple, refit = content["best"], content["one_standard_error"], content["refit"]
    at_optimum = refit["test_accuracy_at_optimum"]
    rows: list[tuple[str, Any]] = [
        ("path", f"{title}, {n} λ from {path.lam[0]:g} to {path.lam[-1]:g}"),
        ("optima", paths.summary(path)),
        ("worst gap", f"{every['worst_relative_gap']:.1e} of the cost"),
        ("passes", f"{every['mean_passes']:.1f} on average"),
        (f"best by {choice.source} {choice.select}", _figures(best, choice)),
        ("within one standard error of it", _figures(simple, choice)),
        ("refitted on all but test data", f"λ = {refit['lam']:.4g}, test accuracy {_test(refit)}"),
        ("test accuracy of its exact optimum", "{:.4f} to {:.4f}, proved".format(*at_optimum)),
    ]
    for run in content["gradient_descent"]:
        away = f"cost {run['relative_excess']:.1e} above the least, relative"
        rows.append(
            (f"gradient descent, {run['title']}", f"{away}, test {run['test_accuracy']:.4f}")
        )
    print_table([*rows, ("seconds", watch), ("written to", folder)])
    paths.note_an_end(path, choice)


def _figures(row: dict[str, Any], choice: Choice) -> str:
    name = f"{choice.source}_{choice.select}"
    figures = f"{row[name]:.4f} ± {row[f'{name}_error']:.4f}"
    return f"λ = {row['lam']:.4g}, {figures}; test accuracy {_test(row)}"


def _test(row: dict[str, Any]) -> str:
    ends = f"{row['test_accuracy_low']:.4f} to {row['test_accuracy_high']:.4f}"
    return f"{row['test_accuracy']:.4f} ({ends})"
