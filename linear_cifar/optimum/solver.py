"""`solve`: the minimum of the cost for many λ at once."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from linear_cifar.data.on_disk import OnDisk
from linear_cifar.data.types import Dataset, check_dataset
from linear_cifar.engine.devices import check_mesh, device_mesh
from linear_cifar.engine.plan import Chunk
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import descent
from linear_cifar.optimum.batch import Watched, descend
from linear_cifar.optimum.certificate import Certified, certify
from linear_cifar.optimum.problem import Problem
from linear_cifar.optimum.settings import (
    DEFAULTS,
    Solver,
    Weights,
    check_fits,
    check_solver,
    checked,
    checked_start,
    shares_of,
)
from linear_cifar.settings import SettingsError

# Runs at a time: their products fill the matrix unit, and neighbours are finished at about a time.
_AT_ONCE = 16
_FIRSTS = 8  # λ that start the others, at least
_SAFETY = 0.4  # of the tolerance, at which an estimate counts as good


class Optimum(NamedTuple):
    """What `solve` finds for C values of λ; numpy arrays."""

    params: Params  # [C, K, d] and [C, K], float64
    cost: np.ndarray  # [C], J, float64
    gap: np.ndarray  # [C], what J is above its minimum by at most, float64
    distance: np.ndarray  # [C], what ‖W − W*‖ is at most, float64
    passes: np.ndarray  # [C], products with all inputs and back, int
    converged: np.ndarray  # [C], whether gap ≤ tolerance · cost
    settled: np.ndarray  # [C], whether it was ended because what was watched stayed the same


class Solving(NamedTuple):
    """How far a chunk is; with its optimum once it is finished."""

    rows: tuple[int, ...]  # of λ
    passes: np.ndarray  # [rows]
    relative_gap: np.ndarray  # [rows], estimated while it goes on, certified at the end
    optimum: Optimum | None


def solve(
    lam: ArrayLike,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    weights: ArrayLike | Weights | None = None,
    tolerance: float = DEFAULTS.tolerance,
    max_passes: int = DEFAULTS.max_passes,
    dtype: Any = DEFAULTS.dtype,
    memory_bytes: int = DEFAULTS.memory_bytes,
    mesh: Mesh | None = None,
    start: Params | None = None,
    watched: Watched | None = None,
) -> Optimum:
    """Minimises the cost over the training examples for every λ, and certifies how well.

    The certificate is computed in float64 with the inputs as they are stored, so that it holds for
    the parameters that are returned whatever happened on the way.

    Args:
      lam: λ > 0, [C].
      dataset: whose training examples count.
      loss: the loss per example.
      weights: of examples, at least 0, [n] or [C, n]: the mean loss is the weighted one,
        Σ w l / Σ w, so that λ is per example; folds of a cross-validation are zeros and ones.
        None: all equal.
      tolerance: gap over cost at which a λ is finished.
      max_passes: over the data for each λ, without that of the certificate; what isn't finished
        then is not `converged`.
      dtype: floating type of the descent; float32 gets to a gap of about 1e-12 of the
        cost, and not as near where λ is small: what can't get nearer ends too.
      memory_bytes: that descents may keep, which bounds how many λ go at once; the examples aren't
        among them.
      mesh: devices that share the examples; None for the first one.
      start: parameters [C, K, d] and [C, K] to descend from; zero stands in for what is worse.
      watched: what the descent is for, as predictions of validation examples: a function of
        parameters [C, K, d] and [C, K] that gives an array [C, …]. It is looked at every 25
        passes, and a run ends where it has stayed the same for 50, converged or not.

    Raises:
      SettingsError: a setting out of its range, λ = 0 among them, where the minimum may not exist;
        weights of another shape, negative or without a positive one; or `dtype` float64 without
        JAX's x64 mode.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0])))
      >>> found = solve([0.1, 1.0], data)
      >>> found.converged.tolist(), found.params.weights.shape
      ([True, True], (2, 2, 4))
    """
    how = Solver(loss, tolerance, max_passes, dtype, memory_bytes)
    solving = solve_chunks(
        lam, dataset, how, weights=weights, mesh=mesh, start=start, watched=watched
    )
    found = [(step.rows, step.optimum) for step in solving if step.optimum]
    order = np.argsort([row for rows, _ in found for row in rows])
    optima = [optimum for _, optimum in found]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *optima)


def solve_chunks(
    lam: ArrayLike,
    dataset: Dataset,
    how: Solver = DEFAULTS,
    *,
    weights: ArrayLike | Weights | None = None,
    mesh: Mesh | None = None,
    finished: Mapping[int, Params] | None = None,
    start: Params | None = None,
    watched: Watched | None = None,
) -> Iterator[Solving]:
    """The loop of `solve`, for progress and checkpoints: some λ from end to end, then the others.

    Args:
      lam: as for `solve`.
      dataset: as for `solve`.
      how: what `solve` takes as keywords.
      weights: as for `solve`; or `Weights`, which take less memory.
      mesh: as for `solve`.
      finished: rows of λ to leave out, with their parameters [K, d] and [K], float64; the others
        give the same bits with and without them.
      start: as for `solve`.
      watched: as for `solve`.

    Yields:
      How far a chunk is, every few passes, and at last with its optimum.

    Raises:
      SettingsError: as for `solve`.
    """
    check_solver(how)
    check_dataset(dataset)
    lam, weights = checked(lam, weights, len(dataset.train.labels))
    check_fits(lam, how.dtype)
    if watched is not None and not callable(watched):
        raise SettingsError(f"watched is {watched!r}: it has to be a function")
    start = None if start is None else checked_start(start, len(lam), dataset)
    finished = finished or {}
    with np.errstate(over="ignore"):
        totals = weights.distinct.sum(axis=1, dtype=np.float64)
    firsts, others = _chunks(lam, totals[weights.of_row], *_at_once(dataset, how.memory_bytes))
    if len(finished) == len(lam):
        return
    mesh = device_mesh(jax.devices()[:1]) if mesh is None else mesh
    check_mesh(mesh)
    problem = Problem(dataset, how.loss, how.dtype, mesh)
    known = {row: finished[row] for chunk in firsts for row in chunk.rows if row in finished}
    for chunk in (*firsts, *others):
        if not set(chunk.rows) - finished.keys():
            continue
        rows = np.array(chunk.padded)
        guess = None if chunk in firsts else _between(lam, known, lam[rows])
        if start is not None:
            guess = Params(*(array[rows] for array in start))
        for step in _solve_chunk(
            problem, chunk, lam[rows], shares_of(weights, rows), guess, how, watched
        ):
            if step.optimum and chunk in firsts:
                params = zip(*step.optimum.params, strict=True)
                known |= zip(chunk.rows, itertools.starmap(Params, params), strict=True)
            yield step


def _at_once(dataset: Dataset, memory_bytes: int) -> tuple[int, int]:
    """How many runs to solve at once at most: of the first ones, and of the others.

    From a disk the others go all together, as far as there is memory: their passes are one.
    """
    of_run = 4 * 2 * (descent.MEMORY + 4) * dataset.n_classes * dataset.n_features
    most = max(1, memory_bytes // of_run)
    few = min(_AT_ONCE, most)
    return few, most if isinstance(dataset.train.inputs, OnDisk) else few


def _chunks(
    lam: np.ndarray, totals: np.ndarray, few: int, most: int
) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks with some λ from end to end, to start the others, and those, the largest λ first.

    Of rows that share their λ, as folds do, the one with the most examples (the largest total of
    weights) speaks for all.
    """
    order = np.lexsort((-totals, -lam))
    size = _even(len(order), few)
    n_firsts = size * -(-min(_FIRSTS, len(order)) // size)
    is_first = np.diff(lam[order], prepend=np.inf) < 0
    distinct, rest = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    spread = np.linspace(0, len(distinct) - 1, min(n_firsts, len(distinct))).round().astype(int)
    places = np.concatenate([distinct[spread], rest[: n_firsts - len(spread)]])
    firsts, others = order[places].tolist(), np.delete(order, places).tolist()
    return _cut(firsts, size), _cut(others, size if most == few else _even(len(others), most))


def _even(n: int, most: int) -> int:
    """The size of chunks of about equal size, of at most so many."""
    return -(-n // -(-n // most)) if n else 1


def _cut(rows: list[int], size: int) -> list[Chunk]:
    return [Chunk(tuple(rows[i : i + size]), size) for i in range(0, len(rows), size)]


def _between(lam: np.ndarray, known: Mapping[int, Params], wanted: np.ndarray) -> Params:
    """What the optimum at some λ is about, [C, K, d] and [C, K], by the known ones between them."""
    from scipy.interpolate import CubicSpline

    groups: dict[float, list[Params]] = {}
    for row in sorted(known, key=lambda row: lam[row]):
        groups.setdefault(float(np.log(lam[row]).round(6)), []).append(known[row])
    means = [jax.tree.map(lambda *arrays: np.mean(arrays, axis=0), *g) for g in groups.values()]
    if len(groups) == 1:
        shares = np.ones((len(wanted), 1))
    else:
        shares = CubicSpline(list(groups), np.eye(len(groups)))(np.log(wanted))
    return jax.tree.map(lambda *arrays: np.tensordot(shares, np.stack(arrays), 1), *means)


def _solve_chunk(
    problem: Problem,
    chunk: Chunk,
    lam: np.ndarray,
    shares: Weights,
    guess: Params | None,
    how: Solver,
    watched: Watched | None,
) -> Iterator[Solving]:
    """Descends until the estimates are good, certifies, and goes on where that was too early."""
    n, passes = len(chunk.rows), np.zeros(len(lam), int)
    runs, blocks = problem.of_runs(lam, *shares), problem.blocks(shares.distinct)
    goal = np.full(len(lam), _SAFETY * how.tolerance)
    found, start, settled = None, guess, np.zeros(len(lam), bool)
    while True:
        limit = how.max_passes - passes.max()
        for step in descend(problem, runs, blocks, start, goal, limit, watched):
            yield Solving(chunk.rows, (passes + step.passes)[:n], step.relative_gap[:n], None)
        assert step.params is not None
        latest = certify(problem.back(step.params), problem.examples, *shares, lam, how.loss)
        passes = passes + step.passes + (goal < np.inf)
        better = latest.gap < (np.inf if found is None else 0.9 * found.gap)
        found = latest if found is None else _where(better, latest, found)
        converged, settled = found.gap <= how.tolerance * found.cost, settled | step.settled
        ended = converged | settled | ~better
        if ended.all() or passes.max() >= how.max_passes:
            break
        goal = np.where(ended, np.inf, goal / 4)
        start = found.params
    states = (passes, converged, settled & ~converged)
    optimum = Optimum(*jax.tree.map(lambda a: a[:n], (*found, *states)))
    yield Solving(chunk.rows, optimum.passes, _over(optimum.gap, optimum.cost), optimum)


def _over(gap: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The gap over the cost, which is 0 where all examples are of one class."""
    return np.divide(gap, cost, out=np.where(gap > 0, np.inf, 0.0), where=cost > 0)


def _where(choice: np.ndarray, a: Certified, b: Certified) -> Certified:
    return jax.tree.map(lambda x, y: np.where(choice.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)
