"""All of the report's runs, and its numbers beside ours, as one page.

python -m experiments.report --n_seeds=10

Trains every run of the report, and solves for the exact optimum beside them. index.html holds its
images and opens from disk; the tables are runs.csv, grid.csv and optimum.csv, and report.json has
everything on the page. Every finished chunk of runs is on disk before the next one starts, and
--resume continues after any interruption.
"""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import sweep
from experiments.common import cli, flags, folder, training
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch
from experiments.report import claims, optima, page, plan
from linear_cifar import Dataset, History, Params, TrainConfig, load_dataset
from linear_cifar.data import SPLITS

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS
QUICK_EPOCHS, QUICK_IMAGES = 3, 1000


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define("n_seeds")
    folder.define_resume()
    absl_flags.DEFINE_bool("quick", False, "A few epochs on a few images: to see that it works.")


def main(argv: list[str]) -> int:
    """Trains and solves what the report's folder doesn't have yet, then writes the page."""
    del argv
    watch = Stopwatch()
    with folder.resumable_run("report") as path:
        with watch.phase("load"):
            data = load_splits()
        settings = {
            **{name: FLAGS[name].value for name in ("seed", "n_seeds", "quick")},
            "data": {split: dataset.sha256 for split, dataset in data.items()},
        }
        folder.start(path, "report", settings)
        runs, arrays = train(path, settings, data, watch)
        solved = optima.solve(path, settings, data, watch)
        with watch.phase("evaluate"):
            runs, correct = claims.measure(runs, arrays, data)
        finished = page.Finished(runs, arrays, correct, solved, data, settings)
        report = page.write(path, finished, watch)
    page.print_summary(report, path, watch)
    return 0


def load_splits() -> dict[str, Dataset]:
    """The data by split; with --quick their first images only."""
    data = {"assignment": load_data()}
    with warnings.catch_warnings(action="ignore"):  # the notice is printed already
        # By its name, so that --dataset=auto doesn't try the download again.
        data["full"] = load_dataset(data["assignment"].name, FLAGS.data_dir, "full")
    if FLAGS.quick:
        for split, dataset in data.items():
            parts = {name: getattr(dataset, name) for name in SPLITS}
            first: Any = jax.tree.map(lambda a: a[:QUICK_IMAGES], parts)
            data[split] = replace(dataset, **first)
    return data


def train(
    path: Path, settings: dict[str, Any], data: dict[str, Dataset], watch: Stopwatch
) -> tuple["pd.DataFrame", dict[str, dict[str, np.ndarray]]]:
    """Trains the plan, the rows of a split and a number of epochs together.

    Returns a row per run and seed with `training.MEASURES`; and by name, parameters and history
    with a leading axis of seeds, of runs whose curves and weights the page shows.
    """
    import pandas as pd

    runs = training.runs_of(plan.table())
    trained: list[pd.DataFrame] = []
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for (split, n_epochs), group in runs.groupby(["split", "n_epochs"], sort=False):
        rows = group.reset_index(drop=True)
        measured = rows.section == "run"
        epochs = min(n_epochs, QUICK_EPOCHS) if FLAGS.quick else n_epochs
        print(f"{split} split, {epochs} epochs: {len(rows)} runs", file=sys.stderr)
        config = TrainConfig(n_epochs=epochs, measure=bool(measured.any()))
        table = rows[[*training.SETTINGS, "seed"]].to_dict("list")
        part = f"{split}_{n_epochs}"
        chunks = folder.chunks_of(path, settings, table, epochs, training.MEASURES, part=part)
        trained.append(sweep.train(rows, config, data[split], watch, chunks))
        for name in rows.name[measured].unique():
            arrays[name] = read_rows(chunks, rows.index[rows.name == name])
    return pd.concat(trained).sort_values(["configuration", "seed"], ignore_index=True), arrays


def read_rows(chunks: folder.Chunks, rows: Iterable[int]) -> dict[str, np.ndarray]:
    """Parameters and history of some runs, each with a leading axis of runs."""
    runs = [folder.read_row(chunks, row) for row in rows]
    names = {name: name for name in Params._fields}
    names |= {name: f"history_{name}" for name in History._fields}
    return {name: np.stack([run[key] for run in runs]) for name, key in names.items()}


if __name__ == "__main__":
    cli.launch(main, define_flags)
