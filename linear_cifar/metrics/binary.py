"""Accuracy, AUROC, average precision and log loss of many binary targets, with intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import check_choice
from linear_cifar.metrics.binary_measures import (
    MEASURES,
    Columns,
    batches,
    sensitivity,
    specificity,
)
from linear_cifar.metrics.intervals import NORMAL_QUANTILE, Interval, accuracy_interval


class BinaryMetrics(NamedTuple):
    """Measures of T targets; each `Interval` holds arrays [T].

    A measure that doesn't exist is NaN: all five if no label is known, or the score of a known one
    isn't finite; the middle three also if the known labels are all positive, or all negative.
    """

    n: np.ndarray  # [T], int: examples whose label is known
    n_positive: np.ndarray  # [T], int
    accuracy: Interval
    balanced_accuracy: Interval  # the mean of sensitivity and specificity
    auroc: Interval  # the area under the ROC curve
    average_precision: Interval
    loss: Interval  # nats


def binary_metrics(scores: ArrayLike, targets: ArrayLike) -> BinaryMetrics:
    """Accuracy, AUROC, average precision and log loss of each target, with 95 % intervals.

    | measure | definition | interval |
    |---|---|---|
    | accuracy | share of right predictions, positive if the score is above 0 | Wilson's |
    | balanced accuracy | mean of sensitivity and specificity | MOVER, of Wilson's intervals |
    | AUROC | share of ordered pairs; a tie counts half | DeLong's variance, on the logit scale |
    | average precision | Σ precision × increase in recall | Boyd's, on the logit scale |
    | loss | mean of −log σ(±score) | Student's t |

    Average precision is scikit-learn's: examples with equal scores pass a threshold together.

    If the AUROC is 0 or 1, or average precision is 1, its estimated variance is 0 whatever the
    number of examples, and the ends of its interval are NaN. So are the AUROC's with only one
    positive or one negative example, and the loss's with only one example. In simulations with 10
    positives among 100 examples the AUROC's interval covers the truth in 90 % of draws, and with
    100 among 1,000 in 94 %.

    Args:
      scores: logits [n, T].
      targets: labels [n, T]: 1, 0, or −1 if unknown; a target ignores its unknown examples.

    Raises:
      InputError: the shapes differ, or a label isn't 1, 0 or −1.

    References:
      X. Sun, W. Xu, Fast implementation of DeLong's algorithm for comparing the areas under
      correlated receiver operating characteristic curves, IEEE Signal Processing Letters 21, 2014.

      M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction,
      2003, chapter 5: the logit scale.

      K. Boyd, K. H. Eng, C. D. Page, Area under the precision-recall curve: point estimates and
      confidence intervals, ECML PKDD 2013.

      G. Y. Zou, A. Donner, Construction of confidence limits about effect measures: a general
      approach, Statistics in Medicine 27, 2008: MOVER.

    Examples:
      >>> scores = [[2.0, 1.0], [-1.0, 3.0], [0.5, -1.0], [-2.0, -3.0]]
      >>> measured = binary_metrics(scores, [[1, 0], [0, 1], [0, 1], [1, -1]])
      >>> measured.n.tolist(), measured.auroc.estimate.tolist()
      ([4, 3], [0.5, 0.5])
    """
    parts = [(c.counts[:2], _intervals(c)) for c in batches(scores, targets)]
    (n, n_positive), intervals = (np.concatenate(a, axis=-1) for a in zip(*parts, strict=True))
    measures = (Interval(estimate, low, high, n) for estimate, low, high in intervals)
    return BinaryMetrics(n, n_positive, *measures)


def binary_scores(scores: ArrayLike, targets: ArrayLike) -> dict[str, np.ndarray]:
    """The estimates of `binary_metrics` that may choose λ, by name, [R] float64 each.

    They are "loss", "accuracy", "auroc" and "average_precision". Scores and labels are [n, R], for
    example of all targets at all λ. Errors are as for `binary_metrics`.
    """
    names = ("loss", "accuracy", "auroc", "average_precision")
    parts = [[MEASURES[name](columns)[0] for name in names] for columns in batches(scores, targets)]
    values = map(np.concatenate, zip(*parts, strict=True))
    return dict(zip(names, values, strict=True))


def pseudo_values(scores: ArrayLike, targets: ArrayLike, measure: str) -> np.ndarray:
    """A value for each example and target, [n, T] float64; its mean over examples is the measure.

    `paired_test` of these values compares a measure of two models on the same examples. A value is
    the measure + n × its derivative with respect to the example's weight (the infinitesimal
    jackknife), so it is the measure itself if the label is unknown. For the AUROC the test is
    DeLong's, up to factors of 1 − 1/n. If the measure doesn't exist for a target, its column is
    NaN.

    Args:
      scores: logits [n, T].
      targets: labels [n, T]: 1, 0, or −1 if unknown.
      measure: "accuracy", "balanced_accuracy", "auroc", "average_precision" or "loss".

    Raises:
      InputError: as for `binary_metrics`, or another measure.

    References:
      B. Efron, Nonparametric estimates of standard error: the jackknife, the bootstrap and other
      methods, Biometrika 68, 1981.

    Examples:
      >>> values = pseudo_values([[1.0], [2.0], [3.0], [4.0]], [[0], [1], [0], [1]], "auroc")
      >>> values.mean(axis=0)
      array([0.75])
    """
    check_choice("measure", measure, MEASURES)
    parts = [MEASURES[measure](columns) for columns in batches(scores, targets)]
    return np.concatenate([m[:, None] + u.shape[1] * u for m, u in parts]).T


def _intervals(columns: Columns) -> np.ndarray:
    """Estimate, low and high of each measure of `BinaryMetrics`, [5, 3, c]."""
    from scipy.special import stdtrit

    n, n_positive, n_negative = columns.n, columns.n_positive, columns.n_negative
    measured = {name: measure(columns) for name, measure in MEASURES.items()}
    accuracy, balanced, auroc, average, loss = (estimate for estimate, _ in measured.values())

    shares = np.stack([sensitivity(columns)[0], specificity(columns)[0]])
    low, high = accuracy_interval(shares, np.stack([n_positive, n_negative]))
    below, above = (np.hypot(*distance) / 2 for distance in (shares - low, high - shares))

    _, influence = measured["auroc"]
    delong = _variance(influence, columns.positive, n_positive)
    delong += _variance(influence, columns.negative, n_negative)
    binomial = average * (1 - average) / n_positive

    _, influence = measured["loss"]
    half = stdtrit(n - 1, 0.975) * np.sqrt(_variance(influence, columns.known, n))
    intervals = [
        (accuracy, *accuracy_interval(accuracy, n)),
        (balanced, balanced - below, balanced + above),
        (auroc, *_logit_interval(auroc, delong)),
        (average, *_logit_interval(average, binomial)),
        (loss, loss - half, loss + half),
    ]
    return np.array(intervals)


def _variance(influence: np.ndarray, members: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The part of a measure's variance [c] due to n members, with divisor n − 1; NaN for one."""
    squares = np.square(np.where(members, influence, 0)).sum(axis=1)
    return squares * n / np.where(n > 1, n - 1, np.nan)


def _logit_interval(share: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of an interval that is symmetric on the logit scale; NaN for a share of 0 or 1."""
    from scipy.special import expit, logit

    spread = np.where((share > 0) & (share < 1), share * (1 - share), np.nan)
    centre, half = logit(share), NORMAL_QUANTILE * np.sqrt(variance) / spread
    return expit(centre - half), expit(centre + half)
