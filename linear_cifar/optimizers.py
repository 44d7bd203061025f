"""Hyper-parameters of a run, and the updates that they make: optax transformations.

A new optimiser is a function of `Hyperparameters` here, with a field for each setting of its own,
and its line in `OPTIMIZERS` and `OPTIMIZER_FIELDS`; flags, axes of sweeps and records follow.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linear_cifar.settings import Setting, SettingsError, numbers, settings_of


class Hyperparameters(NamedTuple):
    """What one run is trained with; with a leading axis [C] on a field, C runs."""

    lam: Annotated[ArrayLike, Setting("λ of the penalty λ‖W‖²", low=0)] = 0.0
    learning_rate: Annotated[ArrayLike, Setting("η, the learning rate at the start", above=0)] = (
        0.001
    )
    decay_factor: Annotated[
        ArrayLike, Setting("what η is divided by at each decay; 1 is no decay", low=1)
    ] = 1.0
    decay_every: Annotated[
        ArrayLike, Setting("epochs from one decay to the next", low=1, high=2**31 - 1)
    ] = 10
    momentum: Annotated[
        ArrayLike, Setting("of momentum: the share of past gradients that is kept", low=0, below=1)
    ] = 0.9
    b1: Annotated[ArrayLike, Setting("of adam: decay of the gradient's mean", low=0, below=1)] = 0.9
    b2: Annotated[
        ArrayLike, Setting("of adam: decay of the squared gradient's mean", low=0, below=1)
    ] = 0.999
    eps: Annotated[ArrayLike, Setting("of adam: added to the root of that mean", above=0)] = 1e-8


T = TypeVar("T", bound=NamedTuple)  # a NamedTuple of hyper-parameters
Optimizer: TypeAlias = Callable[[Hyperparameters, int], optax.GradientTransformation]


def check_hyperparameters(hyperparameters: T) -> T:
    """The same with arrays for fields, numpy's where they weren't JAX's; traced ones pass.

    Raises:
      SettingsError: a value is no number or out of its setting's range, or there are no fields.
    """
    if not hasattr(hyperparameters, "_replace"):
        kind = type(hyperparameters).__name__
        raise SettingsError(f"hyper-parameters have to be Hyperparameters, not a {kind}")
    settings, fields = settings_of(type(hyperparameters)), {}
    for name, values in hyperparameters._asdict().items():
        fields[name] = values if isinstance(values, jax.Array) else numbers(name, values)
        if getattr(fields[name].dtype, "kind", "a key's") not in "iuf":
            raise SettingsError(f"{name} is {values.dtype}: it has to be real numbers")
        if name in settings and not isinstance(values, jax.core.Tracer):
            for value in np.unique(np.asarray(values)):
                settings[name].check(name, value)
    return hyperparameters._replace(**fields)


def cast(hyperparameters: T, dtype: Any) -> T:
    """Checked ones with their floating fields in the dtype of the training; traced ones pass.

    Raises:
      SettingsError: a value is out of its setting's range in this dtype, as 1e39 and the momentum
        0.999999999 are in float32.
    """
    settings, fields = settings_of(type(hyperparameters)), {}
    for name, given in hyperparameters._asdict().items():
        traced = isinstance(given, jax.core.Tracer)
        values = given if traced else np.asarray(given)  # on which nothing has to be compiled
        is_float = jnp.issubdtype(values.dtype, jnp.floating)
        with np.errstate(over="ignore"):
            fields[name] = values.astype(dtype) if is_float else values
        if is_float and not traced and name in settings:
            _check_cast(name, settings[name], values, fields[name])
    return hyperparameters._replace(**fields)


def _check_cast(name: str, setting: Setting, values: np.ndarray, found: np.ndarray) -> None:
    _, places = np.unique(found, return_index=True)
    for value, in_dtype in zip(values.flat[places], found.flat[places], strict=True):
        if not setting.admits(in_dtype):
            raise SettingsError(
                f"{name} is {value}, which is {in_dtype} in {found.dtype}: it has to be "
                f"{setting.range or 'finite'}"
            )


def step_decay(hyperparameters: Hyperparameters, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate divided by `decay_factor` every `decay_every` epochs.

    η(t) = η / decay_factor^⌊⌊t / steps_per_epoch⌋ / decay_every⌋, with t the steps taken so far.

    Args:
      hyperparameters: of one run.
      steps_per_epoch: mini-batches an epoch.

    Returns:
      An optax schedule: t -> η(t).
    """
    factor = 1.0 * hyperparameters.decay_factor  # powers of an integer would overflow
    # Two divisions, for the product of both divisors can exceed an int32.
    return lambda count: (
        hyperparameters.learning_rate
        / factor ** (count // steps_per_epoch // hyperparameters.decay_every)
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
# The hyper-parameters that one of them reads and not all do.
OPTIMIZER_FIELDS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "adam": ("b1", "b2", "eps"),
}
