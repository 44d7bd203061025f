"""L-BFGS for many λ at once, in the coordinates of a `Basis`: one pass over the examples a step.

A pass gives cost and gradient of every run at the parameters that it tries. A run moves there
unless the slope along the way tells that it went too far; either way it has learnt the curvature,
and tries what follows from that. In the coordinates of the basis nearly every step is taken, so
that a search along it would save nothing.

The preconditioner is diag(c e + 2λ), with c the mean curvature of the loss at zero parameters
(softmax: (1 − 1/K)/K; Böhning's upper bound is ½, which takes more passes).

References:
  J. Nocedal, S. Wright, Numerical Optimization, 2006, Algorithm 7.4.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from linear_cifar.engine.devices import AXIS
from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum import shards
from linear_cifar.optimum.passes import Sums

MEMORY = 10  # pairs of steps and changes of the gradient; 20 and 40 save few passes
# A step went too far where the slope at its end, against that at its beginning, is above this.
_OVERSHOT = 0.9


class OfRuns(NamedTuple):
    """What of a problem belongs to its C runs."""

    lam: Any  # [C]
    of_row: Any  # [C], which shares of examples they have
    diagonal: Params  # the preconditioner, [C, 1, r] and [C, 1]
    cost_at_zero: Any  # [C], of zero parameters
    free: Any  # 1 where a constant in all biases changes nothing, as with softmax, else 0; a scalar


class State(NamedTuple):
    """Where a descent of C runs stands."""

    params: Params  # [C, K, r] and [C, K]
    gradient: Params  # there
    cost: Any  # [C]
    gap: Any  # [C], which bounds J − J* if only the bias is optimal: ‖∂J/∂W‖²/(4λ)
    step: Params  # to the parameters that are tried next
    slope: Any  # [C], along the step
    n_refused: Any  # [C], steps one after the other
    steps: Params  # [C, MEMORY, …], the latest ones, in a ring
    changes: Params  # [C, MEMORY, …], and of the gradient
    inverse: Any  # [C, MEMORY], 1/⟨step, change⟩; 0 where there is none
    scales: Any  # [C, MEMORY], how much flatter than the preconditioner the cost is there, or 0
    n_steps: Any  # how many were tried, a scalar


# How they lie on devices.
_OF_STEPS: Any = PartitionSpec(None, None, None, AXIS)
_MEMORY = Params(_OF_STEPS, shards.WHOLE)
RUNS = OfRuns(shards.WHOLE, shards.WHOLE, shards.PARAMS, shards.WHOLE, shards.WHOLE)
_STATE = State(
    shards.PARAMS,
    shards.PARAMS,
    shards.WHOLE,
    shards.WHOLE,
    shards.PARAMS,
    shards.WHOLE,
    shards.WHOLE,
    _MEMORY,
    _MEMORY,
    shards.WHOLE,
    shards.WHOLE,
    shards.WHOLE,
)


def begin(params: Params, mesh: Mesh) -> State:
    """The state before the first pass, which is over these parameters, [C, K, r] and [C, K]."""
    c = len(params.bias)
    dtype = params.bias.dtype
    unknown = Params(*(np.full(a.shape, np.nan, dtype) for a in params))
    zero = Params(*(np.zeros(a.shape, dtype) for a in params))
    none = Params(*(np.zeros((c, MEMORY, *a.shape[1:]), dtype) for a in params))
    state = State(
        params,
        unknown,
        np.full(c, np.nan, dtype),
        np.full(c, np.nan, dtype),
        zero,
        np.zeros(c, dtype),
        np.zeros(c, np.int32),
        none,
        none,
        np.zeros((c, MEMORY), dtype),
        np.zeros((c, MEMORY), dtype),
        np.zeros((), np.int32),
    )
    return shards.put(state, mesh, _STATE)


@partial(jax.jit, static_argnames=("mesh", "columns"))
def tried(state: State, turn: jax.Array | None, *, mesh: Mesh, columns: int) -> Params:
    """The parameters that the next pass is over, [C, K, columns] and [C, K], on every device.

    Args:
      state: of the descent.
      turn: V [d, r], if the inputs of the pass aren't rotated.
      mesh: the devices.
      columns: of the pass's inputs.
    """

    def of_device(state: State, turn) -> Params:
        weights, bias = jax.tree.map(jnp.add, state.params, state.step)
        if turn is None:
            return Params(shards.gathered(weights)[..., :columns], bias)
        return Params(shards.total(weights @ turn.T), bias)

    of_devices = shards.on_devices(of_device, mesh, (_STATE, shards.SECOND), shards.WHOLE)
    return of_devices(state, turn)


@partial(jax.jit, static_argnames="mesh", donate_argnames="state")
def advance(
    state: State,
    sums: Sums,
    runs: OfRuns,
    turn: jax.Array | None,
    goal: jax.Array,
    *,
    mesh: Mesh,
) -> State:
    """Takes the step, or refuses it, and makes the next one.

    Args:
      state: before the pass; it can't be used any more.
      sums: of the pass over `tried` parameters, [devices, …].
      runs: C of them.
      turn: as for `tried`.
      goal: gap over cost at which a run stays where it is, [C].
      mesh: the devices.
    """
    given = (_STATE, shards.FIRST, RUNS, shards.SECOND, shards.WHOLE)
    return shards.on_devices(_advance, mesh, given, _STATE)(state, sums, runs, turn, goal)


@jax.jit
def taken(state: State, runs: OfRuns, rows: jax.Array) -> tuple[State, OfRuns]:
    """Some of the runs, by their places [C']."""
    n_steps = state.n_steps
    state, runs = jax.tree.map(lambda a: a[rows] if a.ndim else a, (state, runs))
    return state._replace(n_steps=n_steps), runs


def _advance(state: State, sums: Sums, runs: OfRuns, turn, goal: jax.Array) -> State:
    """What a device does; it has its share of the weights' coordinates."""
    there = jax.tree.map(jnp.add, state.params, state.step)
    loss, gradient = _joined(sums, there, runs, turn)
    cost = loss + shards.total(jax.vmap(penalty)(there, runs.lam))
    change = jax.tree.map(jnp.subtract, gradient, state.gradient)
    slope = _dot(gradient, state.step)
    refused = ~(slope <= _OVERSHOT * jnp.abs(state.slope))  # NaN is
    state = _remembering(state, change, slope, runs.diagonal)

    def chosen(moved, stayed):
        return jax.tree.map(lambda a, b: jnp.where(_wide(refused, a), b, a), moved, stayed)

    params, gradient, cost = chosen(
        (there, gradient, cost), (state.params, state.gradient, state.cost)
    )
    n_refused = jnp.where(refused, state.n_refused + 1, 0)
    gap = _square(gradient.weights) / (4 * runs.lam)
    state = state._replace(
        params=params, gradient=gradient, cost=cost, gap=gap, n_refused=n_refused
    )
    # The first time, what was learnt of the curvature tells enough.
    length = jnp.where(gap > goal * cost, -(0.5 ** jnp.maximum(n_refused - 1, 0)), 0)
    direction = _preconditioned(state, runs.diagonal)
    step = jax.tree.map(lambda a: _wide(length, a).astype(a.dtype) * a, direction)
    return state._replace(step=step, slope=_dot(gradient, step))


def _joined(sums: Sums, params: Params, runs: OfRuns, turn) -> tuple[jax.Array, Params]:
    """The mean loss [C], and this device's share of the gradient of the cost."""
    sums = jax.tree.map(lambda a: a[0], sums)
    if turn is None:
        size = params.weights.shape[2] * jax.lax.axis_size(AXIS)
        widths = ((0, 0), (0, 0), (0, size - sums.weights.shape[2]))
        share = shards.total_share(jnp.pad(sums.weights, widths))
    else:
        share = shards.total(sums.weights) @ turn
    weights = share + penalty_gradient(params.weights, _wide(runs.lam, share))
    bias = shards.total(sums.bias)
    # Rounding alone makes a constant here, which would go on growing.
    bias = bias - runs.free * jnp.mean(bias, axis=1, keepdims=True)
    return shards.total(sums.loss), Params(weights, bias)


def _remembering(state: State, change: Params, slope: jax.Array, diagonal: Params) -> State:
    """The state with its latest step in the ring, where the curvature along it is known."""
    product = slope - state.slope
    known = (product > 0) & jnp.isfinite(product)
    slot = state.n_steps % MEMORY

    def put(memory, latest):
        return jax.tree.map(
            lambda m, a: m.at[:, slot].set(jnp.where(_wide(known, a), a, 0)), memory, latest
        )

    inverse = jnp.where(known, 1 / jnp.where(known, product, 1), 0)
    flat = _dot(change, jax.tree.map(jnp.divide, change, diagonal))
    scale = jnp.where(known & (flat > 0), product / jnp.where(flat > 0, flat, 1), 0)
    return state._replace(
        steps=put(state.steps, state.step),
        changes=put(state.changes, change),
        inverse=state.inverse.at[:, slot].set(inverse),
        scales=state.scales.at[:, slot].set(scale),
        n_steps=state.n_steps + 1,
    )


def _preconditioned(state: State, diagonal: Params) -> Params:
    """The gradient times the approximate inverse of the Hessian, by the two loops.

    Between them stands the preconditioner's inverse, by the mean of the pairs' `scales`: the usual
    one, of the latest pair alone, takes more passes.
    """

    def pair(i):
        slot = (state.n_steps - 1 - i) % MEMORY
        memory = (state.steps, state.changes, state.inverse)
        return jax.tree.map(lambda m: m[:, slot], memory)

    def minus(a, weight, b):
        return jax.tree.map(lambda x, y: x - _wide(weight, y) * y, a, b)

    def first(i, carry):
        result, weights = carry
        step, change, inverse = pair(i)
        weight = inverse * _dot(step, result)
        return minus(result, weight, change), weights.at[:, i].set(weight)

    def second(i, result):
        step, change, inverse = pair(MEMORY - 1 - i)
        weight = weights[:, MEMORY - 1 - i] - inverse * _dot(change, result)
        return minus(result, -weight, step)

    start = (state.gradient, jnp.zeros_like(state.inverse))
    result, weights = jax.lax.fori_loop(0, MEMORY, first, start)
    n_known = jnp.sum(state.scales > 0, axis=1)
    scale = jnp.where(n_known > 0, jnp.sum(state.scales, axis=1) / jnp.maximum(n_known, 1), 1)
    result = jax.tree.map(lambda a, b: _wide(scale, a) * a / b, result, diagonal)
    return jax.lax.fori_loop(0, MEMORY, second, result)


def _square(weights: jax.Array) -> jax.Array:
    """‖·‖² of each run, [C]."""
    return shards.total(jnp.sum(jnp.square(weights), axis=(1, 2)))


def _dot(a: Params, b: Params) -> jax.Array:
    """⟨a, b⟩ of each run, [C]."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y, axis=tuple(range(1, x.ndim))), a, b)
    return shards.total(products.weights) + products.bias


def _wide(of_runs: jax.Array, like: jax.Array) -> jax.Array:
    """[C] with further axes, to be multiplied with [C, …]."""
    return jnp.expand_dims(of_runs, tuple(range(1, like.ndim)))
