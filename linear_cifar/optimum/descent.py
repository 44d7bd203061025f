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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from linear_cifar.engine.devices import AXIS
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum import shards, weighted

MEMORY = 10  # pairs of steps and changes of the gradient; 20 and 40 save few passes
# A step is long enough once the slope along it has fallen to this share of that at its start.
_SLOPE = 0.3
_TRIES = 12


class OfRuns(NamedTuple):
    """What of a problem belongs to its C runs."""

    lam: jax.Array  # [C]
    shares: jax.Array  # [C, n], what an example counts; the sum over n is 1
    diagonal: Params  # the preconditioner, [C, 1, r] and [C, 1]
    cost_at_zero: jax.Array  # [C], of zero parameters


class Problem(NamedTuple):
    """What stays the same during a descent of C runs."""

    inputs: jax.Array  # [n, r], rotated
    labels: jax.Array  # [n]
    runs: OfRuns


class State(NamedTuple):
    """Where a descent of C runs stands."""

    params: Params  # [C, K, r] and [C, K]
    scores: jax.Array  # [C, K, n], logits
    by_logit: jax.Array  # [C, K, n], the shares times ∂l/∂s
    gradient: Params
    cost: jax.Array  # [C]
    gap: jax.Array  # [C], which bounds J − J* if only the bias is optimal: ‖∂J/∂W‖²/(4λ)
    steps: Params  # [C, MEMORY, …], the latest changes of the parameters, in a ring
    changes: Params  # [C, MEMORY, …], and of the gradient
    inverse: jax.Array  # [C, MEMORY], 1/⟨step, change⟩; 0 where there is none
    n_steps: jax.Array  # how many were taken, a scalar


# How they lie on devices.
_OF_STEPS: Any = PartitionSpec(None, None, None, AXIS)
_MEMORY = Params(_OF_STEPS, shards.WHOLE)
RUNS = OfRuns(shards.WHOLE, shards.SHARES, shards.PARAMS, shards.WHOLE)
_PROBLEM = Problem(shards.EXAMPLES, shards.EXAMPLES, RUNS)
_STATE = State(
    shards.PARAMS,
    shards.LAST,
    shards.LAST,
    shards.PARAMS,
    shards.WHOLE,
    shards.WHOLE,
    _MEMORY,
    _MEMORY,
    shards.WHOLE,
    shards.WHOLE,
)


@partial(jax.jit, static_argnames=("loss", "mesh"))
def begin(params: Params, problem: Problem, *, loss: Loss, mesh: Mesh) -> State:
    """The state at some parameters; half a pass, or a whole one where they aren't zero."""

    def of_device(params: Params, problem: Problem) -> State:
        scores = _scores(params, problem.inputs)
        by_logit = weighted.logit_gradient(scores, problem.labels, problem.runs.shares, loss)
        gradient = _gradient(params, by_logit, problem)
        none = jax.tree.map(lambda a: jnp.zeros((len(a), MEMORY, *a.shape[1:]), a.dtype), params)
        return State(
            params,
            scores,
            by_logit,
            gradient,
            _cost(params, scores, problem, loss),
            _gap(gradient, problem),
            none,
            none,
            jnp.zeros((len(problem.runs.lam), MEMORY), scores.dtype),
            jnp.zeros((), jnp.int32),
        )

    of_devices = shards.on_devices(of_device, mesh, (shards.PARAMS, _PROBLEM), _STATE)
    return of_devices(params, problem)


@partial(jax.jit, static_argnames=("loss", "mesh"), donate_argnames="state")
def advance(
    state: State, problem: Problem, goal: jax.Array, limit: int, *, loss: Loss, mesh: Mesh
) -> tuple[State, jax.Array]:
    """Iterates until every run has met its goal, at most `limit` times.

    Args:
      state: as `begin` or the last `advance` left it; it can't be used any more.
      problem: which is solved.
      goal: gap over cost at which a run stops, [C]; the cost is that of the beginning, so that a
        run may stop a little early.
      limit: iterations, a scalar.
      loss: the loss per example.
      mesh: the devices.

    Returns:
      The state, and how many iterations each run took, [C].
    """
    of_device = partial(_advance, loss=loss)
    given = (_STATE, _PROBLEM, shards.WHOLE, shards.WHOLE)
    of_devices = shards.on_devices(of_device, mesh, given, (_STATE, shards.WHOLE))
    return of_devices(state, problem, goal, limit)


