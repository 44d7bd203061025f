"""L-BFGS for many λ at once, in the coordinates of a `Basis`.

The logits of the parameters and of a direction are kept, so that a step along the direction needs
no product with the inputs, however many lengths of it are tried. An iteration is a product of the
direction with the inputs and one of the new logit gradient with them: a pass over the data.

Its preconditioner is diag(c e + 2λ), with c the mean curvature of the loss at the start (softmax:
(1 − 1/K)/K at zero; Böhning's upper bound is ½, which takes more passes).

References:
  J. Nocedal, S. Wright, Numerical Optimization, 2006, Algorithm 7.4.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum import weighted

MEMORY = 10  # pairs of steps and changes of the gradient; 20 and 40 save few passes
# A step is long enough once the slope along it has fallen to this share of that at its start.
_SLOPE = 0.3
_TRIES = 12


class Problem(NamedTuple):
    """What stays the same during a descent of C runs."""

    inputs: jax.Array  # [n, r], rotated
    labels: jax.Array  # [n]
    shares: jax.Array  # [C, n], what an example counts; the sum over n is 1
    lam: jax.Array  # [C]
    diagonal: Params  # the preconditioner, [C, 1, r] and [C, 1]


class State(NamedTuple):
    """Where a descent of C runs stands."""

    params: Params  # [C, K, r] and [C, K]
    scores: jax.Array  # [C, K, n], logits
    by_logit: jax.Array  # [C, K, n], the shares times ∂l/∂s
    gradient: Params
    cost: jax.Array  # [C]
    steps: Params  # [MEMORY, C, …], the latest changes of the parameters
    changes: Params  # [MEMORY, C, …], and of the gradient
    inverse: jax.Array  # [MEMORY, C], 1/⟨step, change⟩; 0 where there is none
    n_steps: jax.Array  # how many were taken, a scalar


def gap(state: State, lam: jax.Array) -> jax.Array:
    """What bounds J − J* of each run, [C], if only its bias were optimal: ‖∂J/∂W‖²/(4λ)."""
    return jnp.sum(state.gradient.weights**2, axis=(1, 2)) / (4 * lam)


@partial(jax.jit, static_argnames="loss")
def begin(params: Params, problem: Problem, *, loss: Loss) -> State:
    """The state at some parameters; half a pass, or a whole one where they aren't zero."""
    scores = _scores(params, problem.inputs)
    by_logit = weighted.logit_gradient(scores, problem.labels, problem.shares, loss)
    none = jax.tree.map(lambda a: jnp.zeros((MEMORY, *a.shape), a.dtype), params)
    return State(
        params,
        scores,
        by_logit,
        _gradient(params, by_logit, problem),
        _cost(params, scores, problem, loss),
        none,
        none,
        jnp.zeros((MEMORY, len(problem.lam)), scores.dtype),
        jnp.zeros((), jnp.int32),
    )


@partial(jax.jit, static_argnames="loss", donate_argnames="state")
def advance(
    state: State, problem: Problem, goal: jax.Array, limit: jax.Array, *, loss: Loss
) -> tuple[State, jax.Array]:
    """Iterates until every run has met its goal, at most `limit` times.

    Args:
      state: as `begin` or the last `advance` left it; it can't be used any more.
      problem: which is solved.
      goal: gap over cost at which a run stops, [C].
      limit: iterations, a scalar.
      loss: the loss per example.

    Returns:
      The state, and how many iterations each run took, [C].
    """

    def unfinished(state: State) -> jax.Array:
        return gap(state, problem.lam) > goal * state.cost

    def more(carry):
        state, taken = carry
        return jnp.any(unfinished(state)) & (jnp.max(taken) < limit)

    def iterate(carry):
        state, taken = carry
        moving = unfinished(state)
        return _iterate(state, problem, moving, loss), taken + moving

    taken = jnp.zeros(len(problem.lam), jnp.int32)
    return jax.lax.while_loop(more, iterate, (state, taken))


def _iterate(state: State, problem: Problem, moving: jax.Array, loss: Loss) -> State:
    direction = jax.tree.map(
        lambda a: jnp.where(_wide(moving, a), -a, 0), _preconditioned(state, problem.diagonal)
    )
    along = _scores(direction, problem.inputs)
    length, by_logit = _search(state, direction, along, problem, moving, loss)
    step = jax.tree.map(lambda a: _wide(length, a) * a, direction)
    params = jax.tree.map(jnp.add, state.params, step)
    scores = state.scores + _wide(length, along) * along
    gradient = _gradient(params, by_logit, problem)
    change = jax.tree.map(jnp.subtract, gradient, state.gradient)
    product = _dot(step, change)
    inverse = jnp.where(product > 0, 1 / jnp.where(product > 0, product, 1), 0)
    slot = state.n_steps % MEMORY

    def put(memory, latest):
        return jax.tree.map(lambda m, a: m.at[slot].set(a), memory, latest)

    return State(
        params,
        scores,
        by_logit,
        gradient,
        _cost(params, scores, problem, loss),
        put(state.steps, step),
        put(state.changes, change),
        state.inverse.at[slot].set(inverse),
        state.n_steps + 1,
    )


