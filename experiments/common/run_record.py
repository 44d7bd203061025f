"""The record of one configuration: its files, figures and printed table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from experiments.common import folder, training
from experiments.common.data import data_title
from experiments.common.progress import Stopwatch, print_table
from linear_cifar import Dataset, History, Hyperparameters
from linear_cifar.metrics import confusion_matrix, evaluate_examples, row_shares, summarise
from linear_cifar.optimizers import step_decay
from linear_cifar.training import SweepChunk

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
REPORTED = (
    *("train_cost", "validation_cost"),
    *("train_accuracy", "validation_accuracy", "test_accuracy"),
)


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

    Args:
      path: the folder.
      experiment: the command.
      runs: the table that the trained runs are rows of.
      trained: all its rows are seeds of one configuration.
      dataset: what the runs were trained on.
      watch: has the times.
      **content: further fields of `result.json`.

    Returns:
      What `result.json` says.
    """
    rows = runs.iloc[trained.rows]
    with watch.phase("evaluate"):
        measures = training.measure_runs(trained, runs, dataset)
        by_class = _accuracy_by_class(trained, dataset)
    measured = [name for name in REPORTED if len(getattr(dataset, name.split("_")[0]).labels)]
    by_seed = {name: measures[name] for name in measured}
    _write_arrays(path, trained, rows.seed.tolist())
    with watch.phase("plot"):
        folder.write_figures(path, _figures(experiment, rows, trained, dataset))
    settings = training.read_settings(rows).iloc[0].to_dict()
    spread = {name: summarise(values)._asdict() | {"values": values} for name, values in
              by_seed.items()} if len(rows) > 1 else None  # fmt: skip
    return folder.write_result(
        path,
        experiment,
        dataset,
        watch,
        title=training.title(rows.iloc[0], len(rows), FLAGS.shuffle),
        **settings,
        n_epochs=FLAGS.n_epochs,
        shuffle=FLAGS.shuffle,
        seed=int(rows.seed.iloc[0]),
        n_seeds=len(rows),
        **{name: values.mean().round(9) for name, values in by_seed.items()},
        over_seeds=spread,
        test_accuracy_by_class=by_class,
        diverged=not all(np.isfinite(values).all() for values in by_seed.values()),
        **content,
    )


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


def _accuracy_by_class(trained: SweepChunk, dataset: Dataset) -> dict[str, float] | None:
    """Test accuracy by class, the mean over seeds; None without test examples."""
    if not len(dataset.test.labels):
        return None
    measure = jax.vmap(evaluate_examples, in_axes=(0, None, None))
    predicted = np.asarray(measure(trained.params, dataset.test, dataset.standardiser).predicted)
    labels, n_classes = np.asarray(dataset.test.labels), dataset.n_classes
    shares = [row_shares(confusion_matrix(labels, seed, n_classes)) for seed in predicted]
    means = np.mean([np.diagonal(share) for share in shares], axis=0).round(9)
    return dict(zip(dataset.class_names, means, strict=True))


def _figures(
    experiment: str, rows: "pd.DataFrame", trained: SweepChunk, dataset: Dataset
) -> dict[str, Any]:
    from linear_cifar import plots  # matplotlib takes half a second

    run = rows.iloc[0]
    title = training.title(run, len(rows), FLAGS.shuffle)
    title = f"{experiment}: {title} · {data_title(dataset)}"
    rates = None
    if run.decay_factor > 1:
        hyperparameters = Hyperparameters(**{n: run[n] for n in Hyperparameters._fields})
        rates = step_decay(hyperparameters, 1)(np.arange(trained.history.train_cost.shape[1]))
    figures = {"curves": plots.plot_history(trained.history, title, rates)}
    if dataset.image_shape is not None:
        params = jax.tree.map(lambda a: a[0], trained.params)
        title += f" (weights of seed {run.seed})" if len(rows) > 1 else ""
        figures["weights"] = plots.plot_weights(
            params, dataset.class_names, dataset.image_shape, title
        )
    return figures


def print_result(result: dict[str, Any], dataset: Dataset, target: Path) -> None:
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
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    print_table([*lines, ("seconds", seconds), ("written to", target)])
