"""The host loop of a descent: C runs together, and finished runs leave."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from numpy.typing import ArrayLike

from linear_cifar.data.blocks import in_memory
from linear_cifar.data.dataset import Dataset
from linear_cifar.errors import InputError
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import lbfgs
from linear_cifar.optimum.basis import Basis, mean_curvature
from linear_cifar.optimum.data_pass import (
    Examples,
    ReadChunks,
    loss_and_gradient,
    sum_over,
    transform,
)
from linear_cifar.optimum.tasks import RunTask, Tasks, n_vectors, operations_per_pass
from linear_cifar.training.devices import fetch, on_cpu, replicate, shard_features

# A descent ends after so many passes in which neither the worst open gap fell by a fifth nor any
# open run's cost by a digit: at small λ, costs fall for hundreds of passes before gaps do.
_STALLED = 50
_BETWEEN_LOOKS, _UNCHANGED_LOOKS = 10, 3  # passes; looks in a row that see no change end a run
COMPILE_COST = {True: 2e11, False: 1e14}  # operations in 1 to 2 s, a compilation; by `on_cpu`
_SAMPLE = 2048  # examples, evenly spaced, from which the curvature is estimated
_LEAST_CURVATURE = 1e-3  # share of the largest; constants and absent classes have none
_ROUNDING = 1e-3  # a start is worse than zero if its cost is higher by this share

# Parameters [C, K, d] and [C, K] -> an array [C, …], such as predictions. A run whose array stays
# the same may end.
Result: TypeAlias = Callable[[Params], ArrayLike]


class Descent(NamedTuple):
    """What all descents on a data set share."""

    dataset: Dataset
    examples: Examples
    basis: Basis
    rotated: Examples | None  # with inputs in the basis, if they are in memory
    rotation: jax.Array | None  # V [d, r] on the devices, if each pass rotates the weights instead
    sample: np.ndarray  # [s, d], standardised examples from which the curvature is estimated
    loss: Loss
    dtype: Any
    n_descents: int  # of about as many runs


class Progress(NamedTuple):
    """The state of C runs after a pass; NumPy."""

    passes: np.ndarray  # [C], since the start
    relative_gap: np.ndarray  # [C], an estimate, as if the biases were optimal
    unchanged: np.ndarray  # [C], whether the run ended because its result didn't change
    params: Params | None  # [C, K, d] and [C, K], float64, at the end


def prepare(
    examples: Examples, dataset: Dataset, basis: Basis, loss: Loss, dtype: Any, n_descents: int
) -> Descent:
    """Rotates the inputs if they are in memory, else prepares to rotate the weights; samples."""
    rotated = rotation = None
    if in_memory(dataset.train.inputs):
        ((part, inputs),) = examples.read()
        settings = (dataset.standardiser, basis.rotation, examples.mesh, dtype)
        with jax.enable_x64(True):  # for a product in float64
            chunk = (part, transform(inputs, *settings))
        rotated = examples._replace(read=lambda: [chunk])
    elif basis.rotation is not None:
        matrix = basis.rotation.astype(dtype)
        rotation = shard_features(matrix, examples.mesh, matrix.shape[1])
    n = len(dataset.train.labels)
    # Evenly spaced examples of a file take one reading of nearly the whole file.
    places = np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)
    sample = np.asarray(dataset.standardiser(dataset.train.inputs[places], np.float32))
    return Descent(dataset, examples, basis, rotated, rotation, sample, loss, dtype, n_descents)


def descend(
    descent: Descent,
    lam: np.ndarray,
    tasks: Tasks,
    start: Params | None,
    goal: np.ndarray,
    max_passes: int,
    result: Result | None = None,
) -> Iterator[Progress]:
    """Descends until every run has met its goal, or can't, or its result no longer changes.

    A run starts at zero if it has no start, or a worse one. Its goal is the gap over cost at which
    it is finished; a run with an infinite goal doesn't move.
    """
    c, goal, examples = len(goal), goal.copy(), descent.rotated or descent.examples
    compile_cost = COMPILE_COST[on_cpu(examples.mesh)] / descent.n_descents
    chunks = examples.labelled(tasks.labels, tasks.weights, descent.dtype)
    state, problems, passes = _first_passes(descent, lam, tasks, chunks, start, goal)
    relative_gap, unchanged, n_same = np.zeros(c), np.zeros(c, bool), np.zeros(c, int)
    seen: dict[int, np.ndarray] = {}
    last: Params = jax.tree.map(np.array, fetch(state.params))
    rows, best, n_stalled, wasted = np.arange(c), np.inf, 0, 0.0
    lowest_cost, digit = np.full(c, np.inf), float(jnp.finfo(descent.dtype).eps)
    while True:
        if result is not None and passes.max() and passes.max() % _BETWEEN_LOOKS == 0:
            values = np.array(result(descent.basis.back(fetch(state.params))))  # it may be a view
            if values.shape[:1] != rows.shape:
                shapes = f"{list(values.shape)}: it has to give [{len(rows)}, …]"
                raise InputError(f"stop_when_unchanged gives {shapes}")
            now = dict(zip(rows.tolist(), values, strict=True))
            same = [row in seen and np.array_equal(seen[row], now[row]) for row in rows.tolist()]
            seen, n_same[rows] = now, np.where(same, n_same[rows] + 1, 0)
            moves = passes[rows] == passes.max()
            unchanged[rows] |= moves & (n_same[rows] >= _UNCHANGED_LOOKS)
            goal[unchanged] = np.inf
        gaps, costs = fetch((state.gap, state.cost))
        with np.errstate(divide="ignore", invalid="ignore"):  # a cost may vanish
            relative_gap[rows] = gaps / costs
            is_open = ~(gaps <= goal[rows] * costs) & (goal[rows] < np.inf)
            worst = np.max(relative_gap[rows] / goal[rows], where=is_open, initial=0)
            falls = is_open & (costs < (1 - digit) * lowest_cost[rows])  # false for NaN
        lowest_cost[rows] = np.fmin(lowest_cost[rows], costs)
        n_stalled = 0 if worst <= 0.8 * best or falls.any() else n_stalled + 1
        best = worst if worst <= 0.8 * best else best
        ended = not is_open.any() or passes.max() >= max_passes or n_stalled == _STALLED
        wasted += float(np.sum(~is_open)) * operations_per_pass(descent.dataset)
        # Finished runs leave once they are half of all and carrying them has cost as much as
        # compiling a program for half as many, which all descents of a plan share.
        size = -(-c // 2 ** int(np.log2(c / max(1, is_open.sum()))))  # c, c/2, c/4, …, rounded up
        leaves = size < len(rows) and wasted >= compile_cost
        if ended or leaves:
            for collected, part in zip(last, fetch(state.params), strict=True):
                collected[rows] = part
        final = descent.basis.back(last) if ended else None
        yield Progress(passes.copy(), relative_gap.copy(), unchanged.copy(), final)
        if ended:
            return
        if leaves:
            places = np.sort(np.argsort(~is_open, kind="stable")[:size])  # the open ones, and more
            state, problems = lbfgs.take_runs(state, problems, places)
            rows, is_open, wasted = rows[places], is_open[places], 0.0
        state = _step(descent, state, problems, chunks, goal[rows])
        passes[rows] += is_open


def _first_passes(
    descent: Descent,
    lam: np.ndarray,
    tasks: Tasks,
    chunks: ReadChunks,
    start: Params | None,
    goal: np.ndarray,
) -> tuple[lbfgs.State, lbfgs.Problems, np.ndarray]:
    """The state after the first pass, the problems, and how many passes it took, [C]."""
    c, k, d = len(goal), n_vectors(descent.dataset), descent.dataset.n_features
    first = Params(np.zeros((c, k, d)), np.zeros((c, k))) if start is None else start
    n_passes, worse, at_zero = 0, np.ones(c, bool), np.log(k if descent.loss.exclusive else 2)
    while n_passes < 2 and worse.any():
        problems = _problems(descent, lam, tasks.run, first)
        rotated = first._replace(weights=descent.basis.forth(first.weights))
        params = Params(*(np.asarray(array, descent.dtype) for array in rotated))
        state = _step(descent, lbfgs.begin(params, descent.examples.mesh), problems, chunks, goal)
        worse = ~(fetch(state.cost) <= (1 + _ROUNDING) * at_zero)  # true for NaN
        first = Params(*(np.where(worse.reshape(-1, *[1] * (a.ndim - 1)), 0, a) for a in first))
        n_passes += 1
    return state, problems, n_passes * (goal < np.inf)


def _problems(descent: Descent, lam: np.ndarray, task: RunTask, start: Params) -> lbfgs.Problems:
    """The problems of C runs, from λ [C], their tasks, and the parameters they start from."""
    k, dtype, loss = n_vectors(descent.dataset), descent.dtype, descent.loss
    weights, bias = (np.asarray(array, np.float32) for array in start)
    scores = np.nan_to_num(descent.sample @ np.swapaxes(weights, 1, 2) + bias[:, None])
    curvature = mean_curvature(loss, np.asarray(loss.probabilities(jnp.asarray(scores))))
    curvature, classes = broadcast_one_to_all(np.linalg.eigh(curvature))
    least = _LEAST_CURVATURE * np.maximum(curvature[:, -1:], _LEAST_CURVATURE / k)
    curvature = np.maximum(curvature, least)
    by_input = curvature[..., None] * descent.basis.eigenvalues + 2 * lam[:, None, None]
    diagonal = Params(by_input.astype(dtype), curvature.astype(dtype))
    shift_free = np.array(loss.exclusive, dtype)
    problems = lbfgs.Problems(lam.astype(dtype), task, classes.astype(dtype), diagonal, shift_free)
    return replicate(problems, descent.examples.mesh)


def _step(
    descent: Descent,
    state: lbfgs.State,
    problems: lbfgs.Problems,
    chunks: ReadChunks,
    goal: np.ndarray,
) -> lbfgs.State:
    """One pass, and the next trial step."""
    mesh, dtype, rotation = descent.examples.mesh, descent.dtype, descent.rotation
    arguments = (lbfgs.trial(state, rotation), problems.task)
    standardiser = descent.dataset.standardiser if descent.rotated is None else None
    settings: dict[str, Any] = {"loss": descent.loss, "mesh": mesh, "dtype": dtype}
    sums = sum_over(chunks, loss_and_gradient, arguments, standardiser=standardiser, **settings)
    goal = replicate(goal.astype(dtype), mesh)
    return lbfgs.advance(state, sums, problems, rotation, goal, mesh=mesh)
