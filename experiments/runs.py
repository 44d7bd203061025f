"""One configuration, trained from one seed or several at once, measured and recorded."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.runner import Stopwatch
from experiments.settings import Settings, as_table
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.devices import device_mesh, replicate
from linear_cifar.evaluation import Metrics, confusion_matrix
from linear_cifar.model import Params
from linear_cifar.optimizers import step_decay
from linear_cifar.statistics import summarise
from linear_cifar.sweep import Step, stack_metrics, steps
from linear_cifar.training import History

FIGURES_OF_RESULT = (
    "train_cost", "validation_cost", "train_accuracy", "validation_accuracy", "test_accuracy",
)  # fmt: skip


class Outcome(NamedTuple):
    """What training gave, as numpy arrays with a leading axis of seeds."""

    params: Params  # [S, K, d], [S, K]
    history: History  # [S, epochs + 1]
    test: Metrics  # [S]
    interrupted: bool


def command(experiment: str, **fixed: Any) -> int:
    """Runs what the flags describe and writes the record; returns the exit code."""
    settings = Settings.from_flags(**fixed)
    watch = Stopwatch()
    with runner.output_folder(experiment) as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data(settings.split)
        (outcome,) = train([settings], dataset, watch)
        result = write(experiment, settings, dataset, outcome, folder, watch)
    print_result(settings, dataset, result, target)
    return 130 if outcome.interrupted else 0


def train(together: Sequence[Settings], dataset: Dataset, watch: Stopwatch) -> list[Outcome]:
    """Trains and tests runs at once, each from all its seeds.

    An interrupt ends training with what the finished epochs gave, where that is the same for all.

    Args:
      together: runs with the same number of seeds and epochs, and all or none shuffled.
      dataset: what to train on.
      watch: takes the times.

    Returns:
      Each run's outcome.
    """
    key, hyperparameters, keywords = as_table(together)
    n_epochs, n_seeds, mesh = together[0].n_epochs, together[0].n_seeds, device_mesh()
    training = steps(key, hyperparameters, dataset, mesh=mesh, **keywords)
    test = replicate(dataset.test, mesh)
    kept: list[tuple[np.ndarray, Params, History, Metrics]] = []
    chunk: tuple[Step, list[History]] | None = None  # the last one, with its metrics

    def position(step: Step) -> int:
        done = sum(len(rows) for rows, *_ in kept)
        return (done * (n_epochs + 1) + len(step.rows) * (step.epoch + 1)) // len(key)

    def keep(step: Step, measured: list[History]) -> None:
        with watch.phase("evaluate"):
            (tested,) = step.evaluate([test], dataset.standardiser)
        kept.append((step.rows, step.params, stack_metrics(measured), tested))

    interrupted = False
    try:
        for step in runner.progress(
            runner.timed(training, watch), n_epochs + 1, _describe, position
        ):
            measured = chunk[1] if chunk and step.epoch else []
            chunk = (step, [*measured, step.metrics])
            if step.finished:
                keep(*chunk)
    except KeyboardInterrupt:
        if chunk is None or len(chunk[0].rows) < len(key):
            raise  # some runs have not begun
        interrupted = True
        if not chunk[0].finished:
            keep(*chunk)
        print(f"interrupted after epoch {chunk[0].epoch}", file=sys.stderr)
    order = np.argsort(np.concatenate([rows for rows, *_ in kept]))
    whole = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *(k[1:] for k in kept))
    outcomes = []
    for first in range(0, len(key), n_seeds):
        params, history, tested = jax.tree.map(lambda a, i=first: a[i : i + n_seeds], whole)
        outcomes.append(Outcome(params, history, tested, interrupted))
    return outcomes


def _describe(step: Step) -> str:
    metrics = step.metrics
    cost, accuracy = (np.mean(v) for v in (metrics.train_cost, metrics.validation_accuracy))
    return f"cost {cost:.4f}, validation accuracy {accuracy:.4f}"


def write(
    experiment: str,
    settings: Settings,
    dataset: Dataset,
    outcome: Outcome,
    folder: Path,
    watch: Stopwatch,
    figures: bool = True,
) -> dict[str, Any]:
    """Writes a run's record and figures into a folder; returns what `result.json` says."""
    if figures:
        with watch.phase("plot"):
            _plot(experiment, settings, dataset, outcome, folder)
    single = settings.n_seeds == 1
    # One seed's arrays stand without the axis of seeds.
    params = jax.tree.map(lambda a: a[0], outcome.params) if single else outcome.params
    records.write_params(folder / records.PARAMS, params)
    mean_history = History(*(np.mean(column, axis=0) for column in outcome.history))
    records.write_history(folder / records.HISTORY, mean_history)
    if not single:
        records.write_history_by_seed(
            folder / records.HISTORY_BY_SEED, outcome.history, settings.seed
        )
    result = _result(experiment, settings, dataset, outcome) | {"seconds": watch.seconds}
    records.write_json(folder / records.RESULT, result)
    return result


