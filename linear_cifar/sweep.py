"""Tables of configurations, trained from several seeds, and the choice of the best."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
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


def calls(
    keys: jax.Array, table: Hyperparameters, shuffle: bool = False
) -> list[tuple[jax.Array, Hyperparameters]]:
    """The calls of `training.epochs` that train every configuration from every seed.

    All runs share one call, and with it each batch that is read. Shuffled, every seed has an order
    of its own, so that there is a call for each. A single run is a call without an axis of runs.

    Args:
      keys: PRNG keys of the seeds, [S].
      table: fields [C], or scalars that go for every configuration.
      shuffle: whether the examples will be shuffled.

    Returns:
      (key or keys, hyper-parameters) of each call; `collect` puts what they give together.
    """
    n = max(np.size(field) for field in table)
    columns = [np.broadcast_to(field, n) for field in table]
    table = Hyperparameters(*columns)
    if n == len(keys) == 1:
        return [(keys[0], Hyperparameters(*(column[0] for column in columns)))]
    if shuffle:
        return [(key, table) for key in keys]
    tiled = Hyperparameters(*(np.tile(column, len(keys)) for column in columns))
    return [(jnp.repeat(keys, n), tiled)]


def collect(results: Sequence[Any], n_seeds: int, n_configurations: int) -> Any:
    """What the `calls` of a table gave, as one tree of numpy arrays [S, C, …].

    Args:
      results: of each call, a tree of arrays, all of the same form.
      n_seeds: S.
      n_configurations: C.
    """

    def together(*arrays):
        shape = np.shape(arrays[0])
        if n_seeds * n_configurations > 1:
            shape = shape[1:]  # the axis of runs
        return np.stack(arrays).reshape(n_seeds, n_configurations, *shape)

    return jax.tree.map(together, *results)


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
