"""Inputs that stay in their file: a slice reads the rows that it names, and keeps none."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from linear_cifar.data.errors import DataError

# Of a block of rows that is read at a time.
BLOCK_BYTES = 2**25

T = TypeVar("T")


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
        return self._gathered(self._rows[start:stop])

    def _gathered(self, wanted: np.ndarray) -> np.ndarray:
        """Rows by their numbers in the file; where they lie far apart, in several blocks of it."""
        rows = np.empty((len(wanted), self.shape[1]), self.dtype)
        done = 0
        while done < len(wanted):
            first = wanted[done]
            end = int(np.searchsorted(wanted, first + block_rows(self)))
            block = self._read(int(first), int(wanted[end - 1]) + 1)
            rows[done:end] = block[wanted[done:end] - first]
            done = end
        return rows

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise DataError(
            f"inputs {list(self.shape)} are left on disk, where this takes them in memory only: "
            "memory_gb allows them more"
        )

    def take(self, rows: np.ndarray) -> "OnDisk":
        """Some of the rows, ascending, which stay on disk too."""
        of_file = rows if self._rows is None else self._rows[rows]
        return OnDisk(self._read, (len(of_file), self.shape[1]), self.dtype, of_file)

    def in_memory(self) -> np.ndarray:
        """All of the rows, read now."""
        rows = np.empty(self.shape, self.dtype)
        for start, block in blocks(self):
            rows[start : start + len(block)] = block
        return rows


def block_rows(inputs: Any) -> int:
    """How many rows of `inputs` to take at a time."""
    return max(1, BLOCK_BYTES // max(1, inputs.shape[1] * inputs.dtype.itemsize))


def blocks(inputs: Any, multiple: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of inputs in memory or on disk, a block at a time.

    Args:
      inputs: [n, d].
      multiple: of which the number of a block's rows is one, but for the last block's.

    Yields:
      The number of a block's first row, and the block [b, d].
    """
    rows = inputs if isinstance(inputs, OnDisk) else np.asarray(inputs)
    size = -(-block_rows(rows) // multiple) * multiple
    starts = range(0, len(rows), size)

    def read(start: int) -> np.ndarray:
        return rows[start : start + size]

    yield from zip(starts, read_ahead(read, starts), strict=True)


def read_ahead(read: Callable[[int], T], starts: Sequence[int]) -> Iterator[T]:
    """What `read` gives of each start, read while the one before it is used."""
    if len(starts) < 2:  # a thread takes longer than a small file
        yield from map(read, starts)
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(read, start) for start in starts[:1]]
        for start in starts[1:]:
            result = ahead.pop().result()
            ahead.append(reader.submit(read, start))
            yield result
        for last in ahead:
            yield last.result()
    _give_back()


def _give_back() -> None:
    """Returns freed memory to the system: glibc keeps what blocks leave, up to a gigabyte of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


def concatenated(parts: Sequence[Any]) -> Any:
    """Inputs one after the other: on disk where a part of them is, else an array.

    Args:
      parts: inputs [n, d], in memory or on disk.
    """
    if not any(isinstance(part, OnDisk) for part in parts):
        return np.concatenate(parts)
    ends = np.cumsum([len(part) for part in parts]).tolist()

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for part, end in zip(parts, ends, strict=True):
            first = end - len(part)
            if start < end and stop > first:
                pieces.append(np.asarray(part[max(start - first, 0) : stop - first]))
        return np.concatenate(pieces, dtype=dtype)

    dtype = np.result_type(*(part.dtype for part in parts))
    return OnDisk(read, (ends[-1], parts[0].shape[1]), dtype)
