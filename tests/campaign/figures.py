"""Properties of what is computed of logits and of figures, without any fit."""

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics

from linear_cifar import evaluation, quality, statistics
from linear_cifar.calibration import fit_temperature, reliability, scaled_probabilities
from linear_cifar.data.types import Split, Standardiser, fit_standardiser, normalised_rows
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params
from linear_cifar.penalties import elsewhere, lam_of
from linear_cifar.search import best, one_standard_error, ranking
from tests.campaign import properties
from tests.campaign.properties import attempt, of

N, D, K = 6, 4, 3
WIDE = st.floats(-1e200, 1e200)
SMALL = st.integers(-3, 3).map(float)  # whose sums and products are exact
ODD = st.sampled_from([0.0, -0.0, 1e-300, 1e200, -1e200, np.inf, -np.inf, np.nan])
NAMES = st.sampled_from(list(LOSSES))


def table(elements: st.SearchStrategy, *shape: int) -> st.SearchStrategy:
    return hnp.arrays(np.float64, shape, elements=elements)


def labels(n: int = N, low: int = 0, high: int = K - 1) -> st.SearchStrategy:
    return hnp.arrays(np.int32, n, elements=st.integers(low, high))


def losses_of(scores: np.ndarray, wanted: np.ndarray, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses [n] and probabilities [n, K] in extended precision; NaN for a label out of range."""
    s = np.asarray(scores, np.longdouble)
    inside = (wanted >= 0) & (wanted < s.shape[1])
    hot = np.where(inside, wanted, 0)[:, None] == np.arange(s.shape[1])
    if loss == "softmax":
        away = np.exp(s - s.max(axis=1, keepdims=True))
        of_example = np.log(away.sum(axis=1)) + (s.max(axis=1) - s[hot])
        probabilities = away / away.sum(axis=1, keepdims=True)
    else:
        of_example = np.logaddexp(0, np.where(hot, -s, s)).mean(axis=1)
        probabilities = np.where(s > 0, 1, np.exp(-np.abs(s))) / (1 + np.exp(-np.abs(s)))
    return np.where(inside, of_example, np.nan).astype(float), probabilities.astype(float)


def near(found, expected, tolerance: float, scale: float = 1.0) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@of(
    1500,
    0.003,
    scores=table(WIDE | SMALL, N, K),
    wanted=labels(N, -1, K),
    loss=NAMES,
    single=st.booleans(),
)
def losses(scores, wanted, loss, single):
    of_loss = LOSSES[loss]
    scores = np.clip(scores, -1e30, 1e30).astype(np.float32) if single else scores
    expected, p = losses_of(scores, wanted, loss)
    eps = 16 * float(np.finfo(scores.dtype).eps)
    largest = 1 + float(np.abs(scores).max())
    value = np.asarray(of_loss.value(jnp.asarray(scores), jnp.asarray(wanted)))
    assert value.dtype == scores.dtype
    near(value, expected, eps, largest)
    near(of_loss.probabilities(jnp.asarray(scores)), p, eps)
    inside = (wanted >= 0) & (wanted < K)
    hot = np.where(inside[:, None], wanted[:, None] == np.arange(K), np.nan)
    share = 1 if loss == "softmax" else K
    gradient = of_loss.logit_gradient(jnp.asarray(scores), jnp.asarray(wanted))
    near(gradient, (p - hot) / share, eps)
    a, r = (np.asarray(v, float) for v in of_loss.logit_hessian(jnp.asarray(scores)))
    second = np.eye(K) * a[:, None] - r[:, :, None] * r[:, None]
    crossed = p[:, :, None] * p[:, None] if loss == "softmax" else np.eye(K) * p[:, None] ** 2
    near(second, (np.eye(K) * p[:, None] - crossed) / share, eps)


@of(
    1000,
    0.005,
    weights=table(SMALL | ODD, K, D),
    bias=table(SMALL, K),
    inputs=table(SMALL | ODD, N, D),
    wanted=labels(),
    lam=st.sampled_from([0.0, 0.1, 1e300]),
    loss=NAMES,
)
def measured(weights, bias, inputs, wanted, lam, loss):
    standardiser = Standardiser(np.ones(D), np.full(D, 2.0))
    params, split = Params(weights, bias), Split(inputs, wanted)
    many = Params(weights[None], bias[None])
    figures = evaluation.evaluate(params, split, standardiser, lam, LOSSES[loss])
    of_runs = evaluation.evaluate_runs(many, split, standardiser, np.array([lam]), LOSSES[loss])
    np.testing.assert_array_equal(np.array(figures), np.array(of_runs)[:, 0])
    with np.errstate(all="ignore"):
        scores = ((inputs - 1) / 2) @ weights.T + bias
        finite = np.isfinite(scores).all(axis=1)
        cost = losses_of(scores, wanted, loss)[0].mean() + lam * (weights**2).sum()
    if not finite.all():
        assert np.isnan(np.array(figures)).all()
        return
    assert np.isnan(figures.accuracy) == (not np.isfinite(cost))
    top = np.sort(scores, axis=1)
    largest = np.abs(scores).max()
    if largest >= 1e10 and (top[:, -1] - top[:, -2] <= 1e-9 * largest).any():
        return  # rounding decides
    near(figures.loss, losses_of(scores, wanted, loss)[0].mean(), 1e-12, 1 + largest)
    predicted = scores.argmax(axis=1)
    found = evaluation.predictions(many, split, standardiser)
    assert np.array_equal(found[0], predicted)
    if np.isfinite(cost):
        near(figures.cost, cost, 1e-12, 1 + largest)
        near(figures.accuracy, (predicted == wanted).mean(), 1e-15)
    counts = evaluation.confusion_matrix(params, split, standardiser)
    expected = metrics.confusion_matrix(wanted, predicted, labels=range(K))
    assert np.array_equal(counts, expected)
    of_true, right = evaluation.ground_truth_probabilities(
        params, split, standardiser, LOSSES[loss]
    )
    near(of_true, losses_of(scores, wanted, loss)[1][np.arange(N), wanted], 1e-12)
    assert np.array_equal(right, predicted == wanted)


@of(
    800,
    0.004,
    scores=table(st.floats(-5, 5) | SMALL | ODD, N, K),
    wanted=labels(),
    k=st.integers(-1, K + 1),
)
def qualities(scores, wanted, k):
    top = attempt(quality.top_k_accuracy, scores, wanted, k)
    assert (top is None) == (not 1 <= k <= K)
    counts = quality.confusion_counts(scores, wanted)
    of_class, balanced = quality.class_quality(counts), quality.balanced_accuracy(counts)
    if not np.isfinite(scores).all():
        figures = (counts, *of_class, balanced, top.estimate if top else np.nan)
        assert all(np.isnan(figure).all() for figure in figures)
        return
    predicted = scores.argmax(axis=1)
    expected = metrics.confusion_matrix(wanted, predicted, labels=range(K))
    assert np.array_equal(counts, expected)
    if top:
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        near(top.estimate, (ranked == wanted[:, None]).any(axis=1).mean(), 1e-15)
    settings = {"labels": range(K), "zero_division": np.nan}
    theirs = metrics.precision_recall_fscore_support(wanted, predicted, **settings)
    ours = (of_class.precision, of_class.accuracy, of_class.f1, of_class.support)
    for a, b in zip(ours, theirs, strict=True):
        near(a, b, 1e-14)
    near(balanced, np.nanmean(theirs[1]), 1e-14)
    for right, n, low, high in zip(
        np.diag(expected), expected.sum(1), of_class.low, of_class.high, strict=False
    ):
        if n:
            interval = stats.binomtest(int(right), int(n)).proportion_ci(method="wilson")
            near([low, high], interval, 1e-12)


@of(
    800,
    0.002,
    p=table(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), N, K),
    wanted=labels(),
    n_bins=st.integers(0, 5),
)
def reliabilities(p, wanted, n_bins):
    found = attempt(reliability, p, wanted, n_bins)
    assert (found is None) == (n_bins < 1)
    if not found:
        return
    edges = np.linspace(0, 1, n_bins + 1)
    sure, right = p.max(axis=1), p.argmax(axis=1) == wanted
    error = 0.0
    for m in range(n_bins):
        inside = (sure > edges[m]) & (sure <= edges[m + 1]) | (m == 0) & (sure == 0)
        assert found.n[m] == inside.sum()
        if inside.any():
            near(found.confidence[m], sure[inside].mean(), 1e-14)
            near(found.accuracy[m], right[inside].mean(), 1e-14)
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    near(found.error, error, 1e-13)


@of(
    500,
    0.03,
    scores=table(st.floats(-20, 20) | SMALL, N, K),
    wanted=labels(),
    loss=NAMES,
    factor=st.sampled_from([1.0, 1e-6, 1e6]),
)
def temperatures(scores, wanted, loss, factor):
    scores = factor * scores
    found = attempt(fit_temperature, scores, wanted, LOSSES[loss])
    if found is None:
        return
    assert 0 < found < np.inf
    at = [losses_of(scores / (found * f), wanted, loss)[0].mean() for f in (1, 0.99, 1.01)]
    assert at[0] <= min(at) + 1e-12
    near(
        scaled_probabilities(scores, LOSSES[loss], found),
        losses_of(scores / found, wanted, loss)[1],
        1e-12,
    )


@of(
    800,
    0.003,
    values=hnp.arrays(float, st.integers(1, 8), elements=st.floats(-1e6, 1e6)),
    other=hnp.arrays(float, st.integers(0, 8), elements=st.floats(-1e6, 1e6)),
)
def summaries(values, other):
    found, scale = statistics.summarise(values), 1 + np.abs(values).max()
    near(found.mean, values.mean(), 1e-13, scale)
    if len(values) > 1:
        sd = values.std(ddof=1)
        near(found.sd, sd, 1e-9, scale)
        half = stats.t.ppf(0.975, len(values) - 1) * sd / np.sqrt(len(values))
        near([found.low, found.high], [values.mean() - half, values.mean() + half], 1e-8, scale)
    else:
        assert np.isnan([found.sd, found.low, found.high]).all()
    both = np.concatenate([values, other])
    merged = statistics.merged(statistics.moments(values), statistics.moments(other))
    scale = 1 + np.abs(both).max()
    assert merged.n == len(both)
    near(merged.mean, both.mean(), 1e-13, scale)
    near(merged.squares, ((both - both.mean()) ** 2).sum(), 1e-12, scale**2)
    pair = attempt(statistics.paired_difference, values, other)
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
        found = attempt(elsewhere, lam, n, n_classes, LOSSES[loss])
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
                near(lam_of(n, n_classes, LOSSES[loss], **{name: value}), lam, 1e-12, 0)


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
