"""How the arrays of a descent lie on devices: each has its examples and its share of every weight.

A product with the inputs gathers the weights, and one of a gradient with them is summed between the
devices, each of which gets its share of the sum. So the data and all else stand once in the memory
of all devices together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from linear_cifar.data.types import Split
from linear_cifar.engine.devices import AXIS, place
from linear_cifar.model import Params

_BLOCK = 500  # examples standardised at a time, at most

EXAMPLES: Any = PartitionSpec(AXIS)  # [n, …]
LAST: Any = PartitionSpec(None, None, AXIS)  # [C, K, n] by examples; [C, K, r] by weights
WHOLE: Any = PartitionSpec()
SHARES: Any = PartitionSpec(None, AXIS)  # [C, n]
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


def n_padded(n: int, n_devices: int) -> int:
    """The number of examples with those that fill up: equal blocks on every device."""
    on_each = -(-n // n_devices)
    n_blocks = -(-on_each // _BLOCK)
    return n_devices * n_blocks * -(-on_each // n_blocks)


def blocks(examples: Split) -> tuple[int, int]:
    """How many blocks a device's examples make, and of how many examples."""
    n = len(examples.labels)
    n_blocks = -(-n // _BLOCK)
    return n_blocks, n // n_blocks
