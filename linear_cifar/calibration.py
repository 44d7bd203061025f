"""Whether probabilities are what they say: reliability, and the temperature that mends it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss, check_loss
from linear_cifar.quality import check_scores
from linear_cifar.settings import Setting, SettingsError, numbers

N_BINS = Setting("bins of equal width of the confidence", low=1, high=1_000_000)
TEMPERATURE = Setting("temperature that divides logits", above=0)
_BATCH = 1000  # rows at a time: some megabytes
# 1/T times the largest |logit|, beyond which a minimum is not looked for: then all is 0 or 1.
_FARTHEST, _STEP = 1e9, 4.0
_ROUNDING = 1e-13  # a slope over the largest |logit| that may be float64's sum of 0


class Reliability(NamedTuple):
    """Confidence and accuracy by bins of confidence, float64.

    Bin m holds the confidences above `edges[m]` and up to `edges[m + 1]`; the first one 0 too.
    """

    edges: np.ndarray  # [n_bins + 1], from 0 to 1
    n: np.ndarray  # [n_bins], int: examples in the bin
    confidence: np.ndarray  # [n_bins], their mean; NaN for an empty bin
    accuracy: np.ndarray  # [n_bins], likewise
    error: float  # the expected calibration error: |accuracy − confidence|, weighted by n


def reliability(probabilities: Any, labels: Any, n_bins: int = 15) -> Reliability:
    """How often predictions are right, by how sure they are.

    The confidence is the largest probability, and its class is predicted, the first of equal ones.

    Args:
      probabilities: [n, K], from 0 to 1; those of σ need not sum to 1.
      labels: class ids [n].
      n_bins: of equal width.

    Returns:
      `Reliability`; without examples, or where a probability is NaN, all bins are empty and the
      error is NaN.

    Raises:
      SettingsError: `n_bins` or a probability out of its range.
      DataError: as `quality.check_scores`.

    References:
      C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On Calibration of Modern Neural Networks, ICML
      2017, equations 2 and 3.

    Examples:
      >>> measured = reliability([[0.9, 0.1], [0.8, 0.2]], np.array([0, 1]), n_bins=2)
      >>> measured.n.tolist(), round(measured.error, 3)
      ([0, 2], 0.35)
    """
    N_BINS.check_integer("n_bins", n_bins)
    scores, labels = check_scores(probabilities, labels)
    edges = np.linspace(0, 1, n_bins + 1)
    if not len(labels) or np.isnan(scores).any():
        nothing = np.full(n_bins, np.nan)
        return Reliability(edges, np.zeros(n_bins, int), nothing, nothing, np.nan)
    if scores.min() < 0 or scores.max() > 1:
        raise SettingsError(
            f"probabilities have to be from 0 to 1: they go from {scores.min():g} to "
            f"{scores.max():g}"
        )
    confidence = scores.max(axis=1).astype(np.float64)
    correct = scores.argmax(axis=1) == labels
    bins = np.maximum(np.searchsorted(edges, confidence) - 1, 0)
    count = np.bincount(bins, minlength=n_bins)
    totals = [np.bincount(bins, values, minlength=n_bins) for values in (confidence, correct)]
    error = np.abs(totals[1] - totals[0]).sum() / len(labels)
    mean_confidence, accuracy = (total / np.where(count, count, np.nan) for total in totals)
    return Reliability(edges, count, mean_confidence, accuracy, float(error))


def fit_temperature(logits: Any, labels: Any, loss: Loss = SOFTMAX_CROSS_ENTROPY) -> float:
    """The temperature T at which the mean loss of logits / T is least.

    The loss is convex in 1/T, and the zero of its slope there, mean s · ∂l/∂s at s/T, is found by
    Brent's method to twelve digits in float64. Predictions stay as they are.

    Args:
      logits: of examples that were not fitted to, [n, K], finite.
      labels: class ids [n].
      loss: the loss per example.

    Raises:
      SettingsError: there are no examples, or a logit is not finite; or no T is best, since the
        loss falls as T goes to 0 (logits separate the classes) or to ∞ (they are no better than
        equal ones).
      DataError: as `quality.check_scores`.

    References:
      C. Guo et al., 2017, section 4.2, as for `reliability`.

    Examples:
      >>> three_of_four = np.array([[2.0, 0.0]] * 4)
      >>> round(fit_temperature(three_of_four, np.array([0, 0, 0, 1])), 6)  # 2 / log 3
      1.820478
    """
    from scipy import optimize

    check_loss(loss)
    scores, labels = check_scores(logits, labels)
    if not len(labels) or not np.isfinite(scores).all():
        fault = "a logit is not finite" if len(labels) else "there are no examples"
        raise SettingsError(f"no temperature can be fitted: {fault}")
    with jax.enable_x64(True):
        examples = (jnp.asarray(scores, jnp.float64), jnp.asarray(labels))

        def slope(inverse: float) -> float:
            return float(_slope(inverse, *examples, loss))

        low, high = _bracket(slope, float(np.abs(scores).max()))
        return 1 / optimize.brentq(slope, low, high, xtol=1e-12 * high, rtol=1e-12)


def _bracket(slope: Any, largest: float) -> tuple[float, float]:
    """Values of 1/T between which the slope changes its sign from below 0 to above 0."""
    zero = _ROUNDING * largest
    if slope(0.0) >= -zero:
        raise SettingsError(
            "no temperature is best: the loss falls as it goes to infinity, for the logits are no "
            "better than equal ones"
        )
    low, high = 0.0, 1 / largest
    while (there := slope(high)) <= zero:
        low, high = high if there < 0 else low, _STEP * high
        if high * largest > _FARTHEST:
            raise SettingsError(
                "no temperature is best: the loss falls as it goes to 0, for the logits separate "
                "the classes"
            )
    return low, high


@partial(jax.jit, static_argnames="loss")
def _slope(inverse, scores, labels, loss: Loss) -> jax.Array:
    """The derivative of the mean loss with respect to 1/T; under `jax.enable_x64`."""

    def example(pair):
        score, label = pair
        return jnp.vdot(score, loss.logit_gradient(inverse * score, label))

    return jnp.mean(jax.lax.map(example, (scores, labels), batch_size=_BATCH))


def scaled_probabilities(
    logits: Any, loss: Loss = SOFTMAX_CROSS_ENTROPY, temperature: float = 1.0
) -> np.ndarray:
    """The loss's probabilities of logits / T.

    Args:
      logits: [n, K].
      loss: its link makes probabilities of logits, softmax or σ.
      temperature: T > 0.

    Returns:
      [n, K], float64; NaN in rows with a logit that is not finite.

    Raises:
      SettingsError: the temperature out of its range, or logits of another form.

    Examples:
      >>> scaled_probabilities([[2.0, 0.0]], temperature=1.820478).round(3).tolist()
      [[0.75, 0.25]]
    """
    check_loss(loss)
    TEMPERATURE.check("temperature", temperature)
    scores = numbers("logits", logits)
    if scores.ndim != 2:
        raise SettingsError(f"logits have to be [n, K], not {list(scores.shape)}")
    found = np.empty(scores.shape)
    with jax.enable_x64(True):
        for start in range(0, len(scores), _BATCH):
            rows = np.asarray(scores[start : start + _BATCH], np.float64)
            rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.nan)
            found[start : start + _BATCH] = loss.probabilities(jnp.asarray(rows / temperature))
    return found
