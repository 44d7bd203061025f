"""Every λ of an interval: a solution at one λ certifies all others without a pass over the data.

The feasible G′ and M′ of `certificate.py` don't depend on λ, so they are feasible for every λ′, and
the gap between J_λ′(W, b) and the dual cost there is

    gap(λ′) = divergence + (‖M + 2λ′W‖ + shift)² / (4λ′)  ≥  J_λ′(W, b) − J*_λ′.

‖M + 2λW‖² is a parabola in λ. With its lowest point λ₀ and its least value,

    ‖M + 2λ′W‖² = 4‖W‖²(λ′ − λ₀)² + ‖M + 2λ₀W‖²,

a sum of squares, in which nothing cancels. An optimum has λ₀ = λ and M = −2λW. So at λ′ = rλ its
relative gap is (r − 1)²/r times the penalty's share of the cost.

Over λ′ the gap is convex (a convex function ≥ 0, squared and divided by λ′, is), and the cost
J_λ′ = loss + λ′‖W‖² is affine and positive. So {λ′: gap ≤ x · cost} is an interval for every x, and
the relative gap of a solution is nowhere in an interval larger than at its two ends.

References: J. Giesen et al., Approximating parameterized convex optimization problems, ACM
Transactions on Algorithms 9, 2012; E. Ndiaye et al., Safe grid search with optimal complexity,
ICML 2019.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import Setting, real_numbers
from linear_cifar.errors import InputError

_BISECTIONS = 50


class Certificate(NamedTuple):
    """The numbers that bound the gaps of C solutions at every λ; NumPy, [C], float64."""

    loss: np.ndarray  # the mean loss
    squares: np.ndarray  # ‖W‖²
    centre: np.ndarray  # λ₀, at which ‖M + 2λW‖ is least
    slope: np.ndarray  # ‖M + 2λ₀W‖
    shift: np.ndarray  # an upper bound of ‖M′ − M‖
    divergence: np.ndarray  # an upper bound of what the mixture adds to the gap


def gap_at(certificate: Certificate, lam: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The cost J of solutions at any λ, and an upper bound of J − J* there, in nats, float64.

    The solutions keep their parameters, which were found for another λ. λ > 0 is broadcast against
    the C solutions: a scalar or [C] gives [C], and [P, 1] gives [P, C]. Solutions of targets are
    [C, T], for which λ is a scalar, [C, 1] or [C, T]. `InputError` if λ isn't above 0, or has a
    shape that doesn't fit.

    Examples:
      >>> from linear_cifar import solve
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0])))
      >>> optimum = solve([0.1, 1.0], data)
      >>> cost, gap = gap_at(optimum.certificate, 0.11)
      >>> (gap / cost).round(4).tolist()
      [0.004, 1.4107]
    """
    Setting("", above=0).check("lam", lam)
    values, c = np.asarray(lam, np.float64), certificate
    try:
        np.broadcast_shapes(values.shape, np.shape(c.loss))
    except ValueError as error:
        shapes = f"{list(values.shape)}, and the solutions {list(np.shape(c.loss))}"
        raise InputError(f"lam is {shapes}: it has to be broadcast to them") from error
    with np.errstate(invalid="ignore", over="ignore"):  # of solutions that diverged
        slope = np.sqrt(4 * c.squares * (values - c.centre) ** 2 + c.slope**2)
        gap = c.divergence + (slope + c.shift) ** 2 / (4 * values)
        return c.loss + values * c.squares, gap


def interval_gaps(certificate: Certificate, points: ArrayLike) -> np.ndarray:
    """Bounds of the relative gap at every λ between two neighbouring points.

    At every λ there, at least one solution has a relative gap, J − J* over its own cost J, within
    the bound: from the lower point on, the solution that is best there; and from the λ at which
    their gaps meet, the solution that is best at the upper point. The relative gap of each is
    largest at an end of its part, so no λ between the points exceeds the bound.

    Args:
      certificate: of C solutions, `Optimum.certificate`; of targets [C, T], one column.
      points: λ > 0, ascending, [P] with P ≥ 2; usually the λ that were solved.

    Returns:
      [P − 1], float64; infinite where no solution is finite.

    Raises:
      InputError: points of another shape, order or range, or certificates of several targets.

    Examples:
      >>> from linear_cifar import solve
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data, lam = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0]))), [0.1, 0.15, 0.2]
      >>> interval_gaps(solve(lam, data).certificate, lam).round(3).tolist()
      [0.018, 0.008]
    """
    points = real_numbers("points", points).astype(np.float64)
    if points.ndim != 1 or len(points) < 2 or not (np.diff(points) >= 0).all():
        raise InputError("points have to be at least two values of λ, ascending, [P]")
    fields = [np.atleast_1d(field) for field in certificate]
    if fields[0].ndim > 1:
        shape = list(fields[0].shape)
        raise InputError(f"the certificate is {shape}: it has to be [C], of one target at a time")

    def relative_gap(rows: np.ndarray | slice, lam: np.ndarray) -> np.ndarray:
        cost, gap = gap_at(Certificate(*(field[rows] for field in fields)), lam)
        ratio = gap / np.where(cost > 0, cost, 1)  # a cost of 0 has a gap of 0
        return np.where(np.isnan(ratio), np.inf, ratio)

    best = np.array([relative_gap(slice(None), point).argmin() for point in points])
    first, second, start, end = best[:-1], best[1:], points[:-1], points[1:]
    low, high = start, end
    for _ in range(_BISECTIONS):  # every split gives a valid bound, and this one the least
        middle = low * np.sqrt(high / low)
        nearer = relative_gap(first, middle) < relative_gap(second, middle)
        low, high = np.where(nearer, middle, low), np.where(nearer, high, middle)
    parts = ((first, start), (first, low), (second, low), (second, end))
    return np.max([relative_gap(*part) for part in parts], axis=0)
