"""Which rows are solved together, and which parameters they start from."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from linear_cifar.data.blocks import even_size, in_memory
from linear_cifar.data.dataset import Dataset
from linear_cifar.model import Params
from linear_cifar.optimum import lbfgs
from linear_cifar.optimum.tasks import Rows, n_vectors

# Rows at once: they fill the matrix unit, and close λ need about as many passes.
_AT_ONCE, _TARGETS_AT_ONCE = 16, 256
_N_FIRST = 8  # at least so many λ are solved first; the others start from them


def plan_chunks(
    rows: Rows, places: np.ndarray, dataset: Dataset, memory_bytes: int, dtype: Any
) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """The chunks of each group of targets: a list for its first rows, and one for the others.

    The first rows are a few λ that span the range. The others start from their solutions. In both,
    the largest λ comes first. With inputs in a file, as many rows as possible go together, because
    each pass reads the whole file.
    """
    k, d, at_once = n_vectors(dataset), dataset.n_features, _AT_ONCE
    bytes_per_row = 2 * np.dtype(dtype).itemsize * (lbfgs.MEMORY + 4) * k * d
    if rows.has_targets:  # a row has its own labels
        at_once = _TARGETS_AT_ONCE
        bytes_per_row += len(rows.labels)
    most = max(1, memory_bytes // bytes_per_row)
    targets = np.unique(rows.target[places])
    group_size = even_size(len(targets) or 1, at_once if in_memory(dataset.train.inputs) else most)
    groups = []
    for start in range(0, len(targets), group_size):
        group_targets = targets[start : start + group_size]
        group, n_targets = places[np.isin(rows.target[places], group_targets)], len(group_targets)
        by_target = group[np.lexsort((-rows.lam[group], rows.target[group]))]
        target = rows.target[by_target]
        # A row's rank among the rows of its target, the largest λ first.
        rank = np.arange(len(group)) - np.searchsorted(target, target)
        order = by_target[np.argsort(rank, kind="stable")]
        rank = np.sort(rank)
        size = even_size(len(order), min(at_once, most))
        n_first = min(rank[-1] + 1, size * -(-_N_FIRST * n_targets // size) // n_targets)
        is_first = np.isin(rank, np.linspace(0, rank[-1], n_first).round())
        first, others = order[is_first], order[~is_first]
        other_size = size if in_memory(dataset.train.inputs) else even_size(len(others) or 1, most)
        groups.append((_split(first, size), _split(others, other_size)))
    return groups


def _split(rows: np.ndarray, size: int) -> list[tuple[int, ...]]:
    return [tuple(rows[i : i + size].tolist()) for i in range(0, len(rows), size)]


def interpolate(rows: Rows, solved: Mapping[int, Params], chunk: tuple[int, ...]) -> Params:
    """Starting points [C, K, d] and [C, K]: each target's optima, by a cubic spline in log λ."""
    from scipy.interpolate import CubicSpline

    by_target: dict[int, dict[float, list[Params]]] = {}
    for row in sorted(solved, key=lambda row: rows.lam[row]):
        optima = by_target.setdefault(int(rows.target[row]), {})
        optima.setdefault(float(np.log(rows.lam[row]).round(6)), []).append(solved[row])
    places = np.array(chunk)
    targets, log_lam = rows.target[places], np.log(rows.lam[places])
    guesses: dict[int, tuple] = {}
    for target in np.unique(targets).tolist():
        optima, is_wanted = by_target[target], targets == target
        # Folds have the same λ several times.
        means = [jax.tree.map(lambda *arrays: np.mean(arrays, axis=0), *p) for p in optima.values()]
        shares = np.ones((is_wanted.sum(), 1))
        if len(optima) > 1:
            shares = CubicSpline(list(optima), np.eye(len(optima)))(log_lam[is_wanted])
        fields = (np.tensordot(shares, np.stack(arrays), 1) for arrays in zip(*means, strict=True))
        guesses |= zip(places[is_wanted].tolist(), zip(*fields, strict=True), strict=True)
    return Params(*(np.stack(a) for a in zip(*(guesses[row] for row in chunk), strict=True)))
