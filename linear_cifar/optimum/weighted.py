"""The mean loss of C runs over weighted examples, as a function of their logits [C, K, n].

Shares [C, n] say what an example counts; their sum over all n is 1.
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


def hessian(scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss) -> jax.Array:
    """Its Hessian in a bias that is added to all logits, [C, K, K]."""
    if loss.logit_hessian is None:
        return _hessian_by_columns(scores, labels, shares, loss)
    of_examples = loss.logit_hessian(jnp.moveaxis(scores, 1, -1))  # [C, n, K]
    diagonal, root = (jnp.moveaxis(a, -1, 1) for a in of_examples)
    summed = jnp.sum(diagonal * shares[:, None], axis=-1)
    products = (root * shares[:, None]) @ jnp.moveaxis(root, 1, -1)
    return summed[:, :, None] * jnp.eye(scores.shape[1], dtype=scores.dtype)[None] - products


def _hessian_by_columns(
    scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss
) -> jax.Array:
    def column(k: jax.Array) -> jax.Array:
        along = jnp.zeros_like(scores).at[:, k].set(1)
        of = (labels, shares, loss)
        _, products = jax.jvp(lambda scores: logit_gradient(scores, *of), (scores,), (along,))
        return jnp.sum(products, axis=-1)

    return jnp.moveaxis(jax.lax.map(column, jnp.arange(scores.shape[1])), 0, -1)
