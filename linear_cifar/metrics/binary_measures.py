"""The formulas of the measures of binary targets, for a batch of targets; NumPy in float64.

Each measure comes with its influence values: its derivatives with respect to the weights of the
examples, at weights of 1. The sum of their squares estimates its variance (the infinitesimal
jackknife), and `linear_cifar.metrics.pseudo_values` compares models by them.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import real_numbers
from linear_cifar.errors import InputError

# Entries of a batch of columns: enough for fast array operations, and 8 MB an array.
_BATCH = 1 << 20

# A measure [c] and its influence values [c, n].
Measure = tuple[np.ndarray, np.ndarray]


class Ranking(NamedTuple):
    """Examples from the highest score to the lowest, [c, n]; equal scores share their counts."""

    order: np.ndarray  # the example at each place
    first: np.ndarray  # the first place with the same score
    positive: np.ndarray  # whether the example is positive
    negative: np.ndarray
    positives_above: np.ndarray  # positives with a higher score
    positives: np.ndarray  # those, and the positives with the same score
    negatives_above: np.ndarray
    negatives: np.ndarray


class Columns:
    """c targets as rows [c, n], so that sums and sorts read memory in order."""

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.positive, self.negative = targets > 0, targets == 0
        self.known = self.positive | self.negative
        self.scores = np.where(self.known, scores, 0)
        finite = np.isfinite(self.scores).all(axis=1)
        self.scores[~finite] = 0
        self.counts = np.stack([m.sum(axis=1) for m in (self.known, self.positive, self.negative)])
        # The divisors of means, [c]: NaN instead of 0, and for scores that aren't finite.
        divisors = np.where(finite & (self.counts > 0), self.counts, np.nan)
        self.n, self.n_positive, self.n_negative = divisors

    @cached_property
    def ranking(self) -> Ranking:
        """The ranking by scores; unknown examples have places in it and aren't counted."""
        order = np.argsort(-self.scores, axis=1)
        ranked = np.take_along_axis(self.scores, order, axis=1)
        new = np.ones(ranked.shape, bool)  # whether the score differs from the one before
        new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        n = ranked.shape[1]
        first = np.maximum.accumulate(np.where(new, np.arange(n), 0), axis=1)
        ends = np.where(np.roll(new, -1, axis=1), np.arange(n), n)
        last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        masks = [np.take_along_axis(m, order, axis=1) for m in (self.positive, self.negative)]
        counts = []
        for mask in masks:
            total = mask.cumsum(axis=1)
            counts.append(np.take_along_axis(total - mask, first, axis=1))
            counts.append(np.take_along_axis(total, last, axis=1))
        return Ranking(order, first, *masks, *counts)


def accuracy(columns: Columns) -> Measure:
    """The share of examples whose predicted label is right: positive if the score is above 0."""
    return _mean((columns.scores > 0) == columns.positive, columns.known, columns.n)


def sensitivity(columns: Columns) -> Measure:
    """The accuracy of the positive examples."""
    return _mean(columns.scores > 0, columns.positive, columns.n_positive)


def specificity(columns: Columns) -> Measure:
    """The accuracy of the negative examples."""
    return _mean(columns.scores <= 0, columns.negative, columns.n_negative)


def balanced_accuracy(columns: Columns) -> Measure:
    """The mean of sensitivity and specificity."""
    (share, influence), (share_2, influence_2) = sensitivity(columns), specificity(columns)
    return (share + share_2) / 2, (influence + influence_2) / 2


def auroc(columns: Columns) -> Measure:
    """The mean over positives of the share of negatives with a lower score; a tie counts half.

    It is also the mean over negatives of the share of positives with a higher score; an example's
    influence comes from the mean that it is a member of. These are Sun and Xu's equations (see
    `binary_metrics`), with counts instead of midranks.
    """
    r, n_positive, n_negative = columns.ranking, columns.n_positive, columns.n_negative
    share_below = 1 - (r.negatives_above + r.negatives) / (2 * n_negative[:, None])
    share_above = (r.positives_above + r.positives) / (2 * n_positive[:, None])
    area, influence = _mean(share_below, r.positive, n_positive)
    influence += _mean(share_above, r.negative, n_negative)[1]
    return area, _by_example(r, influence)


def average_precision(columns: Columns) -> Measure:
    """The mean over positives of the precision among examples that score as high or higher.

    One more example raises the number of selected examples by 1 at its own score and at all lower
    ones, and if it is positive also the number of positives. The influence values follow by
    differentiation.
    """
    r, n_positive = columns.ranking, np.where(columns.n_negative > 0, columns.n_positive, np.nan)
    selected = np.maximum(r.positives + r.negatives, 1)
    precision = r.positives / selected
    average, influence = _mean(precision, r.positive, n_positive)

    def sum_from_here(values: np.ndarray) -> np.ndarray:
        """The sum over positives with the example's score or a lower one."""
        sums = np.where(r.positive, values, 0)[:, ::-1].cumsum(axis=1)[:, ::-1]
        return np.take_along_axis(sums, r.first, axis=1)

    change = np.where(r.positive, sum_from_here(1 / selected), 0)
    change -= np.where(r.positive | r.negative, sum_from_here(precision / selected), 0)
    return average, _by_example(r, influence + change / n_positive[:, None])


def loss(columns: Columns) -> Measure:
    """The mean of −log σ(s) over positives and −log σ(−s) over negatives, in nats."""
    losses = np.logaddexp(0, np.where(columns.positive, -columns.scores, columns.scores))
    return _mean(losses, columns.known, columns.n)


MEASURES: dict[str, Callable[[Columns], Measure]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
    "average_precision": average_precision,
    "loss": loss,
}


def batches(scores: ArrayLike, targets: ArrayLike) -> Iterator[Columns]:
    """Scores and targets [n, T], a batch of columns at a time; `InputError` if they don't fit."""
    values, labels = real_numbers("scores", scores), real_numbers("targets", targets, "biuf")
    if values.ndim != 2 or values.shape != labels.shape:
        shapes = f"{list(values.shape)} and {list(labels.shape)}"
        raise InputError(f"scores and targets both have to be [n, T]: they are {shapes}")
    valid = (labels == 0) | (labels == 1) | (labels == -1)
    if not valid.all():
        row, column = np.argwhere(~valid)[0]
        place = f"row {row}, column {column} is {labels[row, column]}"
        raise InputError(f"targets: {place}; it has to be 1, 0, or -1 for unknown")
    n, n_targets = values.shape
    width = max(_BATCH // max(n, 1), 1)
    for start in range(0, max(n_targets, 1), width):
        part = slice(start, start + width)
        yield Columns(values[:, part].T.astype(float, "C"), labels[:, part].T.astype("i1", "C"))


def _mean(values: np.ndarray, members: np.ndarray, n: np.ndarray) -> Measure:
    """The mean of the values over the n members of each row."""
    mean = np.where(members, values, 0).sum(axis=1) / n
    return mean, np.where(members, values - mean[:, None], 0) / n[:, None]


def _by_example(ranking: Ranking, values: np.ndarray) -> np.ndarray:
    """Values by place in the order of the examples."""
    result = np.empty_like(values)
    np.put_along_axis(result, ranking.order, values, axis=1)
    return result
