"""The chosen configuration, trained on training and validation data and tested."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.common import training
from experiments.common.progress import Stopwatch
from experiments.common.results import by_seed
from experiments.common.settings import Settings
from linear_cifar.data import Dataset, with_validation
from linear_cifar.model import Params


class Refit(NamedTuple):
    """The best configuration trained on training and validation data."""

    test_accuracy: np.ndarray  # [S]
    params: Params  # of the first seed


def refit(settings: Settings, dataset: Dataset, watch: Stopwatch) -> Refit:
    """Trains one configuration on training and validation data, and tests it.

    Raises:
      KeyboardInterrupt: an interrupt came before all seeds were trained.
    """
    accuracy = np.zeros(settings.n_seeds)
    of_first: list[Params] = []

    def keep(trained: training.Trained) -> None:
        accuracy[trained.rows] = by_seed(trained.metrics, ["accuracy"])["test_accuracy"]
        if 0 in trained.rows:
            of_first.append(jax.tree.map(lambda array: array[0], trained.params))

    both = with_validation(dataset)
    if training.train([settings], both, watch, keep, measure=False):
        raise KeyboardInterrupt
    return Refit(accuracy, of_first[0])
