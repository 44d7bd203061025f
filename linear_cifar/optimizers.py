"""Hyper-parameters of a run, and the updates that they make: optax transformations."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import optax
from jax.typing import ArrayLike


class Hyperparameters(NamedTuple):
    """What one run is trained with; with a leading axis [C] on every field, C runs."""

    lam: ArrayLike  # [], λ of the penalty λ‖W‖²
    learning_rate: ArrayLike  # [], η in the first epoch
    decay_factor: ArrayLike = 1.0  # [], what η is divided by at each decay; 1: constant
    decay_every: ArrayLike = 10  # [], epochs from one decay to the next
    momentum: ArrayLike = 0.9  # [], of `momentum`: what is kept of past gradients, below 1
    b1: ArrayLike = 0.9  # [], of `adam`: decay of the gradient's mean
    b2: ArrayLike = 0.999  # [], of `adam`: decay of the squared gradient's mean
    eps: ArrayLike = 1e-8  # [], of `adam`: added to the root of that mean


Optimizer: TypeAlias = Callable[[Hyperparameters, int], optax.GradientTransformation]


def step_decay(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate divided by `decay_factor` every `decay_every` epochs.

    η(t) = η / decay_factor^⌊t / (decay_every · steps_per_epoch)⌋, with t the steps taken so far.

    Args:
      hyperparameters: of one run.
      steps_per_epoch: mini-batches an epoch.

    Returns:
      An optax schedule: t -> η(t).
    """
    steps = hyperparameters.decay_every * steps_per_epoch
    return lambda count: (
        hyperparameters.learning_rate / hyperparameters.decay_factor ** (count // steps)
    )


def sgd(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.GradientTransformation:
    """Plain gradient descent with `step_decay`, W ← W − η(t) ∂J/∂W.

    Any function of this form is an `optimizer` for `train`: it builds an optax transformation from
    traced hyper-parameters, of `Hyperparameters` or of a NamedTuple of one's own with a `lam`.
    """
    return optax.sgd(step_decay(hyperparameters, steps_per_epoch))


def momentum(
    hyperparameters: Hyperparameters, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Gradient descent with heavy-ball momentum and `step_decay`.

    m ← μ m + ∂J/∂W, W ← W − η(t) m, with μ the hyper-parameter `momentum`.
    """
    return optax.sgd(step_decay(hyperparameters, steps_per_epoch), hyperparameters.momentum)


def adam(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam with `step_decay`; its gradient includes the penalty's, 2λW (it is not AdamW).

    References:
      D. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.
    """
    schedule = step_decay(hyperparameters, steps_per_epoch)
    return optax.adam(schedule, hyperparameters.b1, hyperparameters.b2, hyperparameters.eps)


OPTIMIZERS: dict[str, Optimizer] = {"sgd": sgd, "momentum": momentum, "adam": adam}
