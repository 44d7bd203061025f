"""The losses, per example, and their gradients with respect to the logits, derived by hand.

The mean over examples and the penalty λ‖W‖² enter in `objective`, and nowhere else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from linear_cifar.settings import SettingsError


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, l = logsumexp(s) − s_y.

    Args:
      logits: scores s [..., K], floating.
      labels: class ids y [...], integers from 0 to K − 1; others give NaN.

    Returns:
      Loss of each example [...], in nats, in the dtype of the logits.

    Examples:
      >>> softmax_cross_entropy(jnp.array([1e4, 0.0]), jnp.array(1)).item()
      10000.0
    """
    # -1 would otherwise count from the end.
    index = jnp.where(labels < 0, logits.shape[-1], labels)[..., None]
    label_logits = jnp.take_along_axis(logits, index, axis=-1, mode="fill", fill_value=jnp.nan)
    return jax.nn.logsumexp(logits, axis=-1) - label_logits[..., 0]


def softmax_cross_entropy_gradient(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Gradient of `softmax_cross_entropy` with respect to the logits, G = P − Y.

    With p = softmax(s): ∂ logsumexp(s) / ∂s_k = e^{s_k} / Σⱼ e^{s_j} = p_k, and ∂s_y / ∂s_k is 1
    where k = y and 0 elsewhere, which is the one-hot Y.

    Args:
      logits: scores s [..., K], floating.
      labels: class ids y [...], integers from 0 to K − 1; others give NaN.

    Returns:
      G [..., K], in the dtype of the logits.
    """
    return softmax_probabilities(logits) - _one_hot(logits, labels)


def softmax_cross_entropy_hessian(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Second derivatives of `softmax_cross_entropy` by the logits, diag(p) − p pᵀ.

    For ∂p_k / ∂s_j = p_k (1 where k = j, else 0) − p_k p_j; the label has no part in them.

    Args:
      logits: scores s [..., K], floating.

    Returns:
      The vectors a and r of diag(a) − r rᵀ, [..., K] each.
    """
    p = softmax_probabilities(logits)
    return p, p


def softmax_probabilities(logits: jax.Array) -> jax.Array:
    """The softmax over classes, p_k = e^{s_k} / Σⱼ e^{s_j}; shape and dtype of the logits."""
    return jax.nn.softmax(logits, axis=-1)


def multiple_binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy of each class against the rest, the mean over the K classes.

    l = −(1/K) Σₖ [y_k log σ(s_k) + (1 − y_k) log(1 − σ(s_k))], with y the one-hot label.

    Args:
      logits: scores s [..., K], floating.
      labels: class ids y [...], integers from 0 to K − 1; others give NaN.

    Returns:
      Loss of each example [...], in nats a class, in the dtype of the logits.

    Examples:
      >>> multiple_binary_cross_entropy(jnp.array([1e4, -1e4]), jnp.array(0)).item()
      0.0
    """
    # −log σ(s) = softplus(−s) and −log(1 − σ(s)) = softplus(s): no σ that rounds to 0 or 1 is
    # ever taken the logarithm of.
    sign = 1 - 2 * _one_hot(logits, labels)
    return jnp.mean(jax.nn.softplus(sign * logits), axis=-1)


def multiple_binary_cross_entropy_gradient(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Gradient of `multiple_binary_cross_entropy` with respect to the logits, G = (σ(S) − Y)/K.

    From d log σ(s) / ds = 1 − σ(s) and d log(1 − σ(s)) / ds = −σ(s):

        ∂l/∂s_k = −(1/K) [y_k (1 − σ(s_k)) − (1 − y_k) σ(s_k)] = (σ(s_k) − y_k) / K.

    Erratum: the report prints −(1/K) [(1 − y_k)(1/(1 − σ(s_k)) − 1) + y_k (1 − σ(s_k))]. Its first
    term is wrong in form and sign, for 1/(1 − σ) − 1 = σ/(1 − σ) where −σ belongs. The printed form
    fails the gradient check that this one passes.

    Args:
      logits: scores s [..., K], floating.
      labels: class ids y [...], integers from 0 to K − 1; others give NaN.

    Returns:
      G [..., K], in the dtype of the logits. Of a logit that is NaN its own class alone has NaN,
      for the classes' losses have nothing in common; the loss is NaN.

    References:
      E. Dieme, DD2424 Deep Learning in Data Science, Assignment 1, KTH, 2024: "Multiple binary
      cross-entropy losses".
    """
    return (sigmoid_probabilities(logits) - _one_hot(logits, labels)) / logits.shape[-1]


def multiple_binary_cross_entropy_hessian(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Second derivatives of `multiple_binary_cross_entropy` by the logits, diag(σ(1 − σ)) / K.

    Args:
      logits: scores s [..., K], floating.

    Returns:
      The vectors a and r of diag(a) − r rᵀ, [..., K] each; r is 0.
    """
    p = sigmoid_probabilities(logits)
    return p * sigmoid_probabilities(-logits) / logits.shape[-1], jnp.zeros_like(p)


def sigmoid_probabilities(logits: jax.Array) -> jax.Array:
    """The probability of each class against the rest, p_k = σ(s_k); shape and dtype of `logits`."""
    return jax.nn.sigmoid(logits)


def _one_hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The one-hot labels [..., K]; NaN for one outside 0 … K − 1, which would be 0 everywhere."""
    n_classes = logits.shape[-1]
    known = jnp.expand_dims((labels >= 0) & (labels < n_classes), -1)
    return jnp.where(known, jax.nn.one_hot(labels, n_classes, dtype=logits.dtype), jnp.nan)


class Loss(NamedTuple):
    """A loss per example, with the gradient and the probabilities that belong to it."""

    name: str
    title: str  # for figures and tables
    value: Callable[[jax.Array, jax.Array], jax.Array]  # logits [..., K], labels [...] -> [...]
    logit_gradient: Callable[[jax.Array, jax.Array], jax.Array]  # the same -> [..., K]
    probabilities: Callable[[jax.Array], jax.Array]  # logits [..., K] -> [..., K]
    # logits [..., K] -> a and r [..., K], the second derivatives being diag(a) − r rᵀ; None: they
    # are differentiated, a column at a time, which takes long for many classes.
    logit_hessian: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None = None


SOFTMAX_CROSS_ENTROPY = Loss(
    "softmax",
    "softmax cross-entropy",
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
    softmax_probabilities,
    softmax_cross_entropy_hessian,
)
MULTIPLE_BINARY_CROSS_ENTROPY = Loss(
    "multi_bce",
    "multiple binary cross-entropy",
    multiple_binary_cross_entropy,
    multiple_binary_cross_entropy_gradient,
    sigmoid_probabilities,
    multiple_binary_cross_entropy_hessian,
)
LOSSES = {loss.name: loss for loss in (SOFTMAX_CROSS_ENTROPY, MULTIPLE_BINARY_CROSS_ENTROPY)}


def check_loss(loss: Any) -> None:
    """Raises `SettingsError` where it isn't a `Loss`."""
    if not isinstance(loss, Loss):
        raise SettingsError(f"loss is {loss!r}: it has to be a Loss, as those in LOSSES")
