"""The model: one linear layer, s = Wx + b."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Params(NamedTuple):
    """The parameters of a linear classifier, or anything of that form, such as a gradient.

    JAX arrays, or NumPy arrays where they come from `solve` or from a file.
    """

    weights: Any  # [K, d], one row per class
    bias: Any  # [K]


def init_params(
    key: jax.Array, n_features: int, n_classes: int, scale: float = 0.01, dtype: Any = jnp.float32
) -> Params:
    """Draws weights [K, d] and biases [K] independently from N(0, scale²).

    d is `n_features`, K `n_classes`; the scale is in logits per standardised feature.
    """
    weights_key, bias_key = jax.random.split(key)
    return Params(
        weights=scale * jax.random.normal(weights_key, (n_classes, n_features), dtype),
        bias=scale * jax.random.normal(bias_key, (n_classes,), dtype),
    )


def logits(params: Params, inputs: jax.Array) -> jax.Array:
    """Scores of every class, s = Wx + b, [..., K], of standardised examples [..., d].

    Examples:
      >>> params = Params(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0.0, 1.0]))
      >>> logits(params, jnp.array([3.0, 4.0])).tolist()
      [3.0, 9.0]
    """
    # The product is W xᵀ [K, n], so that each operand is read along its rows. x Wᵀ with weights
    # [d, K] makes training two to three times slower on a CPU.
    scores = jnp.moveaxis(jnp.einsum("kd,...d->k...", params.weights, inputs), 0, -1)
    return scores + jnp.expand_dims(params.bias, tuple(range(scores.ndim - 1)))


def predict(params: Params, inputs: jax.Array) -> jax.Array:
    """The class with the largest logit, the first one if several are equal.

    Arguments as for `logits`. Returns class ids [...], int32; −1 for an example with a logit that
    isn't finite.
    """
    return predicted_class(logits(params, inputs))


def predicted_class(scores: jax.Array) -> jax.Array:
    """What `predict` returns, from logits [..., K]; [...] int32."""
    finite = jnp.isfinite(scores).all(axis=-1)
    return jnp.where(finite, jnp.argmax(scores, axis=-1), -1).astype(jnp.int32)
