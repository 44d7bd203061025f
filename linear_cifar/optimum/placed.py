"""A data set as descents use it: rotated, and on devices; and the way to the certificate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.engine.devices import fetch
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import descent, shards, weighted
from linear_cifar.optimum.basis import Basis, find_basis
from linear_cifar.optimum.certificate import Certified, certify

_curvature = jax.jit(weighted.curvature, static_argnames="loss")


class Placed(NamedTuple):
    """What all chunks share: a data set in its `Basis`, on devices."""

    examples: Split  # as they are stored, split over the devices and filled up
    standardiser: Standardiser
    basis: Basis
    n_classes: int
    loss: Loss
    dtype: Any
    mesh: Mesh

    def of_runs(self, lam: np.ndarray, shares: np.ndarray) -> descent.OfRuns:
        """What belongs to some λ, with the preconditioner at zero parameters."""
        n = shares.shape[1]
        scores = jnp.zeros((1, self.n_classes, n), self.dtype)
        labels = np.asarray(self.examples.labels)[:n]

        def bend_of(share):
            return _curvature(scores, labels, share[None], loss=self.loss)

        bend = np.asarray(jax.lax.map(bend_of, jnp.asarray(shares.astype(self.dtype))))
        lam = lam.astype(self.dtype)
        eigenvalues = self.basis.eigenvalues.astype(self.dtype)
        diagonal = Params(bend[..., None] * eigenvalues + 2 * lam[:, None, None], bend)
        every = jnp.arange(self.n_classes)
        by_class = self.loss.value(jnp.zeros((len(every), len(every)), self.dtype), every)
        at_zero = shares.astype(self.dtype) @ np.asarray(by_class)[labels]
        filled = shards.padded(shares.astype(self.dtype), 1, len(self.examples.labels))
        runs = (lam, filled, diagonal, at_zero)
        return descent.OfRuns(*shards.put(runs, self.mesh, tuple(descent.RUNS)))

    def problem(self, runs: descent.OfRuns) -> descent.Problem:
        """The problem of some runs."""
        return descent.Problem(self.basis.inputs, jnp.asarray(self.examples.labels), runs)

    def zero(self, n: int) -> Params:
        """Zero parameters of n runs."""
        k = self.n_classes
        return Params(np.zeros((n, k, self.basis.n_features)), np.zeros((n, k)))

    def start(self, params: Params) -> Params:
        """Parameters [C, K, d] and [C, K] in the basis, on the devices."""
        weights = self.basis.forth(np.asarray(params.weights)).astype(self.dtype)
        turned = Params(weights, np.asarray(params.bias, self.dtype))
        return shards.put(turned, self.mesh, shards.PARAMS)

    def certified(self, params: Params, shares: np.ndarray, lam: np.ndarray) -> Certified:
        """The certificate of parameters in the basis, with the best bias for their weights."""
        weights, bias = params
        turned = Params(self.basis.back(np.asarray(weights)), np.asarray(bias, np.float64))
        filled = shards.padded(shares, 1, len(self.examples.labels))
        with jax.enable_x64(True):
            found = certify(
                shards.put(turned, self.mesh, shards.WHOLE),
                self.examples,
                self.standardiser,
                shards.put(filled, self.mesh, shards.SHARES),
                lam,
                loss=self.loss,
                mesh=self.mesh,
                refit_bias=True,
            )
            return fetch(found)


def place(dataset: Dataset, loss: Loss, dtype: Any, mesh: Mesh) -> Placed:
    """Places the training examples and finds their basis."""
    n = len(dataset.train.labels)
    size = shards.n_padded(n, mesh.size)
    filled = (shards.padded(np.asarray(array), 0, size) for array in dataset.train)
    with jax.enable_x64(True):  # as they are stored, in float64 too
        examples = Split(*shards.put(tuple(filled), mesh, shards.EXAMPLES))
    standardiser = Standardiser(*map(np.asarray, dataset.standardiser))
    basis = find_basis(examples, n, standardiser, dtype, mesh)
    return Placed(examples, standardiser, basis, dataset.n_classes, loss, dtype, mesh)
