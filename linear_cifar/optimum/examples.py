"""The training examples as passes take them: in blocks, on devices, read ahead from a disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from linear_cifar.data.on_disk import OnDisk, block_rows, read_ahead
from linear_cifar.data.types import Dataset, Standardiser
from linear_cifar.optimum import shards


class Block(NamedTuple):
    """Some examples, split over the devices, with zeros behind their end."""

    inputs: Any  # [m, d], as they are stored; or [m, r], standardised and rotated
    labels: Any  # [m]
    shares: Any  # [D, m], what an example counts; 0 for one that fills up


BLOCK: Any = Block(shards.FIRST, shards.FIRST, shards.SECOND)


@dataclass(frozen=True)
class Examples:
    """The training examples of a data set.

    Arrays in memory make one block, which stays on the devices. Of inputs on a disk a block is read
    while the last one is computed with, and each process reads the rows of its devices alone.
    """

    dataset: Dataset
    mesh: Mesh

    @property
    def on_disk(self) -> bool:
        """Whether every pass reads them anew."""
        return isinstance(self.dataset.train.inputs, OnDisk)

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.dataset.train.labels)

    @property
    def n_block(self) -> int:
        """Examples in a block, with those that fill it up."""
        rows = min(self.n, block_rows(self.dataset.train.inputs)) if self.on_disk else self.n
        return shards.multiple(rows, self.mesh)

    @cached_property
    def standardiser(self) -> Standardiser:
        """That of the data, in numpy arrays, on which nothing has to be compiled."""
        return Standardiser(*map(np.asarray, self.dataset.standardiser))

    def blocks(self, shares: np.ndarray) -> Iterable[Block]:
        """All examples in order, as often as it is iterated over.

        Args:
          shares: what they count, [D, n], in the dtype of the pass.
        """
        if self.on_disk:
            return _Stream(self, shares)
        return [Block(*self._resident, self.of_examples(shares))]

    @cached_property
    def _resident(self) -> tuple[jax.Array, jax.Array]:
        return self._part(self.dataset.train.inputs, 0), self.labels

    @cached_property
    def labels(self) -> jax.Array:
        """Those of data in memory, on the devices."""
        return self._part(self.dataset.train.labels, 0)

    def of_examples(self, shares: np.ndarray) -> jax.Array:
        """Shares [D, n] of data in memory, on the devices."""
        return self._part(shares, 1)

    def _part(self, array: Any, axis: int) -> jax.Array:
        return _placed(array, axis, 0, self.n_block, self.mesh)


class _Stream:
    """Blocks from a disk; the next one is read meanwhile."""

    def __init__(self, examples: Examples, shares: np.ndarray) -> None:
        self._examples, self._shares = examples, shares

    def __iter__(self) -> Iterator[Block]:
        return read_ahead(self._read, range(0, self._examples.n, self._examples.n_block))

    def _read(self, start: int) -> Block:
        inputs, labels = self._examples.dataset.train
        where = (start, self._examples.n_block, self._examples.mesh)
        return Block(
            _placed(inputs, 0, *where), _placed(labels, 0, *where), _placed(self._shares, 1, *where)
        )


def _placed(array: Any, axis: int, start: int, size: int, mesh: Mesh) -> jax.Array:
    """A part of an array along an axis, split over the devices; each process takes its own."""

    def of_device(where: Any) -> np.ndarray:
        low, high, _ = where[axis].indices(size)
        own = slice(start + low, start + high)
        return shards.padded(np.asarray(array[:, own] if axis else array[own]), axis, high - low)

    shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
    where = NamedSharding(mesh, shards.SECOND if axis else shards.FIRST)
    with jax.enable_x64(True):  # as they are stored, in float64 too; it is a setting of the thread
        return jax.make_array_from_callback(shape, where, of_device)
