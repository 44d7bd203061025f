"""The record of one configuration: its files, figures and printed table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from experiments.common import folder, training
from experiments.common.data import data_title
from experiments.common.progress import Stopwatch, print_table
from linear_cifar import Dataset, History, Params
from linear_cifar.metrics import summarise
from linear_cifar.training import SweepChunk

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
COSTS = ("train_cost", "validation_cost")
REPORTED = (*COSTS, "train_accuracy", "validation_accuracy", "test_accuracy")


def write(
    path: Path,
    experiment: str,
    runs: "pd.DataFrame",
    trained: SweepChunk,
    dataset: Dataset,
    watch: Stopwatch,
    **content: Any,
) -> dict[str, Any]:
    """Writes the record of one configuration, trained from one seed or several.

    All rows of `trained` are seeds of one configuration of `runs`. `content` are further fields of
    `result.json`, whose content is returned.
    """
    rows = runs.iloc[trained.rows]
    with watch.phase("evaluate"):
        measures = training.measure_runs(trained, runs, dataset)
    measured = [name for name in REPORTED if len(getattr(dataset, name.split("_")[0]).labels)]
    by_seed = {name: measures[name] for name in measured}
    _write_arrays(path, trained, rows.seed.tolist())
    title = training.title(rows.iloc[0], len(rows), FLAGS.shuffle)
    heading = f"{experiment}: {title} · {data_title(dataset)}"
    with watch.phase("plot"):
        figures = run_figures(rows, trained.history, trained.params, dataset, heading)
        folder.write_figures(path, figures)
    spread = None
    if len(rows) > 1:
        spread = {name: summarise(v)._asdict() | {"values": v} for name, v in by_seed.items()}
    content |= training.shown_settings(rows).iloc[0].to_dict() | {
        **{"title": title, "n_epochs": FLAGS.n_epochs, "shuffle": FLAGS.shuffle},
        **{"seed": int(rows.seed.iloc[0]), "n_seeds": len(rows)},
        **{name: values.mean().round(9) for name, values in by_seed.items()},
        "over_seeds": spread,
        "diverged": not all(np.isfinite(values).all() for values in by_seed.values()),
        "interrupted": trained.epoch < FLAGS.n_epochs or len(rows) < FLAGS.n_seeds,
    }
    return folder.write_result(path, experiment, dataset, watch, **content)


def _write_arrays(path: Path, trained: SweepChunk, seeds: list[int]) -> None:
    """Writes parameters and history; one seed's arrays have no axis of seeds."""
    params = jax.tree.map(lambda a: a[0], trained.params) if len(seeds) == 1 else trained.params
    folder.write_params(path / "params.npz", params)
    history = training.history_table(trained.history, seeds)
    if len(seeds) > 1:
        folder.write_table(path / "history_by_seed.csv", history)
        mean = History(*(column.mean(axis=0, keepdims=True) for column in trained.history))
        history = training.history_table(mean, seeds[:1])
    folder.write_table(path / "history.csv", history.drop(columns="seed"))


def run_figures(
    rows: "pd.DataFrame", history: History, params: Params, dataset: Dataset, title: str
) -> dict[str, Any]:
    """The curves over all seeds of a configuration, and the weights of its first seed.

    `rows` are its runs, one per seed; history [S, n_epochs + 1], params [S, K, d] and [S, K].
    """
    from linear_cifar import plots  # matplotlib takes half a second

    rates = training.learning_rates(rows.iloc[0], np.shape(history.train_cost)[1] - 1)
    figures = {"curves": plots.plot_history(history, title, rates)}
    if dataset.image_shape is not None:
        title += f" (weights of seed {rows.seed.iloc[0]})" if len(rows) > 1 else ""
        first = jax.tree.map(lambda a: a[0], params)
        figures["weights"] = plots.plot_weights(
            first, dataset.class_names, dataset.image_shape, title
        )
    return figures


def print_result(result: dict[str, Any], dataset: Dataset, target: Path, watch: Stopwatch) -> None:
    """Prints the closing table of a run."""
    lines: list[tuple[str, Any]] = [("run", result["title"]), ("data", data_title(dataset))]
    for name in REPORTED:
        if name in result:
            value: Any = result[name] if result[name] is not None else "not finite"
            if result["over_seeds"]:
                s = result["over_seeds"][name]
                if s["mean"] is not None:
                    interval = f"95 % interval of the mean {s['low']:.4f} to {s['high']:.4f}"
                    value = f"{s['mean']:.4f} ± {s['sd']:.4f} (sd of {s['n']} seeds), {interval}"
            lines.append((name.replace("_", " "), value))
    if result["diverged"]:
        lines.append(("diverged", "yes: the cost is not finite"))
    if result["interrupted"]:
        lines.append(("interrupted", "yes: these are the finished epochs or seeds"))
    print_table([*lines, ("seconds", watch), ("written to", target)])
