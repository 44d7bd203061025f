"""How the arrays of a descent lie on devices, and what the devices tell each other.

Examples are split over the devices. Each sums over its own; then the sums are added up, and each
device keeps its share of the weights' coordinates, which is all that its part of the descent needs.
Logits are never exchanged.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from linear_cifar.engine.devices import AXIS, place
from linear_cifar.model import Params

FIRST: Any = PartitionSpec(AXIS)  # [n, …] by examples; [devices, …] of sums
SECOND: Any = PartitionSpec(None, AXIS)  # [D, n]
LAST: Any = PartitionSpec(None, None, AXIS)  # [C, K, r] by coordinates
WHOLE: Any = PartitionSpec()
PARAMS = Params(LAST, WHOLE)  # [C, K, r] and [C, K]


def on_devices(function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """A function that each device applies to its shards; `total` and its like join them."""
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def put(tree: Any, mesh: Mesh, specs: Any) -> Any:
    """Places the arrays of a tree as the specs, a tree of the same form or one for all, have it."""
    if isinstance(specs, PartitionSpec):
        return jax.tree.map(lambda array: place(array, mesh, tuple(specs)), tree)
    return jax.tree.map(lambda array, spec: place(array, mesh, tuple(spec)), tree, specs)


total = partial(jax.lax.psum, axis_name=AXIS)


def gathered(weights: ArrayLike) -> jax.Array:
    """The whole [C, K, r] of the shares of the devices."""
    return jax.lax.all_gather(weights, AXIS, axis=2, tiled=True)


def total_share(weights: jax.Array) -> jax.Array:
    """This device's share [C, K, r / devices] of the sum of [C, K, r] over the devices."""
    return jax.lax.psum_scatter(weights, AXIS, scatter_dimension=2, tiled=True)


def padded(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The array with zeros behind it along an axis."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths) if widths[axis][1] else array


def multiple(size: int, mesh: Mesh) -> int:
    """The least multiple of the number of devices that is not below the size."""
    return -(-size // mesh.size) * mesh.size
