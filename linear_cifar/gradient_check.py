"""Numerical gradients over every coefficient, and the relative error between two gradients."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linear_cifar.errors import InputError
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, logits

# ε of the relative error: if |a| + |b| is smaller, the error is absolute, in units of ε. Our
# differences are accurate to about 3e-14, so with ε = 1e-7 their own error counts as at most 3e-7;
# and a coefficient of 1e-8 or more that is off by one part in 100,000 has an error above 1e-6.
EPSILON = 1e-7

# Central differences of eighth order: f'(0) ≈ Σₘ cₘ (f(mh) − f(−mh)) / h.
_WEIGHTS = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
# The step h, in logits. The ninth derivatives of the losses are of order 3, so the truncation error
# h⁸ l⁽⁹⁾/630 is about 3e-15; the rounding error 2⁻⁵³ · 2.3 / h is about 1e-14. A second-order
# difference is accurate to 3e-11 at best, which isn't enough below |g| = 1e-5.
_STEP = 0.03


def numerical_gradient(
    params: Params,
    inputs: jax.Array,
    labels: jax.Array,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Params:
    """The gradient of `objective.cost` by central differences, one for each coefficient.

    It uses values of the loss only. Moving W[k, j] by h moves logit k of example i by h x_ij and
    no other logit, so each of the (d + 1)·K coefficients needs n losses at moved logits, and not
    the n·d·K products of a perturbed W. The unperturbed loss is subtracted example by example
    before the mean, so that the sum stays small and its rounding too. The step of a feature is 0.03
    over its largest magnitude among the examples, so no logit moves further than the differences
    are accurate.

    Arguments as for `objective.cost`, params and inputs in float64, else `InputError`: in float32
    rounding would hide the gradient. Returns `Params` of the differences.
    """
    params, inputs = jax.tree.map(jnp.asarray, (params, inputs))
    if any(a.dtype != jnp.float64 for a in (*params, inputs)):
        raise InputError("numerical_gradient needs float64: enable jax_enable_x64")
    largest = jnp.max(jnp.abs(inputs), axis=0)
    steps = _STEP / jnp.where(largest > 0, largest, 1.0)
    scores = logits(params, inputs)
    base = loss.value(scores, labels)

    def mean_change(k: jax.Array, moves: jax.Array) -> jax.Array:
        return jnp.mean(loss.value(scores.at[:, k].add(moves), labels) - base)

    def weight_difference(k: jax.Array, weight: jax.Array, column: jax.Array, step: jax.Array):
        def change(h):
            return mean_change(k, h * column) + lam * ((weight + h) ** 2 - weight**2)

        return _difference(change, step)

    def class_row(row):
        k, weights = row
        by_feature = jax.vmap(weight_difference, in_axes=(None, 0, 1, 0))
        return by_feature(k, weights, inputs, steps), _difference(partial(mean_change, k), _STEP)

    # One class at a time, because all at once would need n·d·K² numbers of memory.
    return Params(*jax.lax.map(class_row, (jnp.arange(len(params.bias)), params.weights)))


def _difference(change: Callable[..., jax.Array], step: ArrayLike) -> jax.Array:
    """The derivative at 0 of a function with `change(h)` = f(h) − f(0)."""
    terms = [w * (change(m * step) - change(-m * step)) for m, w in enumerate(_WEIGHTS, 1)]
    return sum(terms[::-1], jnp.zeros(())) / step  # the smallest terms first


def relative_error(a: Params, b: Params, epsilon: float = EPSILON) -> jax.Array:
    """The largest relative error between two gradients, |a − b| / max(ε, |a| + |b|) by entry.

    It is a scalar, NaN if an entry is NaN; ε > 0 is the smallest denominator.
    """
    x, y = (jnp.append(gradient.weights, gradient.bias) for gradient in (a, b))
    return jnp.max(jnp.abs(x - y) / jnp.maximum(epsilon, jnp.abs(x) + jnp.abs(y)))
