"""The model: one linear layer, s = Wx + b."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Params(NamedTuple):
    """The parameters of a linear classifier, or anything of their form (a gradient, say).

    They are JAX arrays, or NumPy ones where they come from `solve` or from disk.
    """

    weights: Any  # [K, d], one row a class
    bias: Any  # [K]


def init_params(
    key: jax.Array, n_features: int, n_classes: int, scale: float = 0.01, dtype=jnp.float32
) -> Params:
    """Draws parameters with independent N(0, scale²) entries, the bias's too.

    Args:
      key: PRNG key.
      n_features: number of features d.
      n_classes: number of classes K.
      scale: standard deviation of every entry, in units of a logit per standardised feature.
      dtype: floating type of the entries.

    Returns:
      `Params` with weights [K, d] and bias [K].
    """
    weights_key, bias_key = jax.random.split(key)
    return Params(
        weights=scale * jax.random.normal(weights_key, (n_classes, n_features), dtype),
        bias=scale * jax.random.normal(bias_key, (n_classes,), dtype),
    )


def logits(params: Params, inputs: jax.Array) -> jax.Array:
    """Scores of every class, s = Wx + b.

    Args:
      params: weights [K, d] and bias [K].
      inputs: standardised examples [..., d].

    Returns:
      Logits [..., K], in the dtype of the parameters and inputs.

    Examples:
      >>> params = Params(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0.0, 1.0]))
      >>> logits(params, jnp.array([3.0, 4.0])).tolist()
      [3.0, 9.0]
    """
    # The product is formed as W xᵀ [K, n], each operand read along its rows; x Wᵀ with weights
    # [d, K] makes training two to three times as slow on a CPU.
    scores = jnp.moveaxis(jnp.einsum("kd,...d->k...", params.weights, inputs), 0, -1)
    return scores + jnp.expand_dims(params.bias, tuple(range(scores.ndim - 1)))


def predict(params: Params, inputs: jax.Array) -> jax.Array:
    """The class with the largest logit, the first of equal ones.

    Args:
      params: weights [K, d] and bias [K].
      inputs: standardised examples [..., d].

    Returns:
      Class ids [...], int32; −1 where a logit is not finite.
    """
    return predicted(logits(params, inputs))


def predicted(scores: jax.Array) -> jax.Array:
    """The class of logits [..., K] as `predict` has it, [...] int32."""
    finite = jnp.isfinite(scores).all(axis=-1)
    return jnp.where(finite, jnp.argmax(scores, axis=-1), -1).astype(jnp.int32)
