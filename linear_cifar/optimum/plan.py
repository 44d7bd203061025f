"""Which rows are solved together, and which parameters they start from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.blocks import even_size, in_memory
from linear_cifar.data.dataset import Dataset
from linear_cifar.model import Params
from linear_cifar.optimum import lbfgs
from linear_cifar.optimum.tasks import Rows, n_vectors
from linear_cifar.training.devices import on_cpu

# Weight vectors at once: they fill the matrix unit. Those that are solved first are fewer, because
# each chunk starts from the ones before it.
_AT_ONCE, _FIRST_AT_ONCE, _TARGETS_AT_ONCE, _GPU_AT_ONCE = 160, 50, 256, 4096
_N_FIRST = 12  # at least so many λ of a task are solved first


def plan_chunks(
    rows: Rows, places: np.ndarray, dataset: Dataset, config: Any, mesh: Mesh
) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """The chunks of each group of tasks: a list of its first rows', and one of the others'.

    The first rows are a few λ that span the range, each solved from the larger ones before it. The
    others start from them all. In both, the largest λ comes first. With inputs in a file, as many
    of the others as possible go together, because each pass reads the whole file.
    """
    k, d, stays = n_vectors(dataset), dataset.n_features, in_memory(dataset.train.inputs)
    bytes_per_row = np.dtype(config.dtype).itemsize * (2 * lbfgs.MEMORY + 9) * k * d
    at_once, first_at_once = _AT_ONCE, _FIRST_AT_ONCE
    if rows.has_targets:  # a row has its own labels
        at_once = first_at_once = _TARGETS_AT_ONCE
        bytes_per_row += len(rows.labels)
    if not on_cpu(mesh):
        at_once = first_at_once = _GPU_AT_ONCE
    at_once, first_at_once = max(1, at_once // k), max(1, first_at_once // k)
    most = max(1, config.memory_bytes // bytes_per_row)
    tasks = np.unique(rows.task[places])
    group_size = len(tasks) or 1
    if rows.has_targets:
        group_size = even_size(group_size, at_once if stays else most)
    groups = []
    for start in range(0, len(tasks), group_size):
        group = places[np.isin(rows.task[places], tasks[start : start + group_size])]
        by_task = group[np.lexsort((-rows.lam[group], rows.task[group]))]
        task = rows.task[by_task]
        # A row's rank among the rows of its task, the largest λ first.
        rank = np.arange(len(group)) - np.searchsorted(task, task)
        order = by_task[np.argsort(rank, kind="stable")]
        rank = np.sort(rank)
        n_tasks, first_size = len(np.unique(task)), min(first_at_once, most)
        n_first = first_size * -(-_N_FIRST * n_tasks // first_size) // n_tasks
        is_first = np.isin(rank, np.linspace(0, rank[-1], min(rank[-1] + 1, n_first)).round())
        first, others = order[is_first], order[~is_first]
        size = even_size(len(others) or 1, min(at_once, most) if stays else most)
        groups.append((_split(first, even_size(len(first), first_size)), _split(others, size)))
    return groups


def _split(rows: np.ndarray, size: int) -> list[tuple[int, ...]]:
    return [tuple(rows[i : i + size].tolist()) for i in range(0, len(rows), size)]


def interpolate(rows: Rows, solved: Mapping[int, Params], chunk: tuple[int, ...]) -> Params:
    """Starting points [C, K, d] and [C, K]: by a spline through each task's optima in log λ.

    Below the solved λ, the line through the two smallest goes on. A task without optima starts from
    zero.
    """
    from scipy.interpolate import CubicSpline

    places, task = np.array(list(solved)), rows.task[list(chunk)]
    weights, bias = (np.stack(arrays) for arrays in zip(*solved.values(), strict=True))
    log_lam = np.log(rows.lam).round(6)
    guess = Params(*(np.zeros((len(chunk), *a.shape[1:])) for a in (weights, bias)))
    for one in np.intersect1d(task, rows.task[places]):
        own, wanted = rows.task[places] == one, task == one
        knots, knot = np.unique(log_lam[places[own]], return_inverse=True)
        # The same λ may be given several times.
        means = np.equal.outer(np.arange(len(knots)), knot) / np.bincount(knot)[:, None]
        shares, points = np.ones((wanted.sum(), 1)), log_lam[list(chunk)][wanted]
        if len(knots) > 1:
            line = CubicSpline(knots[:2], np.eye(len(knots))[:2])
            is_below = points[:, None] < knots[0]
            spline = CubicSpline(knots, np.eye(len(knots)))
            shares = np.where(is_below, line(points), spline(points))
        for filled, optima in zip(guess, (weights, bias), strict=True):
            filled[wanted] = np.tensordot(shares @ means, optima[own], 1)
    return guess
