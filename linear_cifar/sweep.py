"""Tables of configurations, and the choice of the best by validation."""

import itertools
from collections.abc import Sequence

import numpy as np

from linear_cifar.optimizers import Hyperparameters


def grid(**axes: Sequence[float]) -> Hyperparameters:
    """Every combination of the values of some fields, the last one varying fastest.

    Args:
      **axes: values by field of `Hyperparameters`; `lam` and `learning_rate` among them.

    Returns:
      `Hyperparameters` whose given fields are numpy arrays [C].

    Examples:
      >>> grid(learning_rate=[0.1, 0.2], lam=[0.0, 1.0]).lam.tolist()
      [0.0, 1.0, 0.0, 1.0]
    """
    columns = np.array(list(itertools.product(*axes.values()))).T
    return Hyperparameters(**dict(zip(axes, columns, strict=True)))


def best(validation_accuracy: np.ndarray) -> int:
    """The index of the highest validation accuracy: the first of equal ones, never a NaN.

    Args:
      validation_accuracy: [C]; NaN for a configuration that diverged.

    Returns:
      An index from 0 to C − 1.

    Raises:
      ValueError: every configuration diverged.
    """
    if np.isnan(validation_accuracy).all():
        raise ValueError("every configuration diverged")
    return int(np.nanargmax(validation_accuracy))
