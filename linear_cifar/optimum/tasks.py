"""The rows of a solve: each fits one λ to one task, the labels and weights of the examples.

Rows with the same labels and weights share a task. Folds of the same classes differ in their
weights, and targets also in their labels.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.checks import Setting, real_numbers
from linear_cifar.data.blocks import blocks
from linear_cifar.data.dataset import Dataset
from linear_cifar.errors import InputError


class ExampleWeights(NamedTuple):
    """Weights of n examples for R rows; rows of the same fold share theirs."""

    distinct: np.ndarray  # [F, n]
    index: Any  # [R] int, below F


class Rows(NamedTuple):
    """R rows to solve."""

    lam: np.ndarray  # [R]
    labels: np.ndarray  # [n] class ids, or [n, T] targets: 0, 1, or −1 if unknown
    n_classes: int  # K, or T
    weights: ExampleWeights
    target: np.ndarray  # [R] int, below T; zeros for classes
    # [F, T, 2], total weight of the negative and of the positive examples; [F, 0, 2] for classes.
    totals: np.ndarray
    by_label: np.ndarray  # [F, T, 2], factor of an example's weight by its label; likewise

    @property
    def has_targets(self) -> bool:
        """Whether each row is a logistic regression for one target."""
        return self.labels.ndim == 2

    @property
    def task(self) -> np.ndarray:
        """The number of each row's task, [R]; rows of one task differ only in λ."""
        return self.weights.index * self.n_classes + self.target

    def has_label(self, label: int) -> np.ndarray:
        """Whether any example of a row's target has the label, 0 or 1, [R]; true for classes."""
        if not self.has_targets:
            return np.ones(len(self.lam), bool)
        return self.totals[self.weights.index, self.target, label] > 0


class RunTask(NamedTuple):
    """The labels and weights that each of C runs has."""

    labels: Any  # [C] int32, below L
    weights: Any  # [C] int32, below F
    factors: Any  # [C, 2], of a weight by its label, 0 or 1; None for classes


class Tasks(NamedTuple):
    """Labels and weights of the n examples for C runs, each of them once."""

    labels: np.ndarray  # [L, n], integers
    weights: np.ndarray  # [F, n], float64, each summing to 1
    run: RunTask
    shares: Any  # weighted share of each class, mean Y, [C, K]; for a target (K = 1) of label 1


def run_examples(
    task: RunTask, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Labels and weights [C, m] of m examples for C runs, from those of `Tasks`, [L, m], [F, m].

    The weight of an unknown label, −1, is 0, and the label then 0 too.
    """
    labels, weights = labels[task.labels], weights[task.weights]
    if task.factors is None:
        return labels, weights
    negative, positive = jnp.split(task.factors.astype(weights.dtype), 2, axis=1)  # [C, 1]
    factors = jnp.where(labels == 1, positive, jnp.where(labels == 0, negative, 0))
    return jnp.maximum(labels, 0), weights * factors


def n_vectors(dataset: Dataset) -> int:
    """The number K of weight vectors of a row: one for a target, else one for each class."""
    return 1 if dataset.has_targets else dataset.n_classes


def operations_per_pass(dataset: Dataset) -> int:
    """Floating-point operations of a row's pass: two products of inputs and weights."""
    return 4 * math.prod(dataset.train.inputs.shape) * n_vectors(dataset)


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
    # Rows with equal weights share a task.
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in distinct])
    distinct = distinct[np.unique(number, return_index=True)[1]]
    weights = ExampleWeights(distinct, number[np.asarray(index)])
    if labels.ndim == 1:
        target = np.zeros(n_rows, int)
    else:
        if np.shape(target) != lam.shape:
            raise InputError(f"target has shape {list(np.shape(target))}: it has to be [{n_rows}]")
        Setting("", low=0, high=labels.shape[1] - 1, integer=True).check("target", target)
    totals = _label_totals(labels, distinct)
    by_label = _label_factors(totals, class_weight, labels.ndim == 2)
    return Rows(lam, labels, dataset.n_classes, weights, np.asarray(target), totals, by_label)


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


def tasks_of(rows: Rows, places: Any) -> Tasks:
    """The tasks of the rows at some places, [C]."""
    (distinct, index), places = rows.weights, np.asarray(places)
    folds, fold = np.unique(index[places], return_inverse=True)
    targets, target = np.unique(rows.target[places], return_inverse=True)
    numbers = (target.astype(np.int32), fold.astype(np.int32))
    if not rows.has_targets:
        counts = [np.bincount(rows.labels, row, rows.n_classes) for row in distinct[folds]]
        return Tasks(
            rows.labels[None], distinct[folds], RunTask(*numbers, None), np.stack(counts)[fold]
        )
    by_run = (index[places], rows.target[places])
    run_totals, factors = rows.totals[by_run], rows.by_label[by_run]
    labels, shares = np.ascontiguousarray(rows.labels[:, targets].T), run_totals * factors
    return Tasks(labels, distinct[folds], RunTask(*numbers, factors), shares[:, 1:])
