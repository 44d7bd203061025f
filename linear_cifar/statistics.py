"""Numbers with their uncertainty: over seeds, or over test images."""

from typing import Any, NamedTuple

import numpy as np

from linear_cifar.settings import SettingsError, numbers

_NORMAL_QUANTILE = 1.959963984540054  # of 0.975


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


class Moments(NamedTuple):
    """What is known of n values, of one sample [] or of many [...]; `merged` with further ones."""

    n: int
    mean: Any  # [...], float64
    squares: Any  # [...], Σ (value − mean)²


def moments(values: np.ndarray) -> Moments:
    """The moments of values [..., n], in float64; NaN where there are none."""
    values = numbers("values", values, "biuf").astype(float)
    if not values.ndim:
        raise SettingsError("values have to be [..., n], not a number")
    if not values.shape[-1]:
        return Moments(0, np.full(values.shape[:-1], np.nan), np.zeros(values.shape[:-1]))
    mean = values.mean(axis=-1)
    return Moments(values.shape[-1], mean, ((values - mean[..., None]) ** 2).sum(axis=-1))


def merged(a: Moments, b: Moments) -> Moments:
    """Those of the values of both (Chan, Golub and LeVeque, 1979)."""
    if not a.n or not b.n:
        return a if a.n else b
    n, apart = a.n + b.n, b.mean - a.mean
    squares = a.squares + b.squares + apart**2 * (a.n * b.n / n)
    return Moments(n, a.mean + apart * (b.n / n), squares)


def summarise(values: np.ndarray) -> Summary:
    """Mean, standard deviation and 95 % interval of the mean, by Student's t.

    Args:
      values: [n], n ≥ 1, independent repetitions; or [..., n], for fields [...].

    Returns:
      The `Summary`; NaN among the values makes it NaN.
    """
    return summary_of(moments(values))


def summary_of(of: Moments) -> Summary:
    """The `Summary` of values by their moments."""
    from scipy import stats

    sd = half = np.full_like(of.mean, np.nan)
    if of.n > 1:
        sd = np.sqrt(of.squares / (of.n - 1))
        half = float(stats.t.ppf(0.975, of.n - 1)) * sd / np.sqrt(of.n)
    mean, sd, low, high = (
        field if np.ndim(field) else float(field)
        for field in (of.mean, sd, of.mean - half, of.mean + half)
    )
    return Summary(mean, sd, low, high, of.n)


def share_interval(share: Any, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's 95 % interval of a share of n, as an accuracy over n examples is.

    It stays within 0 to 1 and has a width where all or none of a few are right; that of `summarise`
    has neither.

    Args:
      share: from 0 to 1, of any shape.
      n: of what, of the same shape or [].

    Returns:
      Both ends, float64, in the shape of the share; NaN where the share is.

    References:
      E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal
      of the American Statistical Association 22, 1927.

    Examples:
      >>> low, high = share_interval(1.0, 10)
      >>> round(float(low), 4), float(high)
      (0.7225, 1.0)
    """
    z, share, n = _NORMAL_QUANTILE, np.asarray(share, float), np.maximum(np.asarray(n, float), 1)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and 1 an end is there too, but for rounding.
    return np.where(share == 0, 0, centre - half), np.where(share == 1, 1, centre + half)


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

    Raises:
      SettingsError: they are no pairs of numbers.
    """
    a, b = (numbers(name, values, "biuf").astype(float) for name, values in (("a", a), ("b", b)))
    if a.shape != b.shape or a.ndim != 1:
        raise SettingsError(f"a and b have to be [n] both: they are {a.shape} and {b.shape}")
    summary = summarise(a - b)
    return Interval(summary.mean, summary.low, summary.high, summary.n)
