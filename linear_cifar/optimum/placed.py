"""A data set as descents use it: rotated, and on devices; and the way to the certificate."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.data.types import Dataset
from linear_cifar.engine.devices import Layout
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import descent, weighted
from linear_cifar.optimum.basis import Basis, find_basis
from linear_cifar.optimum.certificate import Certified, certify

_curvature = jax.jit(weighted.curvature, static_argnames="loss")


@dataclass(frozen=True)
class Placed:
    """What all chunks share: a data set in its `Basis`, on devices."""

    dataset: Dataset
    loss: Loss
    dtype: Any
    where: Layout

    @cached_property
    def basis(self) -> Basis:
        """Of the training examples."""
        return find_basis(self.dataset.train, self.dataset.standardiser, self.dtype)

    @cached_property
    def inputs(self) -> jax.Array:
        """The rotated inputs, on the devices."""
        return self.where.whole(self.basis.inputs)

    @cached_property
    def labels(self) -> jax.Array:
        """The training labels, on the devices."""
        return self.where.whole(jnp.asarray(self.dataset.train.labels))

    def of_chunk(self, lam: Any, shares: Any) -> descent.Problem:
        """The problem of some λ, with the preconditioner at zero parameters."""
        lam, shares = self.where.runs((lam.astype(self.dtype), shares.astype(self.dtype)))
        scores = jnp.zeros((len(lam), self.dataset.n_classes, len(self.labels)), self.dtype)
        bend = _curvature(self.where.runs(scores), self.labels, shares, loss=self.loss)
        eigenvalues = jnp.asarray(self.basis.eigenvalues, self.dtype)
        diagonal = Params(
            bend[:, None, None] * eigenvalues[None, None] + 2 * lam[:, None, None], bend[:, None]
        )
        return descent.Problem(self.inputs, self.labels, shares, lam, diagonal)

    def start(self, n: int) -> Params:
        """Zero parameters of n runs, on the devices."""
        k, r = self.dataset.n_classes, self.basis.inputs.shape[1]
        zero = Params(jnp.zeros((n, k, r), self.dtype), jnp.zeros((n, k), self.dtype))
        return self.where.runs(zero)

    def rotated(self, params: Params) -> Params:
        """Parameters in the basis, on the devices."""
        weights = self.basis.forth(np.asarray(params.weights)).astype(self.dtype)
        turned: Any = (weights, np.asarray(params.bias, self.dtype))
        return self.where.runs(Params(*turned))

    def certified(self, params: Params, shares: Any, lam: Any) -> Certified:
        """The certificate of parameters in the basis, with the best bias for their weights."""
        weights, bias = jax.device_get(params)
        turned: Any = (self.basis.back(weights), bias.astype(np.float64))
        with jax.enable_x64(True):
            params, shares, lam = self.where.runs((Params(*turned), shares, lam))
            data = (self.dataset.train, self.dataset.standardiser)
            examples, standardiser = self.where.whole(data)
            found = certify(
                params, examples, standardiser, shares, lam, loss=self.loss, refit_bias=True
            )
            return jax.device_get(found)
