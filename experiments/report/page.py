"""The report's page, made of the parts that stand on disk."""

import base64
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.common import grids, records
from experiments.common.data import data_title
from experiments.common.histograms import plot_histograms
from experiments.common.progress import print_table
from experiments.common.results import Result
from experiments.report import claims, optima, plan
from experiments.report.claims import Claim, Finished
from linear_cifar import selection
from linear_cifar.data import Dataset
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import summarise
from linear_cifar.model import Params

TOLERANCE = 0.015  # between a printed number and ours, for the images are JPEG copies


def write(folder: Path, datasets: dict[str, Dataset], n_seeds: int, quick: bool) -> dict[str, Any]:
    """Writes `report.json` and `index.html` from the finished parts.

    Args:
      folder: the report's; its `parts` are all there.
      datasets: by split.
      n_seeds: seeds of each run.
      quick: whether runs and data were reduced.

    Returns:
      What `report.json` says.
    """
    parts = folder / "parts"
    runs = {name: _read_run(parts / name, run) for name, run in plan.every_run().items()}
    cells = {name: grids.read(parts / name) for name in plan.GRIDS}
    params = {
        name: jax.tree.map(lambda a: a[0], runs[part].params)
        for name, part in (("softmax", "lam_0"), ("multi_bce", "multi_bce"))
    }
    histograms = plot_histograms(
        params, datasets["assignment"], runs["lam_0"].result["seed"], folder
    )
    report = {
        "experiment": "report",
        "n_seeds": n_seeds,
        "quick": quick,
        "datasets": {name: records.describe_dataset(data) for name, data in datasets.items()},
        "data_title": data_title(datasets["assignment"]),
        "runs": [_row(name, run, runs[name]) for name, run in plan.RUNS.items()],
        "variants": {
            name: [
                row | {"distance": abs(row["mean"] - plan.RUNS[name].published)}
                for row in (_row(other, run, runs[other]) for other, run in variants.items())
            ]
            for name, variants in plan.VARIANTS.items()
        },
        "grids": {name: _grid_rows(grid, cells[name]) for name, grid in plan.GRIDS.items()},
        "claims": [_claim_row(c) for c in claims.judge(runs, cells["grid"], datasets)],
        "true_class_probability": histograms,
        "optima": optima.compare(optima.read(parts), runs, datasets),
        **records.describe_machine(),
        "seconds": {
            name: records.read_result(parts / name)["seconds"]
            for name in (*runs, *cells, *plan.PATHS)
        },
    }
    try:
        records.write_json(folder / "report.json", report)
        records.write_text(folder / "index.html", _render(report, folder))
    except OSError as error:
        raise records.RecordError(f"cannot write {folder}: {error.strerror}") from error
    return report


def _read_run(folder: Path, run: plan.Run) -> Finished:
    result = records.read_result(folder)
    params = records.read_params(folder / records.PARAMS)
    if result["n_seeds"] > 1:
        history = records.read_history_by_seed(folder / records.HISTORY_BY_SEED)
        test = np.array(result["over_seeds"]["test_accuracy"]["values"], float)
    else:
        history = records.read_history(folder / records.HISTORY)
        history = jax.tree.map(lambda column: column[None], history)
        params = Params(*(array[None] for array in params))
        test = np.array([result["test_accuracy"]], float)
    return Finished(run.settings, result, history, params, test)


def _row(name: str, run: plan.Run, finished: Finished) -> dict[str, Any]:
    ours = summarise(finished.test_accuracy)
    return {
        "name": name,
        "title": run.title,
        "command": run.command,
        "published": run.published,
        **ours._asdict(),
        "difference": None if run.published is None else ours.mean - run.published,
        "stable": run.stable,
        "train_accuracy": finished.history.train_accuracy[:, -1].mean(),
        "validation_accuracy": finished.history.validation_accuracy[:, -1].mean(),
    }


def _grid_rows(grid: plan.Grid, cells: dict[str, Result]) -> dict[str, Any]:
    rows = []
    for key, published in grid.published.items():
        validation = summarise(cells[key].by_seed["validation_accuracy"])
        rows.append(
            {
                "key": key,
                "published": published,
                **validation._asdict(),
                "difference": validation.mean - published,
                "test": cells[key].mean("test_accuracy"),
            }
        )
    best = rows[selection.best(np.array([row["mean"] for row in rows]))]
    distance = {
        split: np.mean([abs(row[column] - row["published"]) for row in rows])
        for split, column in (("validation", "mean"), ("test", "test"))
    }
    return {
        "title": grid.title,
        "command": grid.command,
        "rows": rows,
        "best": best,
        "mean_distance": distance,
    }


def _claim_row(claim: Claim) -> dict[str, Any]:
    return {
        "statement": claim.statement,
        "quantity": claim.quantity,
        **claim.interval._asdict(),
        "claimed_low": claim.low,
        "claimed_high": claim.high,
        "how": claim.how,
        "verdict": claim.verdict,
    }


def _render(report: dict[str, Any], folder: Path) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "accuracy": _number(".4f"),
        "signed": _number("+.4f"),
        "cost": _number(".5f"),
        "share": _number(".1e"),
    }
    environment.globals |= {
        "image": lambda *path: _data_uri(folder.joinpath(*path)),
        "figures_of": lambda name: sorted(
            path.stem for path in (folder / "parts" / name / records.FIGURES).iterdir()
        ),
        "tolerance": TOLERANCE,
        "losses": LOSSES,
    }
    return environment.get_template("report.html.jinja").render(report)


def _number(form: str):
    def text(value: float | None) -> str:
        return "–" if value is None or not math.isfinite(value) else format(value, form)

    return text


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def print_summary(report: dict[str, Any], folder: Path) -> None:
    """Prints the report's numbers and verdicts as a short table."""
    print(f"{'run':<18} {'report':>7} {'ours':>7} {'sd':>7}")
    rows: Iterable[dict[str, Any]] = report["runs"]
    for row in rows:
        print(f"{row['name']:<18} {row['published']:>7.4f} {row['mean']:>7.4f} {row['sd']:>7.4f}")
    verdicts = [claim["verdict"] for claim in report["claims"]]
    counts = (f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    print_table(
        [
            ("data", report["data_title"]),
            ("claims", ", ".join(counts)),
            ("page", folder / "index.html"),
        ]
    )
