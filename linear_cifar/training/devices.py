"""Meshes and placement: arrays on one device, or on several of one host or of many.

JAX computes where its arguments lie, so only placement differs between one device and many. Many
runs are split over the devices, and each device has all the data. A single run is split by
features, and each device has its share of the data.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.errors import InputError

AXIS = "devices"


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh of the given devices; None: of all devices, on all hosts."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def check_mesh(mesh: Any) -> None:
    """Raises `InputError` unless it is None or a mesh as `device_mesh` makes it."""
    if mesh is not None and (not isinstance(mesh, Mesh) or mesh.axis_names != (AXIS,)):
        raise InputError(f"mesh is {mesh!r}: it has to be a mesh that device_mesh makes")


def on_cpu(mesh: Mesh) -> bool:
    """Whether the mesh's devices are cores of a processor."""
    return mesh.devices.flat[0].platform == "cpu"


def splits_features(mesh: Mesh | None, n_features: int) -> bool:
    """Whether a single run is split by features: on the cores of one processor, if they divide d.

    Among GPUs, exchanging logits after every batch would cost more than it saves.
    """
    if mesh is None or mesh.is_multi_process or not on_cpu(mesh):
        return False
    return n_features % mesh.size == 0


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Places the arrays of a tree in full on every device; None: on the default device."""
    return jax.tree.map(lambda array: _place(array, mesh, ()), tree)


def shard_runs(tree: Any, mesh: Mesh | None) -> Any:
    """Splits the arrays [C, …] of a tree by runs over the devices, whose number divides C."""
    return jax.tree.map(lambda array: _place(array, mesh, (AXIS,)), tree)


def shard_features(tree: Any, mesh: Mesh | None, n_features: int) -> Any:
    """Splits the arrays [..., d] of a tree by features; the other arrays go to every device."""
    return jax.tree.map(lambda a: _place(a, mesh, feature_axes(a, mesh, n_features)), tree)


def feature_axes(array: Any, mesh: Mesh | None, n_features: int) -> tuple:
    """The axes of an array in a partition by features, if the devices divide them evenly."""
    if mesh is None or array.shape[-1:] != (n_features,) or n_features % mesh.size:
        return ()
    return (*[None] * (array.ndim - 1), AXIS)


def _place(array: Any, mesh: Mesh | None, axes: tuple) -> jax.Array:
    """Places an array that every process has in full, split along the axes named `AXIS`."""
    if mesh is None:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if not mesh.is_multi_process:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def fetch(tree: Any) -> Any:
    """The arrays of a tree as NumPy arrays, in full, from the devices of all hosts."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def gather(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and array.is_fully_replicated:
            return np.asarray(array.addressable_data(0))
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(gather, tree)


def await_others() -> None:
    """Waits for every process, and raises if one is lost; does nothing for one process."""
    multihost_utils.sync_global_devices("linear_cifar")
