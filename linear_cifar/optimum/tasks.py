"""The rows of a solve: each fits one λ to one task, the labels and weights of the examples.

Rows with the same labels and weights share a task. Folds of the same classes differ in their
weights, and targets also in their labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from linear_cifar.checks import Setting, real_numbers
from linear_cifar.data.blocks import blocks
from linear_cifar.data.dataset import Dataset
from linear_cifar.errors import InputError

# A slice of the examples -> labels [W, m] and weights [W, m] of W tasks; weights sum to 1.
Tasks: TypeAlias = Callable[[slice], tuple[np.ndarray, np.ndarray]]


class ExampleWeights(NamedTuple):
    """Weights of n examples for R rows; rows of the same fold share theirs."""

    distinct: np.ndarray  # [F, n]
    index: Any  # [R] int, below F


class Rows(NamedTuple):
    """R rows to solve."""

    lam: np.ndarray  # [R]
    labels: np.ndarray  # [n] class ids, or [n, T] targets: 0, 1, or −1 if unknown
    weights: ExampleWeights
    target: np.ndarray  # [R] int, below T; zeros for classes
    # [F, T, 2], total weight of the negative and of the positive examples; [F, 0, 2] for classes.
    totals: np.ndarray
    by_label: np.ndarray  # [F, T, 2], factor of an example's weight by its label; likewise

    @property
    def has_targets(self) -> bool:
        """Whether each row is a logistic regression for one target."""
        return self.labels.ndim == 2

    def has_label(self, label: int) -> np.ndarray:
        """Whether any example of a row's target has the label, 0 or 1, [R]; true for classes."""
        if not self.has_targets:
            return np.ones(len(self.lam), bool)
        return self.totals[self.weights.index, self.target, label] > 0


def n_vectors(dataset: Dataset) -> int:
    """The number K of weight vectors of a row: one for a target, else one for each class."""
    return 1 if dataset.has_targets else dataset.n_classes


def as_rows(
    lam: np.ndarray,
    dataset: Dataset,
    weights: Any = None,
    target: Any = None,
    class_weight: Any = None,
) -> Rows:
    """Checked rows from the arguments of `solve_chunks`."""
    labels = np.asarray(dataset.train.labels)
    n, n_rows = len(labels), len(lam)
    if not isinstance(weights, ExampleWeights):
        distinct = np.ones(n, bool) if weights is None else real_numbers("weights", weights, "biuf")
        index = np.zeros(n_rows, int) if distinct.ndim == 1 else np.arange(len(distinct))
        weights = ExampleWeights(np.atleast_2d(distinct), index)
    distinct, index = weights
    if distinct.shape[1:] != (n,) or np.shape(index) != lam.shape:
        shape = f"[{n}], or [C, {n}] for C values of λ"
        raise InputError(f"weights are {list(distinct.shape)}: they have to be {shape}")
    if not np.isfinite(distinct).all() or (distinct < 0).any():
        raise InputError("weights have to be finite and at least 0")
    if not distinct.any(axis=1).all():
        raise InputError("weights have to be above 0 for at least one example")
    distinct = distinct / distinct.max(axis=1, keepdims=True)  # a sum may overflow
    distinct = distinct / distinct.sum(axis=1, keepdims=True, dtype=np.float64)
    if labels.ndim == 1:
        target = np.zeros(n_rows, int)
    else:
        if np.shape(target) != lam.shape:
            raise InputError(f"target has shape {list(np.shape(target))}: it has to be [{n_rows}]")
        Setting("", low=0, high=labels.shape[1] - 1, integer=True).check("target", target)
    totals = _label_totals(labels, distinct)
    rows = Rows(
        lam, labels, ExampleWeights(distinct, np.asarray(index)), np.asarray(target), totals, totals
    )
    return rows._replace(by_label=_label_factors(totals, class_weight, rows.has_targets))


def _label_totals(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weight of the negative and positive examples, [F, T, 2]; no targets for classes."""
    targets = labels if labels.ndim == 2 else labels[:, None][:, :0]
    totals = np.zeros((len(weights), targets.shape[1], 2))
    for part, block in blocks(targets, n_rows=4096):
        for value in (0, 1):
            # One dot product for each target: a matrix product rounds in a way that depends on T.
            is_value = np.ascontiguousarray(block.transpose() == value, float)
            totals[..., value] += np.vecdot(weights[:, None, part], is_value)
    return totals


def _label_factors(totals: np.ndarray, class_weight: Any, has_targets: bool) -> np.ndarray:
    """`Rows.by_label` [F, T, 2]; the weights of each target's examples then sum to 1."""
    if class_weight is None:
        factors = np.ones_like(totals)
    elif not has_targets:
        raise InputError("class_weight is for targets: give the weights of examples instead")
    elif isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InputError(f"class_weight is {class_weight!r}: it has to be balanced, or numbers")
        factors = 1 / np.where(totals > 0, totals, 1)
    else:
        pairs = real_numbers("class_weight", class_weight).astype(np.float64)
        if pairs.shape not in ((2,), (totals.shape[1], 2)):
            shape = f"[2] or [{totals.shape[1]}, 2], negative examples first"
            raise InputError(f"class_weight is {list(pairs.shape)}: it has to be {shape}")
        Setting("", above=0).check("class_weight", pairs)
        factors = np.broadcast_to(pairs, totals.shape)
    sums = np.sum(factors * totals, axis=-1, keepdims=True)
    return factors / np.where(sums > 0, sums, 1)


def tasks_of(rows: Rows, places: Any) -> tuple[Tasks, np.ndarray]:
    """The W tasks of C of the rows, and the number of each row's task, [C] int, below W."""
    (distinct, index), places = rows.weights, np.asarray(places)
    pairs = np.stack([index[places], rows.target[places]])
    (used, target), task = np.unique(pairs, axis=1, return_inverse=True)

    def read(part: slice) -> tuple[np.ndarray, np.ndarray]:
        weights = distinct[used, part]
        if not rows.has_targets:
            return np.broadcast_to(rows.labels[part], weights.shape), weights
        labels = rows.labels[part, target].T
        factors = np.append(rows.by_label[used, target], np.zeros((len(used), 1)), axis=1)
        # Labels are places among the factors; an unknown one, −1, takes the last, which is 0.
        return np.maximum(labels, 0), weights * np.take_along_axis(factors, labels.astype(int), 1)

    return read, task.ravel()


def label_shares(tasks: Tasks, n: int, n_classes: int) -> np.ndarray:
    """The weighted share of each class, mean Y, [W, K]; for a target (K = 1) of label 1."""
    labels, weights = tasks(slice(0, n))
    if n_classes == 1:
        return np.sum(labels * weights, axis=1, keepdims=True)
    pairs = zip(labels, weights, strict=True)
    return np.stack([np.bincount(row, weight, n_classes) for row, weight in pairs])
