"""Where arrays lie: on one device, or over a mesh of several, of one host or of many.

JAX computes where its arguments lie, so that nothing but their placement differs between one device
and many. Many runs are split over the devices, each of which has all the data; a single run is
split by features, so that each device has its share of the data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.data.on_disk import OnDisk, blocks
from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.settings import SettingsError

AXIS = "devices"


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh of the given devices; None: of all, those of other hosts too."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def check_mesh(mesh: Any) -> None:
    """Raises `SettingsError` where it is neither a mesh nor None."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise SettingsError(f"mesh is {mesh!r}: it has to be a Mesh, as device_mesh makes")


def splits_features(mesh: Mesh | None) -> bool:
    """Whether a single run is worth splitting: on the cores of one processor, not among GPUs."""
    if mesh is None:
        return False
    return mesh.devices.flat[0].platform == "cpu" and not mesh.is_multi_process


class Layout(NamedTuple):
    """How the arrays of C runs lie on devices; `layout` chooses it."""

    mesh: Mesh | None  # None: the default device
    splits_runs: bool = True
    n_split: int = 0  # features d, where those of a single run are split; else 0

    def data(self, tree: Any) -> Any:
        """Places arrays that all runs share, [..., d] among them."""
        return self._place(tree, self._by_features)

    def runs(self, tree: Any) -> Any:
        """Places arrays [C, …]."""
        return self._place(tree, lambda a: (AXIS,) if self.splits_runs else self._by_features(a))

    def whole(self, tree: Any) -> Any:
        """Places arrays whole on every device."""
        return self._place(tree, lambda array: ())

    def _by_features(self, array) -> tuple:
        split = self.n_split and array.ndim and array.shape[-1] == self.n_split
        return (*[None] * (array.ndim - 1), AXIS) if split else ()

    def _place(self, tree: Any, axes) -> Any:
        return jax.tree.map(lambda array: place(array, self.mesh, axes(array)), tree)


def layout(mesh: Mesh | None, n_runs: int, n_features: int) -> Layout:
    """The layout of C runs on some devices: their runs split, or a single run's features.

    Raises:
      SettingsError: more than one run, and not a multiple of the devices.
    """
    if n_runs == 1 and splits_features(mesh):
        assert mesh is not None
        divides = n_features % mesh.size == 0  # else every device does all of it
        return Layout(mesh, splits_runs=False, n_split=n_features if divides else 0)
    if mesh is not None and n_runs % mesh.size:
        raise SettingsError(f"{n_runs} runs can't be split evenly over {mesh.size} devices")
    return Layout(mesh)


@dataclass(frozen=True)
class Data:
    """The arrays of a data set on their devices, each placed when it is first asked for."""

    dataset: Dataset
    where: Layout

    @cached_property
    def train(self) -> Split:
        """The training examples, as they are stored."""
        return self._placed(self.dataset.train)

    @cached_property
    def validation(self) -> Split:
        """The validation examples."""
        return self._placed(self.dataset.validation)

    @cached_property
    def test(self) -> Split:
        """The test examples."""
        return self._placed(self.dataset.test)

    @cached_property
    def standardiser(self) -> Standardiser:
        """The training set's."""
        return self.where.data(self.dataset.standardiser)

    def blocks(self, multiple: int) -> Iterator[Split]:
        """Training examples on a disk, placed in blocks of a multiple of rows, but the last one."""
        inputs, labels = self.dataset.train
        for start, rows in blocks(inputs, multiple):
            yield self.where.data(Split(rows, labels[start : start + len(rows)]))

    def _placed(self, split: Split) -> Split:
        return split if isinstance(split.inputs, OnDisk) else self.where.data(split)


def fetch(tree: Any) -> Any:
    """The arrays of a tree as numpy arrays, whole, from the devices of every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    def whole(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and array.is_fully_replicated:
            return np.asarray(array.addressable_data(0))
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(whole, tree)


def agreed(tree: Any) -> Any:
    """Numpy arrays as the first process has them, where processes may round differently."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def await_others() -> None:
    """Waits until every process is here, and raises if one is lost; nothing for a single one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("linear_cifar")


def place(array: Any, mesh: Mesh | None, axes: tuple) -> jax.Array:
    """Places an array, split along the axes that `axes` names `AXIS`; None: the default device."""
    if mesh is None:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if mesh.is_multi_process:
        if isinstance(array, jax.Array) and array.sharding == sharding:
            return array
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
    # Not what is no array, for what is on disk says so when it is made one.
    return jax.device_put(array if isinstance(array, jax.Array) else np.asarray(array), sharding)
