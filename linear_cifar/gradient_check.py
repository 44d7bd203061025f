"""Numerical gradients over every coefficient, and the relative error between two gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, logits

# Below this sum of magnitudes the relative error becomes an absolute one. The differences are good
# to about 3e-14, so with 1e-7 their own error counts as 3e-7 at most; and a coefficient down to
# 1e-8 that is off by one part in 100,000 shows as an error above 1e-6.
EPSILON = 1e-7

# Central differences of eighth order: f'(0) ≈ Σₘ cₘ (f(mh) − f(−mh)) / h.
_WEIGHTS = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
# The step, in logits: the truncation error h⁸ l⁽⁹⁾/630 is then about 3e-15 where the ninth
# derivative of the losses is of order 3, and the rounding error 2⁻⁵³ · 2.3 / h about 1e-14. A
# second-order difference is at best good to 3e-11, which is no use below |g| = 1e-5.
_STEP = 0.03


def numerical_gradient(
    params: Params,
    inputs: jax.Array,
    labels: jax.Array,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Params:
    """The gradient of `objective.cost` by central differences, one for each coefficient.

    Only values of the loss enter. Moving W[k, j] by h moves logit k of example i by h x_ij and
    nothing else, so a difference needs the loss at those logits alone and not the cost of a whole
    perturbed W: n values instead of n·d·K products, for each of the (d + 1)·K coefficients. The
    unperturbed loss is taken off example by example before the mean, so that the sum stays small
    and rounds finely. Each feature's step is `_STEP` over its largest magnitude among the examples.

    Args:
      params: weights [K, d] and bias [K], float64.
      inputs: standardised examples [n, d], float64.
      labels: class ids [n].
      lam: λ ≥ 0.
      loss: the loss per example.

    Returns:
      `Params` that hold the differences, float64: weights [K, d], bias [K].

    Raises:
      TypeError: anything is not float64, in which alone the differences mean anything.
    """
    if any(a.dtype != jnp.float64 for a in (*params, inputs)):
        raise TypeError("numerical_gradient needs float64: enable jax_enable_x64")
    largest = jnp.max(jnp.abs(inputs), axis=0)
    steps = _STEP / jnp.where(largest > 0, largest, 1.0)
    scores = logits(params, inputs)
    base = loss.value(scores, labels)

    def mean_change(k: jax.Array, moves: jax.Array) -> jax.Array:
        moved = scores.at[:, k].add(moves)
        return jnp.mean(loss.value(moved, labels) - base)

    def weight_difference(k: jax.Array, weight: jax.Array, column: jax.Array, step: jax.Array):
        def change(h):
            return mean_change(k, h * column) + lam * ((weight + h) ** 2 - weight**2)

        return _difference(change, step)

    def class_row(row):
        k, weights = row
        by_feature = jax.vmap(weight_difference, in_axes=(None, 0, 1, 0))
        ones = jnp.ones(len(labels))
        bias = _difference(lambda h: mean_change(k, h * ones), jnp.asarray(_STEP))
        return by_feature(k, weights, inputs, steps), bias

    # A class at a time: all of them at once would take n·d·K² numbers of memory.
    return Params(*jax.lax.map(class_row, (jnp.arange(len(params.bias)), params.weights)))


def _difference(change: Callable[[jax.Array], jax.Array], step: jax.Array) -> jax.Array:
    terms = [
        weight * (change(m * step) - change(-m * step)) for m, weight in enumerate(_WEIGHTS, 1)
    ]
    return sum(terms[::-1], jnp.zeros(())) / step  # the smallest terms first


def relative_error(a: Params, b: Params, epsilon: float = EPSILON) -> jax.Array:
    """The largest relative error between two gradients, |a − b| / max(ε, |a| + |b|) by entry.

    Args:
      a: a gradient, weights [K, d] and bias [K].
      b: another, of the same shapes.
      epsilon: ε > 0, the magnitude below which the error is measured against ε.

    Returns:
      The maximum over all weights and biases, a scalar; NaN if any entry is.
    """

    def largest(x, y):
        return jnp.max(jnp.abs(x - y) / jnp.maximum(epsilon, jnp.abs(x) + jnp.abs(y)))

    return jnp.maximum(largest(a.weights, b.weights), largest(a.bias, b.bias))
