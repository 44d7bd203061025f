"""Where arrays lie: on one device, or over a mesh of several, of one host or of many.

JAX computes where its arguments lie, so that nothing but their placement differs between one device
and many. Many runs are split over the devices, each of which has all the data; a single run is
split by features, so that each device has its share of the data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.datasets import Dataset

_AXIS = "devices"


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh of the given devices; None: of all, those of other hosts too."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (_AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays of a tree, whole on every device."""
    return _place(tree, mesh, lambda array: PartitionSpec())


def split_runs(tree: Any, mesh: Mesh) -> Any:
    """The arrays [C, …] of a tree, split along C, which the number of devices has to divide."""
    return _place(tree, mesh, lambda array: PartitionSpec(_AXIS))


def split_features(tree: Any, mesh: Mesh, n_features: int) -> Any:
    """The arrays [..., d] of a tree, split along d where the number of devices divides it."""

    def spec(array):
        split = array.ndim and array.shape[-1] == n_features and n_features % mesh.size == 0
        return PartitionSpec(*[None] * (array.ndim - 1), _AXIS) if split else PartitionSpec()

    return _place(tree, mesh, spec)


def fetch(tree: Any) -> Any:
    """The arrays of a tree as numpy arrays, whole, from the devices of every host."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def await_others() -> None:
    """Waits until every process is here, and raises if one is lost; nothing for a single one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("linear_cifar")


def place_dataset(dataset: Dataset, mesh: Mesh) -> Dataset:
    """A dataset whose arrays are whole on every device, to be placed once for many uses."""
    names = ("train", "validation", "test", "standardiser")
    placed = replicate([getattr(dataset, name) for name in names], mesh)
    return replace(dataset, **dict(zip(names, placed, strict=True)))


def _place(tree: Any, mesh: Mesh, spec) -> Any:
    def place(array):
        sharding = NamedSharding(mesh, spec(array))
        if mesh.is_multi_process:
            if isinstance(array, jax.Array) and array.sharding == sharding:
                return array
            host = np.asarray(array)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
        return jax.device_put(array, sharding)

    return jax.tree.map(place, tree)
