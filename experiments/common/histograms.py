"""Histograms of the probability that models give the true class of test examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import records
from experiments.common.data import data_title
from linear_cifar.data import Dataset
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import evaluate_examples
from linear_cifar.model import Params


def plot_histograms(
    params: dict[str, Params], dataset: Dataset, seed: int, folder: Path
) -> dict[str, Any]:
    """Draws the histograms of one model a loss; returns what is in them, in numbers.

    Args:
      params: of a model by its loss's name.
      dataset: whose test examples count.
      seed: that the models are of, for the title.
      folder: of the run, to write into.
    """
    figures = {name: true_class_probabilities(params[name], name, dataset) for name in params}
    figure = plot_probabilities(
        [p for p, _ in figures.values()],
        [correct for _, correct in figures.values()],
        [LOSSES[name].title for name in figures],
        f"Test examples by the probability of their true class, seed {seed} · "
        f"{data_title(dataset)}",
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
    """Each test example's probability of its true class [n], and whether it is predicted [n]."""
    params = jax.tree.map(jnp.asarray, params)
    examples = evaluate_examples(params, dataset.test, dataset.standardiser, LOSSES[loss])
    return np.asarray(examples.probability), np.asarray(examples.correct == 1)


def plot_probabilities(
    probabilities: Sequence[np.ndarray],
    correct: Sequence[np.ndarray],
    names: Sequence[str],
    title: str,
) -> Any:
    """Histograms of the true class's probability, as a matplotlib `Figure`.

    Right and wrong predictions have one each. Each model has a panel, with its name, its
    `probabilities` [n] and whether each prediction is `correct`, bool [n]. All panels have the same
    bins and axes.
    """
    from linear_cifar.plots import label_axes, new_figure  # matplotlib takes half a second

    figure = new_figure(title, (5.5 * len(names), 4))
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for ax, values, right, name in zip(panels, probabilities, correct, names, strict=True):
        for mask, word, colour in ((right, "correctly", "C2"), (~right, "incorrectly", "C3")):
            label = f"{word} classified ({mask.sum()})"
            ax.hist(values[mask], np.linspace(0, 1, 41), alpha=0.55, color=colour, label=label)
        ax.set_title(name)
        label_axes(ax, "probability of the true class", "")
    panels[0].set_ylabel("test examples")
    return figure
