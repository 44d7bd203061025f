"""The losses, one example at a time, and their gradients in the logits, derived by hand.

The mean over examples and the penalty λ‖W‖² enter in `objective` and nowhere else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linear_cifar.checks import check_choice
from linear_cifar.errors import InputError


def softmax_cross_entropy(logits: jax.Array, labels: ArrayLike) -> jax.Array:
    """Softmax cross-entropy, l = logsumexp(s) − s_y, of each example, [...] in nats.

    Args:
      logits: scores s [..., K], floating; all results have their dtype.
      labels: class ids y [...], integers from 0 to K − 1; any other integer gives NaN.

    Raises:
      InputError: the labels aren't integers [...], one for each example.

    Examples:
      >>> softmax_cross_entropy(jnp.array([1e4, 0.0]), 1).item()
      10000.0
    """
    index = _class_ids(logits, labels)[..., None]
    label_logits = jnp.take_along_axis(logits, index, axis=-1, mode="fill", fill_value=jnp.nan)
    return jax.nn.logsumexp(logits, axis=-1) - label_logits[..., 0]


def softmax_cross_entropy_gradient(logits: jax.Array, labels: ArrayLike) -> jax.Array:
    """Gradient of `softmax_cross_entropy` with respect to the logits, G = P − Y, [..., K].

    With p = softmax(s): ∂ logsumexp(s) / ∂s_k = e^{s_k} / Σⱼ e^{s_j} = p_k, and ∂s_y / ∂s_k is 1
    for k = y and 0 otherwise, which is the one-hot Y. Arguments as for `softmax_cross_entropy`.
    """
    return jax.nn.softmax(logits, axis=-1) - _one_hot(logits, labels)


def binary_cross_entropy(logits: jax.Array, targets: ArrayLike) -> jax.Array:
    """Binary cross-entropy, l = −[y log σ(s) + (1 − y) log(1 − σ(s))], of each entry, in nats.

    Args:
      logits: scores s [...], floating; all results have their dtype.
      targets: y [...], 0 or 1; any other number gives NaN.

    Examples:
      >>> binary_cross_entropy(jnp.array([1e4, -1e4]), jnp.array([0, 1])).tolist()
      [10000.0, 10000.0]
    """
    # −log σ(s) = softplus(−s) and −log(1 − σ(s)) = softplus(s): no logarithm is ever taken of a σ
    # that has rounded to 0 or 1.
    return jax.nn.softplus((1 - 2 * _zero_or_one(logits, targets)) * logits)


def binary_cross_entropy_gradient(logits: jax.Array, targets: ArrayLike) -> jax.Array:
    """Gradient of `binary_cross_entropy` with respect to the logits, G = σ(s) − y, [...].

    From d log σ(s) / ds = 1 − σ(s) and d log(1 − σ(s)) / ds = −σ(s):

        ∂l/∂s = −[y (1 − σ(s)) − (1 − y) σ(s)] = σ(s) − y.
    """
    return jax.nn.sigmoid(logits) - _zero_or_one(logits, targets)


def multiple_binary_cross_entropy(logits: jax.Array, labels: ArrayLike) -> jax.Array:
    """Binary cross-entropy of each class against the rest, averaged over the K classes.

    l = −(1/K) Σₖ [y_k log σ(s_k) + (1 − y_k) log(1 − σ(s_k))], with y the one-hot label.

    Arguments as for `softmax_cross_entropy`. Returns the losses [...], in nats per class.
    """
    return jnp.mean(binary_cross_entropy(logits, _one_hot(logits, labels)), axis=-1)


def multiple_binary_cross_entropy_gradient(logits: jax.Array, labels: ArrayLike) -> jax.Array:
    """Gradient of `multiple_binary_cross_entropy` with respect to the logits, G = (σ(S) − Y)/K.

    It is `binary_cross_entropy_gradient` for every class, divided by the K of the mean.

    Erratum: the report prints −(1/K) [(1 − y_k)(1/(1 − σ(s_k)) − 1) + y_k (1 − σ(s_k))]. Its first
    term is wrong in form and sign: 1/(1 − σ) − 1 = σ/(1 − σ), where −σ belongs. The printed form
    fails the gradient check that this one passes.

    Arguments as for `softmax_cross_entropy`. Returns G [..., K]. A NaN logit makes only its own
    class's entry NaN, because the classes don't interact; the loss is NaN.

    References:
      E. Dieme, DD2424 Deep Learning in Data Science, Assignment 1, KTH, 2024: "Multiple binary
      cross-entropy losses".
    """
    return binary_cross_entropy_gradient(logits, _one_hot(logits, labels)) / logits.shape[-1]


def _class_ids(logits: jax.Array, labels: ArrayLike) -> Any:
    """The labels as int32, with K in place of any that is outside 0 … K − 1."""
    labels = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != logits.shape[:-1]:
        raise InputError(
            f"labels are {labels.dtype} {list(labels.shape)}: they have to be class ids, integers "
            f"{list(logits.shape[:-1])}, for logits {list(logits.shape)}"
        )
    xp: Any = jnp if isinstance(labels, jax.Array) else np
    n_classes = logits.shape[-1]
    # Narrow integers are widened before they are compared, because K = 256 doesn't fit a uint8.
    # NumPy compares its own arrays: without x64 mode JAX would cut an int64 to 32 bits first.
    if labels.dtype.itemsize < np.dtype(np.int32).itemsize:
        labels = labels.astype(np.int32)
    return xp.where((labels >= 0) & (labels < n_classes), labels, n_classes).astype(np.int32)


def _one_hot(logits: jax.Array, labels: ArrayLike) -> jax.Array:
    """The one-hot labels [..., K]; NaN for a label outside 0 … K − 1."""
    ids, n_classes = _class_ids(logits, labels)[..., None], logits.shape[-1]
    one_hot = jax.nn.one_hot(ids[..., 0], n_classes, dtype=logits.dtype)
    return jnp.where(ids < n_classes, one_hot, jnp.nan)


def _zero_or_one(logits: jax.Array, targets: ArrayLike) -> jax.Array:
    """The targets in the dtype of the logits; NaN for any other number than 0 and 1."""
    targets = jnp.asarray(targets)
    return jnp.where((targets == 0) | (targets == 1), targets, jnp.nan).astype(logits.dtype)


def _only_logit(logits: jax.Array) -> jax.Array:
    if logits.shape[-1] != 1:
        shape = list(logits.shape)
        raise InputError(
            f"logits are {shape}: the binary loss takes one logit per target, [..., 1]"
        )
    return logits[..., 0]


class Loss(NamedTuple):
    """A loss per example, with its gradient and its link from logits to probabilities P.

    `solve` needs the gradient to be P − Y for exclusive classes, or (P − Y)/K for independent ones.
    """

    name: str
    title: str  # for figures and tables
    value: Callable[[jax.Array, ArrayLike], jax.Array]  # logits [..., K], labels [...] -> [...]
    logit_gradient: Callable[[jax.Array, ArrayLike], jax.Array]  # likewise -> [..., K]
    probabilities: Callable[[jax.Array], jax.Array]  # softmax or σ of logits, [..., K]
    exclusive: bool  # whether the probabilities of the classes sum to 1

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"


SOFTMAX_CROSS_ENTROPY = Loss(
    "softmax",
    "softmax cross-entropy",
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
    jax.nn.softmax,
    exclusive=True,
)
MULTIPLE_BINARY_CROSS_ENTROPY = Loss(
    "multi_bce",
    "multiple binary cross-entropy",
    multiple_binary_cross_entropy,
    multiple_binary_cross_entropy_gradient,
    jax.nn.sigmoid,
    exclusive=False,
)
# For one target: logits [..., 1] and labels [...], 0 or 1. The probabilities take any logits.
BINARY_CROSS_ENTROPY = Loss(
    "binary",
    "binary cross-entropy",
    lambda logits, labels: binary_cross_entropy(_only_logit(logits), labels),
    lambda logits, labels: binary_cross_entropy_gradient(_only_logit(logits), labels)[..., None],
    jax.nn.sigmoid,
    exclusive=False,
)
LOSSES = {loss.name: loss for loss in (SOFTMAX_CROSS_ENTROPY, MULTIPLE_BINARY_CROSS_ENTROPY)}


def as_loss(loss: Any) -> Loss:
    """A `Loss`, itself or by its name: "softmax", "multi_bce" or "binary"; else `InputError`."""
    if isinstance(loss, Loss):
        return loss
    if loss == BINARY_CROSS_ENTROPY.name:
        return BINARY_CROSS_ENTROPY
    check_choice("loss", loss, LOSSES)
    return LOSSES[loss]
