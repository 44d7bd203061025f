"""The one pass over the data: sums over the training examples for C runs at once.

Examples lie on the devices in blocks of rows. Each device adds up its own blocks, so that on a
processor a block's logits stay in a core's cache, and at the end the sums are added over the
devices. Arrays in memory make one chunk, which stays on the devices. Inputs in a file are read
chunk by chunk in each pass, the next chunk while the last one is computed with.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linear_cifar.data.blocks import block_rows, blocks, in_memory
from linear_cifar.data.dataset import Split, Standardiser
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum.tasks import RunTask, run_examples
from linear_cifar.training.devices import AXIS, on_cpu

# Rows of a block: few enough for a core's cache to hold their logits, or enough to fill a GPU.
_CPU_ROWS, _GPU_ROWS = 256, 2**14
_BY_BLOCK, _REPLICATED = PartitionSpec(AXIS), PartitionSpec()
# Each device applies a function to its blocks and two replicated arguments. XLA splits the scan
# over blocks badly by itself: on 45,000 × 1,280 features and 15 runs a pass reaches 0.78 of the
# matrix product's rate under plain `jit`, and 0.95 like this.
_IN_SPECS = (_BY_BLOCK, _REPLICATED, _REPLICATED)
_on_devices = partial(jax.shard_map, in_specs=_IN_SPECS, check_vma=False)


class Chunk(NamedTuple):
    """Examples on the devices, in blocks of m rows that are split over the devices."""

    inputs: Any  # [blocks, m, d], as stored; or [blocks, m, r], standardised and rotated
    labels: Any  # [blocks, m, L], integers; see `Tasks`
    weights: Any  # [blocks, m, F]; 0 for the rows that fill up the last block


ReadChunks: TypeAlias = Callable[[], Iterable[Chunk]]  # called once for each pass
# (loss, inputs [m, d] in the pass's dtype, labels [L, m], weights [F, m], arguments) -> sums
Term: TypeAlias = Callable[[Loss, jax.Array, jax.Array, jax.Array, Any], Any]


class Examples(NamedTuple):
    """Training examples in blocks, from `place_examples`."""

    split: Split
    mesh: Mesh
    n_rows: int  # m, in a block
    read: Callable[[], Iterable[Any]]  # (slice, inputs) of each chunk

    def labelled(self, labels: np.ndarray, weights: np.ndarray, dtype: Any) -> ReadChunks:
        """All examples in order, with labels [L, n] and weights [F, n], these in `dtype`."""

        def read() -> Iterable[Chunk]:
            for part, inputs in self.read():
                fold = partial(_fold, shape=inputs.shape[:2], mesh=self.mesh)
                of_part = fold(labels[:, part].T), fold(weights[:, part].T.astype(dtype))
                yield Chunk(inputs, *of_part)

        return cached(read, in_memory(self.split.inputs))


def place_examples(split: Split, mesh: Mesh) -> Examples:
    """Puts examples on the devices, or prepares reading them from their file."""
    n, in_one = len(split.labels), in_memory(split.inputs)
    n_rows = min(_CPU_ROWS if on_cpu(mesh) else _GPU_ROWS, -(-n // mesh.size))
    multiple = n_rows * mesh.size
    size = -(-(n if in_one else min(n, block_rows(split.inputs))) // multiple) * multiple
    fold = partial(_fold, shape=(size // n_rows, n_rows), mesh=mesh)

    def read() -> Iterable[Any]:
        for part, inputs in blocks(split.inputs, size):
            yield part, fold(inputs)

    return Examples(split, mesh, n_rows, cached(read, in_one))


def cached(read: Callable[[], Iterable[Any]], stays: bool) -> Callable[[], Iterable[Any]]:
    """The same chunks, read only once if they stay on the devices."""
    chunks = list(read()) if stays else None
    return lambda: read() if chunks is None else chunks


def _fold(array: Any, shape: tuple[int, int], mesh: Mesh) -> jax.Array:
    """Folds examples [n, …] into blocks [blocks, m, …] on the devices; zeros fill up the last one.

    Each process places the blocks of its own devices.
    """
    array, (n_blocks, n_rows) = np.asarray(array), shape

    def blocks_of_device(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(n_blocks)
        part = array[start * n_rows : stop * n_rows]
        n_missing = (stop - start) * n_rows - len(part)
        padded = np.pad(part, [(0, n_missing)] + [(0, 0)] * (array.ndim - 1)) if n_missing else part
        return padded.reshape(stop - start, n_rows, *array.shape[1:])

    with jax.enable_x64(True):  # inputs keep their dtype, float64 among them
        sharding = NamedSharding(mesh, _BY_BLOCK)
        return jax.make_array_from_callback((*shape, *array.shape[1:]), sharding, blocks_of_device)


def sum_over(
    chunks: ReadChunks,
    term: Term,
    arguments: Any,
    *,
    loss: Loss,
    mesh: Mesh,
    dtype: Any,
    standardiser: Standardiser | None = None,
) -> Any:
    """Sums a term over all examples, in full on every device.

    The term is what a block adds to the sums: a function at the top of a module, because it is
    static. It gets the inputs in `dtype`, standardised unless there is no standardiser.
    """
    total = None
    for chunk in chunks():
        added = _sum(chunk, arguments, standardiser, term, loss, mesh, jnp.dtype(dtype))
        # Waits before the next chunk is placed, because a file may be read faster than summed.
        total = added if total is None else jax.tree.map(jnp.add, total, added)
        jax.block_until_ready(total)
    return total


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _sum(chunk: Chunk, arguments, standardiser, term: Term, loss: Loss, mesh: Mesh, dtype: Any):
    @partial(jax.jit, inline=True)  # which traces it once for both uses below
    def block_sums(arguments, standardiser, inputs, labels, weights):
        inputs = inputs if standardiser is None else standardiser(inputs, dtype)
        return term(loss, inputs, labels.T, weights.T, arguments)

    def device_sums(chunk: Chunk, *replicated):
        def add_block(total, block):
            return jax.tree.map(jnp.add, total, block_sums(*replicated, *block)), None

        shapes = jax.eval_shape(block_sums, *replicated, *(array[0] for array in chunk))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.psum(jax.lax.scan(add_block, zero, chunk)[0], AXIS)

    sums = _on_devices(device_sums, mesh=mesh, out_specs=_REPLICATED)
    return sums(chunk, arguments, standardiser)


@partial(jax.jit, static_argnums=(3, 4))
def transform(inputs, standardiser, matrix, mesh: Mesh, dtype: Any) -> jax.Array:
    """Inputs in blocks, standardised, times a matrix [d, …] in its dtype; float64 needs x64."""

    def of_device(inputs, standardiser, matrix):
        def of_block(stored):
            if matrix is None:
                return standardiser(stored, dtype)
            return product("md,dr->mr", standardiser(stored, matrix.dtype), matrix).astype(dtype)

        return jax.lax.map(of_block, inputs)

    return _on_devices(of_device, mesh=mesh, out_specs=_BY_BLOCK)(inputs, standardiser, matrix)


class Sums(NamedTuple):
    """What the descent needs of a pass, for C runs: the mean loss and its gradient."""

    loss: Any  # [C]
    bias: Any  # Σᵢ wᵢ Gᵢ, [C, K]
    weights: Any  # Σᵢ wᵢ Gᵢ xᵢᵀ, [C, K, d]


def loss_and_gradient(
    loss: Loss,
    inputs: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    runs: tuple[Params, RunTask],
) -> Sums:
    """The term of `Sums`, for the parameters [C, K, d], [C, K] and the tasks of C runs."""
    params, task = runs
    scores, (labels, weights) = run_logits(params, inputs), run_examples(task, labels, weights)
    gradients = weighted_logit_gradient(loss, scores, labels, weights)
    losses = jax.vmap(loss.value)(scores, labels)
    mean_loss = jnp.sum(weights * losses, axis=-1)
    return Sums(mean_loss, jnp.sum(gradients, axis=-1), input_gradient(gradients, inputs))


def run_logits(params: Params, inputs: jax.Array) -> jax.Array:
    """Logits of C runs, [C, m, K], by one matrix product."""
    c, k, d = params.weights.shape
    scores = product("rd,md->rm", params.weights.reshape(c * k, d), inputs).reshape(c, k, -1)
    return jnp.moveaxis(scores + params.bias[..., None], 1, -1)


def weighted_logit_gradient(
    loss: Loss, scores: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """wᵢ Gᵢ of C runs, [C, K, m], from their logits [C, m, K], labels and weights [C, m]."""
    gradients = jax.vmap(loss.logit_gradient)(scores, labels)
    return jnp.moveaxis(gradients, -1, 1) * weights[:, None]


def input_gradient(gradients: jax.Array, inputs: jax.Array) -> jax.Array:
    """Σᵢ wᵢ Gᵢ xᵢᵀ of C runs, [C, K, d], from wᵢ Gᵢ [C, K, m]; one matrix product."""
    c, k, m = gradients.shape
    return product("rm,md->rd", gradients.reshape(c * k, m), inputs).reshape(c, k, -1)


def product(subscripts: str, *arrays: Any) -> jax.Array:
    """`jnp.einsum` at the full precision of the arrays' dtype.

    By default a GPU rounds the factors of float32 products to 10 bits, and descents then stop far
    from the tolerance.
    """
    return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)
