"""`solve`: the minimum of the cost for many λ and targets at once, each with a certificate."""

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
from linear_cifar.data.dataset import Dataset, check_dataset
from linear_cifar.errors import InputError
from linear_cifar.losses import BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, Loss, as_loss
from linear_cifar.model import Params
from linear_cifar.optimizers import LAM as ANY_LAM
from linear_cifar.optimum.basis import find_basis
from linear_cifar.optimum.certificate import VANISHING, certify
from linear_cifar.optimum.data_pass import place_examples
from linear_cifar.optimum.descent import Descent, Result, descend, prepare
from linear_cifar.optimum.interval import Certificate, gap_at
from linear_cifar.optimum.plan import interpolate, plan_chunks
from linear_cifar.optimum.tasks import ExampleWeights, Rows, as_rows, n_vectors, tasks_of
from linear_cifar.training.devices import check_mesh, device_mesh

LAM = ANY_LAM._replace(help=f"{ANY_LAM.help}, which a minimum needs", low=None, above=0)
SETTINGS: dict[str, Setting] = {
    "tolerance": Setting("certified gap over cost at which a λ is finished", above=0, below=1),
    "max_passes": Setting("passes over the data for a λ", low=1, high=2**31 - 1, integer=True),
    "memory_bytes": Setting("bytes for descents, a bound on λ at once", low=1, integer=True),
}
_ROOM = 1e12  # λ stays this factor within the range of the dtype
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

    def gap_at(self, lam: ArrayLike) -> np.ndarray:
        """Upper bounds of J − J* of the same parameters at any other λ, in nats; see `gap_at`."""
        return gap_at(self.certificate, lam)[1]


class SolveStep(NamedTuple):
    """The progress of a chunk; with its optimum once it is finished."""

    rows: tuple[int, ...]  # of λ
    passes: np.ndarray  # [rows]
    relative_gap: np.ndarray  # [rows], estimated on the way, certified at the end
    optimum: Optimum | None


def solve(
    lam: ArrayLike,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    weights: ArrayLike | ExampleWeights | None = None,
    class_weight: ArrayLike | str | None = None,
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

    If the labels are T binary targets [n, T], each target t has its own logistic regression. Its
    cost is mean l + λ‖w‖² over the nₜ examples whose label is known, so scikit-learn's C is
    1/(2λnₜ). The results then have axes [C, T] instead of [C], and weights are [C, T, d]. If all
    known labels of a target are equal, its weights are 0 and its bias is ±10⁴; if none is known,
    its bias, cost and gap are NaN.

    Args:
      lam: λ > 0, [C], or a scalar. For targets also [C, T].
      dataset: its training examples are fitted; their inputs may be in a file.
      loss: softmax or multiple binary cross-entropy; targets always have binary cross-entropy.
      weights: of the examples, at least 0, [n] or [C, n]; None: all equal. The mean loss is then
        Σ w l / Σ w, so λ is per example; folds of a cross-validation are zeros and ones.
      class_weight: for targets, factors > 0 of the weights of negative and positive examples, [2]
        or [T, 2]; "balanced" gives both the same total weight.
      tolerance: certified gap over cost at which a λ is finished.
      max_passes: over the data for λ that go together; the last certificate adds one. If a λ misses
        the tolerance, it isn't `converged`; nothing is raised.
      dtype: floating type of the descent. float32 reaches a gap of about 1e-12 of the cost, or a
        larger one if λ is small; a descent that gets no further ends.
      memory_bytes: limit of the descents' states; the examples aren't counted.
      mesh: devices that share the examples, from `device_mesh`; None for the first one.
      start: parameters to descend from, [C, K, d] and [C, K], or for targets [C, T, d] and [C, T];
        a start worse than zero isn't used.
      stop_when_unchanged: a function of parameters [C, K, d] and [C, K] that returns an array
        [C, …], such as predictions. It is called every 10 passes, and a run ends, converged or not,
        once the array has been the same for 30. For targets, K is 1 and C counts λ and targets.

    Raises:
      InputError: a setting is out of its range (λ = 0 too: there may be no minimum); an array has
        another shape; weights are negative or all zero; or float64 without JAX's x64 mode.

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
    lam, weights, target = every_target(lam, weights, dataset)
    if start is not None and dataset.has_targets:
        start = _by_row("start", start, np.size(lam), dataset.n_classes, dataset)
    keywords: dict[str, Any] = {"target": target, "class_weight": class_weight}
    keywords |= {"start": start, "stop_when_unchanged": stop_when_unchanged}
    steps = solve_chunks(lam, dataset, config, weights=weights, mesh=mesh, **keywords)
    rows, optima = zip(*((step.rows, step.optimum) for step in steps if step.optimum), strict=True)
    order = np.argsort(np.concatenate(rows))
    optimum: Any = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *optima)
    if dataset.has_targets:
        params, shape = Params(*(a.squeeze(1) for a in optimum.params)), (-1, dataset.n_classes)
        optimum = optimum._replace(params=params)
        optimum = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), optimum)
    return jax.tree.map(lambda array: array[0], optimum) if scalar else optimum


