"""What training minimises: the mean loss plus λ‖W‖², and its gradient derived by hand."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, logits


def penalty(params: Params, lam: ArrayLike) -> jax.Array:
    """The L2 penalty λ Σ W², without a factor of ½ and without the bias; a scalar."""
    return jnp.multiply(lam, jnp.sum(params.weights**2))


def cost(
    params: Params,
    inputs: jax.Array,
    labels: jax.Array,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> jax.Array:
    """The regularised cost, J = (1/n) Σᵢ l(sᵢ, yᵢ) + λ ΣW².

    In the terms of others: jaxopt's `l2reg` is 2λ; scikit-learn's `C` is 1/(2λn); the decoupled
    weight decay of AdamW has no equivalent.

    Args:
      params: weights [K, d] and bias [K].
      inputs: standardised examples [n, d].
      labels: class ids [n].
      lam: λ ≥ 0, a scalar.
      loss: the loss per example.

    Returns:
      J, a scalar in the dtype of the parameters and inputs, in nats.
    """
    return jnp.mean(loss.value(logits(params, inputs), labels)) + penalty(params, lam)


def cost_gradient(
    params: Params,
    inputs: jax.Array,
    labels: jax.Array,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Params:
    """The gradient of `cost`, derived by hand.

    By the chain rule through s = Wx + b, with G = ∂l/∂s [n, K] (`loss.logit_gradient`):

        ∂J/∂W = (1/n) GᵀX + 2λW,    ∂J/∂b = (1/n) Gᵀ1.

    Args:
      params: weights [K, d] and bias [K].
      inputs: standardised examples [n, d].
      labels: class ids [n].
      lam: λ ≥ 0, a scalar.
      loss: the loss per example.

    Returns:
      `Params` that hold ∂J/∂W [K, d] and ∂J/∂b [K].
    """
    logit_gradient = loss.logit_gradient(logits(params, inputs), labels) / len(labels)
    return Params(
        weights=logit_gradient.T @ inputs + 2 * lam * params.weights,
        bias=jnp.sum(logit_gradient, axis=0),
    )
