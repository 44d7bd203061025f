"""Cost and gradient over a whole data set, of many runs at once: what a solver stands on."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.engine.devices import Data, layout
from linear_cifar.engine.epoch import take_batch
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.objective import cost, cost_gradient, penalty, penalty_gradient
from linear_cifar.optimizers import Hyperparameters, check_hyperparameters
from linear_cifar.settings import SettingsError

# Examples at a time: enough for large matrix products, and 12 MB of standardised images.
_BATCH = 1000


@dataclass(frozen=True)
class FullBatch:
    """J and its gradient over all training examples, for C runs; `full_batch` makes one.

    Call it with parameters [C, K, d] and [C, K], which fix the dtype, and λ [C]: it returns the
    costs [C] and the gradients, `Params` [C, K, d] and [C, K]. New values compile nothing. The
    formulas are those of `objective`.
    """

    data: Data
    loss: Loss

    def __call__(self, params: Params, lam: ArrayLike) -> tuple[jax.Array, Params]:
        """Costs and gradients at some parameters.

        Raises:
          SettingsError: arrays of other shapes, or λ out of its range.
        """
        check_hyperparameters(Hyperparameters(lam=lam))
        lam = np.asarray(lam, params.bias.dtype)
        k, d = self.data.dataset.n_classes, self.data.dataset.n_features
        shapes = (*map(np.shape, params), lam.shape)
        if shapes != ((*lam.shape[:1], k, d), (*lam.shape[:1], k), lam.shape[:1]):
            raise SettingsError(
                f"weights have to be [C, {k}, {d}], biases [C, {k}] and λ [C], not "
                f"{', '.join(str(list(shape)) for shape in shapes)}"
            )
        placed, lam = self.data.where.runs((params, lam))
        examples, standardiser = self.data.train, self.data.standardiser
        return _cost_and_gradient(placed, lam, examples, standardiser, loss=self.loss)


def full_batch(
    dataset: Dataset, n_runs: int, *, loss: Loss = SOFTMAX_CROSS_ENTROPY, mesh: Mesh | None = None
) -> FullBatch:
    """The function of C runs that gives cost and gradient over the training examples of a data set.

    Args:
      dataset: whose training examples count.
      n_runs: C.
      loss: the loss per example.
      mesh: devices that share the runs, whose number has to be a multiple of theirs, or a single
        run's features; None for the default device.

    Raises:
      SettingsError: runs that can't be split evenly over the mesh.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0])))
      >>> objective = full_batch(data, n_runs=3)
      >>> costs, gradients = objective(
      ...     Params(jnp.zeros((3, 2, 4)), jnp.zeros((3, 2))), [0.0, 0.1, 1.0]
      ... )
      >>> costs.shape, gradients.weights.shape
      ((3,), (3, 2, 4))
    """
    return FullBatch(Data(dataset, layout(mesh, n_runs, dataset.n_features)), loss)


@partial(jax.jit, static_argnames="loss")
def _cost_and_gradient(
    params: Params, lam: jax.Array, examples: Split, standardiser: Standardiser, *, loss: Loss
) -> tuple[jax.Array, Params]:
    n = len(examples.labels)
    size = min(_BATCH, n)

    def share(start: jax.Array | int, size: int) -> tuple[jax.Array, Params]:
        """What some examples add to the means of the loss and of its gradient."""
        inputs, labels = take_batch(examples, standardiser, start, size, params.bias.dtype)

        def one(params):
            terms = (f(params, inputs, labels, 0.0, loss) for f in (cost, cost_gradient))
            return jax.tree.map(lambda term: size / n * term, tuple(terms))

        return jax.vmap(one)(params)

    n_full, n_left = divmod(n, size)
    total = (
        share(n - n_left, n_left)
        if n_left
        else jax.tree.map(jnp.zeros_like, (params.bias[:, 0], params))
    )
    total, _ = jax.lax.scan(
        lambda total, start: (jax.tree.map(jnp.add, total, share(start, size)), None),
        total,
        size * jnp.arange(n_full),
    )
    mean_loss, gradient = total
    costs = mean_loss + jax.vmap(penalty)(params, lam)
    weights = gradient.weights + jax.vmap(penalty_gradient)(params.weights, lam)
    return costs, gradient._replace(weights=weights)
