"""The optimum beside the report's runs: how far each stopped, and what is left of its claims there.

The paths are parts of the report, as its runs are; what is compared is read back from disk.
"""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.common import paths, records, solving, store
from experiments.common.data import data_title
from experiments.common.histograms import true_class_probabilities
from experiments.common.output import write_result
from experiments.common.progress import Stopwatch
from experiments.report import plan
from experiments.report.claims import Finished
from linear_cifar.data import Dataset
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import paired_difference
from linear_cifar.model import Params
from linear_cifar.optimum import DEFAULTS

CHUNKS = "chunks"


class Optima(NamedTuple):
    """A path of the plan, read back from disk."""

    planned: plan.OptimumPath
    rows: dict[float, dict[str, float]]  # by λ, the columns of its table
    best: dict[str, float]  # the row that has the best validation accuracy
    params: Params  # of that, [K, d] and [K]


def make(name: str, dataset: Dataset, folder: Path, watch: Stopwatch) -> None:
    """Solves a path of the plan and writes its record into a folder.

    Raises:
      KeyboardInterrupt: an interrupt came before the end.
    """
    planned = plan.PATHS[name]
    how = DEFAULTS._replace(loss=LOSSES[planned.loss])
    what = solving.problems(_every_lam(planned), (), dataset, None)
    columns, interrupted = solving.solve_all(what, dataset, how, folder / CHUNKS, watch)
    if interrupted:
        raise KeyboardInterrupt
    path = paths.as_path(what, columns)
    choice = paths.choose(path, "accuracy", within_error=False)
    best = choice.best
    own = store.read_row(folder / CHUNKS, int(path.rows[best]))
    records.write_params(folder / records.PARAMS, Params(own["weights"], own["bias"]))
    paths.write_table(folder, path)
    with watch.phase("plot"):
        title = f"{how.loss.title} · {data_title(dataset)}"
        drawn = paths.plot(path, choice._replace(one_standard_error=choice.best), title)
        records.write_figures(folder, {"path": drawn})
    shutil.rmtree(folder / CHUNKS)
    write_result(folder, name, dataset, watch, best=paths.row(path, best))


def _every_lam(planned: plan.OptimumPath) -> np.ndarray:
    """λ of a path, with those of the report's runs of its loss and data."""
    low, high, n = plan.PATH_LAM
    spaced = [float(f"{value:.12g}") for value in np.geomspace(low, high, n)]
    of_runs = [run.lam for run in plan.RUNS.values() if _path_of(run) is planned]
    return np.unique([*spaced, *(lam for lam in of_runs if lam > 0)])


def _path_of(run: plan.Run) -> plan.OptimumPath:
    own = (run.settings.split, run.settings.loss)
    (found,) = (path for path in plan.PATHS.values() if (path.split, path.loss) == own)
    return found


def read(parts: Path) -> dict[str, Optima]:
    """The paths that stand on disk."""
    return {name: _read(parts / name, planned) for name, planned in plan.PATHS.items()}


def _read(folder: Path, planned: plan.OptimumPath) -> Optima:
    with (folder / paths.TABLE).open() as file:
        lines = list(csv.DictReader(file))
    numbers = [{k: float(v) for k, v in line.items() if k not in paths.FLAGGED} for line in lines]
    rows = {line["lam"]: line for line in numbers}
    best = rows[records.read_result(folder)["best"]["lam"]]
    return Optima(planned, rows, best, records.read_params(folder / records.PARAMS))


def compare(
    found: Mapping[str, Optima], runs: Mapping[str, Finished], datasets: Mapping[str, Dataset]
) -> dict[str, Any]:
    """What the optimum says of the report: of its runs, of its losses, and of what stacks.

    Args:
      found: the plan's paths by name.
      runs: the plan's runs by name.
      datasets: by split.
    """
    few, full = found["optimum"], found["optimum_full"]
    data = datasets["assignment"]
    right = {name: _right(path.params, path.planned.loss, data) for name, path in found.items()}
    decay, decay_full = (
        _right(Params(*(a[0] for a in runs[name].params)), "softmax", data)
        for name in ("step_decay", "step_decay_full")
    )
    tests = [
        ("binary − softmax, each at its best λ", right["optimum_multi_bce"], right["optimum"]),
        ("all the data − the assignment's split, each at its best λ",
         right["optimum_full"], right["optimum"]),
        ("optimum at the best λ − step decay, the assignment's split", right["optimum"], decay),
        ("optimum at the best λ − step decay, all the data", right["optimum_full"], decay_full),
    ]  # fmt: skip
    return {
        "runs": [_distance(name, runs[name], found) for name in plan.RUNS],
        "paths": [
            {"name": n, "title": path.planned.title, "command": path.planned.command, **path.best}
            for n, path in found.items()
        ],
        "tests": [
            {"quantity": quantity, **paired_difference(a, b)._asdict()} for quantity, a, b in tests
        ],
        "stack": [
            {"title": title, "few": first, "full": second}
            for title, first, second in (
                ("constant η, λ = 0.1", _mean(runs["lam_0.1"]), _mean(runs["full_data"])),
                ("step decay, λ = 0.1", _mean(runs["step_decay"]), _mean(runs["step_decay_full"])),
                ("optimum, λ = 0.1", _test(few.rows[0.1]), _test(full.rows[0.1])),
                ("optimum, best λ by validation", _test(few.best), _test(full.best)),
            )
        ],
    }


def _right(params: Params, loss: str, data: Dataset) -> np.ndarray:
    return true_class_probabilities(params, loss, data)[1]


def _mean(run: Finished) -> float:
    return float(run.test_accuracy.mean())


def _test(row: Mapping[str, float]) -> float:
    return row["test_accuracy"]


def _distance(name: str, run: Finished, found: Mapping[str, Optima]) -> dict[str, Any]:
    """A run of the report beside the optimum of its λ, if it has one."""
    planned = plan.RUNS[name]
    cost = float(run.history.train_cost[:, -1].mean())
    said = {"name": name, "title": planned.title, "lam": planned.lam, "cost": cost,
            "test_accuracy": _mean(run)}  # fmt: skip
    path = next(p for p in found.values() if p.planned is _path_of(planned))
    optimum = path.rows.get(planned.lam)
    if optimum is None:  # λ = 0
        return said | dict.fromkeys(("optimum_cost", "distance", "optimum_test_accuracy"))
    return said | {
        "optimum_cost": optimum["cost"],
        "distance": (cost - optimum["cost"]) / optimum["cost"],
        "optimum_test_accuracy": optimum["test_accuracy"],
    }
