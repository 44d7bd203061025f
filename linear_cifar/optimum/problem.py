"""A problem as descents have it: examples in a basis, the runs' part of it, and a pass over it."""

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.types import Dataset
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum import descent, passes, shards
from linear_cifar.optimum.basis import find_basis
from linear_cifar.optimum.examples import Block, Examples


class Problem:
    """What all chunks share: the training examples of a data set, on devices and in their basis."""

    def __init__(self, dataset: Dataset, loss: Loss, dtype: Any, mesh: Mesh) -> None:
        """Places the examples and finds their basis.

        Args:
          dataset: of the examples.
          loss: of an example.
          dtype: floating type of the descent.
          mesh: devices that share the examples.
        """
        self.examples = Examples(dataset, mesh)
        self.n_classes = dataset.n_classes
        self.how = passes.Pass(loss, mesh, jnp.dtype(dtype))
        self.basis = find_basis(self.examples, loss, dtype)

    @cached_property
    def turn(self) -> jax.Array | None:
        """`Basis.turn` on the devices."""
        turn = self.basis.turn
        return None if turn is None else shards.put(turn, self.how.mesh, shards.SECOND)

    def blocks(self, shares: np.ndarray) -> Iterable[Block]:
        """The examples as the descent takes them, with shares [D, n] of their own."""
        shares = shares.astype(self.how.dtype)
        inputs = self.basis.inputs
        if inputs is None:
            return self.examples.blocks(shares)
        return [Block(inputs, self.examples.labels, self.examples.of_examples(shares))]

    def of_runs(self, lam: np.ndarray, shares: np.ndarray, of_row: np.ndarray) -> descent.OfRuns:
        """What belongs to some λ, [C].

        Args:
          lam: [C], float64.
          shares: what examples count, [D, n].
          of_row: which of these belong to each λ, [C].
        """
        dtype = self.how.dtype
        by_class, bend, free = _at_zero(np.arange(self.n_classes), loss=self.how.loss, dtype=dtype)
        labels = np.asarray(self.examples.dataset.train.labels)
        costs = np.array([np.asarray(by_class, float)[labels] @ of for of in shares])[of_row]
        weights = float(bend) * self.basis.eigenvalues + 2 * lam[:, None, None]
        diagonal = Params(weights, np.full((len(lam), 1), float(bend)))
        runs = descent.OfRuns(lam, of_row.astype(np.int32), diagonal, costs, free)
        runs = jax.tree.map(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, runs)
        return shards.put(runs, self.how.mesh, descent.RUNS)

    def start(self, params: Params | None, n: int) -> Params:
        """Parameters [C, K, d] and [C, K] of n runs in the basis; None for zero."""
        k, dtype = self.n_classes, self.how.dtype
        if params is None:
            zero = np.zeros((n, k, len(self.basis.eigenvalues)), dtype)
            return Params(zero, np.zeros((n, k), dtype))
        weights = self.basis.forth(np.asarray(params.weights)).astype(dtype)
        return Params(weights, np.asarray(params.bias, dtype))

    def back(self, params: Params) -> Params:
        """Parameters in the basis in the inputs' coordinates, float64."""
        weights, bias = params
        return Params(self.basis.back(np.asarray(weights)), np.asarray(bias, np.float64))

    def step(
        self, state: descent.State, runs: descent.OfRuns, blocks: Iterable[Block], goal: np.ndarray
    ) -> descent.State:
        """One pass, and what follows from it."""
        mesh, dtype = self.how.mesh, self.how.dtype
        resident = self.basis.inputs is not None
        columns = len(self.basis.eigenvalues) if resident else self.examples.dataset.n_features
        params = descent.tried(state, self.turn, mesh=mesh, columns=columns)
        standardiser = None if resident else self.examples.standardiser
        sums = passes.sum_over(blocks, params, runs.of_row, standardiser, self.how)
        return descent.advance(state, sums, runs, self.turn, goal.astype(dtype), mesh=mesh)


@partial(jax.jit, static_argnames=("loss", "dtype"))
def _at_zero(classes: jax.Array, *, loss: Loss, dtype: Any) -> tuple[jax.Array, ...]:
    """What is known at equal logits, where all classes are alike.

    The loss by label, [K]; its mean curvature; and 1 if a constant in all logits changes nothing,
    which is where the logit gradient has a sum of 0, else 0.
    """
    equal = jnp.zeros(len(classes), dtype)

    def of_class(k: jax.Array) -> tuple[jax.Array, jax.Array]:
        def along(length):
            return loss.logit_gradient(jnp.where(classes == k, length, equal), classes[0])[k]

        return loss.value(equal, k), jax.grad(along)(jnp.zeros((), dtype))

    by_class, curvatures = jax.lax.map(of_class, classes)
    gradient = loss.logit_gradient(equal, classes[0])
    free = jnp.abs(jnp.sum(gradient)) < 1e-4 * jnp.max(jnp.abs(gradient))
    return by_class, jnp.mean(curvatures), free.astype(dtype)
