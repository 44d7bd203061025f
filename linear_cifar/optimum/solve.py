"""`solve`: the minimum of the cost for many λ at once, each with a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from linear_cifar.checks import Setting, as_dtype, real_numbers
from linear_cifar.data.blocks import even_size, in_memory
from linear_cifar.data.dataset import Dataset, check_dataset
from linear_cifar.errors import InputError
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss, as_loss
from linear_cifar.model import Params
from linear_cifar.optimizers import LAM as ANY_LAM
from linear_cifar.optimum import lbfgs
from linear_cifar.optimum.basis import find_basis
from linear_cifar.optimum.certificate import certify
from linear_cifar.optimum.data_pass import place_examples
from linear_cifar.optimum.descent import Descent, Result, descend, prepare, problems_of
from linear_cifar.optimum.interval import Certificate
from linear_cifar.training.devices import check_mesh, device_mesh

LAM = ANY_LAM._replace(help=f"{ANY_LAM.help}, which a minimum needs", low=None, above=0)
SETTINGS: dict[str, Setting] = {
    "tolerance": Setting("certified gap over cost at which a λ is finished", above=0, below=1),
    "max_passes": Setting("passes over the data for a λ", low=1, high=2**31 - 1, integer=True),
    "memory_bytes": Setting("bytes for descents, a bound on λ at once", low=1, integer=True),
}
_ROOM = 1e12  # λ stays this factor within the range of the dtype
_AT_ONCE = 16  # runs: they fill the matrix unit, and close λ need about as many passes
_N_FIRST = 8  # at least so many λ are solved first; the others start from them
_SAFETY = 0.4  # share of the tolerance at which an estimated gap counts as good


class SolveConfig(NamedTuple):
    """The settings of `solve`, which takes them as keywords."""

    loss: Loss = SOFTMAX_CROSS_ENTROPY  # or a name in `LOSSES`
    tolerance: float = 1e-6
    max_passes: int = 1000
    dtype: Any = jnp.float32  # of the descent
    memory_bytes: int = 2**28


DEFAULTS = SolveConfig()


class Optimum(NamedTuple):
    """What `solve` returns for C values of λ; NumPy. A scalar λ has no axis [C]."""

    params: Params  # [C, K, d] and [C, K], float64
    cost: np.ndarray  # [C], J, float64
    gap: np.ndarray  # [C], an upper bound of J − J*, float64
    distance: np.ndarray  # [C], an upper bound of ‖W − W*‖, float64
    passes: np.ndarray  # [C], over the data, certificates among them, int
    converged: np.ndarray  # [C], whether gap ≤ tolerance · cost
    unchanged: np.ndarray  # [C], whether it stopped early by `stop_when_unchanged`
    certificate: Certificate  # [C], for `gap_at` and `interval_gaps`: it bounds J − J* at every λ


class SolveStep(NamedTuple):
    """The progress of a chunk; with its optimum once it is finished."""

    rows: tuple[int, ...]  # of λ
    passes: np.ndarray  # [rows]
    relative_gap: np.ndarray  # [rows], estimated on the way, certified at the end
    optimum: Optimum | None


class ExampleWeights(NamedTuple):
    """Weights of examples for R rows, which may share them, as folds do."""

    distinct: np.ndarray  # [W, n]
    index: Any  # [R] int, below W


def solve(
    lam: ArrayLike,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    weights: ArrayLike | ExampleWeights | None = None,
    tolerance: float = DEFAULTS.tolerance,
    max_passes: int = DEFAULTS.max_passes,
    dtype: Any = DEFAULTS.dtype,
    memory_bytes: int = DEFAULTS.memory_bytes,
    mesh: Mesh | None = None,
    start: Params | None = None,
    stop_when_unchanged: Result | None = None,
) -> Optimum:
    """Minimises the cost over the training examples for every λ, and certifies how well.

    The certificate is computed in float64 from the inputs as they are stored, so it holds for the
    parameters that are returned, whatever happened on the way. Results are in the order of λ.
    `solve` runs on the host and can't be traced.

    Args:
      lam: λ > 0, [C], or a scalar.
      dataset: whose training examples count; its inputs may be in a file.
      loss: softmax or multiple binary cross-entropy.
      weights: of the examples, at least 0, [n] or [C, n]. The mean loss is then Σ w l / Σ w, so λ
        is per example; folds of a cross-validation are zeros and ones. None: all equal.
      tolerance: certified gap over cost at which a λ is finished.
      max_passes: over the data for λ that go together; the last certificate adds one. If a λ misses
        the tolerance, it isn't `converged`; nothing is raised.
      dtype: floating type of the descent. float32 reaches a gap of about 1e-12 of the cost, or a
        larger one if λ is small; a descent that gets no further ends.
      memory_bytes: limit of the descents' states; the examples aren't counted.
      mesh: devices that share the examples, from `device_mesh`; None for the first one.
      start: parameters [C, K, d] and [C, K] to descend from; a start worse than zero isn't used.
      stop_when_unchanged: a function of parameters [C, K, d] and [C, K] that returns an array
        [C, …], such as predictions. It is called every 25 passes, and a run ends, converged or not,
        once the array has been the same for 50.

    Raises:
      InputError: a setting is out of its range (λ = 0 too: there may be no minimum); weights
        of another shape, negative or all zero; or float64 without JAX's x64 mode.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0])))
      >>> optimum = solve([0.1, 1.0], data)
      >>> optimum.converged.tolist(), optimum.params.weights.shape
      ([True, True], (2, 2, 4))
    """
    if scalar := np.ndim(lam) == 0:
        lam = np.reshape(real_numbers("lam", lam), 1)
        start = None if start is None else Params(*(np.asarray(array)[None] for array in start))
    config = SolveConfig(loss, tolerance, max_passes, dtype, memory_bytes)
    keywords: dict[str, Any] = {"start": start, "stop_when_unchanged": stop_when_unchanged}
    steps = solve_chunks(lam, dataset, config, weights=weights, mesh=mesh, **keywords)
    finished = [step for step in steps if step.optimum]
    order = np.argsort(np.concatenate([step.rows for step in finished]))
    optima = [step.optimum for step in finished]
    optimum: Any = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *optima)
    return jax.tree.map(lambda array: array[0], optimum) if scalar else optimum


def solve_chunks(
    lam: ArrayLike,
    dataset: Dataset,
    config: SolveConfig = DEFAULTS,
    *,
    weights: ArrayLike | ExampleWeights | None = None,
    mesh: Mesh | None = None,
    finished: Mapping[int, Params] | None = None,
    start: Params | None = None,
    stop_when_unchanged: Result | None = None,
) -> Iterator[SolveStep]:
    """The loop of `solve`, for progress and checkpoints; takes its keywords as a `SolveConfig`.

    About eight λ, spread over the range, are solved from zero, the others then from a spline. Rows
    of λ in `finished`, with their parameters [K, d] and [K], are left out; that doesn't change the
    bits of the others.

    Yields:
      The progress of a chunk after each pass, and at last with its optimum.

    Raises:
      InputError: as for `solve`, when the first step is asked for.
    """
    lam, config, weights, mesh = _checked(lam, dataset, config, weights, mesh)
    start = None if start is None else _checked_params("start", start, len(lam), dataset)
    finished = finished or {}
    if len(finished) == len(lam):
        return
    first, others = _plan(lam, dataset, config)
    examples = place_examples(dataset.train, dataset.n_classes, mesh)
    basis = find_basis(examples, dataset.standardiser, config.loss, config.dtype)
    descent = prepare(examples, dataset, basis, config.loss, config.dtype)
    solved = {row: finished[row] for rows in first for row in rows if row in finished}
    for rows in (*first, *others):
        if all(row in finished for row in rows):
            continue
        guess = None if rows in first else _interpolate(lam, solved, lam[list(rows)])
        if start is not None:
            guess = Params(*(array[list(rows)] for array in start))
        for step in _solve_chunk(descent, rows, lam, weights, guess, config, stop_when_unchanged):
            if step.optimum and rows in first:
                zipped = zip(rows, *step.optimum.params, strict=True)
                solved |= {row: Params(*params) for row, *params in zipped}
            yield step


def certified_gap(
    params: Params,
    lam: ArrayLike,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    weights: ArrayLike | ExampleWeights | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The cost J of any parameters at their best bias, and an upper bound of J − J*, for C runs.

    The parameters are for standardised inputs, [C, K, d] and [C, K]; λ > 0 is [C]. The other
    arguments and the errors are as for `solve`. Both results are [C], float64.
    """
    lam, config, weights, mesh = _checked(lam, dataset, SolveConfig(loss), weights, mesh)
    params = _checked_params("params", params, len(lam), dataset)
    shares = _shares(weights, list(range(len(lam))))
    examples = place_examples(dataset.train, dataset.n_classes, mesh)
    certified = certify(params, lam, examples, *shares, dataset.standardiser, config.loss)
    return certified.cost, certified.gap