def solve_chunks(
    lam: ArrayLike,
    dataset: Dataset,
    config: SolveConfig = DEFAULTS,
    *,
    weights: ArrayLike | ExampleWeights | None = None,
    target: ArrayLike | None = None,
    class_weight: ArrayLike | str | None = None,
    mesh: Mesh | None = None,
    finished: Mapping[int, Params] | None = None,
    start: Params | None = None,
    stop_when_unchanged: Result | None = None,
) -> Iterator[SolveStep]:
    """The loop of `solve`, for progress and checkpoints; takes its keywords as a `SolveConfig`.

    At least twelve λ of each task, spread over its range, are solved first, each from the larger
    ones solved before it. The others start from a spline through those optima. Rows in `finished`,
    with their parameters [K, d] and [K], are skipped, which doesn't change the bits of the others.
    For targets each row is one λ of one target: `lam` and `target` are [R], and K = 1.

    Yields:
      The progress of a chunk after each pass, and finally its optimum.

    Raises:
      InputError: as for `solve`, when the first step is asked for.
    """
    tasks = {"weights": weights, "target": target, "class_weight": class_weight}
    rows, config, mesh = _checked(lam, dataset, config, mesh, **tasks)
    if start is not None:
        start = _by_row("start", start, len(rows.lam), n_vectors(dataset), dataset)
    finished = finished or {}
    varies = rows.has_label(0) & rows.has_label(1)
    if constant := [row for row in np.flatnonzero(~varies).tolist() if row not in finished]:
        optimum = _constant_optimum(rows, constant, dataset)
        yield SolveStep(tuple(constant), optimum.passes, np.zeros(len(constant)), optimum)
    varying = np.flatnonzero(varies)
    if all(row in finished for row in varying.tolist()):
        return
    plan = plan_chunks(rows, varying, dataset, config, mesh)
    examples = place_examples(dataset.train, mesh)
    basis = find_basis(examples, dataset.standardiser, config.loss, config.dtype)
    n_chunks = sum(len(first) + len(others) for first, others in plan)
    descent = prepare(examples, dataset, basis, config.loss, config.dtype, n_chunks)
    for first, others in plan:
        solved: dict[int, Params] = {}
        for chunk in (*first, *others):
            if all(row in finished for row in chunk):
                solved |= {row: finished[row] for row in chunk if chunk in first}
                continue
            guess = interpolate(rows, solved, chunk) if solved and start is None else None
            if start is not None:
                guess = Params(*(array[list(chunk)] for array in start))
            for step in _solve_chunk(descent, rows, chunk, guess, config, stop_when_unchanged):
                if step.optimum and chunk in first:
                    zipped = zip(chunk, *step.optimum.params, strict=True)
                    solved |= {row: Params(*params) for row, *params in zipped}
                yield step


