"""`solve`: the minimum of the cost for many λ at once."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from linear_cifar.data.types import Dataset
from linear_cifar.engine.devices import Layout
from linear_cifar.engine.plan import Chunk, chunks
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.optimum import descent
from linear_cifar.optimum.certificate import Certified
from linear_cifar.optimum.placed import Placed
from linear_cifar.settings import Setting, SettingsError, settings_of

# Runs at a time: their products fill the matrix unit, and neighbours are finished at about a time.
_AT_ONCE = 16
_BETWEEN = 10  # iterations from one report to the next
_SAFETY = 0.4  # of the tolerance, at which an estimate counts as good
_STALLED = 5  # reports without progress after which rounding is in the way


class Solver(NamedTuple):
    """How to solve; what `solve` takes as keywords."""

    loss: Loss = SOFTMAX_CROSS_ENTROPY
    tolerance: Annotated[
        float, Setting("certified gap over cost at which a λ is finished", above=0, below=1)
    ] = 1e-6
    max_passes: Annotated[int, Setting("passes over the data for a λ", low=1)] = 1000
    dtype: Any = jnp.float32  # of the descent


DEFAULTS = Solver()
# Without a penalty the minimum may not exist: separable classes are ever better separated.
LAM = settings_of(Hyperparameters)["lam"]._replace(low=None, above=0)


class Optimum(NamedTuple):
    """What `solve` finds for C values of λ; numpy arrays."""

    params: Params  # [C, K, d] and [C, K], float64
    cost: np.ndarray  # [C], J, float64
    gap: np.ndarray  # [C], what J is above its minimum by at most, float64
    distance: np.ndarray  # [C], what ‖W − W*‖ is at most, float64
    passes: np.ndarray  # [C], products with all inputs and back, int
    converged: np.ndarray  # [C], whether gap ≤ tolerance · cost


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
    weights: ArrayLike | None = None,
    tolerance: float = DEFAULTS.tolerance,
    max_passes: int = DEFAULTS.max_passes,
    dtype: Any = DEFAULTS.dtype,
    mesh: Mesh | None = None,
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
      max_passes: over the data for each λ; what isn't finished then is not `converged`.
      dtype: floating type of the descent.
      mesh: devices that share the values of λ; None for the default device.

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
    how = Solver(loss, tolerance, max_passes, dtype)
    solving = solve_chunks(lam, dataset, how, weights=weights, mesh=mesh)
    found = [(step.rows, step.optimum) for step in solving if step.optimum]
    order = np.argsort([row for rows, _ in found for row in rows])
    optima = [optimum for _, optimum in found]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *optima)


def solve_chunks(
    lam: ArrayLike,
    dataset: Dataset,
    how: Solver = DEFAULTS,
    *,
    weights: ArrayLike | None = None,
    mesh: Mesh | None = None,
    finished: Collection[int] = (),
) -> Iterator[Solving]:
    """The loop of `solve`, for progress and checkpoints; largest λ first.

    Args:
      lam: as for `solve`.
      dataset: as for `solve`.
      how: what `solve` takes as keywords.
      weights: as for `solve`.
      mesh: as for `solve`.
      finished: rows of λ to leave out; the others give the same bits with and without them.

    Yields:
      How far a chunk is, every few passes, and at last with its optimum.

    Raises:
      SettingsError: as for `solve`.
    """
    _check(how)
    lam, shares = _checked(lam, weights, len(dataset.train.labels))
    where = Layout(mesh)
    placed = Placed(dataset, how.loss, how.dtype, where)
    n_devices = 1 if mesh is None else mesh.size
    order = np.argsort(-lam, kind="stable").tolist()
    for chunk in chunks(order, _AT_ONCE * n_devices, n_devices, finished):
        yield from _solve_chunk(placed, chunk, lam, shares, how)


def _solve_chunk(
    placed: Placed,
    chunk: Chunk,
    lam: np.ndarray,
    shares: np.ndarray,
    how: Solver,
) -> Iterator[Solving]:
    """Descends until the estimates are good, certifies, and goes on where that was too early."""
    rows, n = np.array(chunk.padded), len(chunk.rows)
    lam, shares = lam[rows], shares[rows]
    of_chunk = placed.of_chunk(lam, shares)
    goal = np.full(len(rows), _SAFETY * how.tolerance)
    passes = np.zeros(len(rows), int)
    found, params = None, placed.start(len(rows))
    while True:
        state = descent.begin(params, of_chunk, loss=placed.loss)
        passes = passes + (goal < np.inf)
        limit = how.max_passes - passes.max()
        for step in _descend(state, of_chunk, placed, goal, limit):
            state, taken, gaps = step
            passes = passes + taken
            yield Solving(chunk.rows, passes[:n], gaps[:n], None)
        latest = placed.certified(state.params, shares, lam)
        passes = passes + (goal < np.inf)
        better = np.asarray(latest.gap) < (np.inf if found is None else 0.9 * found.gap)
        found = latest if found is None else _where(better, latest, found)
        converged = found.gap <= how.tolerance * found.cost
        if (converged | ~better).all() or passes.max() >= how.max_passes:
            break
        goal = np.where(converged | ~better, np.inf, goal / 4)
        params = placed.rotated(found.params)
    optimum = Optimum(*jax.tree.map(lambda a: a[:n], (*found, passes, converged)))
    yield Solving(chunk.rows, optimum.passes, optimum.gap / optimum.cost, optimum)


def _descend(
    state: descent.State,
    of_chunk: descent.Problem,
    placed: Placed,
    goal: np.ndarray,
    limit: int,
) -> Iterator[tuple[descent.State, np.ndarray, np.ndarray]]:
    """The state, iterations since the last time, and relative gaps, every few iterations."""
    best, n_stalled = np.inf, 0
    goals = placed.where.runs(goal.astype(placed.dtype))
    while limit > 0 and n_stalled < _STALLED:
        state, taken = descent.advance(
            state, of_chunk, goals, min(_BETWEEN, limit), loss=placed.loss
        )
        taken, gaps, costs = jax.device_get((taken, descent.gap(state, of_chunk.lam), state.cost))
        limit -= taken.max()
        yield state, taken, gaps / costs
        left = gaps > goal * costs
        if not left.any():
            return
        worst = np.max(gaps / costs / goal, where=left, initial=0)
        best, n_stalled = min(best, worst), n_stalled + 1 if worst > 0.8 * best else 0


def _where(choice: np.ndarray, a: Certified, b: Certified) -> Certified:
    return jax.tree.map(lambda x, y: np.where(choice.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def _check(how: Solver) -> None:
    if not isinstance(how.loss, Loss):
        raise SettingsError(f"loss is {how.loss!r}: it has to be a Loss, as those in LOSSES")
    for name, setting in settings_of(Solver).items():
        setting.check(name, getattr(how, name))
    if jnp.dtype(how.dtype) == jnp.float64 and not jax.config.values["jax_enable_x64"]:
        raise SettingsError("dtype float64 needs JAX's x64 mode")


def _checked(lam: ArrayLike, weights: ArrayLike | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """λ [C] and the shares of examples [C, n], in float64."""
    lam = np.asarray(lam, np.float64)
    if lam.ndim != 1 or not lam.size:
        raise SettingsError(f"lam has to be [C] with C ≥ 1, not {list(lam.shape)}")
    for value in lam:
        LAM.check("lam", value)
    if weights is None:
        return lam, np.full((len(lam), n), 1 / n)
    weights = np.asarray(weights, np.float64)
    if weights.shape not in ((n,), (len(lam), n)):
        raise SettingsError(
            f"weights have to be [{n}] or [{len(lam)}, {n}], not {list(weights.shape)}"
        )
    total = weights.sum(axis=-1, keepdims=True)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and (total > 0).all()):
        raise SettingsError("weights have to be finite, at least 0, and not all 0")
    return lam, np.broadcast_to(weights / total, (len(lam), n))