def _result(experiment, settings, dataset, outcome) -> dict[str, Any]:
    by_seed = {name: column[:, -1] for name, column in outcome.history._asdict().items()}
    by_seed["test_accuracy"] = outcome.test.accuracy
    first = jax.tree.map(lambda a: jnp.asarray(a[0]), outcome.params)
    counts = jax.device_get(confusion_matrix(first, dataset.test, dataset.standardiser))
    by_class = counts.diagonal() / counts.sum(axis=1)
    diverged = ~np.isfinite(by_seed["train_cost"])
    result = {
        **runner.describe_source(experiment, dataset),
        "seed": settings.seed,
        **settings.described,
        **{name: np.mean(by_seed[name]) for name in FIGURES_OF_RESULT},
        "test_accuracy_by_class": dict(zip(dataset.class_names, by_class, strict=True)),
        "diverged": bool(diverged.any()),
        "interrupted": outcome.interrupted,
    }
    if settings.n_seeds > 1:
        result["over_seeds"] = {
            name: {**summarise(by_seed[name])._asdict(), "values": by_seed[name]}
            for name in FIGURES_OF_RESULT
        }
    return result


def _plot(experiment, settings, dataset, outcome, folder) -> None:
    from linear_cifar import plots  # matplotlib takes half a second

    title = f"{experiment}: {settings.title} · {runner.data_title(dataset)}"
    rates = None
    if settings.decay_factor > 1:
        n_rows = len(outcome.history.train_cost[0])
        rates = step_decay(settings.hyperparameters, 1)(np.arange(n_rows))
    figures = {"curves": plots.plot_history(outcome.history, title, rates)}
    if dataset.image_shape is not None:
        first = jax.tree.map(lambda a: a[0], outcome.params)
        figures["weights"] = plots.plot_weights(
            first, dataset.class_names, dataset.image_shape, title
        )
    records.write_figures(folder, figures)


def print_result(settings: Settings, dataset: Dataset, result: dict[str, Any], target) -> None:
    """Prints the closing table of a run."""
    rows: list[tuple[str, Any]] = [("run", settings.title), ("data", runner.data_title(dataset))]
    for name in FIGURES_OF_RESULT:
        rows.append((name.replace("_", " "), float(result[name])))
        if settings.n_seeds > 1:
            over = result["over_seeds"][name]
            interval = f"95 % interval {over['low']:.4f} to {over['high']:.4f}"
            rows[-1] = (rows[-1][0], f"{over['mean']:.4f} ± {over['sd']:.4f}, {interval}")
    if result["diverged"]:
        rows.append(("diverged", "yes: the cost is not finite"))
    seconds = (f"{name} {value:.1f}" for name, value in result["seconds"].items())
    runner.print_table([*rows, ("seconds", ", ".join(seconds)), ("written to", target)])
