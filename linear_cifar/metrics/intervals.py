"""Means with their 95 % confidence intervals, over seeds or over test examples."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import real_numbers

NORMAL_QUANTILE = 1.959963984540054  # of 0.975


class Interval(NamedTuple):
    """An estimate with a 95 % confidence interval; floats, or arrays for several estimates."""

    estimate: Any
    low: Any  # NaN, as is `high`, if there is only one value
    high: Any
    n: Any  # int: values that the estimate is the mean of


class Summary(NamedTuple):
    """Mean and spread of n values; floats for a sample [n], arrays [...] for samples [..., n]."""

    mean: Any
    sd: Any  # with divisor n − 1; NaN for one value
    low: Any  # of the 95 % confidence interval of the mean; NaN for one value
    high: Any
    n: int


def summarise(values: ArrayLike) -> Summary:
    """Mean, standard deviation and the mean's 95 % interval by Student's t, over the last axis.

    The values are independent repetitions, [n] or [..., n]. A NaN among them makes the `Summary`
    NaN, and so does n = 0.
    """
    from scipy.special import stdtrit

    values = real_numbers("values", values, "biuf").astype(np.float64)
    n = values.shape[-1]
    nothing = np.full(values.shape[:-1], np.nan)
    mean = values.mean(axis=-1) if n else nothing
    sd = values.std(axis=-1, ddof=1) if n > 1 else nothing
    half = stdtrit(n - 1, 0.975) * sd / np.sqrt(n)
    fields = (mean, sd, mean - half, mean + half)
    mean, sd, low, high = (a if np.ndim(a) else float(a) for a in fields)
    return Summary(mean, sd, low, high, n)


def accuracy_interval(share: Any, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Wilson's 95 % interval of an accuracy, or another share, of n examples.

    The share has any shape, and n has the same or []. Unlike Student's, the interval stays within 0
    to 1, and it has a width even if all examples are right, or none.

    References:
      E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal
      of the American Statistical Association 22, 1927.
    """
    z, share = NORMAL_QUANTILE, np.asarray(share, float)
    n = np.maximum(np.asarray(n, float), 1)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # An accuracy of 0 or 1 is itself an end; rounding would put the end beside it.
    return np.where(share == 0, 0, centre - half), np.where(share == 1, 1, centre + half)