def _preconditioned(state: State, diagonal: Params) -> Params:
    """The gradient times the approximate inverse of the Hessian, by the two loops."""

    def pair(i):
        slot = (state.n_steps - 1 - i) % MEMORY
        steps, changes = (jax.tree.map(lambda m: m[slot], m) for m in (state.steps, state.changes))
        return steps, changes, state.inverse[slot]

    def minus(a, weight, b):
        return jax.tree.map(lambda x, y: x - _wide(weight, y) * y, a, b)

    def first(i, carry):
        result, weights = carry
        step, change, inverse = pair(i)
        weight = inverse * _dot(step, result)
        return minus(result, weight, change), weights.at[i].set(weight)

    def second(i, result):
        step, change, inverse = pair(MEMORY - 1 - i)
        weight = weights[MEMORY - 1 - i] - inverse * _dot(change, result)
        return minus(result, -weight, step)

    start = (state.gradient, jnp.zeros_like(state.inverse))
    result, weights = jax.lax.fori_loop(0, MEMORY, first, start)
    result = jax.tree.map(jnp.divide, result, diagonal)
    return jax.lax.fori_loop(0, MEMORY, second, result)


def _search(
    state: State,
    direction: Params,
    along: jax.Array,
    problem: Problem,
    moving: jax.Array,
    loss: Loss,
) -> tuple[jax.Array, jax.Array]:
    """Lengths [C] along the direction at which the slope is small, and the logit gradient there.

    It begins with 1 and goes on by Newton's method, within what the signs of the slope leave over;
    the cost is convex.
    """
    squared = jnp.sum(direction.weights**2, axis=(1, 2))
    across = jnp.sum(state.params.weights * direction.weights, axis=(1, 2))

    def look(length):
        scores = state.scores + _wide(length, along) * along
        by_logit = weighted.logit_gradient(scores, problem.labels, problem.shares, loss)
        slope = jnp.sum(by_logit * along, axis=(1, 2))
        return by_logit, slope + penalty_gradient(across + length * squared, problem.lam)

    at_start = jnp.sum(state.by_logit * along, axis=(1, 2))
    at_start = jnp.abs(at_start + penalty_gradient(across, problem.lam))

    def unfinished(slope):
        return moving & ~(jnp.abs(slope) <= _SLOPE * at_start)

    def more(carry):
        _, _, slope, _, _, tries = carry
        return jnp.any(unfinished(slope)) & (tries < _TRIES)

    def again(carry):
        length, _, slope, low, high, tries = carry
        scores = state.scores + _wide(length, along) * along
        products = weighted.hessian_product(scores, along, problem.labels, problem.shares, loss)
        bend = jnp.sum(along * products, axis=(1, 2)) + penalty_gradient(squared, problem.lam)
        low, high = jnp.where(slope < 0, length, low), jnp.where(slope < 0, high, length)
        newton = length - slope / bend
        middle = jnp.where(jnp.isinf(high), 4 * length, (low + high) / 2)
        inside = (newton > low) & (newton < high)
        length = jnp.where(unfinished(slope), jnp.where(inside, newton, middle), length)
        by_logit, slope = look(length)
        return length, by_logit, slope, low, high, tries + 1

    one = jnp.ones_like(at_start)
    start = (one, *look(one), jnp.zeros_like(one), jnp.full_like(one, jnp.inf), 0)
    length, by_logit, *_ = jax.lax.while_loop(more, again, start)
    return length, by_logit


def _scores(params: Params, inputs: jax.Array) -> jax.Array:
    c, k, r = params.weights.shape
    return (params.weights.reshape(c * k, r) @ inputs.T).reshape(c, k, -1) + params.bias[..., None]


def _gradient(params: Params, by_logit: jax.Array, problem: Problem) -> Params:
    c, k, n = by_logit.shape
    weights = (by_logit.reshape(c * k, n) @ problem.inputs).reshape(params.weights.shape)
    lam = _wide(problem.lam, weights)
    return Params(weights + penalty_gradient(params.weights, lam), jnp.sum(by_logit, axis=-1))


def _cost(params: Params, scores: jax.Array, problem: Problem, loss: Loss) -> jax.Array:
    losses = weighted.mean_loss(scores, problem.labels, problem.shares, loss)
    return losses + jax.vmap(penalty)(params, problem.lam)


def _dot(a: Params, b: Params) -> jax.Array:
    """⟨a, b⟩ of each run, [C]."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y, axis=tuple(range(1, x.ndim))), a, b)
    return products.weights + products.bias


def _wide(of_runs: jax.Array, like: jax.Array) -> jax.Array:
    """[C] with further axes, to be multiplied with [C, …]."""
    return jnp.expand_dims(of_runs, tuple(range(1, like.ndim)))
