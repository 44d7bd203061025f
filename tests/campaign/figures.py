"""Properties of what is computed of logits and of figures, without any fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sklearn_metrics

from linear_cifar.data import Split, Standardiser
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import (
    balanced_accuracy,
    class_report,
    confusion_matrix,
    evaluate,
    evaluate_examples,
    fit_temperature,
    reliability,
    scaled_probabilities,
    top_k_accuracy,
)
from linear_cifar.model import Params
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
    figures = evaluate(params, split, standardiser, lam, LOSSES[loss])
    measure = jax.vmap(partial(evaluate, loss=LOSSES[loss]), in_axes=(0, None, None, 0))
    of_runs = measure(many, split, standardiser, jnp.array([lam]))
    np.testing.assert_allclose(np.array(figures), np.array(of_runs)[:, 0], rtol=1e-12)
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
    examples = evaluate_examples(params, split, standardiser, LOSSES[loss])
    assert np.array_equal(examples.predicted, predicted)
    if np.isfinite(cost):
        near(figures.cost, cost, 1e-12, 1 + largest)
        near(figures.accuracy, (predicted == wanted).mean(), 1e-15)
    counts = confusion_matrix(wanted, examples.predicted, K)
    expected = sklearn_metrics.confusion_matrix(wanted, predicted, labels=range(K))
    assert np.array_equal(counts, expected)
    of_true = losses_of(scores, wanted, loss)[1][np.arange(N), wanted]
    near(examples.probability, of_true, 1e-12)
    assert np.array_equal(examples.correct, predicted == wanted)


@of(
    800,
    0.004,
    scores=table(st.floats(-5, 5) | SMALL | ODD, N, K),
    wanted=labels(),
    k=st.integers(-1, K + 1),
)
def qualities(scores, wanted, k):
    top = attempt(top_k_accuracy, scores, wanted, k)
    assert (top is None) == (not 1 <= k <= K)
    if not np.isfinite(scores).all():
        assert top is None or np.isnan(top.estimate)
        return
    predicted = scores.argmax(axis=1)
    counts = confusion_matrix(wanted, predicted, K)
    of_class, balanced = class_report(counts), balanced_accuracy(counts)
    expected = sklearn_metrics.confusion_matrix(wanted, predicted, labels=range(K))
    assert np.array_equal(counts, expected)
    if top:
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        near(top.estimate, (ranked == wanted[:, None]).any(axis=1).mean(), 1e-15)
    settings = {"labels": range(K), "zero_division": np.nan}
    theirs = sklearn_metrics.precision_recall_fscore_support(wanted, predicted, **settings)
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
        scaled_probabilities(scores, found, LOSSES[loss]),
        losses_of(scores / found, wanted, loss)[1],
        1e-12,
    )


PARTS = properties.parts(globals())
