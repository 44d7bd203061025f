"""Which rows are solved together, and which parameters they start from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.blocks import even_size, in_memory
from linear_cifar.data.dataset import Dataset
from linear_cifar.model import Params
from linear_cifar.optimum import lbfgs
from linear_cifar.optimum.descent import COMPILE_COST
from linear_cifar.optimum.tasks import Rows, n_vectors, operations_per_pass
from linear_cifar.training.devices import on_cpu

# Weight vectors in a chunk: enough to fill the matrix unit. Chunks of first rows are smaller, if
# passes don't read a file, because each starts from the ones before it.
_AT_ONCE, _FIRST_AT_ONCE, _TARGETS_AT_ONCE, _GPU_AT_ONCE = 160, 50, 256, 4096
_N_FIRST = 12  # at least so many λ of a task are solved first
_SMALL = 300  # passes of all λ; if they take less time than a compilation, one chunk is faster


def plan_chunks(
    rows: Rows, places: np.ndarray, dataset: Dataset, config: Any, mesh: Mesh
) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """For each group of tasks, the chunks of its first rows and those of the others.

    The first rows are some λ that span the range; each chunk of them starts from the ones before
    it. The others start from all of these. In both, the largest λ comes first. With inputs in a
    file, as many of the others as possible go together, because each pass reads the whole file. A
    small problem is one chunk, because compiling programs for several would take longer.
    """
    k, d, stays = n_vectors(dataset), dataset.n_features, in_memory(dataset.train.inputs)
    bytes_per_row = np.dtype(config.dtype).itemsize * k * ((2 * lbfgs.MEMORY + 9) * d + k)
    sizes = (_AT_ONCE, _FIRST_AT_ONCE if stays else _AT_ONCE)
    if rows.has_targets:  # a row has its own labels
        sizes, bytes_per_row = (_TARGETS_AT_ONCE,) * 2, bytes_per_row + len(rows.labels)
    sizes = sizes if on_cpu(mesh) else (_GPU_AT_ONCE,) * 2
    if _SMALL * operations_per_pass(dataset) * len(places) < COMPILE_COST[on_cpu(mesh)]:
        sizes = (k * len(places),) * 2  # all at once
    at_once, first_at_once = (max(1, size // k) for size in sizes)
    most = max(1, config.memory_bytes // bytes_per_row)
    tasks = np.unique(rows.task[places])
    group_size = even_size(len(tasks), at_once if stays else most)
    group_size = group_size if rows.has_targets else len(tasks)
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

    Below the smallest solved λ, a line through the two smallest continues the spline. A task
    without optima starts at zero.
    """
    from scipy.interpolate import CubicSpline

    task, log_lam = rows.task, np.log(rows.lam).round(6)
    places, wanted = np.array(list(solved)), np.array(chunk)
    shapes = (np.shape(array) for array in next(iter(solved.values())))
    guess = Params(*(np.zeros((len(chunk), *shape)) for shape in shapes))
    for number in np.intersect1d(task[wanted], task[places]):
        sources, is_member = places[task[places] == number], task[wanted] == number
        knots, knot = np.unique(log_lam[sources], return_inverse=True)
        # The same λ may be given several times.
        means = np.equal.outer(np.arange(len(knots)), knot) / np.bincount(knot)[:, None]
        points, shares = log_lam[wanted[is_member]], np.ones((is_member.sum(), 1))
        if len(knots) > 1:
            sizes, eye = (2, len(knots)), np.eye(len(knots))
            line, spline = (CubicSpline(knots[:n], eye[:n])(points) for n in sizes)
            shares = np.where(points[:, None] < knots[0], line, spline)
        optima = zip(*(solved[row] for row in sources.tolist()), strict=True)
        for starts, arrays in zip(guess, optima, strict=True):
            starts[is_member] = np.tensordot(shares @ means, np.stack(arrays), 1)
    return guess
