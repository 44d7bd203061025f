"""Inputs that stay in their file: a slice reads the rows that it names, and keeps none."""

from collections.abc import Callable
from typing import Any

import numpy as np

# Of a block of rows that is read at a time.
BLOCK_BYTES = 2**25


class OnDisk:
    """Rows [n, d] of a file, in place of an array.

    It has the shape and dtype of the array that it stands for; `inputs[start:stop]` reads those
    rows. `numpy.asarray` of all of it is refused, since it may not fit into memory.
    """

    ndim = 2

    def __init__(
        self,
        read: Callable[[int, int], np.ndarray],
        shape: tuple[int, int],
        dtype: Any,
        rows: np.ndarray | None = None,
    ) -> None:
        """Stands for rows of a file.

        Args:
          read: gives the rows from the first number to below the second one, an array of its own.
          shape: (n, d) of what `read` reads.
          dtype: of what `read` gives.
          rows: those that count, ascending; None for all.
        """
        self._read, self._rows = read, rows
        self.shape = (shape[0] if rows is None else len(rows), shape[1])
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the array that it stands for."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, where: slice) -> np.ndarray:
        """The rows of a slice with step 1, read now."""
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise IndexError("rows on disk are read one after the other: a slice has step 1")
        if start >= stop:
            return np.zeros((0, self.shape[1]), self.dtype)
        if self._rows is None:
            return self._read(start, stop)
        wanted = self._rows[start:stop]
        first = wanted[0]
        return self._read(first, wanted[-1] + 1)[wanted - first]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"inputs {list(self.shape)} are on disk: take blocks of rows")

    def take(self, rows: np.ndarray) -> "OnDisk":
        """Some of the rows, ascending, which stay on disk too."""
        of_file = rows if self._rows is None else self._rows[rows]
        return OnDisk(self._read, (len(of_file), self.shape[1]), self.dtype, of_file)


def block_rows(inputs: Any) -> int:
    """How many rows of `inputs` to take at a time."""
    return max(1, BLOCK_BYTES // max(1, inputs.shape[1] * inputs.dtype.itemsize))
