"""L-BFGS for C runs at once, in the coordinates of a `Basis`: one pass over the examples per step.

J. Nocedal, S. Wright, Numerical Optimization, 2006, Algorithm 7.4, describes the two loops.

A pass gives cost and gradient of every run at the parameters that it tries. A run moves there
unless the slope along the step shows that it went too far. Either way it has learnt the curvature
along the step, and tries what follows from that. In these coordinates nearly every step is
accepted, so a line search would save nothing.

The preconditioner P is the diagonal one of `basis`: βₖ eⱼ + 2λ for the weights and βₖ for the bias,
with U and β from the start of the descent.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum.data_pass import Sums, product
from linear_cifar.optimum.tasks import RunTask
from linear_cifar.training import devices

MEMORY = 10  # pairs of steps and changes of the gradient; 20 and 40 save few passes
_OVERSHOT = 0.9  # a step went too far if the slope at its end is above this share of its start's


class Problems(NamedTuple):
    """What distinguishes C runs; constant during a descent."""

    lam: Any  # [C]
    task: RunTask  # which labels and weights of the examples each run has
    classes: Any  # U of the preconditioner, [C, K, K]
    diagonal: Params  # of the preconditioner in the coordinates U ⊗ V, [C, K, r] and [C, K]
    shift_free: Any  # 1 if a constant in all biases changes nothing, as for softmax, else 0


class State(NamedTuple):
    """The state of a descent of C runs."""

    params: Params  # [C, K, r] and [C, K]
    gradient: Params  # at the parameters
    cost: Any  # [C], likewise
    gap: Any  # [C], ‖∂J/∂W‖²/(4λ): bounds J − J* if the bias is optimal
    step: Params  # to the parameters that the next pass tries
    slope: Any  # [C], along the step
    steps: Params  # [C, MEMORY, …], the latest steps, in a ring
    changes: Params  # [C, MEMORY, …], of the gradient along them
    inverse: Any  # [C, MEMORY], 1/⟨step, change⟩; 0 for an empty slot
    scales: Any  # [C, MEMORY], ⟨step, change⟩/⟨change, P⁻¹ change⟩; 0 for an empty slot
    n_refused: Any  # [C], consecutive refused steps
    n_steps: Any  # tried steps, a scalar


def begin(params: Params, mesh: Mesh) -> State:
    """The state before the first pass, which tries these NumPy parameters [C, K, r], [C, K]."""
    c, dtype = len(params.bias), params.bias.dtype
    zero, nan = (Params(*(np.full_like(a, value) for a in params)) for value in (0, np.nan))
    memory = Params(*(np.zeros((c, MEMORY, *a.shape[1:]), dtype) for a in params))
    runs, slots, nan_runs = np.zeros(c, dtype), np.zeros((c, MEMORY), dtype), nan.bias[:, 0]
    counts = (np.zeros(c, np.int32), np.zeros((), np.int32))
    pairs = (memory, memory, slots, slots)
    state = State(params, nan, nan_runs, nan_runs, zero, runs, *pairs, *counts)
    return devices.shard_features(state, mesh, params.weights.shape[-1])


@jax.jit
def trial(state: State, rotation: jax.Array | None) -> Params:
    """The parameters that the next pass tries, in the coordinates of its inputs.

    `rotation` is V [d, r] if these aren't rotated, else None.
    """
    weights, bias = jax.tree.map(jnp.add, state.params, state.step)
    return Params(weights if rotation is None else product("ckr,dr->ckd", weights, rotation), bias)


@partial(jax.jit, static_argnames="mesh", donate_argnames="state")
def advance(
    state: State,
    sums: Sums,
    problems: Problems,
    rotation: jax.Array | None,
    goal: jax.Array,
    *,
    mesh: Mesh,
) -> State:
    """Accepts or refuses the tried step, from the sums of the pass over it, and makes the next one.

    A run whose gap over cost is below its goal [C] stays where it is. The state's buffers are
    reused.
    """
    tried = jax.tree.map(jnp.add, state.params, state.step)
    cost, gradient = _cost_and_gradient(tried, sums, problems, rotation)
    change = jax.tree.map(jnp.subtract, gradient, state.gradient)
    slope = _dot(gradient, state.step)
    refused = ~(slope <= _OVERSHOT * jnp.abs(state.slope))  # true for NaN
    state = _remember(state, change, slope, problems)

    def choose(moved: Any, stayed: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(_wide(refused, a), b, a), moved, stayed)

    params, gradient, cost = choose(
        (tried, gradient, cost), (state.params, state.gradient, state.cost)
    )
    n_refused = jnp.where(refused, state.n_refused + 1, 0)
    gap = jnp.sum(jnp.square(gradient.weights), axis=(1, 2)) / (4 * problems.lam)
    state = state._replace(
        params=params, gradient=gradient, cost=cost, gap=gap, n_refused=n_refused
    )
    # After the first refusal the new curvature is enough; after more, steps are halved.
    length = jnp.where(gap > goal * cost, -(0.5 ** jnp.maximum(n_refused - 1, 0)), 0)
    direction = _direction(state, problems)
    step = jax.tree.map(lambda a: _wide(length, a).astype(a.dtype) * a, direction)
    state = state._replace(step=step, slope=_dot(gradient, step))
    axes = partial(devices.feature_axes, mesh=mesh, n_features=params.weights.shape[-1])
    shardings = jax.tree.map(lambda a: NamedSharding(mesh, PartitionSpec(*axes(a))), state)
    return jax.lax.with_sharding_constraint(state, shardings)


@jax.jit
def take_runs(state: State, problems: Problems, rows: jax.Array) -> tuple[State, Problems]:
    """The state and problems of some of the runs, by their places [C']."""
    return jax.tree.map(lambda a: a[rows] if a.ndim else a, (state, problems))


def _cost_and_gradient(
    params: Params, sums: Sums, problems: Problems, rotation: jax.Array | None
) -> tuple[jax.Array, Params]:
    """J [C] and its gradient, of the sums of a pass."""
    weights = sums.weights
    if rotation is not None:
        weights = product("ckd,dr->ckr", weights, rotation)
    weights += penalty_gradient(params.weights, _wide(problems.lam, weights))
    # Only rounding makes a constant in the gradient of free biases, and it would go on growing.
    bias = sums.bias - problems.shift_free * jnp.mean(sums.bias, axis=1, keepdims=True)
    return sums.loss + jax.vmap(penalty)(params, problems.lam), Params(weights, bias)


def _remember(state: State, change: Params, slope: jax.Array, problems: Problems) -> State:
    """The state with its latest step in the ring, if the curvature along it is positive."""
    curvature = slope - state.slope
    valid = (curvature > 0) & jnp.isfinite(curvature)
    slot = state.n_steps % MEMORY

    def put(memory: Params, latest: Params) -> Params:
        return jax.tree.map(
            lambda m, a: m.at[:, slot].set(jnp.where(_wide(valid, a), a, 0)), memory, latest
        )

    inverse = jnp.where(valid, 1 / jnp.where(valid, curvature, 1), 0)
    flat = _dot(change, _precondition(change, problems))
    scale = jnp.where(valid & (flat > 0), curvature / jnp.where(flat > 0, flat, 1), 0)
    return state._replace(
        steps=put(state.steps, state.step),
        changes=put(state.changes, change),
        inverse=state.inverse.at[:, slot].set(inverse),
        scales=state.scales.at[:, slot].set(scale),
        n_steps=state.n_steps + 1,
    )


def _precondition(gradient: Params, problems: Problems) -> Params:
    """P⁻¹ times a gradient [C, K, r] and [C, K]."""

    def inverse(array: jax.Array, diagonal: jax.Array) -> jax.Array:
        rotated = product("ckl,ck...->cl...", problems.classes, array) / diagonal
        return product("ckl,cl...->ck...", problems.classes, rotated)

    return jax.tree.map(inverse, gradient, problems.diagonal)


def _direction(state: State, problems: Problems) -> Params:
    """The gradient times the approximate inverse of the Hessian, by the two loops.

    Between the loops comes P⁻¹, times the mean of the pairs' `scales`. The usual scale, of the
    latest pair alone, takes more passes.
    """

    def pair(i):
        slot = (state.n_steps - 1 - i) % MEMORY
        memory = (state.steps, state.changes, state.inverse)
        return jax.tree.map(lambda m: m[:, slot], memory)

    def subtract(a, weight, b):
        return jax.tree.map(lambda x, y: x - _wide(weight, y) * y, a, b)

    def latest_first(i, carry):
        result, weights = carry
        step, change, inverse = pair(i)
        weight = inverse * _dot(step, result)
        return subtract(result, weight, change), weights.at[:, i].set(weight)

    def oldest_first(i, result):
        step, change, inverse = pair(MEMORY - 1 - i)
        weight = weights[:, MEMORY - 1 - i] - inverse * _dot(change, result)
        return subtract(result, -weight, step)

    start = (state.gradient, jnp.zeros_like(state.inverse))
    result, weights = jax.lax.fori_loop(0, MEMORY, latest_first, start)
    n_pairs = jnp.sum(state.scales > 0, axis=1)
    scale = jnp.where(n_pairs > 0, jnp.sum(state.scales, axis=1) / jnp.maximum(n_pairs, 1), 1)
    result = jax.tree.map(lambda a: _wide(scale, a) * a, _precondition(result, problems))
    return jax.lax.fori_loop(0, MEMORY, oldest_first, result)


def _dot(a: Params, b: Params) -> jax.Array:
    """⟨a, b⟩ of each run, [C]."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y, axis=tuple(range(1, x.ndim))), a, b)
    return products.weights + products.bias


def _wide(by_run: jax.Array, like: jax.Array) -> jax.Array:
    """[C] with further axes, to be multiplied with [C, …]."""
    return jnp.expand_dims(by_run, tuple(range(1, like.ndim)))
