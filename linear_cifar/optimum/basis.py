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

from linear_cifar.data.types import Standardiser
from linear_cifar.engine.devices import agreed
from linear_cifar.losses import Loss
from linear_cifar.optimum import passes, shards
from linear_cifar.optimum.examples import Block, Examples

# The side of the largest matrix that is decomposed: its time grows with the cube.
MOST = 8192
# Eigenvalues below this share of the largest one are noise of float32.
_FLOOR = 1e-8
_ROWS = 500  # standardised and rotated at a time


class Basis(NamedTuple):
    """r coordinates, and the way back to the d of the inputs.

    Further coordinates without a meaning, in which inputs and weights are 0, make their number a
    multiple of the devices.
    """

    eigenvalues: np.ndarray  # [r], e, float64
    rotation: np.ndarray | None  # V [d, …]; None: the coordinates are those of the inputs
    n_features: int  # d
    inputs: jax.Array | None  # [n, r], X V, split by examples; None where they are on a disk

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

    @property
    def turn(self) -> np.ndarray | None:
        """V [d, r], where a pass needs the weights in the inputs' coordinates, and has others."""
        if self.inputs is not None or self.rotation is None:
            return None
        return shards.padded(self.rotation, 1, len(self.eigenvalues))


def find_basis(examples: Examples, loss: Loss, dtype: Any) -> Basis:
    """The basis of some examples, all of which count alike.

    Where d ≤ n it comes of XᵀX [d, d]. Where n < d it comes of XXᵀ [n, n], since the optimum's
    weights lie in the span of the examples. Where both are above `MOST`, the inputs stay as they
    are, and the preconditioner has the mean squares of the features.

    Args:
      examples: inputs in memory are rotated once; for those on a disk, weights are.
      loss: only a part of what a pass is.
      dtype: floating type of the rotated inputs.
    """
    d, mesh = examples.dataset.n_features, examples.mesh
    if examples.n < min(d, MOST + 1) and not examples.on_disk:
        return _of_few(examples, dtype)
    how = passes.Pass(loss, mesh, dtype)
    rotation = None
    if d <= MOST:  # all are kept: a feature without variance has its weight, which is 0
        gram = _mean(passes.add_gram, (d, d), examples, how)
        eigenvalues, rotation = agreed(tuple(np.linalg.eigh(gram)))
        eigenvalues = np.maximum(eigenvalues, _FLOOR * eigenvalues[-1])
    else:
        eigenvalues = _mean(passes.add_squares, (d,), examples, how)
    filled = shards.padded(eigenvalues.astype(np.float64), 0, shards.multiple(d, mesh))
    basis = Basis(filled, rotation, d, None)
    return basis if examples.on_disk else basis._replace(inputs=_rotated(examples, basis, dtype))


def _of_few(examples: Examples, dtype: Any) -> Basis:
    """The basis of fewer examples than features.

    In float64: float32 leaves directions of noise, in which the basis is not orthogonal.
    """
    n, mesh = examples.n, examples.mesh
    stored = np.asarray(examples.dataset.train.inputs).astype(np.float64)
    inputs = (stored - examples.standardiser.mean) / examples.standardiser.scale
    with jax.enable_x64(True):
        eigenvalues, vectors = agreed(tuple(np.linalg.eigh(inputs @ inputs.T / n)))
    kept = max(1, int(np.sum(eigenvalues > _FLOOR * eigenvalues[-1])))  # one, of equal examples
    eigenvalues, vectors = np.maximum(eigenvalues[-kept:], 0), vectors[:, -kept:]
    lengths = np.sqrt(n * eigenvalues)
    rotation = inputs.T @ (vectors / np.where(lengths > 0, lengths, 1))
    size = shards.multiple(kept, mesh)
    rotated = shards.padded((vectors * lengths).astype(dtype), 1, size)
    placed = shards.put(shards.padded(rotated, 0, examples.n_block), mesh, shards.FIRST)
    filled = shards.padded(eigenvalues, 0, size)
    return Basis(filled, rotation, inputs.shape[1], placed)


def _mean(add, shape: tuple[int, ...], examples: Examples, how: passes.Pass) -> np.ndarray:
    """The mean over examples of what a pass adds up."""
    blocks = examples.blocks(np.full((1, examples.n), 1, how.dtype))

    def add_block(total: Any, block: Block) -> Any:
        return add(total, block, examples.standardiser, how=how)

    return passes.joined(passes.run(blocks, add_block, shape, how)) / examples.n


@partial(jax.jit, static_argnames=("size", "dtype", "mesh"))
def _rotate(inputs, standardiser, rotation, *, size: int, dtype: Any, mesh: Mesh) -> jax.Array:
    """The standardised inputs in the basis, [n, size], some rows at a time."""

    def of_device(inputs, standardiser: Standardiser, rotation):
        n = len(inputs)
        at_once = min(n, _ROWS)

        def put_some(i, rotated):
            start = jnp.minimum(i * at_once, n - at_once)
            some = standardiser(jax.lax.dynamic_slice_in_dim(inputs, start, at_once), dtype)
            if rotation is None:
                some = jnp.pad(some, ((0, 0), (0, size - some.shape[1])))
            else:
                some = some @ rotation.astype(dtype)
            return jax.lax.dynamic_update_slice_in_dim(rotated, some, start, axis=0)

        return jax.lax.fori_loop(0, -(-n // at_once), put_some, jnp.zeros((n, size), dtype))

    specs = (shards.FIRST, shards.WHOLE, shards.WHOLE)
    return shards.on_devices(of_device, mesh, specs, shards.FIRST)(inputs, standardiser, rotation)


def _rotated(examples: Examples, basis: Basis, dtype: Any) -> jax.Array:
    (block,) = examples.blocks(np.zeros((1, examples.n), dtype))
    size = len(basis.eigenvalues)
    turn = None if basis.rotation is None else shards.padded(basis.rotation, 1, size)
    return _rotate(
        block.inputs, examples.standardiser, turn, size=size, dtype=dtype, mesh=examples.mesh
    )
