"""Whether models differ on the same test examples: paired tests, corrected for their number."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import real_numbers
from linear_cifar.errors import InputError
from linear_cifar.metrics.intervals import summarise


class Difference(NamedTuple):
    """A mean difference, its 95 % interval and its test; floats, or arrays for several tests."""

    estimate: Any
    low: Any
    high: Any
    p: Any  # two-sided


def paired_test(a: ArrayLike, b: ArrayLike) -> Difference:
    """The mean of a − b over n pairs, with the interval and the p-value of the paired t-test.

    The values are [n], or [n, ...] for tests [...]. Pairs are two runs of the same seed, or two
    models' measures of the same example, such as their losses. `pseudo_values` of two models make
    it a test of AUROC or average precision; for the mean over targets, average the values [n, T]
    over targets first. A test is NaN if one of its values is. Its p-value is also NaN if all
    differences are equal, except that it is 1 if they are all 0.

    The test assumes many examples, and for AUROC or average precision many positives and many
    negatives. For models of equal skill p is below 0.05 in 5 % to 6 % of simulated draws with 100
    positives, and in 3 % to 7 % with 20.

    Raises:
      InputError: a and b have different shapes, or aren't numbers.

    Examples:
      >>> from linear_cifar.metrics import pseudo_values
      >>> rng = np.random.default_rng(0)
      >>> targets = rng.integers(0, 2, (1000, 5))
      >>> good, poor = (targets + noise * rng.normal(size=(1000, 5)) for noise in (1, 2))
      >>> a, b = (pseudo_values(scores, targets, "auroc") for scores in (good, poor))
      >>> paired_test(a, b).p.shape, paired_test(a.mean(axis=1), b.mean(axis=1)).p < 0.01
      ((5,), True)
    """
    from scipy.special import stdtr

    x, y = _pairs("a", a, "b", b)
    mean, sd, low, high, n = summarise(np.moveaxis(x - y, 0, -1))
    t = np.abs(mean) * np.sqrt(n) / np.where(sd == 0, np.nan, sd)
    p = np.where((sd == 0) & (mean == 0), 1, 2 * stdtr(n - 1, -t))
    return Difference(mean, low, high, p if p.ndim else float(p))


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> Any:
    """The p-value of McNemar's exact two-sided test that two models are equally accurate.

    The arguments say whether each model is correct, 1 or 0: [n], or [n, ...] for p-values [...]. If
    the models are equally accurate, each example that only one model gets right is a toss of a fair
    coin.

    Raises:
      InputError: the arguments have different shapes, or a value other than 1 and 0.

    References:
      Q. McNemar, Note on the sampling error of the difference between correlated proportions or
      percentages, Psychometrika 12, 1947.
    """
    from scipy.special import bdtr

    a, b = _pairs("correct_a", correct_a, "correct_b", correct_b)
    for name, values in (("correct_a", a), ("correct_b", b)):
        if not np.isin(values, (0, 1)).all():
            raise InputError(f"{name} has to be 1 or 0, or True or False, for each example")
    only_a, only_b = (a > b).sum(axis=0), (a < b).sum(axis=0)
    p = np.minimum(2 * bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5), 1)
    return p if p.ndim else float(p)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p-values [m] of m tests with p-values [m].

    Reject the tests whose adjusted p-value is at most α: the probability of any wrong rejection is
    then at most α. A NaN stays NaN, and counts among the m.

    Raises:
      InputError: the p-values aren't [m], or one is outside 0 to 1.

    References:
      S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
      Statistics 6, 1979.

    Examples:
      >>> holm([0.03, 0.01, 0.04])
      array([0.06, 0.03, 0.06])
    """
    values = real_numbers("p", p).astype(float)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise InputError("p has to be [m], each from 0 to 1")
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def _pairs(name_a: str, a: Any, name_b: str, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64; `InputError` unless they have the same shape [n, ...]."""
    x, y = (real_numbers(n, v, "biuf").astype(float) for n, v in ((name_a, a), (name_b, b)))
    if x.shape != y.shape or not x.ndim:
        shapes = f"{list(x.shape)} and {list(y.shape)}"
        raise InputError(f"{name_a} and {name_b} both have to be [n, ...]: they are {shapes}")
    return x, y
