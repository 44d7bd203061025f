"""Properties of numbers: statistics, standardisers, penalties, and the choice of the best."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from linear_cifar.data import fit_standardiser, normalised_rows
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import paired_difference, summarise
from linear_cifar.penalties import lam_from, lam_to
from linear_cifar.selection import best, one_standard_error, ranking
from tests.campaign import properties
from tests.campaign.figures import NAMES, ODD, SMALL, near, table
from tests.campaign.properties import attempt, of


@of(
    800,
    0.003,
    values=hnp.arrays(float, st.integers(1, 8), elements=st.floats(-1e6, 1e6)),
    other=hnp.arrays(float, st.integers(0, 8), elements=st.floats(-1e6, 1e6)),
)
def summaries(values, other):
    found, scale = summarise(values), 1 + np.abs(values).max()
    near(found.mean, values.mean(), 1e-13, scale)
    if len(values) > 1:
        sd = values.std(ddof=1)
        near(found.sd, sd, 1e-9, scale)
        half = stats.t.ppf(0.975, len(values) - 1) * sd / np.sqrt(len(values))
        near([found.low, found.high], [values.mean() - half, values.mean() + half], 1e-8, scale)
    else:
        assert np.isnan([found.sd, found.low, found.high]).all()
    pair = attempt(paired_difference, values, other)
    assert (pair is None) == (len(values) != len(other))
    if pair and len(values) > 1 and np.ptp(values - other):
        theirs = stats.ttest_rel(values, other).confidence_interval()
        near([pair.low, pair.high], theirs, 1e-8, scale)


@of(
    700,
    0.002,
    rng=properties.GENERATORS,
    n=st.integers(1, 600),
    offset=st.sampled_from([0, 3, 1e4]),
    scale=st.sampled_from([0, 1e-3, 1, 1e6]),
    dtype=st.sampled_from(["f2", "f4", "f8", "u1", "i4"]),
)
def standardised(rng, n, offset, scale, dtype):
    with np.errstate(all="ignore"):
        inputs = np.clip(offset + scale * rng.normal(size=(n, 3)), -60_000, 60_000).astype(dtype)
    wide = inputs.astype(np.longdouble)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    found = fit_standardiser(inputs)
    size = 1 + np.abs(wide).max()
    near(found.mean, mean.astype(float), 1e-12, float(size))
    constant = (inputs == inputs[0]).all(axis=0)
    assert (found.scale[constant] == 1).all()
    varied = deviation > 1e-9 * size
    near(found.scale[varied], deviation[varied].astype(float), 1e-9)
    assert (found.scale > 0).all()


@of(500, 0.001, rows=table(st.floats(-1e300, 1e300) | SMALL, 4, 3))
def unit_rows(rows):
    wide = rows.astype(np.longdouble)
    lengths = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    expected = (wide / np.where(lengths == 0, 1, lengths)).astype(float)
    near(normalised_rows(rows), expected, 1e-14)


@of(
    500,
    0.001,
    lam=st.floats(1e-300, 1e300) | ODD | st.sampled_from([-1.0, 5e-324]),
    n=st.integers(-1, 10**6),
    n_classes=st.integers(0, 5),
    loss=NAMES,
)
def penalties(lam, n, n_classes, loss):
    with np.errstate(over="ignore", divide="ignore"):
        found = attempt(lam_to, lam, n, n_classes, LOSSES[loss])
        assert (found is None) == (not (0 < lam < np.inf and n >= 1 and n_classes >= 2))
        if found is None:
            return
        assert found.weight_decay == 2 * lam
        share = 0.5 if n_classes == 2 else 1
        share = share if loss == "softmax" else n_classes
        near(found.C, 1 / (2 * n * share * lam), 1e-14, 0)
        near(found.alpha, 2 * share * lam, 1e-14, 0)
        for name, value in found._asdict().items():
            if np.isfinite(value) and value > 1e-300:
                near(lam_from(n, n_classes, LOSSES[loss], **{name: value}), lam, 1e-12, 0)


@of(
    700,
    0.001,
    accuracy=table(st.sampled_from([0.1, 0.5, 0.9, np.nan, np.inf]), 5),
    loss=table(st.sampled_from([0.1, 1.0, np.nan, np.inf, -np.inf]), 5) | st.none(),
    by=st.sampled_from(["accuracy", "loss", "x"]),
)
def rankings(accuracy, loss, by):
    order = attempt(ranking, accuracy, loss, by)
    assert (order is None) == (by == "x")
    if order is None:
        return
    losses = np.zeros(5) if loss is None else loss
    keys = [(-a, b) if by == "accuracy" else (b, -a) for a, b in zip(accuracy, losses, strict=True)]
    finite = np.isfinite(accuracy) & np.isfinite(losses)
    good = sorted(np.flatnonzero(finite), key=keys.__getitem__)
    assert order[: len(good)].tolist() == good
    assert sorted(order) == list(range(5))
    first = attempt(best, accuracy, loss, by)
    assert first == (good[0] if good else None)


@of(
    500,
    0.001,
    lam=table(st.floats(1e-6, 10), 5),
    mean=table(st.sampled_from([0.1, 0.4, 0.5, np.nan]), 5),
    error=table(st.sampled_from([0.0, 0.1, np.nan]), 5),
    by=st.sampled_from(["accuracy", "loss"]),
)
def within_an_error(lam, mean, error, by):
    found = attempt(one_standard_error, lam, mean, error, by)
    assert (found is None) == bool(np.isnan(mean).all())
    if found is None:
        return
    sign = 1 if by == "accuracy" else -1
    first = int(np.nanargmax(sign * mean))
    reach = 0 if np.isnan(error[first]) else error[first]
    good = [i for i in range(5) if sign * mean[i] >= sign * mean[first] - reach]
    assert lam[found] == max(lam[i] for i in good)
    assert found in good


PARTS = properties.parts(globals())