def check_lam(lam: ArrayLike, dtype: Any = DEFAULTS.dtype) -> np.ndarray:
    """The values of λ, [C] in float64.

    Raises:
      InputError: another shape, a value that isn't above 0, or one that the dtype has no room for.
    """
    values = real_numbers("lam", lam).astype(np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(f"lam has shape {list(values.shape)}: it has to be a list of values, [C]")
    LAM.check("lam", values)
    limits = jnp.finfo(dtype)
    room = Setting("", low=_ROOM * float(limits.tiny), high=float(limits.max) / _ROOM)
    room.check(f"lam in {jnp.dtype(dtype)}", values)
    return values


def _checked(
    lam: ArrayLike, dataset: Dataset, config: SolveConfig, weights: Any, mesh: Mesh | None
) -> tuple[np.ndarray, SolveConfig, ExampleWeights, Mesh]:
    """The arguments of a solve, checked and completed."""
    check_dataset(dataset)
    check_mesh(mesh)
    for name, setting in SETTINGS.items():
        setting.check(name, getattr(config, name))
    dtype = as_dtype(config.dtype)
    lam, n = check_lam(lam, dtype), len(dataset.train.labels)
    if not isinstance(weights, ExampleWeights):
        distinct = np.ones(n, bool) if weights is None else real_numbers("weights", weights, "biuf")
        index = np.zeros(len(lam), int) if distinct.ndim == 1 else np.arange(len(distinct))
        weights = ExampleWeights(np.atleast_2d(distinct), index)
    if weights.distinct.shape[1:] != (n,) or np.shape(weights.index) != lam.shape:
        shape = list(weights.distinct.shape)
        raise InputError(f"weights are {shape}: they have to be [{n}] or [{len(lam)}, {n}]")
    if not np.isfinite(weights.distinct).all() or (weights.distinct < 0).any():
        raise InputError("weights have to be finite and at least 0")
    if not weights.distinct.any(axis=1).all():
        raise InputError("weights have to be above 0 for at least one example")
    mesh = device_mesh(jax.devices()[:1]) if mesh is None else mesh
    return lam, config._replace(loss=as_loss(config.loss), dtype=dtype), weights, mesh


def _checked_params(name: str, params: Any, c: int, dataset: Dataset) -> Params:
    k, d = dataset.n_classes, dataset.n_features
    arrays = Params(*(real_numbers(name, array) for array in params))
    if (arrays.weights.shape, arrays.bias.shape) != ((c, k, d), (c, k)):
        raise InputError(f"{name} has to be weights [{c}, {k}, {d}] and biases [{c}, {k}]")
    return arrays


def _plan(
    lam: np.ndarray, dataset: Dataset, config: SolveConfig
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Chunks of rows: first some λ from end to end, then the others, which start from those.

    Both with the largest λ first. With inputs in a file, as many as possible go together, because
    each pass reads the whole file.
    """
    k, d = dataset.n_classes, dataset.n_features
    bytes_per_run = 2 * config.dtype.itemsize * (lbfgs.MEMORY + 4) * k * d
    most = max(1, config.memory_bytes // bytes_per_run)
    order = np.argsort(-lam, kind="stable")
    size = even_size(len(order), min(_AT_ONCE, most))
    n_first = min(len(order), size * -(-_N_FIRST // size))
    places = np.linspace(0, len(order) - 1, n_first).round().astype(int)
    others = np.delete(order, places)
    other_size = size if in_memory(dataset.train.inputs) else even_size(len(others) or 1, most)
    return tuple(  # type: ignore[return-value]
        [tuple(rows[i : i + n].tolist()) for i in range(0, len(rows), n)]
        for rows, n in ((order[places], size), (others, other_size))
    )


def _interpolate(lam: np.ndarray, solved: Mapping[int, Params], wanted: np.ndarray) -> Params:
    """Starting points [C, K, d] and [C, K]: known optima, interpolated by a spline in log λ."""
    from scipy.interpolate import CubicSpline

    groups: dict[float, list[Params]] = {}
    for row in sorted(solved, key=lambda row: lam[row]):
        groups.setdefault(float(np.log(lam[row]).round(6)), []).append(solved[row])
    means = [jax.tree.map(lambda *arrays: np.mean(arrays, axis=0), *g) for g in groups.values()]
    coefficients = np.ones((len(wanted), 1))
    if len(groups) > 1:
        coefficients = CubicSpline(list(groups), np.eye(len(groups)))(np.log(wanted))
    return jax.tree.map(lambda *arrays: np.tensordot(coefficients, np.stack(arrays), 1), *means)


def _solve_chunk(
    descent: Descent,
    rows: tuple[int, ...],
    lam: np.ndarray,
    weights: ExampleWeights,
    guess: Params | None,
    config: SolveConfig,
    stop_when_unchanged: Result | None,
) -> Iterator[SolveStep]:
    """Descends until the estimates are good, certifies, and goes on if that was too early."""
    lam = lam[list(rows)]
    distinct, weighting = _shares(weights, list(rows))
    problem = (lam, descent.examples, distinct, weighting, descent.dataset.standardiser)
    problems = problems_of(descent, lam, weighting)
    passes, goal = np.zeros(len(lam), int), np.full(len(lam), _SAFETY * config.tolerance)
    best, start, unchanged, n_lags = None, guess, np.zeros(len(lam), bool), np.zeros(len(lam), int)
    while True:
        limit = config.max_passes - passes.max()
        descending = descend(descent, problems, distinct, start, goal, limit, stop_when_unchanged)
        for progress in descending:
            yield SolveStep(rows, passes + progress.passes, progress.relative_gap, None)
        assert progress.params is not None
        latest = certify(progress.params, *problem, config.loss, config.tolerance)
        passes = passes + progress.passes + (goal < np.inf)
        better = latest.gap < (np.inf if best is None else 0.9 * best.gap)
        best = jax.tree.map(partial(_choose, better), latest, latest if best is None else best)
        converged = best.gap <= config.tolerance * best.cost
        unchanged = unchanged | progress.unchanged
        # A descent's estimate ignores how far its bias is from the best one, so the certificate may
        # lag behind a met goal once; only rounding makes it do so twice.
        n_lags, met_goal = np.where(better, 0, n_lags + 1), progress.relative_gap <= goal
        ended = converged | unchanged | np.where(met_goal, n_lags > 1, n_lags > 0)
        if ended.all() or passes.max() >= config.max_passes:
            break
        goal = np.where(ended, np.inf, goal / 4)
        start = best.params
    distance = np.sqrt(best.gap / lam)  # J − J* ≥ λ‖W − W*‖²
    unchanged &= ~converged
    ending = (passes, converged, unchanged)
    optimum = Optimum(best.params, best.cost, best.gap, distance, *ending, best.certificate)
    # A cost of 0 has a gap of 0: all examples are of one class.
    relative_gap = best.gap / np.where(best.cost > 0, best.cost, 1)
    yield SolveStep(rows, passes, relative_gap, optimum)


def _choose(choice: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(choice.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _shares(weights: ExampleWeights, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct weights of some rows, [W, n] float64 and each summing to 1; and their index."""
    used, index = np.unique(np.asarray(weights.index)[rows], return_inverse=True)
    distinct = weights.distinct[used]
    distinct = distinct / distinct.max(axis=1, keepdims=True)  # a sum may overflow
    return distinct / distinct.sum(axis=1, keepdims=True, dtype=np.float64), index
