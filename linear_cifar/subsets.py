"""Smaller training sets, drawn by class: for learning curves, with a key for each draw."""

import jax
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.engine.training import as_key
from linear_cifar.settings import Setting, SettingsError, numbers

PER_CLASS = Setting("examples of each class", low=1)


def stratified_subset(key: jax.Array, labels: ArrayLike, n: int) -> np.ndarray:
    """Draws examples so that each class has its share, and one at least.

    What is left of the shares when they are rounded down goes to the largest remainders, of equal
    ones at random.

    Args:
      key: PRNG key; `jax.random.fold_in(key, i)` for draw i.
      labels: class ids [N].
      n: examples to draw, from the number of classes that occur to N.

    Returns:
      Rows [n] int, ascending.

    Raises:
      SettingsError: n out of its range, or labels that aren't a class id for each example.

    Examples:
      >>> labels = np.repeat([0, 1], [30, 10])
      >>> np.bincount(labels[stratified_subset(jax.random.key(0), labels, 8)]).tolist()
      [6, 2]
    """
    labels = _checked(labels)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    range_of_n = Setting("examples to draw", low=len(counts), high=len(labels))
    range_of_n.check_integer("n, with an example of each class,", n)
    of_rows, of_ties = jax.random.split(as_key(key))
    ties = np.asarray(jax.random.permutation(of_ties, len(counts)))
    return _first_of_each(of_rows, classes, _apportioned(counts, n, ties))


def few_shot(key: jax.Array, labels: ArrayLike, per_class: int) -> np.ndarray:
    """Draws the same number of examples of each class.

    With the same key, a draw of fewer is part of a draw of more.

    Args:
      key: as for `stratified_subset`.
      labels: class ids [N]; every class from 0 to the largest one counts.
      per_class: examples of each class.

    Returns:
      Rows [K · per_class] int, ascending.

    Raises:
      SettingsError: `per_class` below 1, a class with fewer examples, or labels that aren't a class
        id for each example.

    Examples:
      >>> few_shot(jax.random.key(0), [0, 1, 1, 0], per_class=2).tolist()
      [0, 1, 2, 3]
    """
    PER_CLASS.check_integer("per_class", per_class)
    labels = _checked(labels)
    # A class beyond the number of examples has others without any before it.
    counts = np.bincount(np.minimum(labels, len(labels)))
    too_few = np.flatnonzero(counts < per_class)
    if too_few.size:
        raise SettingsError(
            f"per_class is {per_class}, but of class {too_few[0]} there are only "
            f"{counts[too_few[0]]} examples"
        )
    return _first_of_each(as_key(key), labels, np.full(len(counts), per_class))


def _checked(labels: ArrayLike) -> np.ndarray:
    found = numbers("labels", labels, "iu").astype(np.int64)
    if found.ndim != 1 or not found.size or found.min() < 0:
        raise SettingsError("labels have to be class ids from 0 on, [N], N ≥ 1")
    return found


def _first_of_each(key: jax.Array, classes: np.ndarray, take: np.ndarray) -> np.ndarray:
    """Of the rows in random order, the first `take` [K] of each class; ascending."""
    order = np.asarray(jax.random.permutation(key, len(classes)))
    by_class = order[np.argsort(classes[order], kind="stable")]
    sorted_classes = classes[by_class]
    place = np.arange(len(classes)) - np.searchsorted(sorted_classes, sorted_classes)
    return np.sort(by_class[place < take[sorted_classes]])


def _apportioned(counts: np.ndarray, n: int, ties: np.ndarray) -> np.ndarray:
    """How many of n each class gets, at least 1: its share, by largest remainders.

    `ties` orders classes with equal remainders.
    """
    rare = np.zeros(len(counts), bool)  # whose share is below 1: the others share what is left
    while True:
        # In integers, where equal remainders are equal.
        quotient, remainder = np.divmod((n - rare.sum()) * counts, counts[~rare].sum())
        if not (rarer := ~rare & (quotient < 1)).any():
            break
        rare |= rarer
    take = np.where(rare, 1, quotient)
    order = np.lexsort((ties, -np.where(rare, -1, remainder)))
    take[order[: n - take.sum()]] += 1
    return take
