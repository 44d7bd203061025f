"""Coordinates in which one preconditioner serves every λ.

With the eigendecomposition XᵀX/n = V diag(e) Vᵀ of standardised inputs, the rotated inputs X V have
uncorrelated columns, and the Hessian of the mean loss is about c diag(e) for each class, where c is
the curvature of the loss (D. Böhning, Multinomial logistic regression algorithm, Ann. Inst.
Statist. Math. 44, 1992, who takes its upper bound). Adding 2λ gives a preconditioner that is
diagonal for every λ. The penalty is the same in both coordinates, for V is orthogonal.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.types import Split, Standardiser
from linear_cifar.engine.devices import AXIS
from linear_cifar.engine.epoch import take_batch
from linear_cifar.optimum import shards

# The side of the largest matrix that is decomposed: its time grows with the cube.
MOST = 8192
# Eigenvalues below this share of the largest one are noise of float32.
_FLOOR = 1e-8


class Basis(NamedTuple):
    """Rotated inputs, and the way back.

    There are r coordinates, and further ones without a meaning, in which inputs and weights are 0,
    that make their number a multiple of the devices.
    """

    inputs: jax.Array  # [n, r], X V, split by examples
    eigenvalues: np.ndarray  # [r], e, float64
    rotation: np.ndarray | None  # V [d, …]; None: the coordinates are those of the inputs
    n_features: int  # d

    def back(self, weights: np.ndarray) -> np.ndarray:
        """Weights [..., r] in the coordinates of the inputs, [..., d], in float64."""
        weights = np.asarray(weights, np.float64)
        if self.rotation is None:
            return weights[..., : self.n_features]
        return weights[..., : self.rotation.shape[1]] @ self.rotation.T.astype(np.float64)

    def forth(self, weights: np.ndarray) -> np.ndarray:
        """Weights [..., d] in the rotated coordinates, [..., r], in float64."""
        weights = np.asarray(weights, np.float64)
        turned = weights if self.rotation is None else weights @ self.rotation.astype(np.float64)
        return shards.padded(turned, turned.ndim - 1, len(self.eigenvalues))


def find_basis(
    examples: Split, n: int, standardiser: Standardiser, dtype: Any, mesh: Mesh
) -> Basis:
    """The basis of some examples.

    Where d ≤ n it comes of XᵀX [d, d]. Where n < d it comes of XXᵀ [n, n], since the optimum's
    weights lie in the span of the examples. Where both are above `MOST`, the inputs stay as they
    are, and the preconditioner has the mean squares of the features.

    Args:
      examples: inputs as they are stored, split over the devices, filled up as `shards` has it.
      n: how many of them count; those that fill up come last.
      standardiser: of them.
      dtype: floating type of the rotated inputs.
      mesh: the devices.
    """
    d = examples.inputs.shape[1]
    if n < d and n <= MOST:
        return _of_few(examples, n, standardiser, dtype, mesh)
    rotation = None
    if d <= MOST:  # all are kept: a feature without variance has its weight, which is 0
        gram = _gram(examples, n, standardiser, dtype=dtype, mesh=mesh)
        eigenvalues, rotation = np.linalg.eigh(np.asarray(gram))
        eigenvalues = np.maximum(eigenvalues, _FLOOR * eigenvalues[-1])
    else:
        eigenvalues = np.asarray(_squares(examples, n, standardiser, dtype=dtype, mesh=mesh))
    size = _multiple(d, mesh)
    turn = None if rotation is None else shards.padded(rotation, 1, size)
    inputs = _rotated(examples, standardiser, turn, size, dtype=dtype, mesh=mesh)
    filled = shards.padded(eigenvalues.astype(np.float64), 0, size)
    return Basis(inputs, filled, rotation, d)


def _of_few(examples: Split, n: int, standardiser: Standardiser, dtype: Any, mesh: Mesh) -> Basis:
    """The basis of fewer examples than features."""
    inputs = np.asarray(standardiser(jnp.asarray(np.asarray(examples.inputs)[:n]), dtype))
    eigenvalues, vectors = np.linalg.eigh(inputs @ inputs.T / n)
    vectors = vectors[:, eigenvalues > _FLOOR * eigenvalues[-1]]
    eigenvalues = eigenvalues[len(eigenvalues) - vectors.shape[1] :].astype(np.float64)
    lengths = np.sqrt(n * eigenvalues).astype(inputs.dtype)
    rotation = inputs.T @ (vectors / lengths)
    size = _multiple(len(eigenvalues), mesh)
    rotated = shards.padded(vectors * lengths, 1, size)
    rotated = shards.padded(rotated, 0, len(examples.labels))
    placed = shards.put(rotated, mesh, shards.EXAMPLES)
    return Basis(placed, shards.padded(eigenvalues, 0, size), rotation, inputs.shape[1])


def _multiple(size: int, mesh: Mesh) -> int:
    return -(-size // mesh.size) * mesh.size


def _summed(function, examples: Split, n: int, standardiser: Standardiser, dtype, mesh: Mesh):
    """The mean over examples of a function of a block of standardised inputs."""

    def of_device(examples: Split, standardiser: Standardiser):
        n_blocks, size = shards.blocks(examples)
        before = jax.lax.axis_index(AXIS) * len(examples.labels)

        def of_block(start):
            inputs, _ = take_batch(examples, standardiser, start, size, dtype)
            counts = before + start + jnp.arange(size) < n
            return function(jnp.where(counts[:, None], inputs, 0))

        starts = size * jnp.arange(1, n_blocks)
        summed, _ = jax.lax.scan(lambda s, start: (s + of_block(start), None), of_block(0), starts)
        return shards.total(summed) / n

    specs = (shards.EXAMPLES, shards.WHOLE)
    return shards.on_devices(of_device, mesh, specs, shards.WHOLE)(examples, standardiser)


@partial(jax.jit, static_argnames=("dtype", "mesh"))
def _gram(examples, n, standardiser, *, dtype, mesh) -> jax.Array:
    return _summed(lambda x: x.T @ x, examples, n, standardiser, dtype, mesh)


@partial(jax.jit, static_argnames=("dtype", "mesh"))
def _squares(examples, n, standardiser, *, dtype, mesh) -> jax.Array:
    return _summed(lambda x: jnp.sum(x**2, axis=0), examples, n, standardiser, dtype, mesh)


@partial(jax.jit, static_argnames=("size", "dtype", "mesh"))
def _rotated(examples, standardiser, rotation, size, *, dtype, mesh) -> jax.Array:
    """The standardised inputs in the basis, [n, size], block by block."""

    def of_device(examples: Split, standardiser: Standardiser, rotation):
        n_blocks, n_block = shards.blocks(examples)

        def of_block(start):
            inputs, _ = take_batch(examples, standardiser, start, n_block, dtype)
            if rotation is None:
                return jnp.pad(inputs, ((0, 0), (0, size - inputs.shape[1])))
            return inputs @ rotation.astype(dtype)

        return jax.lax.map(of_block, n_block * jnp.arange(n_blocks)).reshape(-1, size)

    specs = (shards.EXAMPLES, shards.WHOLE, shards.WHOLE)
    return shards.on_devices(of_device, mesh, specs, shards.EXAMPLES)(
        examples, standardiser, rotation
    )