@jax.jit
def taken(state: State, runs: OfRuns, rows: jax.Array) -> tuple[State, OfRuns]:
    """Some of the runs, by their places [C']."""
    n_steps = state.n_steps
    state, runs = jax.tree.map(lambda a: a[rows] if a.ndim else a, (state, runs))
    return state._replace(n_steps=n_steps), runs


def _advance(state: State, problem: Problem, goal, limit, *, loss) -> tuple[State, jax.Array]:
    def unfinished(state: State) -> jax.Array:
        return state.gap > goal * state.cost

    def more(carry):
        state, n_taken = carry
        return jnp.any(unfinished(state)) & (jnp.max(n_taken) < limit)

    def iterate(carry):
        state, n_taken = carry
        moving = unfinished(state)
        return _iterate(state, problem, moving, loss), n_taken + moving

    n_taken = jnp.zeros(len(problem.runs.lam), jnp.int32)
    state, n_taken = jax.lax.while_loop(more, iterate, (state, n_taken))
    return state._replace(cost=_cost(state.params, state.scores, problem, loss)), n_taken


def _gap(gradient: Params, problem: Problem) -> jax.Array:
    return _square(gradient.weights) / (4 * problem.runs.lam)


def _iterate(state: State, problem: Problem, moving: jax.Array, loss: Loss) -> State:
    direction = jax.tree.map(
        lambda a: jnp.where(_wide(moving, a), -a, 0), _preconditioned(state, problem.runs.diagonal)
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
        return jax.tree.map(lambda m, a: m.at[:, slot].set(a), memory, latest)

    return State(
        params,
        scores,
        by_logit,
        gradient,
        state.cost,
        _gap(gradient, problem),
        put(state.steps, step),
        put(state.changes, change),
        state.inverse.at[:, slot].set(inverse),
        state.n_steps + 1,
    )


def _preconditioned(state: State, diagonal: Params) -> Params:
    """The gradient times the approximate inverse of the Hessian, by the two loops."""

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
    lam, shares = problem.runs.lam, problem.runs.shares
    squared = _square(direction.weights)
    across = shards.total(jnp.sum(state.params.weights * direction.weights, axis=(1, 2)))

    def along_it(by_logit):
        return shards.total(jnp.sum(by_logit * along, axis=(1, 2)))

    def look(length):
        scores = state.scores + _wide(length, along) * along
        by_logit = weighted.logit_gradient(scores, problem.labels, shares, loss)
        return by_logit, along_it(by_logit) + penalty_gradient(across + length * squared, lam)

    at_start = jnp.abs(along_it(state.by_logit) + penalty_gradient(across, lam))

    def unfinished(slope):
        return moving & ~(jnp.abs(slope) <= _SLOPE * at_start)

    def more(carry):
        _, _, slope, _, _, tries = carry
        return jnp.any(unfinished(slope)) & (tries < _TRIES)

    def again(carry):
        length, _, slope, low, high, tries = carry
        scores = state.scores + _wide(length, along) * along
        products = weighted.hessian_product(scores, along, problem.labels, shares, loss)
        bend = along_it(products) + penalty_gradient(squared, lam)
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
    weights = shards.gathered(params.weights)
    c, k, r = weights.shape
    return (weights.reshape(c * k, r) @ inputs.T).reshape(c, k, -1) + params.bias[..., None]


def _gradient(params: Params, by_logit: jax.Array, problem: Problem) -> Params:
    c, k, n = by_logit.shape
    weights = (by_logit.reshape(c * k, n) @ problem.inputs).reshape(c, k, -1)
    of_penalty = penalty_gradient(params.weights, _wide(problem.runs.lam, weights))
    bias = shards.total(jnp.sum(by_logit, axis=-1))
    return Params(shards.total_share(weights) + of_penalty, bias)


def _cost(params: Params, scores: jax.Array, problem: Problem, loss: Loss) -> jax.Array:
    losses = weighted.mean_loss(scores, problem.labels, problem.runs.shares, loss)
    return shards.total(losses + jax.vmap(penalty)(params, problem.runs.lam))


def _square(weights: ArrayLike) -> jax.Array:
    """‖·‖² of each run, [C]."""
    return shards.total(jnp.sum(jnp.square(weights), axis=(1, 2)))


def _dot(a: Params, b: Params) -> jax.Array:
    """⟨a, b⟩ of each run, [C]."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y, axis=tuple(range(1, x.ndim))), a, b)
    return shards.total(products.weights) + products.bias


def _wide(of_runs: jax.Array, like: jax.Array) -> jax.Array:
    """[C] with further axes, to be multiplied with [C, …]."""
    return jnp.expand_dims(of_runs, tuple(range(1, like.ndim)))
