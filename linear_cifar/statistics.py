"""Numbers with their uncertainty: over seeds, or over test images."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate with a 95 % confidence interval."""

    estimate: float
    low: float  # NaN, as `high`, where one value says nothing of the spread
    high: float
    n: int  # values that the estimate is the mean of


class Summary(NamedTuple):
    """What repeated runs gave."""

    mean: float
    sd: float  # with divisor n − 1; NaN for one value
    low: float  # of the 95 % confidence interval of the mean; NaN for one value
    high: float
    n: int


def summarise(values: np.ndarray) -> Summary:
    """Mean, standard deviation and 95 % interval of the mean, by Student's t.

    Args:
      values: [n], n ≥ 1, independent repetitions.

    Returns:
      The `Summary`; NaN among the values makes it NaN.
    """
    values = np.asarray(values, float)
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(mean, np.nan, np.nan, np.nan, 1)
    from scipy import stats

    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / np.sqrt(n)
    return Summary(mean, sd, mean - half, mean + half, n)


def paired_difference(a: np.ndarray, b: np.ndarray) -> Interval:
    """The mean of a − b over pairs, with the interval of the paired t-test.

    Pairs are runs of the same seed; or, for two models, the same test image with 1 for a correct
    prediction and 0 else, whose mean difference is the difference of accuracies (with thousands of
    images the t-interval is that of McNemar's test with the normal approximation).

    Args:
      a: [n].
      b: [n], in the same order.

    Returns:
      The `Interval` of mean(a − b).
    """
    summary = summarise(np.asarray(a, float) - np.asarray(b, float))
    return Interval(summary.mean, summary.low, summary.high, summary.n)
