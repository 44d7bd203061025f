"""Histograms of the probability that models give the true class of test examples."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.data import data_title
from linear_cifar import records
from linear_cifar.data import Dataset
from linear_cifar.evaluation import ground_truth_probabilities
from linear_cifar.losses import LOSSES
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
    from linear_cifar import plots

    figures = {name: true_class_probabilities(params[name], name, dataset) for name in params}
    figure = plots.plot_probabilities(
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
    p, correct = ground_truth_probabilities(
        params, dataset.test, dataset.standardiser, LOSSES[loss]
    )
    return np.asarray(p), np.asarray(correct)
