"""The certificate: how far at most a cost is above its minimum, in float64.

For given W let b minimise J(W, b). Then f(W) = min_b J(W, b) is convex, and 2λ-strongly so, since
J is the sum of a convex function of (W, b) and of λ‖W‖². Its gradient is ∂J/∂W = M + 2λW at that b,
so that

    f(W) − f* ≤ ‖M + 2λW‖² / (4λ)    and    ‖W − W*‖ ≤ ‖M + 2λW‖ / (2λ).

The first is also the Fenchel duality gap at the dual point G, which is feasible because Σᵢ Gᵢ = 0.
With any other b neither holds, for the bias is not penalised: there the gap is infinite here.

A class without examples has no optimal bias: its probabilities are driven to nothing. What is left
of them, and of Σᵢ Gᵢ, is in the gap. Products and sums are taken in float64, with the inputs as
they are stored, whatever the coordinates and dtype of the descent, so that its rounding is in the
gap and not beside it; that of float64 itself, about 1e-16 of the logits' size, is not.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from linear_cifar.data.types import Split, Standardiser
from linear_cifar.engine.epoch import take_batch
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum import shards, weighted

# The largest |Σᵢ Gᵢ| of a class, over Σᵢ |Gᵢ|, at which its bias counts as optimal; or what float64
# makes of a sum of 0.
BIAS_TOLERANCE, _ROUNDING = 1e-9, 1e-15
_NEWTON_STEPS, _CG_STEPS, _CG_REDUCTION = 80, 60, 1e-4


class Certified(NamedTuple):
    """What is known of C runs, in float64."""

    params: Params  # [C, K, d] and [C, K], the latter minimising the cost for the former
    cost: jax.Array  # [C], J
    gap: jax.Array  # [C], which J − J* is not above
    distance: jax.Array  # [C], which ‖W − W*‖ is not above


@partial(jax.jit, static_argnames=("loss", "mesh", "refit_bias"))
def certify(
    params: Params,
    examples: Split,
    standardiser: Standardiser,
    shares: jax.Array,
    lam: jax.Array,
    *,
    loss: Loss,
    mesh: Mesh,
    refit_bias: bool = False,
) -> Certified:
    """Certifies parameters of C runs; under `jax.enable_x64`.

    Args:
      params: [C, K, d] and [C, K], float64.
      examples: inputs [n, d] as they are stored, and labels; filled up as `shards` has it.
      standardiser: of them.
      shares: what an example counts, [C, n], float64; the sum over n is 1.
      lam: λ > 0, [C], float64.
      loss: the loss per example.
      mesh: devices that share the examples.
      refit_bias: minimise over the bias first; else a bias that isn't optimal has an infinite gap.
    """
    of_device = partial(_certify, loss=loss, refit_bias=refit_bias)
    given = (shards.WHOLE, shards.EXAMPLES, shards.WHOLE, shards.SHARES, shards.WHOLE)
    of_devices = shards.on_devices(of_device, mesh, given, shards.WHOLE)
    return of_devices(params, examples, standardiser, shares, lam)


def _certify(params, examples, standardiser, shares, lam, *, loss, refit_bias) -> Certified:
    weights, bias = params
    without_bias = _scores(weights, examples, standardiser)

    def by_logit_at(bias):
        scores = without_bias + bias[..., None]
        return weighted.logit_gradient(scores, examples.labels, shares, loss)

    def of_class(by_logit):
        return shards.total(jnp.sum(by_logit, axis=-1))

    classes = jnp.arange(bias.shape[1])
    counts = jnp.where(examples.labels[None, None] == classes[None, :, None], shares[:, None], 0)
    present = of_class(counts) > 0

    def gradient_and_size(bias):
        by_logit = by_logit_at(bias)
        size = jnp.where(present, of_class(jnp.abs(by_logit)), 0)
        return of_class(by_logit), size

    if refit_bias:
        bias = _optimal_bias(gradient_and_size, bias)
    params, by_logit = Params(weights, bias), by_logit_at(bias)
    of_bias, size = gradient_and_size(bias)
    optimal = jnp.all(_is_zero(of_bias, size), axis=1)
    # About twice what the bias could still gain: r²/(2 curvature), or the probabilities themselves.
    gains = jnp.where(size > 0, of_bias**2 / jnp.where(size > 0, size, 1), jnp.abs(of_bias))
    of_bias_gap = 2 * jnp.sum(gains, axis=1)
    scores = without_bias + bias[..., None]
    losses = shards.total(weighted.mean_loss(scores, examples.labels, shares, loss))
    of_data = shards.total(_weighted_inputs(by_logit, examples, standardiser))
    gradient = of_data + penalty_gradient(weights, lam[:, None, None])
    norm = jnp.where(optimal, jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2))), jnp.inf)
    costs = losses + jax.vmap(penalty)(params, lam)
    return Certified(params, costs, norm**2 / (4 * lam) + of_bias_gap, norm / (2 * lam))


def _is_zero(gradient: jax.Array, size: jax.Array) -> jax.Array:
    return jnp.abs(gradient) <= jnp.maximum(BIAS_TOLERANCE * size, _ROUNDING)


def _optimal_bias(gradient_and_size, bias: jax.Array) -> jax.Array:
    """The bias [C, K] at which Σᵢ Gᵢ = 0, by Newton's method with conjugate gradients.

    For softmax it is free up to a constant, which CG leaves alone; a class without examples has
    none, and is driven away until its probabilities vanish.
    """

    def more(carry):
        _, gradient, size, steps = carry
        return ~jnp.all(_is_zero(gradient, size)) & (steps < _NEWTON_STEPS)

    def step(carry):
        bias, gradient, size, steps = carry
        _, product = jax.linearize(lambda bias: gradient_and_size(bias)[0], bias)
        scale = jnp.maximum(jnp.maximum(size, jnp.abs(gradient)), _ROUNDING)
        change = _conjugate_gradients(product, -gradient, scale)
        # Logits of order 1 are moved by as much at most, where the quadratic model holds.
        largest = jnp.max(jnp.abs(change), axis=1, keepdims=True)
        bias = bias + change * jnp.minimum(1, 2 / jnp.where(largest > 0, largest, 1))
        return bias, *gradient_and_size(bias), steps + 1

    bias, *_ = jax.lax.while_loop(more, step, (bias, *gradient_and_size(bias), 0))
    return bias


def _conjugate_gradients(product, target: jax.Array, scale: jax.Array) -> jax.Array:
    """Solves A x = target of each run, [C, K], for a semidefinite A that is block diagonal.

    Its diagonal is about `scale`, which the preconditioner is: classes may differ by far.
    """

    def dot(a, b):
        return jnp.sum(a * b, axis=1, keepdims=True)

    def divide(a, b):
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    def more(carry):
        *_, square, steps = carry
        return jnp.any(square > enough) & (steps < most)

    def step(carry):
        x, residual, direction, square, steps = carry
        along = product(direction)
        length = divide(square, dot(direction, along))
        x, residual = x + length * direction, residual - length * along
        better = residual / scale
        new = dot(residual, better)
        return x, residual, better + divide(new, square) * direction, new, steps + 1

    first = target / scale
    square = dot(target, first)
    enough, most = _CG_REDUCTION**2 * square, min(_CG_STEPS, 2 * target.shape[1])
    start = (jnp.zeros_like(target), target, first, square, 0)
    return jax.lax.while_loop(more, step, start)[0]


def _scores(weights: jax.Array, examples: Split, standardiser: Standardiser) -> jax.Array:
    """W xᵀ for this device's examples, [C, K, n]."""
    c, k, d = weights.shape
    flat = weights.reshape(c * k, d)
    n_blocks, size = shards.blocks(examples)

    def put_block(i: jax.Array, scores: jax.Array) -> jax.Array:
        inputs, _ = take_batch(examples, standardiser, i * size, size, weights.dtype)
        return jax.lax.dynamic_update_slice_in_dim(scores, flat @ inputs.T, i * size, axis=1)

    none = jnp.zeros((c * k, len(examples.labels)), weights.dtype)
    return jax.lax.fori_loop(0, n_blocks, put_block, none).reshape(c, k, -1)


def _weighted_inputs(by_logit: jax.Array, examples: Split, standardiser: Standardiser) -> jax.Array:
    """Gᵀ x summed over this device's examples, [C, K, d]."""
    c, k, n = by_logit.shape
    flat = by_logit.reshape(c * k, n)
    n_blocks, size = shards.blocks(examples)

    def add_block(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        inputs, _ = take_batch(examples, standardiser, start, size, by_logit.dtype)
        return total + jax.lax.dynamic_slice_in_dim(flat, start, size, axis=1) @ inputs, None

    none = jnp.zeros((c * k, examples.inputs.shape[1]), flat.dtype)
    total, _ = jax.lax.scan(add_block, none, size * jnp.arange(n_blocks))
    return total.reshape(c, k, -1)
