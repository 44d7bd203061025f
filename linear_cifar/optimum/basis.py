"""Coordinates in which a diagonal preconditioner serves every λ.

With the eigendecomposition XᵀX/n = V diag(e) Vᵀ of standardised inputs, the rotated inputs X V
have uncorrelated columns. The mean curvature of the loss in the logits, a K × K matrix, depends on
the parameters; let U diag(β) Uᵀ be its eigendecomposition. In the coordinates U ⊗ V the Hessian of
the cost is then about diagonal, with entries βₖ eⱼ + 2λ (D. Böhning, Multinomial logistic
regression algorithm, Ann. Inst. Statist. Math. 44, 1992, has an upper bound of this form). The
penalty is the same in both coordinates, because U and V are orthogonal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from linear_cifar.data.blocks import in_memory
from linear_cifar.data.dataset import Standardiser
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum.data_pass import Examples, product, sum_over

MAX_SIDE = 8192  # of a matrix that is decomposed; the time grows with its cube
_FLOOR = 1e-8  # share of the largest eigenvalue below which float32 leaves only noise


class Basis(NamedTuple):
    """r coordinates, and the way back to the d of the inputs."""

    eigenvalues: np.ndarray  # [r], e, float64
    rotation: np.ndarray | None  # V [d, r]; None: the coordinates are the inputs' own

    def back(self, params: Params) -> Params:
        """Parameters [..., r] in the coordinates of the inputs, [..., d], in float64."""
        weights, bias = (np.asarray(array, np.float64) for array in params)
        return Params(weights if self.rotation is None else weights @ self.rotation.T, bias)

    def forth(self, weights: np.ndarray) -> np.ndarray:
        """Weights [..., d] in the rotated coordinates, [..., r], in float64."""
        weights = np.asarray(weights, np.float64)
        return weights if self.rotation is None else weights @ self.rotation


def find_basis(examples: Examples, standardiser: Standardiser, loss: Loss, dtype: Any) -> Basis:
    """The basis of the training examples, with equal weights.

    It comes from XXᵀ [n, n] if n < d and the inputs are in memory, because the weights then lie in
    the span of the examples; else from XᵀX [d, d]. If that is larger than `MAX_SIDE`, the inputs
    aren't rotated, and the preconditioner uses the mean squares of the features.
    """
    n, d = examples.split.inputs.shape
    if n < min(d, MAX_SIDE + 1) and in_memory(examples.split.inputs):
        return _basis_of_span(examples, standardiser)
    labels, weights = np.zeros((1, n), np.int8), np.full((1, n), 1 / n)
    chunks = examples.labelled(labels, weights, dtype)
    term = _gram if d <= MAX_SIDE else _mean_squares
    settings: dict[str, Any] = {"loss": loss, "mesh": examples.mesh, "dtype": dtype}
    sums = np.asarray(sum_over(chunks, term, (), standardiser=standardiser, **settings))
    if d > MAX_SIDE:
        return Basis(sums.astype(np.float64), None)
    eigenvalues, rotation = _eigh(sums)
    # All are kept: a feature without variance has its weight, which is 0.
    floor = _FLOOR * float(eigenvalues[-1])
    return Basis(np.maximum(eigenvalues, floor).astype(np.float64), rotation)


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors, the first process's, because processes may round differently."""
    with jax.enable_x64(True):  # or a float64 matrix would be rounded
        if jax.default_backend() == "cpu":
            from scipy import linalg  # whose `eigh` takes half as long as JAX's

            return broadcast_one_to_all(linalg.eigh(matrix, driver="evd"))
        return broadcast_one_to_all(jax.device_get(tuple(jnp.linalg.eigh(matrix))))


def mean_curvature(loss: Loss, probabilities: np.ndarray) -> np.ndarray:
    """The mean Hessian of the loss in the logits, [..., K, K], from probabilities P [..., n, K].

    It is mean diag(p) − ppᵀ for exclusive classes, and mean diag(p (1 − p))/K for independent ones.
    """
    p, (n, k) = probabilities, probabilities.shape[-2:]
    diagonal = p if loss.exclusive else p * (1 - p) / k
    curvature = diagonal.mean(axis=-2)[..., None] * np.eye(k, dtype=p.dtype)
    return curvature - np.swapaxes(p, -1, -2) @ p / n if loss.exclusive else curvature


def _gram(_, inputs: jax.Array, __, weights: jax.Array, ___) -> jax.Array:
    return product("md,me->de", inputs * weights[0][:, None], inputs)


def _mean_squares(_, inputs: jax.Array, __, weights: jax.Array, ___) -> jax.Array:
    return weights[0] @ inputs**2


def _basis_of_span(examples: Examples, standardiser: Standardiser) -> Basis:
    """The basis of fewer examples than features.

    In float64, because float32 leaves directions of noise in which the basis isn't orthogonal.
    """
    with jax.enable_x64(True):
        inputs = np.asarray(standardiser(np.asarray(examples.split.inputs), np.float64))
    eigenvalues, vectors = _eigh(inputs @ inputs.T / len(inputs))
    n_kept = max(1, int(np.sum(eigenvalues > _FLOOR * eigenvalues[-1])))  # 1 if all are equal
    eigenvalues, vectors = np.maximum(eigenvalues[-n_kept:], 0), vectors[:, -n_kept:]
    lengths = np.sqrt(len(inputs) * eigenvalues)
    return Basis(eigenvalues, inputs.T @ (vectors / np.where(lengths > 0, lengths, 1)))
