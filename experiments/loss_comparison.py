"""The losses against each other: curves, weights, probability histograms.

python -m experiments.loss_comparison

The folder holds a record for each loss, and the histograms of all beside each other.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import baseline
from experiments.common import cli, flags, folder, run_record, training
from experiments.common.data import data_title, load_data
from experiments.common.progress import Stopwatch
from linear_cifar import LOSSES, Dataset, Params
from linear_cifar.metrics import evaluate_examples
from linear_cifar.training import SweepChunk

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*(name for name in flags.RUN if name != "loss"))
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains all losses with the same settings and compares them on the test images."""
    del argv
    watch = Stopwatch()
    results: dict[str, dict[str, Any]] = {}
    params: dict[str, Params] = {}
    with folder.new_run("loss_comparison") as (path, target):
        with watch.phase("load"):
            dataset = load_data(required=["test"])
        runs = training.runs_of(training.configurations(loss=list(LOSSES)))
        config = training.config_from_flags(measure=True)
        trained = baseline.train(runs, config, dataset, watch)
        for name, rows in runs.iloc[trained.rows].groupby("loss", sort=False):
            chunk = _rows(trained, np.isin(trained.rows, rows.index))
            (path / name).mkdir()
            results[name] = run_record.write(
                path / name, "loss_comparison", runs, chunk, dataset, watch, split="assignment"
            )
            params[name] = jax.tree.map(lambda a: a[0], chunk.params)
        with watch.phase("plot"):
            figure, summary = probability_histograms(params, dataset, f"seed {FLAGS.seed}")
            folder.write_figures(path, {"probabilities": figure})
        compared = {
            name: {key: result.get(key) for key in (*run_record.REPORTED, "diverged")}
            | {"true_class_probability": summary[name]}
            for name, result in results.items()
        }
        interrupted = len(trained.rows) < len(runs) or trained.epoch < config.n_epochs
        content: dict[str, Any] = {"losses": compared, "interrupted": interrupted}
        content["diverged"] = any(result["diverged"] for result in results.values())
        content |= {n: FLAGS[n].value for n in ("n_epochs", "shuffle", "seed", "n_seeds")}
        folder.write_result(path, "loss_comparison", dataset, watch, **content)
    for name, result in results.items():
        run_record.print_result(result, dataset, target / name, watch)
        print()
    print(f"histograms in {target / folder.FIGURES}")
    return cli.INTERRUPTED if interrupted else 0


def _rows(chunk: SweepChunk, mask: np.ndarray) -> SweepChunk:
    """Some runs of a chunk."""
    rows, params, history = jax.tree.map(lambda a: a[mask], chunk[:3])
    return SweepChunk(rows, params, history, chunk.epoch)


def probability_histograms(
    params: Mapping[str, Params], dataset: Dataset, runs: str
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """A figure with a panel per loss, and its numbers.

    `params` are models by the name of their loss, and `runs` says in the title where they come
    from. The numbers are the mean, median and standard deviation of the probabilities by loss, and
    the share above 0.8.
    """
    from linear_cifar.plots import label_axes, new_figure  # matplotlib takes half a second

    title = f"Test examples by the probability of their true class, {runs} · {data_title(dataset)}"
    figure = new_figure(title, (5.5 * len(params), 4))
    panels = figure.subplots(1, len(params), sharex=True, sharey=True, squeeze=False)[0]
    summary = {}
    for ax, (name, model) in zip(panels, params.items(), strict=True):
        examples = evaluate_examples(model, dataset.test, dataset.standardiser, LOSSES[name])
        probability, correct = np.asarray(examples.probability), np.asarray(examples.correct == 1)
        parts = ((correct, "correctly", "C0", ""), (~correct, "incorrectly", "C1", "//"))
        for mask, word, colour, hatch in parts:
            label = f"{word} classified ({mask.sum()})"
            style: Any = {"color": colour, "alpha": 0.55, "hatch": hatch}
            ax.hist(probability[mask], np.linspace(0, 1, 41), label=label, **style)
        ax.set_title(LOSSES[name].title)
        label_axes(ax, "probability of the true class", "")
        summary[name] = {
            "mean": probability.mean(),
            "median": np.median(probability),
            "sd": probability.std(),
            "above_0.8": np.mean(probability > 0.8),
        }
    panels[0].set_ylabel("test examples")
    return figure, summary


if __name__ == "__main__":
    cli.launch(main, define_flags)
