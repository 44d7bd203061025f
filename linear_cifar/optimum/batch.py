"""Runs that descend together; those that are finished leave, and the batch gets smaller."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from linear_cifar.engine.devices import fetch
from linear_cifar.model import Params
from linear_cifar.optimum import descent
from linear_cifar.optimum.examples import Block
from linear_cifar.optimum.problem import Problem

_STALLED = 50  # passes without progress after which rounding is in the way
# A batch is halved once half of it is finished, which compiles its program anew, down to this many
# columns of a product: thinner ones take hardly less time.
_COLUMNS = 40


class Descended(NamedTuple):
    """How far the runs are; numpy arrays."""

    passes: np.ndarray  # [C], since the start
    relative_gap: np.ndarray  # [C], if only the biases were optimal
    params: Params | None  # [C, K, r] and [C, K], at the end


def descend(
    problem: Problem,
    runs: descent.OfRuns,
    blocks: Iterable[Block],
    start: Params | None,
    goal: np.ndarray,
    limit: int,
) -> Iterator[Descended]:
    """Descends until every run has met its goal, or can't.

    Args:
      problem: which is solved.
      runs: C of them.
      blocks: the examples with the runs' shares.
      start: parameters [C, K, d] and [C, K]; None for 0, which stands in for worse ones too.
      goal: gap over cost at which a run is finished, [C]; one of infinity doesn't move.
      limit: passes.

    Yields:
      How far they are, after every pass, and at last with their parameters.
    """
    state = _begin(problem, runs, blocks, start, goal)
    passes, relative = (goal < np.inf).astype(int), np.zeros(len(goal))
    last: Params = jax.tree.map(np.array, fetch(state.params))
    rows, best, n_stalled = np.arange(len(goal)), np.inf, 0
    while True:
        gaps, costs = fetch((state.gap, state.cost))
        with np.errstate(divide="ignore", invalid="ignore"):  # a cost may vanish
            relative[rows] = gaps / costs
            left = ~(gaps <= goal[rows] * costs)
            worst = np.max(relative[rows] / goal[rows], where=left, initial=0)
        n_stalled = 0 if worst <= 0.8 * best else n_stalled + 1  # NaN stalls
        best = np.fmin(best, worst) if n_stalled == 0 else best
        ended = not left.any() or passes.max() >= limit or n_stalled == _STALLED
        half = len(rows) // 2
        halves = left.sum() <= half and half * problem.n_classes >= _COLUMNS
        if ended or halves:
            for whole, part in zip(last, fetch(state.params), strict=True):
                whole[rows] = part
        yield Descended(passes.copy(), relative.copy(), last if ended else None)
        if ended:
            return
        if halves:
            stay = np.sort(np.argsort(~left, kind="stable")[:half])
            state, runs = descent.taken(state, runs, stay)
            rows, left = rows[stay], left[stay]
        state = problem.step(state, runs, blocks, goal[rows])
        passes[rows] += left


def _begin(
    problem: Problem,
    runs: descent.OfRuns,
    blocks: Iterable[Block],
    start: Params | None,
    goal: np.ndarray,
) -> descent.State:
    """The state after the first pass."""
    c, mesh = len(goal), problem.how.mesh
    first = problem.start(start, c)
    state = problem.step(descent.begin(first, mesh), runs, blocks, goal)
    if start is None:
        return state
    bad = ~(fetch(state.cost) <= fetch(runs.cost_at_zero))  # NaN is bad
    if not bad.any():
        return state
    zero = jax.tree.map(lambda a: np.where(bad.reshape(-1, *[1] * (a.ndim - 1)), 0, a), first)
    return problem.step(descent.begin(zero, mesh), runs, blocks, goal)
