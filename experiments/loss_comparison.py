"""Softmax against multiple binary cross-entropy: curves, weights, probability histograms.

python -m experiments.loss_comparison

The folder holds a whole run for each loss, and the histograms of both beside each other.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import flags, runner, runs
from experiments.settings import Settings
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.evaluation import ground_truth_probabilities
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params


def main(argv: list[str]) -> int:
    """Trains both losses with the same settings and compares them on the test images."""
    del argv
    watch = runner.Stopwatch()
    settings = {name: Settings.from_flags(loss=name) for name in LOSSES}
    results, params, interrupted = {}, {}, False
    with runner.output_folder("loss_comparison") as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data(settings["softmax"].split)
        for name, one in settings.items():
            if interrupted:
                break
            (outcome,) = runs.train([one], dataset, watch)
            (folder / name).mkdir()
            results[name] = runs.write(name, one, dataset, outcome, folder / name, watch)
            params[name] = jax.tree.map(lambda a: a[0], outcome.params)
            interrupted = outcome.interrupted
        with watch.phase("plot"):
            summary = plot_histograms(params, dataset, folder)
        _write(results, summary, dataset, interrupted, watch, folder)
    for name, one in settings.items():
        if name in results:
            runs.print_result(one, dataset, results[name], target / name)
            print()
    print(f"histograms in {target / records.FIGURES}")
    return 130 if interrupted else 0


def plot_histograms(params: dict[str, Params], dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Draws the histograms of some losses' models; returns what is in them, in numbers."""
    from linear_cifar import plots

    figures = {name: true_class_probabilities(params[name], name, dataset) for name in params}
    figure = plots.plot_probabilities(
        [p for p, _ in figures.values()],
        [correct for _, correct in figures.values()],
        [LOSSES[name].title for name in figures],
        f"Test images by the probability of their true class · {runner.data_title(dataset)}",
    )
    records.write_figures(folder, {"probabilities": figure})
    return {
        name: {
            "mean": p.mean(),
            "median": np.median(p),
            "sd": p.std(),
            "above_0.8": np.mean(p > 0.8),
        }
        for name, (p, _) in figures.items()
    }


def true_class_probabilities(
    params: Params, loss: str, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Each test image's probability of its true class [n], and whether it is predicted [n]."""
    on_device = jax.tree.map(jnp.asarray, (params, dataset.test))
    p, correct = ground_truth_probabilities(*on_device, dataset.standardiser, LOSSES[loss])
    return np.asarray(p), np.asarray(correct)


def _write(results, summary, dataset, interrupted, watch, folder) -> None:
    losses = {
        name: {key: result[key] for key in (*runs.FIGURES_OF_RESULT, "diverged")}
        | {"true_class_probability": summary[name]}
        for name, result in results.items()
    }
    result = {
        **runner.describe_source("loss_comparison", dataset),
        "losses": losses,
        "interrupted": interrupted,
        "seconds": watch.seconds,
    }
    records.write_json(folder / records.RESULT, result)


if __name__ == "__main__":
    flags.define(*(name for name in flags.RUN if name != "loss"))
    runner.launch(main)
