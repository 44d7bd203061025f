"""What training minimises: the mean loss plus λ‖W‖², and its gradient derived by hand."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, logits


def penalty(params: Params, lam: ArrayLike) -> jax.Array:
    """The L2 penalty λ Σ W², without a factor of ½ and without the bias; a scalar."""
    return jnp.multiply(lam, jnp.sum(params.weights**2))


def penalty_gradient(weights: ArrayLike, lam: ArrayLike) -> jax.Array:
    """The gradient of `penalty` with respect to the weights, 2λW; linear in the weights."""
    return jnp.multiply(2 * lam, weights)


def mean_logit_gradient(scores: jax.Array, labels: ArrayLike, loss: Loss) -> jax.Array:
    """The gradient of the mean loss with respect to the logits [n, K], G/n with G = ∂l/∂s."""
    return loss.logit_gradient(scores, labels) / len(scores)


def cost(
    params: Params,
    inputs: jax.Array,
    labels: ArrayLike,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> jax.Array:
    """The regularised cost, J = (1/n) Σᵢ l(sᵢ, yᵢ) + λ ΣW², a scalar in nats.

    `penalties` converts λ to and from the penalties of other libraries.

    Args:
      params: weights [K, d] and bias [K].
      inputs: standardised examples [n, d].
      labels: class ids [n].
      lam: λ ≥ 0, a scalar.
      loss: the loss per example; it raises `InputError` if the labels aren't integers [n].
    """
    return jnp.mean(loss.value(logits(params, inputs), labels)) + penalty(params, lam)


def cost_gradient(
    params: Params,
    inputs: jax.Array,
    labels: ArrayLike,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Params:
    """The gradient of `cost`, derived by hand.

    By the chain rule through s = Wx + b, with G = ∂l/∂s [n, K] (`loss.logit_gradient`):

        ∂J/∂W = (1/n) GᵀX + 2λW,    ∂J/∂b = (1/n) Gᵀ1.

    Arguments as for `cost`. Returns `Params` that hold ∂J/∂W [K, d] and ∂J/∂b [K].
    """
    by_logit = mean_logit_gradient(logits(params, inputs), labels, loss)
    return Params(
        weights=by_logit.T @ inputs + penalty_gradient(params.weights, lam),
        bias=jnp.sum(by_logit, axis=0),
    )


def autodiff_gradient(
    params: Params,
    inputs: jax.Array,
    labels: ArrayLike,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Params:
    """The gradient of `cost` by `jax.grad`, to compare with `cost_gradient`; arguments as there."""
    return jax.grad(cost)(params, inputs, labels, lam, loss)
