"""Whether confidence matches accuracy: reliability, and the temperature that corrects it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linear_cifar.checks import Setting, real_numbers
from linear_cifar.errors import InputError
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss, as_loss
from linear_cifar.metrics.classification import scores_and_labels

TEMPERATURE = Setting("temperature that divides logits", above=0)


class Reliability(NamedTuple):
    """Confidence and accuracy by bins of confidence, float64.

    Bin m holds the confidences above `edges[m]` and up to `edges[m + 1]`; the first one 0 too.
    """

    edges: np.ndarray  # [n_bins + 1], from 0 to 1
    n: np.ndarray  # [n_bins], int: examples in the bin
    confidence: np.ndarray  # [n_bins], their mean; NaN for an empty bin
    accuracy: np.ndarray  # [n_bins], likewise
    error: float  # the expected calibration error: |accuracy − confidence|, weighted by n


def reliability(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> Reliability:
    """How often predictions are right, by their confidence, in bins of equal width.

    Confidence is the largest probability; the first class that has it is predicted.

    Args:
      probabilities: [n, K], from 0 to 1; with the binary losses they needn't sum to 1. If one is
        NaN, or there are no examples, all bins are empty and the error is NaN.
      labels: class ids [n].
      n_bins: from 1 to a million.

    References:
      C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, On Calibration of Modern Neural Networks, ICML
      2017: equations 2 and 3, and section 4.2 for `fit_temperature`.
    """
    Setting("", low=1, high=1_000_000, integer=True).check("n_bins", n_bins)
    scores, ids = scores_and_labels("probabilities", probabilities, labels)
    edges = np.linspace(0, 1, n_bins + 1)
    if not len(ids) or np.isnan(scores).any():
        empty = np.full(n_bins, np.nan)
        return Reliability(edges, np.zeros(n_bins, int), empty, empty, np.nan)
    Setting("", low=0, high=1).check("probabilities", scores)
    confidence = scores.max(axis=1)
    correct = scores.argmax(axis=1) == ids
    bins = np.maximum(np.searchsorted(edges, confidence) - 1, 0)
    count = np.bincount(bins, minlength=n_bins)
    sums = [np.bincount(bins, values, minlength=n_bins) for values in (confidence, correct)]
    error = np.abs(sums[1] - sums[0]).sum() / len(ids)
    mean_confidence, accuracy = (total / np.where(count, count, np.nan) for total in sums)
    return Reliability(edges, count, mean_confidence, accuracy, float(error))


def fit_temperature(
    logits: ArrayLike, labels: ArrayLike, loss: Loss | str = SOFTMAX_CROSS_ENTROPY
) -> float:
    """The temperature T that minimises the mean loss of logits / T.

    The loss is convex in 1/T. Brent's method finds the zero of its slope there, which is the mean
    of s · ∂l/∂s at s/T, to twelve digits in float64. Predictions don't change.

    The logits [n, K] are of examples that the model wasn't fitted to; the labels are class ids [n].
    It is an `InputError` if there are no examples, a logit isn't finite, or no T is best, because
    the loss falls as T goes to 0 (the logits separate the classes) or to ∞ (they are no better than
    equal logits).
    """
    from scipy import optimize

    loss = as_loss(loss)
    scores, ids = scores_and_labels("logits", logits, labels)
    if not len(ids) or not np.isfinite(scores).all():
        raise InputError("no temperature can be fitted: no examples, or a logit that isn't finite")
    none_is_best = "no temperature is best: the loss falls as it goes to"
    largest = float(np.abs(scores).max())
    zero = 1e-13 * largest  # a slope below this may be a rounded 0
    with jax.enable_x64(True):
        slope = partial(_slope, scores=jnp.asarray(scores), labels=jnp.asarray(ids), loss=loss)
        if slope(0.0) >= -zero:
            raise InputError(f"{none_is_best} infinity: the logits are no better than equal ones")
        low, high = 0.0, 1 / largest
        while (value := slope(high)) <= zero:
            low, high = high if value < 0 else low, 4 * high
            if high * largest > 1e9:  # all probabilities are 0 or 1
                raise InputError(f"{none_is_best} 0: the logits separate the classes")
        return 1 / optimize.brentq(slope, low, high, xtol=1e-12 * high, rtol=1e-12)


def scaled_probabilities(
    logits: ArrayLike, temperature: float = 1.0, loss: Loss | str = SOFTMAX_CROSS_ENTROPY
) -> np.ndarray:
    """The probabilities [n, K] of logits [n, K] over T > 0, by softmax or σ, float64.

    They are NaN in rows with a logit that isn't finite.
    """
    loss = as_loss(loss)
    TEMPERATURE.check("temperature", temperature)
    scores = np.asarray(real_numbers("logits", logits), np.float64)
    if scores.ndim != 2:
        raise InputError(f"logits have to be [n, K], not {list(scores.shape)}")
    scores = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, np.nan)
    with jax.enable_x64(True):
        return np.asarray(loss.probabilities(jnp.asarray(scores / temperature)))


@partial(jax.jit, static_argnames="loss")
def _slope(inverse: float, scores: jax.Array, labels: jax.Array, loss: Loss) -> jax.Array:
    """The derivative of the mean loss with respect to 1/T; under `jax.enable_x64`."""
    return jnp.sum(scores * loss.logit_gradient(inverse * scores, labels)) / len(scores)
