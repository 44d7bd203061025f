"""The one iterator over examples on the host, and inputs that stay in their file.

Code that goes through all examples iterates over `blocks`, which takes arrays and files alike.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from linear_cifar.errors import DataError

BLOCK_BYTES = 2**24  # of the rows that are read at a time


class LazyRows:
    """Rows [n, d] of a file, in place of an array that may not fit into memory.

    `rows[start:stop]`, or `rows[indices]` with ascending indices, is a NumPy array, read with
    `read(start, stop)`; `numpy.asarray(rows)` raises `DataError`.
    """

    ndim = 2

    def __init__(
        self, read: Callable[[int, int], np.ndarray], shape: tuple[int, int], dtype: Any
    ) -> None:
        self._read, self.shape, self.dtype = read, shape, np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise IndexError("rows in a file can only be sliced with step 1")
            if start < stop:
                return self._read(start, stop)
            rows = np.arange(0)
        # The rows of one block of the file at a time.
        groups = np.split(rows, np.flatnonzero(np.diff(rows // block_rows(self))) + 1)
        read = [self._read(int(g[0]), int(g[-1]) + 1)[g - g[0]] for g in groups if len(g)]
        return np.concatenate([np.empty((0, self.shape[1]), self.dtype), *read])

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        inputs = f"inputs {list(self.shape)} on disk are needed in memory"
        raise DataError(f"{inputs}: raise memory_gb, or use solve instead of gradient descent")

    def take(self, indices: np.ndarray) -> "LazyRows":
        """Some of the rows, by their ascending numbers; they stay in the file."""
        if len(indices) == len(self):
            return self
        shape = (len(indices), self.shape[1])
        return LazyRows(lambda start, stop: self[indices[start:stop]], shape, self.dtype)

    def in_memory(self) -> np.ndarray:
        """All rows, read now."""
        rows = np.empty(self.shape, self.dtype)
        for part, block in blocks(self):
            rows[part] = block
        return rows


def in_memory(inputs: Any) -> bool:
    """Whether inputs are an array, and not `LazyRows`."""
    return not isinstance(inputs, LazyRows)


def block_rows(inputs: Any) -> int:
    """The number of rows of `inputs` that make a block."""
    return max(1, BLOCK_BYTES // max(1, inputs.shape[1] * inputs.dtype.itemsize))


def even_size(n: int, most: int, multiple: int = 1) -> int:
    """The size of the fewest chunks, about equal, of n ≥ 1 rows: at most `most`, and a multiple."""
    return -(-n // (-(-n // most) * multiple)) * multiple


def blocks(inputs: Any, n_rows: int | None = None) -> Iterator[tuple[slice, Any]]:
    """Iterates over the rows of inputs [n, d], an array or `LazyRows`, a block at a time.

    Each block comes with its place as a slice; a thread reads the file's next one meanwhile.
    `n_rows` None: an array, traced or not, is one block, and `LazyRows` are in their `block_rows`.
    """
    n = len(inputs)
    size = n_rows or (n if in_memory(inputs) else block_rows(inputs))
    parts = [slice(i, min(i + size, n)) for i in range(0, n, max(1, size))] or [slice(0, 0)]
    if in_memory(inputs):
        for part in parts:
            yield part, inputs[part] if len(parts) > 1 else inputs
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(inputs.__getitem__, parts[0])
        for part, following in zip(parts, [*parts[1:], slice(0, 0)], strict=True):
            block = ahead.result()
            ahead = reader.submit(inputs.__getitem__, following)
            yield part, block


def concatenate(parts: Sequence[Any]) -> Any:
    """Joins inputs [n, d] along the rows: an array, or `LazyRows` if any part is in a file."""
    *offsets, n = np.cumsum([0, *map(len, parts)]).tolist()
    dtypes = {part.dtype for part in parts}
    if len(dtypes) > 1:  # NumPy has no common dtype for bfloat16 and float16
        dtypes = {np.dtype(np.float32) if d.name == "bfloat16" else d for d in dtypes}

    def read(start: int, stop: int) -> np.ndarray:
        bounds = [(max(start - offset, 0), max(stop - offset, 0)) for offset in offsets]
        pieces = [part[low:high] for part, (low, high) in zip(parts, bounds, strict=True)]
        return np.concatenate(pieces, dtype=rows.dtype)

    rows = LazyRows(read, (n, parts[0].shape[1]), np.result_type(*dtypes))
    return rows.in_memory() if all(map(in_memory, parts)) else rows