def certified_gap(
    params: Params,
    lam: ArrayLike,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    weights: ArrayLike | ExampleWeights | None = None,
    class_weight: ArrayLike | str | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The cost J of any parameters at their best bias, and an upper bound of J − J*, for C runs.

    The parameters are for standardised inputs, [C, K, d] and [C, K], or for targets [C, T, d] and
    [C, T]. λ > 0 is [C], or for targets also [C, T]. The other arguments and the errors are as for
    `solve`. Both results are [C] or [C, T], float64; NaN if no label is known or params are NaN.
    """
    lam, weights, target = every_target(lam, weights, dataset)
    keywords = {"weights": weights, "target": target, "class_weight": class_weight}
    rows, config, mesh = _checked(lam, dataset, SolveConfig(loss), mesh, **keywords)
    params = _by_row("params", params, len(rows.lam), dataset.n_classes, dataset)
    examples, tasks = place_examples(dataset.train, mesh), tasks_of(rows, np.arange(len(rows.lam)))
    certified = certify(params, rows.lam, examples, tasks, dataset.standardiser, config.loss)
    is_known = rows.has_label(0) | rows.has_label(1)
    shape = (-1, dataset.n_classes) if dataset.has_targets else (-1,)
    cost, gap = (np.where(is_known, array, np.nan).reshape(shape) for array in certified[1:3])
    return cost, gap


def every_target(lam: ArrayLike, weights: Any, dataset: Dataset) -> tuple[Any, Any, Any]:
    """λ [R], weights and target [R] of every row, from λ [C] or, for targets, [C] or [C, T]."""
    check_dataset(dataset)
    if not dataset.has_targets:
        return lam, weights, None
    n_targets, values = dataset.n_classes, real_numbers("lam", lam)
    values = np.repeat(values[:, None], n_targets, axis=1) if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != n_targets:
        raise InputError(f"lam has shape {[*values.shape]}: it has to be [C] or [C, {n_targets}]")
    if weights is not None and not isinstance(weights, ExampleWeights) and np.ndim(weights) == 2:
        weights = ExampleWeights(np.asarray(weights), np.arange(len(weights)))
    if isinstance(weights, ExampleWeights):
        weights = weights._replace(index=np.repeat(weights.index, n_targets))
    return values.ravel(), weights, np.tile(np.arange(n_targets), len(values))


def _by_row(name: str, params: Any, n_rows: int, n_together: int, dataset: Dataset) -> Params:
    """Parameters [R, K, d], [R, K], from checked ones [C, n_together, d], [C, n_together]."""
    k = n_vectors(dataset)
    shape = (n_rows * k // n_together, n_together, dataset.n_features)
    weights, bias = (real_numbers(name, array) for array in params)
    if (weights.shape, bias.shape) != (shape, shape[:2]):
        raise InputError(f"{name} has to be weights {list(shape)} and biases {list(shape[:2])}")
    return Params(weights.reshape(n_rows, k, dataset.n_features), bias.reshape(n_rows, k))


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
    lam: ArrayLike, dataset: Dataset, config: SolveConfig, mesh: Mesh | None, **tasks: Any
) -> tuple[Rows, SolveConfig, Mesh]:
    """The arguments of a solve, checked and completed."""
    check_dataset(dataset)
    check_mesh(mesh)
    for name, setting in SETTINGS.items():
        setting.check(name, getattr(config, name))
    dtype, loss = as_dtype(config.dtype), as_loss(config.loss)
    if dataset.has_targets:
        loss = BINARY_CROSS_ENTROPY
    rows = as_rows(check_lam(lam, dtype), dataset, **tasks)
    mesh = device_mesh(jax.devices()[:1]) if mesh is None else mesh
    return rows, config._replace(loss=loss, dtype=dtype), mesh


def _constant_optimum(rows: Rows, places: list[int], dataset: Dataset) -> Optimum:
    """The optimum of rows whose examples all have one label, or none."""
    negative, positive = (rows.has_label(label)[places] for label in (0, 1))
    bias = np.where(positive, VANISHING, -VANISHING)
    value = np.where(negative | positive, 0.0, np.nan)
    zero, no, nothing = (np.zeros(len(places), dtype) for dtype in (int, bool, float))
    params = Params(np.zeros((len(places), 1, dataset.n_features)), (bias + value)[:, None])
    certificate = Certificate(value, nothing, rows.lam[places], nothing, nothing, value)
    return Optimum(params, value, value, value, zero, negative | positive, no, certificate)


def _solve_chunk(
    descent: Descent,
    rows: Rows,
    chunk: tuple[int, ...],
    guess: Params | None,
    config: SolveConfig,
    stop_when_unchanged: Result | None,
) -> Iterator[SolveStep]:
    """Descends until the estimates are good, certifies, and goes on if that was too early."""
    lam = rows.lam[list(chunk)]
    tasks = tasks_of(rows, chunk)
    problem = (lam, descent.examples, tasks, descent.dataset.standardiser)
    passes, goal = np.zeros(len(lam), int), np.full(len(lam), _SAFETY * config.tolerance)
    best, start, unchanged, n_lags = None, guess, np.zeros(len(lam), bool), np.zeros(len(lam), int)
    while True:
        limit = config.max_passes - passes.max()
        descending = descend(descent, lam, tasks, start, goal, limit, stop_when_unchanged)
        for progress in descending:
            yield SolveStep(chunk, passes + progress.passes, progress.relative_gap, None)
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
    ending = (distance, passes, converged, unchanged & ~converged)
    optimum = Optimum(best.params, best.cost, best.gap, *ending, best.certificate)
    relative_gap = best.gap / np.where(best.cost > 0, best.cost, 1)  # if J is 0, so is its gap
    yield SolveStep(chunk, passes, relative_gap, optimum)


def _choose(choice: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(choice.reshape(-1, *[1] * (a.ndim - 1)), a, b)
