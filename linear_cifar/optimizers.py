"""Hyper-parameters of a run, and the optax transformations that turn gradients into updates.

A new optimiser is a function of `Hyperparameters` in this file, a field and a `Setting` for each
number of its own, and its line in `OPTIMIZERS` and `OPTIMIZER_FIELDS`. Flags, axes of sweeps and
records pick it up from here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linear_cifar.checks import Setting, check_choice
from linear_cifar.errors import InputError

LAM = Setting("λ of the penalty λ‖W‖²", low=0)
SETTINGS: dict[str, Setting] = {
    "lam": LAM,
    "learning_rate": Setting("learning rate η at the start", above=0),
    "decay_factor": Setting("divisor of the learning rate at each decay; 1 means no decay", low=1),
    "decay_every": Setting("epochs between decays", low=1, high=2**31 - 1, integer=True),
    "momentum": Setting("share of past gradients that momentum keeps", low=0, below=1),
    "b1": Setting("adam's decay of the mean gradient", low=0, below=1),
    "b2": Setting("adam's decay of the mean squared gradient", low=0, below=1),
    "eps": Setting("number that adam adds to the root of the mean squared gradient", above=0),
}


class Hyperparameters(NamedTuple):
    """The traced numbers of one run. In a sweep, fields have a leading axis [C]."""

    lam: ArrayLike = 0.0  # λ of the penalty λ‖W‖²
    learning_rate: ArrayLike = 0.001  # η at the start
    decay_factor: ArrayLike = 1.0  # η is divided by this
    decay_every: ArrayLike = 10  # after so many epochs
    momentum: ArrayLike = 0.9  # for `momentum`
    b1: ArrayLike = 0.9  # these three for `adam`
    b2: ArrayLike = 0.999
    eps: ArrayLike = 1e-8


T = TypeVar("T", bound=NamedTuple)  # `Hyperparameters`, or a user's own NamedTuple with a `lam`
Optimizer: TypeAlias = Callable[[Hyperparameters, int], optax.GradientTransformation]


def checked_hyperparameters(hyperparameters: T, dtype: Any) -> T:
    """The hyper-parameters in the dtype of the training, checked unless they are traced."""
    if not hasattr(hyperparameters, "_asdict"):
        raise InputError(f"hyperparameters is {hyperparameters!r}: give Hyperparameters(lam=…)")
    checked = {}
    for name, values in hyperparameters._asdict().items():
        array: Any = values if isinstance(values, jax.core.Tracer) else np.asarray(values)
        if jnp.issubdtype(array.dtype, jnp.floating):
            with np.errstate(over="ignore"):  # the check reports infinity
                array = array.astype(dtype)
        SETTINGS.get(name, Setting("")).check(name, array)
        checked[name] = array
    return hyperparameters._replace(**checked)


def as_optimizer(optimizer: Any) -> Optimizer:
    """An optimiser, or the one of `OPTIMIZERS` with this name; `InputError` if it is neither."""
    if callable(optimizer):
        return optimizer
    check_choice("optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer]


def step_decay(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate, divided by `decay_factor` every `decay_every` epochs.

    η(t) = η / decay_factor^⌊⌊t / steps_per_epoch⌋ / decay_every⌋, with t the steps taken so far.
    """
    factor = 1.0 * hyperparameters.decay_factor  # powers of an integer would overflow
    # Two divisions, because the product of the divisors can exceed an int32.
    every, rate = hyperparameters.decay_every, hyperparameters.learning_rate
    return lambda count: rate / factor ** (count // steps_per_epoch // every)


def sgd(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.GradientTransformation:
    """Plain gradient descent with `step_decay`: W ← W − η(t) ∂J/∂W.

    Any function with this signature can be an optimiser for `train`: it builds an optax
    transformation from traced hyper-parameters, which may be a NamedTuple of your own with a `lam`.
    """
    return optax.sgd(step_decay(hyperparameters, steps_per_epoch))


def momentum(
    hyperparameters: Hyperparameters, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Heavy-ball momentum with `step_decay`: m ← μ m + ∂J/∂W, W ← W − η(t) m, μ the `momentum`."""
    return optax.sgd(step_decay(hyperparameters, steps_per_epoch), hyperparameters.momentum)


def adam(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam with `step_decay`. Its gradient includes the penalty's, 2λW, so it isn't AdamW.

    References:
      D. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.
    """
    schedule = step_decay(hyperparameters, steps_per_epoch)
    return optax.adam(schedule, hyperparameters.b1, hyperparameters.b2, hyperparameters.eps)


OPTIMIZERS: dict[str, Optimizer] = {"sgd": sgd, "momentum": momentum, "adam": adam}
# The hyper-parameters that not every optimiser reads.
OPTIMIZER_FIELDS = {"sgd": (), "momentum": ("momentum",), "adam": ("b1", "b2", "eps")}
