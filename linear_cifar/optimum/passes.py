"""A pass over the examples: what is summed up of them for C runs at once.

A device adds up its examples, some at a time, so that their logits need little room; what it has
added up, [1, …], is joined with the others' when the pass is over.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.types import Standardiser
from linear_cifar.engine.devices import fetch
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import shards, weighted
from linear_cifar.optimum.examples import BLOCK, Block

# Examples that a device takes at a time, which with their logits stay in its cache. It takes all of
# them where so many logits do so, for then no inputs are copied.
_AT_ONCE, _LOGITS = 128, 3 * 2**18


class Sums(NamedTuple):
    """Over examples, each with its share, of C runs; [devices, …] until they are joined.

    What is None isn't summed.
    """

    loss: Any  # [C]
    bias: Any  # Σᵢ Gᵢ, which is ∂/∂b of the mean loss, [C, K]
    weights: Any  # Σᵢ Gᵢ xᵢᵀ, ∂/∂W, [C, K, d]
    size: Any  # Σᵢ |Gᵢ|, [C, K]
    hessian: Any  # of the mean loss in the bias, [C, K, K]


class Pass(NamedTuple):
    """What a pass needs beside parameters and blocks; static."""

    loss: Loss
    mesh: Mesh
    dtype: Any


def run(blocks: Iterable[Block], add: Callable[[Any, Block], Any], shapes: Any, how: Pass) -> Any:
    """Adds up the blocks.

    No further block is begun before the last one is done, since a disk may be faster.

    Args:
      blocks: of the examples.
      add: gives the new total of the old one, which is used up, and a block.
      shapes: of the total's arrays, a tree of tuples of integers within a `Sums`, or one of them.
      how: the pass.

    Returns:
      The total, arrays [devices, …].
    """
    total = jax.tree.map(lambda shape: _zeros(shape, how), shapes, is_leaf=_is_shape)
    for block in blocks:
        total = jax.block_until_ready(add(total, block))
    return total


def _is_shape(node: Any) -> bool:
    return type(node) is tuple


def _zeros(shape: tuple[int, ...], how: Pass) -> jax.Array:
    return shards.put(np.zeros((how.mesh.size, *shape), how.dtype), how.mesh, shards.FIRST)


def joined(total: Any) -> Any:
    """A total with the sums of all devices, in numpy arrays."""
    return jax.tree.map(lambda sums: np.asarray(sums).sum(axis=0), fetch(total))


def sum_over(
    blocks: Iterable[Block],
    params: Params,
    of_row: Any,
    standardiser: Standardiser | None,
    how: Pass,
    *,
    weights: bool = True,
    of_bias: bool = False,
) -> Sums:
    """The sums over all examples, [devices, …].

    Args:
      blocks: of the examples.
      params: [C, K, d] and [C, K], whole on every device.
      of_row: which of the blocks' shares belong to each run, [C].
      standardiser: of their inputs; None where they are standardised.
      how: the pass.
      weights: whether to sum ∂/∂W, which is half of the work.
      of_bias: whether to sum what finds the best bias.
    """
    c, k = params.bias.shape
    shapes = Sums(
        (c,),
        (c, k),
        params.weights.shape if weights else None,
        (c, k) if of_bias else None,
        (c, k, k) if of_bias else None,
    )

    def add(total: Sums, block: Block) -> Sums:
        return _add(total, params, of_row, block, standardiser, how=how)

    return run(blocks, add, shapes, how)


@partial(jax.jit, static_argnames="how", donate_argnames="total")
def _add(total: Sums, params, of_row, block: Block, standardiser, *, how: Pass) -> Sums:
    def of_some(inputs: jax.Array, labels: jax.Array, shares: jax.Array, params: Params) -> Sums:
        of = (_scores(params, inputs), labels, shares, how.loss)
        by_logit = weighted.logit_gradient(*of)
        return Sums(
            weighted.mean_loss(*of),
            jnp.sum(by_logit, axis=-1),
            None if total.weights is None else _weighted_inputs(by_logit, inputs),
            None if total.size is None else jnp.sum(jnp.abs(by_logit), axis=-1),
            None if total.hessian is None else weighted.hessian(*of),
        )

    return _added(total, of_some, params, of_row, block, standardiser, how)


@partial(jax.jit, static_argnames="how", donate_argnames="total")
def add_squares(
    total: jax.Array, block: Block, standardiser: Standardiser, *, how: Pass
) -> jax.Array:
    """Adds x² of the standardised inputs, [devices, d], over a block."""

    def of_some(inputs: jax.Array, _: jax.Array, shares: jax.Array, __: Params) -> jax.Array:
        return jnp.sum(_counting(inputs, shares) ** 2, axis=0)

    return _added(total, of_some, None, None, block, standardiser, how)


@partial(jax.jit, static_argnames="how", donate_argnames="total")
def add_gram(total: jax.Array, block: Block, standardiser: Standardiser, *, how: Pass) -> jax.Array:
    """Adds XᵀX of the standardised inputs, [devices, d, d], over a block."""

    def of_some(inputs: jax.Array, _: jax.Array, shares: jax.Array, __: Params) -> jax.Array:
        inputs = _counting(inputs, shares)
        return inputs.T @ inputs

    return _added(total, of_some, None, None, block, standardiser, how)


def _counting(inputs: jax.Array, shares: jax.Array) -> jax.Array:
    """The inputs of examples that count, and 0 for the others, each once."""
    return jnp.where(jnp.any(shares > 0, axis=0)[:, None], inputs, 0)


def _added(total, of_some, params, of_row, block: Block, standardiser, how: Pass) -> Any:
    """The total with what `of_some(inputs, labels, shares, params)` gives of a block's examples."""

    def of_device(total, params, of_row, block: Block, standardiser):
        shares = block.shares if of_row is None else block.shares[of_row]
        n, columns = len(block.labels), 1 if params is None else params.bias.size
        whole = standardiser is None and n * columns <= _LOGITS
        at_once = n if whole else min(n, _AT_ONCE)

        def some(array, start, axis=0):
            return jax.lax.dynamic_slice_in_dim(array, start, at_once, axis)

        def add_some(i, total):
            # The last ones reach back over others, which don't count again.
            start = jnp.minimum(i * at_once, n - at_once)
            inputs = some(block.inputs, start)
            if standardiser is not None:
                inputs = standardiser(inputs, how.dtype)
            new = start + jnp.arange(at_once) >= i * at_once
            own = jnp.where(new, some(shares, start, axis=1), 0)
            more = of_some(inputs, some(block.labels, start), own, params)
            return jax.tree.map(lambda so_far, sums: so_far + sums[None], total, more)

        return jax.lax.fori_loop(0, -(-n // at_once), add_some, total)

    given = (shards.FIRST, shards.WHOLE, shards.WHOLE, BLOCK, shards.WHOLE)
    of_devices = shards.on_devices(of_device, how.mesh, given, shards.FIRST)
    return of_devices(total, params, of_row, block, standardiser)


def _scores(params: Params, inputs: jax.Array) -> jax.Array:
    """Logits [C, K, n]."""
    weights, bias = params
    c, k, d = weights.shape
    return (weights.reshape(c * k, d) @ inputs.T).reshape(c, k, -1) + bias[..., None]


def _weighted_inputs(by_logit: jax.Array, inputs: jax.Array) -> jax.Array:
    """Gᵀ x summed over examples, [C, K, d]."""
    c, k, n = by_logit.shape
    return (by_logit.reshape(c * k, n) @ inputs).reshape(c, k, -1)
