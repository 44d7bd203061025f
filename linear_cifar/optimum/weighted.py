"""The mean loss of C runs over weighted examples, as a function of their logits [C, K, n].

Shares [C, n] say what an example counts; their sum over n is 1.
"""

import jax
import jax.numpy as jnp

from linear_cifar.losses import Loss


def mean_loss(scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss) -> jax.Array:
    """The mean loss of each run, [C]."""
    losses = jax.vmap(loss.value, (0, None))(jnp.moveaxis(scores, 1, -1), labels)
    return jnp.sum(shares * losses, axis=-1)


def logit_gradient(
    scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss
) -> jax.Array:
    """Its gradient with respect to the logits: the shares times ∂l/∂s, [C, K, n]."""
    gradients = jax.vmap(loss.logit_gradient, (0, None))(jnp.moveaxis(scores, 1, -1), labels)
    return jnp.moveaxis(gradients, -1, 1) * shares[:, None]


def hessian_product(
    scores: jax.Array, along: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss
) -> jax.Array:
    """Its Hessian times `along`, [C, K, n]."""
    of = (labels, shares, loss)
    _, products = jax.jvp(lambda scores: logit_gradient(scores, *of), (scores,), (along,))
    return products


def curvature(scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss) -> jax.Array:
    """The mean over examples of ∂²l/∂s_k², [C], with k = 0, 1, …, K − 1, 0, … one after another.

    Where all classes are alike, as at equal logits, that is the mean over classes too.
    """
    _, n_classes, n = scores.shape
    turns = jnp.arange(n_classes)[:, None] == jnp.arange(n)[None] % n_classes
    along = jnp.broadcast_to(turns, scores.shape).astype(scores.dtype)
    return jnp.sum(along * hessian_product(scores, along, labels, shares, loss), axis=(1, 2))
