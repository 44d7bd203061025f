"""Runs that descend together; those that are finished leave, and the batch gets smaller."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.engine.devices import fetch
from linear_cifar.model import Params
from linear_cifar.optimum import descent
from linear_cifar.optimum.examples import Block
from linear_cifar.optimum.problem import Problem
from linear_cifar.settings import SettingsError

# Passes after which rounding is in the way, if in none of them the gap fell by a fifth, nor a cost
# by more than its last digit: where λ is small, costs fall for hundreds of passes before gaps do.
_STALLED = 50
# Passes from one look at what is watched to the next, and how many times it has to be the same.
_BETWEEN_LOOKS, _SAME = 25, 2
# Finished runs leave once the passes that they were taken along in have cost as many operations as
# compiling the program of fewer runs takes time, about a second.
_COMPILING = 2e11


# Of parameters [C, K, d] and [C, K], an array [C, …]: what the descent is for.
Watched: TypeAlias = Callable[[Params], ArrayLike]


class Descended(NamedTuple):
    """How far the runs are; numpy arrays."""

    passes: np.ndarray  # [C], since the start
    relative_gap: np.ndarray  # [C], if only the biases were optimal
    settled: np.ndarray  # [C], whether it was ended because what is watched stayed the same
    params: Params | None  # [C, K, r] and [C, K], at the end


def descend(
    problem: Problem,
    runs: descent.OfRuns,
    blocks: Iterable[Block],
    start: Params | None,
    goal: np.ndarray,
    limit: int,
    watched: Watched | None = None,
) -> Iterator[Descended]:
    """Descends until every run has met its goal, or can't, or does not matter any more.

    Args:
      problem: which is solved.
      runs: C of them.
      blocks: the examples with the runs' shares.
      start: parameters [C, K, d] and [C, K]; None for 0, which stands in for worse ones too.
      goal: gap over cost at which a run is finished, [C]; one of infinity doesn't move.
      limit: passes.
      watched: of parameters; a run ends where some looks at it, passes apart, are the same.

    Yields:
      How far they are, after every pass, and at last with their parameters.
    """
    goal = goal.copy()
    looks = _Looks(problem, watched, len(goal))
    state = _begin(problem, runs, blocks, start, goal)
    passes, relative = (goal < np.inf).astype(int), np.zeros(len(goal))
    last: Params = jax.tree.map(np.array, fetch(state.params))
    rows, best, n_stalled, wasted = np.arange(len(goal)), np.inf, 0, 0
    least, digit = np.full(len(goal), np.inf), float(jnp.finfo(problem.how.dtype).eps)
    of_pass = 4 * problem.examples.n * problem.examples.dataset.n_features * problem.n_classes
    while True:
        goal[looks.settled(state, passes, rows)] = np.inf
        gaps, costs = fetch((state.gap, state.cost))
        with np.errstate(divide="ignore", invalid="ignore"):  # a cost may vanish
            relative[rows] = gaps / costs
            left = ~(gaps <= goal[rows] * costs) & (goal[rows] < np.inf)
            worst = np.max(relative[rows] / goal[rows], where=left, initial=0)
            falls = left & (costs < (1 - digit) * least[rows])  # NaN doesn't
        least[rows] = np.fmin(least[rows], costs)
        n_stalled = 0 if worst <= 0.8 * best or falls.any() else n_stalled + 1
        best = worst if worst <= 0.8 * best else best
        ended = not left.any() or passes.max() >= limit or n_stalled == _STALLED
        wasted += np.sum(~left) * of_pass
        shrinks = wasted >= _COMPILING
        if ended or shrinks:
            for whole, part in zip(last, fetch(state.params), strict=True):
                whole[rows] = part
        yield Descended(passes.copy(), relative.copy(), looks.found.copy(), last if ended else None)
        if ended:
            return
        if shrinks:
            state, runs = descent.taken(state, runs, np.flatnonzero(left))
            rows, left, wasted = rows[left], left[left], 0
        state = problem.step(state, runs, blocks, goal[rows])
        passes[rows] += left


class _Looks:
    """What was seen of the watched, and which runs have settled."""

    def __init__(self, problem: Problem, watched: Watched | None, c: int) -> None:
        self._problem, self._watched = problem, watched
        self._seen: dict[int, np.ndarray] = {}
        self._same = np.zeros(c, int)  # looks that saw what the one before saw
        self.found = np.zeros(c, bool)

    def settled(self, state: descent.State, passes: np.ndarray, rows: np.ndarray) -> list[int]:
        """The rows that have settled now, of those [C'] that the state has."""
        most = int(passes.max())
        if self._watched is None or not most or most % _BETWEEN_LOOKS:
            return []
        seen = np.array(self._watched(self._problem.back(fetch(state.params))))  # not a buffer
        if seen.shape[:1] != rows.shape:
            raise SettingsError(f"watched has to give [{len(rows)}, …], not {list(seen.shape)}")
        before, self._seen = self._seen, dict(zip(rows.tolist(), seen, strict=True))
        for row, now in self._seen.items():
            same = row in before and np.array_equal(now, before[row])
            self._same[row] = self._same[row] + 1 if same else 0
        settled = [row for row in self._seen if passes[row] == most and self._same[row] >= _SAME]
        self.found[settled] = True
        return settled


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
