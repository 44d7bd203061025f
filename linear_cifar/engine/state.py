"""What gradient descent carries on, what fixes its program, and what is measured on the way."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linear_cifar.evaluation import Metrics
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.objective import cost, cost_gradient
from linear_cifar.optimizers import Optimizer, sgd
from linear_cifar.settings import Setting

Gradient: TypeAlias = Callable[[Params, jax.Array, jax.Array, ArrayLike, Loss], Params]


def autodiff(params: Params, inputs, labels, lam, loss: Loss) -> Params:
    """The gradient of `cost` by `jax.grad`, to compare the hand-derived one with."""
    return jax.grad(cost)(params, inputs, labels, lam, loss)


class Training(NamedTuple):
    """How to train: what fixes shapes and programs, the same for all runs that are trained at once.

    It is static, and so is hashed: changing it compiles anew.
    """

    loss: Loss = SOFTMAX_CROSS_ENTROPY  # per example
    n_epochs: Annotated[
        int, Setting("passes over the training examples", low=1, high=2**31 - 1)
    ] = 40
    batch_size: Annotated[int, Setting("examples a step", low=1, high=2**31 - 1)] = 100
    shuffle: Annotated[
        bool, Setting("take the examples in a new order each epoch, not always as stored")
    ] = False
    measure: bool = True  # training and validation data, before training and after each epoch
    optimizer: Optimizer = sgd  # makes an optax transformation of the hyper-parameters
    gradient: Gradient = cost_gradient  # by hand, or `autodiff`
    dtype: Any = jnp.float32  # floating type of parameters and arithmetic


DEFAULTS = Training()


class TrainState(NamedTuple):
    """Where runs stand; every array has a leading axis [C] of runs outside of `epoch`."""

    params: Params
    optimizer_state: optax.OptState  # the number of steps taken among it


class EpochMetrics(NamedTuple):
    """What was measured of C runs after an epoch."""

    train: Metrics  # fields [C]
    validation: Metrics


class History(NamedTuple):
    """What was measured before training and after each epoch: [n_epochs + 1], or [C, …] of C runs.

    The last axis has length 0 where nothing was measured.
    """

    train_loss: jax.Array | np.ndarray
    train_cost: jax.Array | np.ndarray
    train_accuracy: jax.Array | np.ndarray
    validation_loss: jax.Array | np.ndarray
    validation_cost: jax.Array | np.ndarray
    validation_accuracy: jax.Array | np.ndarray


def stack_history(measured: Sequence[EpochMetrics], n_runs: int, dtype: Any) -> History:
    """The `History` of C runs, [C, len(measured)], from what was measured epoch by epoch."""
    if not measured:
        return History(*[jnp.zeros((n_runs, 0), dtype)] * len(History._fields))
    epochs = [History(*metrics.train, *metrics.validation) for metrics in measured]
    # On the host, nothing has to be compiled for it.
    xp = np if isinstance(epochs[0].train_loss, np.ndarray) else jnp
    return jax.tree.map(lambda *values: xp.stack(values, axis=-1), *epochs)
