"""The one stratified draw: subsets, few-shot draws, held-out splits and folds.

Each puts the examples in a random order and sorts that by class (stably). Draws take the first ones
of each class, and folds deal all out in turn. Labels are class ids [N]; `InputError` names an
argument that is out of its range.
"""

import jax
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import Setting, as_key, real_numbers
from linear_cifar.errors import InputError

N_FOLDS = Setting("folds of a stratified cross-validation", low=2, integer=True)


def stratified_subset(key: jax.Array, labels: ArrayLike, n: int) -> np.ndarray:
    """Draws n examples so that each class has its share, and at least one; ascending rows [n].

    Shares are rounded by largest remainders; ties are broken at random. n is from the number of
    classes that occur to N.
    """
    _, classes, counts = np.unique(_class_ids(labels), return_inverse=True, return_counts=True)
    bounds = Setting("", low=len(counts), high=len(classes), integer=True)
    bounds.check("n, with an example of each class,", n)
    order_key, ties_key = jax.random.split(as_key(key))
    ties = np.asarray(jax.random.permutation(ties_key, len(counts)))
    order = np.asarray(jax.random.permutation(order_key, len(classes)))
    return _draw(order, classes, _apportion(counts, n, ties, at_least=1))


def few_shot(key: jax.Array, labels: ArrayLike, per_class: int) -> np.ndarray:
    """Draws `per_class` examples of each class from 0 to the largest label; ascending rows.

    With the same key, a smaller draw is part of a larger one. A class with fewer examples is an
    `InputError`.
    """
    Setting("", low=1, integer=True).check("per_class", per_class)
    labels = _class_ids(labels)
    # A class id beyond the number of examples implies a class without any below it.
    counts = np.bincount(np.minimum(labels, len(labels)))
    rarest = np.argmin(counts)
    if counts[rarest] < per_class:
        raise InputError(f"per_class is {per_class}: class {rarest} has only {counts[rarest]}")
    order = np.asarray(jax.random.permutation(as_key(key), len(labels)))
    return _draw(order, labels, np.full(len(counts), per_class))


def held_out(generator: np.random.Generator, labels: np.ndarray, fraction: float) -> np.ndarray:
    """Draws round(fraction · N) of N examples, the same share of each class; ascending rows."""
    counts = np.bincount(labels)
    n, ties = round(fraction * len(labels)), np.arange(len(counts))
    shares = _apportion(counts, n, ties, at_least=0)
    return _draw(generator.permutation(len(labels)), labels, shares)


def stratified_folds(key: jax.Array, labels: ArrayLike, n_folds: int) -> np.ndarray:
    """Deals the examples of each class out to 2 … N folds at random.

    Returns the fold of each example, [N] int, 0 … n_folds − 1. Folds, and their shares of each
    class, differ in size by at most one example.
    """
    labels = _class_ids(labels)
    N_FOLDS._replace(high=len(labels)).check("n_folds", n_folds)
    order = np.asarray(jax.random.permutation(as_key(key), len(labels)))
    folds = np.empty(len(labels), int)
    folds[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % n_folds
    return folds


def _class_ids(labels: ArrayLike) -> np.ndarray:
    ids = real_numbers("labels", labels, "iu").astype(np.int64)
    if ids.ndim != 1 or not ids.size or ids.min() < 0:
        raise InputError("labels have to be class ids from 0 on, [n], n ≥ 1")
    return ids


def _draw(order: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The first `counts` [K] rows of each class in a random order; ascending."""
    rows = order[np.argsort(classes[order], kind="stable")]
    sorted_classes = classes[rows]
    rank = np.arange(len(classes)) - np.searchsorted(sorted_classes, sorted_classes)
    return np.sort(rows[rank < counts[sorted_classes]])


def _apportion(counts: np.ndarray, n: int, ties: np.ndarray, at_least: int) -> np.ndarray:
    """Shares n examples out among classes by largest remainders, whose ties have an order."""
    rare = np.zeros(len(counts), bool)  # classes whose share is below `at_least`
    while True:
        # In integers, so that equal remainders compare equal.
        quotient, remainder = np.divmod((n - rare.sum()) * counts, max(1, counts[~rare].sum()))
        rarer = ~rare & (quotient < at_least)
        if not rarer.any():
            break
        rare |= rarer
    shares = np.where(rare, at_least, quotient)
    order = np.lexsort((ties, -np.where(rare, -1, remainder)))
    shares[order[: n - shares.sum()]] += 1
    return shares
