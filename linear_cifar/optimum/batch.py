"""Runs that descend together; those that are finished leave, and the batch gets smaller."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from linear_cifar.engine.devices import fetch
from linear_cifar.model import Params
from linear_cifar.optimum import descent
from linear_cifar.optimum.placed import Placed

_BETWEEN = 10  # iterations from one report to the next
_STALLED = 5  # reports without progress after which rounding is in the way
# A batch is halved once half of it is finished, which compiles its program anew, down to this many
# columns of a product: thinner ones take hardly less time.
_COLUMNS = 40


class Descended(NamedTuple):
    """How far the runs are; numpy arrays."""

    passes: np.ndarray  # [C], since the start
    relative_gap: np.ndarray  # [C], if only the biases were optimal
    params: Params | None  # [C, K, r] and [C, K], at the end


def descend(
    placed: Placed,
    runs: descent.OfRuns,
    start: Params | None,
    goal: np.ndarray,
    limit: int,
) -> Iterator[Descended]:
    """Descends until every run has met its goal, or can't.

    Args:
      placed: the data.
      runs: C of them.
      start: parameters [C, K, d] and [C, K]; None for 0, which stands in for worse ones too.
      goal: gap over cost at which a run is finished, [C]; one of infinity doesn't move.
      limit: passes.

    Yields:
      How far they are, every few passes, and at last with their parameters.
    """
    how = {"loss": placed.loss, "mesh": placed.mesh}
    state = _begin(placed, runs, start)
    goal = goal.astype(placed.dtype)
    passes, relative = (goal < np.inf).astype(int), np.zeros(len(goal))
    last: Params = jax.tree.map(np.array, fetch(state.params))
    rows, best, n_stalled = np.arange(len(goal)), np.inf, 0
    while True:
        most = max(0, min(_BETWEEN, limit - passes.max()))
        state, n_taken = descent.advance(state, placed.problem(runs), goal[rows], most, **how)
        n_taken, gaps, costs = fetch((n_taken, state.gap, state.cost))
        passes[rows] += n_taken
        with np.errstate(divide="ignore", invalid="ignore"):  # a cost may vanish
            relative[rows] = gaps / costs
            left = ~(gaps <= goal[rows] * costs)
            worst = np.max(relative[rows] / goal[rows], where=left, initial=0)
        n_stalled = 0 if worst <= 0.8 * best else n_stalled + 1  # NaN stalls
        best = np.fmin(best, worst)
        ended = not left.any() or passes.max() >= limit or n_stalled == _STALLED
        half = len(rows) // 2
        halves = left.sum() <= half and half * placed.n_classes >= _COLUMNS
        if ended or halves:
            for whole, part in zip(last, fetch(state.params), strict=True):
                whole[rows] = part
        yield Descended(passes.copy(), relative.copy(), last if ended else None)
        if ended:
            return
        if halves:
            stay = np.sort(np.argsort(~left, kind="stable")[:half])
            state, runs = descent.taken(state, runs, stay)
            rows = rows[stay]


def _begin(placed: Placed, runs: descent.OfRuns, start: Params | None) -> descent.State:
    def begin(start: Params) -> descent.State:
        problem = placed.problem(runs)
        return descent.begin(placed.start(start), problem, loss=placed.loss, mesh=placed.mesh)

    if start is None:
        return begin(placed.zero(len(runs.lam)))
    state = begin(start)
    bad = ~(fetch(state.cost) <= fetch(runs.cost_at_zero))  # NaN is bad
    if not bad.any():
        return state
    return begin(
        Params(*(np.where(np.expand_dims(bad, tuple(range(1, a.ndim))), 0, a) for a in start))
    )
