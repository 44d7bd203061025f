"""Coordinates in which one preconditioner serves every λ.

With the eigendecomposition XᵀX/n = V diag(e) Vᵀ of standardised inputs, the rotated inputs X V have
uncorrelated columns, and the Hessian of the mean loss is about c diag(e) for each class, where c is
the curvature of the loss (D. Böhning, Multinomial logistic regression algorithm, Ann. Inst.
Statist. Math. 44, 1992, who takes its upper bound). Adding 2λ gives a preconditioner that is
diagonal for every λ. The penalty is the same in both coordinates, for V is orthogonal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.data.types import Split, Standardiser

# The side of the largest matrix that is decomposed: its time grows with the cube.
MOST = 8192
# Eigenvalues below this share of the largest one are noise of float32.
_FLOOR = 1e-8


class Basis(NamedTuple):
    """Rotated inputs, and the way back."""

    inputs: jax.Array  # [n, r], X V
    eigenvalues: np.ndarray  # [r], e
    rotation: np.ndarray | None  # V [d, r], float64; None: the coordinates are those of the inputs

    def back(self, weights: np.ndarray) -> np.ndarray:
        """Weights [..., r] in the coordinates of the inputs, [..., d], in float64."""
        weights = np.asarray(weights, np.float64)
        return weights if self.rotation is None else weights @ self.rotation.T

    def forth(self, weights: np.ndarray) -> np.ndarray:
        """Weights [..., d] in the rotated coordinates, [..., r], in float64."""
        weights = np.asarray(weights, np.float64)
        return weights if self.rotation is None else weights @ self.rotation


def find_basis(examples: Split, standardiser: Standardiser, dtype: Any) -> Basis:
    """The basis of some examples.

    Where d ≤ n it comes of XᵀX [d, d]. Where n < d it comes of XXᵀ [n, n], since the optimum's
    weights lie in the span of the examples, and r is at most n. Where both are above `MOST`, the
    inputs stay as they are, and the preconditioner has the mean squares of the features.

    Args:
      examples: inputs [n, d] as they are stored.
      standardiser: of them.
      dtype: floating type of the rotated inputs.
    """
    inputs = standardiser(jnp.asarray(examples.inputs), dtype)
    n, d = inputs.shape
    if min(n, d) > MOST:
        return Basis(inputs, np.asarray(jnp.mean(inputs**2, axis=0), np.float64), None)
    gram = _gram(inputs.T if d <= n else inputs) / n
    eigenvalues, vectors = np.linalg.eigh(np.asarray(gram))
    eigenvalues = eigenvalues.astype(np.float64)
    noise = _FLOOR * eigenvalues[-1]
    if d <= n:  # all are kept: a feature without variance has its weight, which is 0
        rotated = _product(inputs, jnp.asarray(vectors, dtype))
        return Basis(rotated, np.maximum(eigenvalues, noise), vectors.astype(np.float64))
    vectors, eigenvalues = vectors[:, eigenvalues > noise], eigenvalues[eigenvalues > noise]
    lengths = np.sqrt(n * eigenvalues)
    rotation = np.asarray(_product(inputs.T, jnp.asarray(vectors / lengths, dtype)), np.float64)
    return Basis(jnp.asarray(vectors * lengths, dtype), eigenvalues, rotation)


@jax.jit
def _gram(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix.T


_product = jax.jit(jnp.matmul)
