"""What a classifier is worth, class by class: figures on the host, of one split's logits."""

from typing import Any, NamedTuple

import numpy as np

from linear_cifar.data import checks
from linear_cifar.data.errors import DataError
from linear_cifar.settings import Setting, SettingsError, numbers
from linear_cifar.statistics import Interval, summarise

_NORMAL_QUANTILE = 1.959963984540054  # of 0.975


class ClassQuality(NamedTuple):
    """Figures of each class, [K], from 0 to 1; NaN where they are a fraction of nothing."""

    support: np.ndarray  # examples of the class
    accuracy: np.ndarray  # of these, the share predicted as the class: its recall
    low: np.ndarray  # of the accuracy's 95 % interval
    high: np.ndarray
    precision: np.ndarray  # of those predicted as the class, the share that are of it
    f1: np.ndarray  # the harmonic mean of accuracy and precision; 0 where nothing is right


def check_scores(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits or probabilities [n, K] and labels [n], as arrays on the host.

    Raises:
      DataError: another shape or dtype, or a label outside 0 … K − 1; or `SettingsError`, where
        they are no real numbers.
    """
    scores, labels = numbers("scores", scores), numbers("labels", labels, "iu")
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"scores have to be [n, K], K ≥ 2, not {list(scores.shape)}")
    checks.check_labels("true", labels, *scores.shape)
    return scores, labels.astype(np.int64)


def top_k_accuracy(logits: Any, labels: Any, k: int = 1) -> Interval:
    """The share of examples whose class is among the k with the largest logits.

    Of equal logits the first counts as the larger, as `predict` has it, so that k = 1 gives the
    accuracy.

    Args:
      logits: [n, K], or probabilities.
      labels: class ids [n].
      k: from 1 to K.

    Returns:
      The share with its 95 % interval over examples, by `summarise`; NaN where a logit is not
      finite, and where there are no examples.

    Raises:
      SettingsError: k out of its range.
      DataError: as `check_scores`.

    Examples:
      >>> top_k_accuracy([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], np.array([2, 0]), k=1).estimate
      0.5
      >>> top_k_accuracy([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], np.array([2, 0]), k=2).estimate
      1.0
    """
    scores, labels = check_scores(logits, labels)
    n, n_classes = scores.shape
    Setting("classes that may hold the true one", low=1, high=n_classes).check_integer("k", k)
    if not n or not np.isfinite(scores).all():
        return Interval(np.nan, np.nan, np.nan, n)
    true = scores[np.arange(n), labels][:, None]
    before = np.arange(n_classes) < labels[:, None]
    ahead = np.sum((scores > true) | ((scores == true) & before), axis=1)
    summary = summarise(ahead < k)
    return Interval(summary.mean, summary.low, summary.high, n)


def confusion_counts(logits: Any, labels: Any) -> np.ndarray:
    """Counts of examples by true class (rows) and predicted class (columns).

    Args:
      logits: [n, K], or probabilities; the first of equal ones is predicted.
      labels: class ids [n].

    Returns:
      [K, K] float64; all NaN where a logit is not finite.

    Raises:
      DataError: as `check_scores`.
    """
    scores, labels = check_scores(logits, labels)
    n_classes = scores.shape[1]
    if not np.isfinite(scores).all():
        return np.full((n_classes, n_classes), np.nan)
    cells = labels * n_classes + scores.argmax(axis=1)
    counts = np.bincount(cells, minlength=n_classes**2).astype(float)
    return counts.reshape(n_classes, n_classes)


def row_shares(counts: Any) -> np.ndarray:
    """A confusion matrix [K, K] over its row sums, float64; NaN for a class without examples."""
    counts = _checked(counts)
    return _ratio(counts, counts.sum(axis=1, keepdims=True))


def class_quality(counts: Any) -> ClassQuality:
    """Figures of each class.

    The interval is Wilson's, which stays within 0 to 1 and has a width where all or none of a few
    examples are right; that of `summarise` has none there.

    Args:
      counts: by true class (rows) and predicted class (columns), [K, K], of `confusion_counts` or
        `evaluation.confusion_matrix`.

    References:
      E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal
      of the American Statistical Association 22, 1927.

    Examples:
      >>> quality = class_quality([[8, 2], [0, 10]])
      >>> quality.accuracy.tolist(), quality.precision.round(3).tolist()
      ([0.8, 1.0], [1.0, 0.833])
    """
    counts = _checked(counts)
    right, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    accuracy = _ratio(right, support)
    low, high = _wilson(accuracy, support)
    precision, f1 = _ratio(right, predicted), _ratio(2 * right, support + predicted)
    return ClassQuality(support, accuracy, low, high, precision, f1)


def balanced_accuracy(counts: Any) -> float:
    """The mean over classes of their accuracy, each class counting the same.

    Args:
      counts: as for `class_quality`.

    Returns:
      A number from 0 to 1; classes without examples are left out, and NaN among the counts gives
      NaN, as no examples do.
    """
    counts = _checked(counts)
    present = counts.sum(axis=1) != 0
    return float(np.mean(class_quality(counts).accuracy[present])) if present.any() else np.nan


def _checked(counts: Any) -> np.ndarray:
    counts = numbers("counts", counts).astype(float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise SettingsError(f"counts have to be [K, K], not {list(counts.shape)}")
    return counts


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """A fraction, NaN where the whole is 0."""
    return part / np.where(whole == 0, np.nan, whole)


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's 95 % interval of shares of n; NaN where the share is."""
    z, n = _NORMAL_QUANTILE, np.maximum(n, 1)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and 1 both are equal but for rounding.
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)
