"""Histograms of the probability that models give the true class of test examples."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.data import data_title
from linear_cifar import LOSSES, Dataset, Params
from linear_cifar.metrics import evaluate_examples


def probability_histograms(
    params: Mapping[str, Params], dataset: Dataset, runs: str
) -> tuple[Any, dict[str, dict[str, Any]]]:
    """A figure with a panel per loss, and its numbers.

    Args:
      params: a model by the name of its loss, [K, d] and [K].
      dataset: its test examples are drawn.
      runs: the origin of the models, as a part of the title.

    Returns:
      The matplotlib `Figure`; and by loss the mean, median and standard deviation of the
      probabilities, and the share above 0.8.
    """
    from linear_cifar.plots import label_axes, new_figure  # matplotlib takes half a second

    title = f"Test examples by the probability of their true class, {runs} · {data_title(dataset)}"
    figure = new_figure(title, (5.5 * len(params), 4))
    panels = figure.subplots(1, len(params), sharex=True, sharey=True, squeeze=False)[0]
    summary = {}
    for ax, (name, of_loss) in zip(panels, params.items(), strict=True):
        probability, correct = true_class_probabilities(of_loss, name, dataset)
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


def true_class_probabilities(
    params: Params, loss: str, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Each test example's probability of its true class [n], and whether it is predicted [n]."""
    params = jax.tree.map(jnp.asarray, params)
    examples = evaluate_examples(params, dataset.test, dataset.standardiser, LOSSES[loss])
    return np.asarray(examples.probability), np.asarray(examples.correct == 1)
