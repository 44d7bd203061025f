"""One configuration, trained from one seed or several at once, measured and recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common import records, terminal, training
from experiments.common.data import data_title, load_data
from experiments.common.output import output_folder, write_result
from experiments.common.progress import Stopwatch, print_table
from experiments.common.results import Result, by_seed, class_accuracy
from experiments.common.settings import Settings
from linear_cifar.data import Dataset
from linear_cifar.metrics import confusion_matrix, evaluate_examples, summarise
from linear_cifar.model import Params
from linear_cifar.optimizers import step_decay
from linear_cifar.training import History

FIGURES = (
    "train_cost",
    "validation_cost",
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
)


class Outcome(NamedTuple):
    """What training a configuration gave, with a leading axis of seeds."""

    params: Params  # [S, K, d], [S, K], numpy
    history: History  # [S, epochs + 1], numpy
    result: Result
    interrupted: bool


def command(experiment: str, **fixed: Any) -> int:
    """Runs what the flags describe and writes the record; returns the exit code."""
    settings = Settings.from_flags(**fixed)
    watch = Stopwatch()
    with output_folder(experiment) as (folder, target):
        with watch.phase("load"):
            dataset = load_data(settings.split)
        (outcome,) = train([settings], dataset, watch)
        result = write(experiment, dataset, outcome, folder, watch)
    print_outcome(outcome, dataset, result, target)
    return terminal.INTERRUPTED if outcome.interrupted else 0


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
    kept: list[training.Trained] = []
    interrupted = training.train(together, dataset, watch, kept.append, measure=True)
    order = np.argsort(np.concatenate([chunk.rows for chunk in kept]))
    whole = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *kept)
    outcomes, n_seeds = [], together[0].n_seeds
    for index, settings in enumerate(together):
        first = index * n_seeds
        own = jax.tree.map(lambda a, i=first: a[i : i + n_seeds], whole)
        figures = by_seed(own.metrics, ("cost", "accuracy"))
        # Those of a split without examples are NaN, which is no divergence.
        known = {n: figures[n] for n in FIGURES if len(getattr(dataset, n.split("_")[0]).labels)}
        result = Result(index, settings, known)
        outcomes.append(Outcome(own.params, own.history, result, interrupted))
    return outcomes


def write(
    experiment: str,
    dataset: Dataset,
    outcome: Outcome,
    folder: Path,
    watch: Stopwatch,
    figures: bool = True,
) -> dict[str, Any]:
    """Writes a run's record and figures into a folder; returns what `result.json` says."""
    settings, single = outcome.result.settings, outcome.result.settings.n_seeds == 1
    # One seed's arrays stand without the axis of seeds.
    params = jax.tree.map(lambda a: a[0], outcome.params) if single else outcome.params
    records.write_params(folder / records.PARAMS, params)
    mean_history = History(*(np.mean(column, axis=0) for column in outcome.history))
    records.write_history(folder / records.HISTORY, mean_history)
    if not single:
        path = folder / records.HISTORY_BY_SEED
        records.write_history_by_seed(path, outcome.history, settings.seed)
    if figures:
        with watch.phase("plot"):
            _plot(experiment, dataset, outcome, folder)
    content = _content(dataset, outcome)
    return write_result(folder, experiment, dataset, watch, **content)


def _content(dataset: Dataset, outcome: Outcome) -> dict[str, Any]:
    """What a record says of the outcome."""
    result = outcome.result
    content = {
        "seed": result.settings.seed,
        **result.settings.described,
        **{name: result.mean(name) for name in result.by_seed},
        "test_accuracy_by_class": _by_class(dataset, outcome),
        "diverged": result.diverged,
        "interrupted": outcome.interrupted,
    }
    if result.settings.n_seeds > 1:
        content["over_seeds"] = {
            name: {**summarise(values)._asdict(), "values": values}
            for name, values in result.by_seed.items()
        }
    return content


def _by_class(dataset: Dataset, outcome: Outcome) -> dict[str, float] | None:
    """Test accuracy by class, the mean over seeds; None without test examples."""
    if not len(dataset.test.labels):
        return None
    measure = jax.vmap(evaluate_examples, in_axes=(0, None, None))
    measured = measure(outcome.params, dataset.test, dataset.standardiser)
    labels, n_classes = np.asarray(dataset.test.labels), dataset.n_classes
    counts = [
        confusion_matrix(labels, of_seed, n_classes) for of_seed in np.asarray(measured.predicted)
    ]
    return class_accuracy(np.stack(counts), dataset)


def _plot(experiment: str, dataset: Dataset, outcome: Outcome, folder: Path) -> None:
    from linear_cifar import plots  # matplotlib takes half a second

    settings = outcome.result.settings
    title = f"{experiment}: {settings.title} · {data_title(dataset)}"
    rates = None
    if settings.decays:
        n_rows = len(outcome.history.train_cost[0])
        rates = step_decay(settings.hyperparameters, 1)(np.arange(n_rows))
    figures = {"curves": plots.plot_history(outcome.history, title, rates)}
    if dataset.image_shape is not None:
        first = jax.tree.map(lambda a: a[0], outcome.params)
        if settings.n_seeds > 1:
            title += f" (weights of seed {settings.seed})"
        figures["weights"] = plots.plot_weights(
            first, dataset.class_names, dataset.image_shape, title
        )
    records.write_figures(folder, figures)


def print_outcome(outcome: Outcome, dataset: Dataset, result: dict[str, Any], target: Path) -> None:
    """Prints the closing table of a run."""
    settings = outcome.result.settings
    rows: list[tuple[str, Any]] = [("run", settings.title), ("data", data_title(dataset))]
    for name in outcome.result.by_seed:
        text: Any = outcome.result.mean(name)
        if settings.n_seeds > 1:
            over = result["over_seeds"][name]
            interval = f"95 % interval {over['low']:.4f} to {over['high']:.4f}"
            text = f"{over['mean']:.4f} ± {over['sd']:.4f}, {interval}"
        rows.append((name.replace("_", " "), text))
    if outcome.result.diverged:
        rows.append(("diverged", "yes: the cost is not finite"))
    seconds = (f"{name} {value:.1f}" for name, value in result["seconds"].items())
    print_table([*rows, ("seconds", ", ".join(seconds)), ("written to", target)])
