"""Training by mini-batch gradient descent: `train`, and its loop `epochs`, an epoch at a time.

Here keys, hyper-parameters and settings are checked and brought to their axis [C]; only the end of
`train` knows of a single run.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.data.types import Dataset, check_dataset
from linear_cifar.engine.devices import Data, check_mesh, layout
from linear_cifar.engine.loop import Runs, run_epochs
from linear_cifar.engine.state import (
    DEFAULTS,
    EpochMetrics,
    Gradient,
    History,
    Training,
    TrainState,
    stack_history,
)
from linear_cifar.losses import Loss, check_loss
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters, Optimizer, cast, check_hyperparameters
from linear_cifar.settings import SettingsError, settings_of


def train(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    *,
    loss: Loss = DEFAULTS.loss,
    n_epochs: int = DEFAULTS.n_epochs,
    batch_size: int = DEFAULTS.batch_size,
    shuffle: bool = DEFAULTS.shuffle,
    measure: bool = DEFAULTS.measure,
    optimizer: Optimizer = DEFAULTS.optimizer,
    gradient: Gradient = DEFAULTS.gradient,
    dtype: Any = DEFAULTS.dtype,
    mesh: Mesh | None = None,
) -> tuple[Params, History]:
    """Trains one run, or many at once.

    Member i of many equals the same run trained alone, to float rounding.

    Args:
      key: PRNG key of the initial parameters and of the order; or keys [C], one a run, where
        nothing is shuffled.
      hyperparameters: scalars for one run; where some are arrays [C], C runs.
      dataset: what to train on; its validation examples are only measured.
      loss: the loss per example.
      n_epochs: passes over the training examples, at least 1.
      batch_size: examples a step, from 1 to n; the last batch of an epoch has what is left.
      shuffle: draw a permutation of the examples each epoch, one for all runs (a permutation of
        its own for each would copy the data once a run); else they are taken in order.
      measure: measure training and validation examples before training and after each epoch, which
        takes about as long as training.
      optimizer: makes an optax transformation of the hyper-parameters.
      gradient: `cost_gradient`, by hand, or `autodiff`.
      dtype: floating type of parameters and arithmetic.
      mesh: devices that share the work, as from `engine.devices.device_mesh`: each has its part of
        many runs, whose number has to be a multiple of the devices', or of a single run's features;
        None for the default device.

    Returns:
      The trained parameters, and the `History` with fields [n_epochs + 1] (of length 0 with
      `measure=False`); both with a leading axis [C] for many runs.

    Raises:
      SettingsError: a setting out of its range, `shuffle` with several keys, or runs that can't be
        split evenly over the mesh.

    Examples:
      Four values of λ at once:

      >>> from linear_cifar.data import load_dataset
      >>> four = Hyperparameters(lam=jnp.array([0, 0.01, 0.1, 1]), learning_rate=0.001)
      >>> params, history = train(jax.random.key(0), four, load_dataset("synthetic"), n_epochs=2)
      >>> params.weights.shape, history.validation_accuracy.shape
      ((4, 10, 3072), (4, 3))
    """
    how = Training(loss, n_epochs, batch_size, shuffle, measure, optimizer, gradient, dtype)
    measured = []
    for step in epochs(key, hyperparameters, dataset, how, mesh):
        state, metrics = step
        if metrics is not None:
            measured.append(metrics)
    params = state.params
    history = stack_history(measured, len(params.bias), params.bias.dtype)
    if _shape(as_key(key), check_hyperparameters(hyperparameters)):
        return params, history
    return jax.tree.map(lambda array: array[0], (params, history))


def epochs(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    how: Training = DEFAULTS,
    mesh: Mesh | None = None,
) -> Iterator[tuple[TrainState, EpochMetrics | None]]:
    """Trains an epoch at a time: the loop of `train`, for progress, checkpoints and interrupts.

    Args:
      key: as for `train`.
      hyperparameters: as for `train`.
      dataset: as for `train`.
      how: what `train` takes as keywords.
      mesh: as for `train`.

    Yields:
      The state and what was measured (None unless `how.measure`), both [C], with C = 1 for a single
      run: before training and then after each epoch, n_epochs + 1 times.

    Raises:
      SettingsError: as for `train`.
    """
    key = as_key(key)
    check_dataset(dataset)
    check_mesh(mesh)
    check_training(how, len(dataset.train.labels))
    hyperparameters = cast(check_hyperparameters(hyperparameters), how.dtype)
    if how.shuffle and key.ndim:
        raise SettingsError("shuffle takes one key: runs that share data share their order")
    (n_runs,) = _shape(key, hyperparameters) or (1,)
    key_data = _concrete(jax.random.key_data(key))
    keys = _broadcast(key_data, (n_runs, *key_data.shape[key.ndim :]))
    fields = jax.tree.map(lambda f: _broadcast(f, (n_runs,)), hyperparameters)
    runs = Runs(keys, keys[0] if key.ndim else key_data, str(jax.random.key_impl(key)), fields)
    where = layout(mesh, n_runs, dataset.n_features)
    return run_epochs(runs.placed(where), Data(dataset, where), how)


def check_training(how: Training, n: int) -> None:
    """Raises `SettingsError` where a static setting is out of its range, for n examples."""
    settings = settings_of(Training)
    settings["batch_size"] = settings["batch_size"]._replace(high=n)
    for name in ("n_epochs", "batch_size"):
        settings[name].check_integer(name, getattr(how, name))
    check_loss(how.loss)
    if not callable(how.optimizer):
        raise SettingsError(
            f"optimizer is {how.optimizer!r}: it has to be a function, as those in OPTIMIZERS"
        )


def as_key(key: jax.Array) -> jax.Array:
    """A typed PRNG key, or keys [C], of an old-style one too."""
    if not hasattr(key, "dtype"):
        raise SettingsError(f"key is {key!r}: it has to be a PRNG key, as jax.random.key(0)")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    try:
        return jax.random.wrap_key_data(key)
    except TypeError as error:
        raise SettingsError(
            f"key is {key!r}: it has to be a PRNG key, as jax.random.key(0)"
        ) from error


def _shape(key: jax.Array, hyperparameters: Hyperparameters) -> tuple[int, ...]:
    """(C,), or () for a single run."""
    try:
        shape = jnp.broadcast_shapes(key.shape, *map(jnp.shape, hyperparameters))
    except ValueError:
        shape = None
    if shape is None or len(shape) > 1 or shape == (0,):
        shapes = sorted({key.shape, *map(jnp.shape, hyperparameters)} - {()})
        raise SettingsError(
            f"keys and hyper-parameters have to be scalars or [C], C ≥ 1, not {shapes}"
        )
    return shape


def _concrete(value: Any) -> Any:
    """A numpy array, on which nothing has to be compiled; a traced value as it is."""
    return value if isinstance(value, jax.core.Tracer) else np.asarray(value)


def _broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    return (np if isinstance(value, np.ndarray) else jnp).broadcast_to(value, shape)
