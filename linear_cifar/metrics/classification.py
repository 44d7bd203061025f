"""Accuracy class by class, on the host: the confusion matrix and the numbers that it gives."""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from linear_cifar.checks import Setting, real_numbers
from linear_cifar.data.dataset import check_one_label_each, class_ids
from linear_cifar.errors import InputError
from linear_cifar.metrics.intervals import Interval, accuracy_interval


class ClassReport(NamedTuple):
    """Numbers for each class, [K] float64; shares are NaN if they are of no examples."""

    support: np.ndarray  # examples of the class
    accuracy: np.ndarray  # share of its examples predicted as the class: the recall
    low: np.ndarray  # of the accuracy's 95 % interval
    high: np.ndarray
    precision: np.ndarray  # share of the predictions of the class that are right
    f1: np.ndarray  # harmonic mean of accuracy and precision; 0 if none is right


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> np.ndarray:
    """Counts [K, K] of examples by true class (rows) and predicted class (columns).

    Labels and predictions are class ids [n]. An example isn't counted if its label is out of range,
    or if it is predicted as −1 because its logits aren't finite.
    """
    rows = real_numbers("labels", labels, "iu").astype(np.int64)
    columns = real_numbers("predicted", predicted, "iu").astype(np.int64)
    check_one_label_each("true", rows, rows.size)
    check_one_label_each("predicted", columns, len(rows))
    counted = (np.minimum(rows, columns) >= 0) & (np.maximum(rows, columns) < n_classes)
    cells = rows[counted] * n_classes + columns[counted]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def row_shares(counts: ArrayLike) -> np.ndarray:
    """A confusion matrix [K, K] over its row sums, float64; NaN for a class without examples."""
    matrix = _counts(counts)
    return _ratio(matrix, matrix.sum(axis=1, keepdims=True))


def class_report(counts: ArrayLike) -> ClassReport:
    """Accuracy with its interval, precision and F1 of each class, from a `confusion_matrix`."""
    matrix = _counts(counts)
    right, support, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    accuracy = _ratio(right, support)
    low, high = accuracy_interval(accuracy, support)
    precision, f1 = _ratio(right, predicted), _ratio(2 * right, support + predicted)
    return ClassReport(support, accuracy, low, high, precision, f1)


def balanced_accuracy(counts: ArrayLike) -> float:
    """The mean of the classes' accuracies, from a `confusion_matrix`: rare classes count fully.

    Classes without examples are left out; without any example it is NaN.
    """
    report = class_report(counts)
    accuracies = report.accuracy[report.support > 0]
    return float(np.mean(accuracies)) if len(accuracies) else np.nan


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 1) -> Interval:
    """The share of examples whose class is among the k with the largest logits.

    Of equal logits the first counts as the larger one, as in `predict`, so k = 1 gives the
    accuracy. The `Interval` is Wilson's; NaN if a logit isn't finite, and without examples. The
    logits are [n, K], or probabilities; the labels class ids [n].
    """
    scores, ids = scores_and_labels("logits", logits, labels)
    n, n_classes = scores.shape
    Setting("", low=1, high=n_classes, integer=True).check("k", k)
    if not n or not np.isfinite(scores).all():
        return Interval(np.nan, np.nan, np.nan, n)
    true_score = scores[np.arange(n), ids][:, None]
    earlier = np.arange(n_classes) < ids[:, None]
    rank = np.sum((scores > true_score) | ((scores == true_score) & earlier), axis=1)
    share = float(np.mean(rank < k))
    low, high = accuracy_interval(share, n)
    return Interval(share, float(low), float(high), n)


def scores_and_labels(name: str, scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, K] in float64 and class ids [n] as int32, NumPy arrays; errors use the `name`."""
    scores = np.asarray(real_numbers(name, scores), np.float64)
    labels = real_numbers("labels", labels, "iu")
    if scores.ndim != 2:
        raise InputError(f"{name} have to be [n, K], not {list(scores.shape)}")
    check_one_label_each("true", labels, len(scores))
    return scores, class_ids("true", labels, np.arange(scores.shape[1]))


def _counts(counts: ArrayLike) -> np.ndarray:
    matrix = real_numbers("counts", counts).astype(np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"counts have to be [K, K], not {list(matrix.shape)}")
    return matrix


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """A share; NaN if the total is 0."""
    return part / np.where(total == 0, np.nan, total)
