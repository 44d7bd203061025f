"""Training by mini-batch gradient descent: `epochs`, an epoch at a time, and `train`.

What varies between runs is a traced array in `Hyperparameters`, so that no value of it compiles
anything again and many runs are trained at once; what fixes shapes is keyword-only and static.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar import devices
from linear_cifar.datasets import Dataset, Split, Standardiser
from linear_cifar.epoch import (
    Gradient,
    InnerProducts,
    TrainState,
    batches_per_block,
    inner_products,
    run_epoch,
)
from linear_cifar.evaluation import evaluate_runs
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, init_params
from linear_cifar.objective import cost, cost_gradient
from linear_cifar.optimizers import Hyperparameters, Optimizer, sgd


class SettingsError(ValueError):
    """A training setting out of its range; one line says which, and what the range is."""


class History(NamedTuple):
    """What was measured before training and after each epoch, each field [n_epochs + 1]."""

    train_loss: jax.Array | np.ndarray
    train_cost: jax.Array | np.ndarray
    train_accuracy: jax.Array | np.ndarray
    validation_loss: jax.Array | np.ndarray
    validation_cost: jax.Array | np.ndarray
    validation_accuracy: jax.Array | np.ndarray


def autodiff(params: Params, inputs, labels, lam, loss: Loss) -> Params:
    """The gradient of `cost` by `jax.grad`, to compare the hand-derived one with."""
    return jax.grad(cost)(params, inputs, labels, lam, loss)


def train(
    key: jax.Array, hyperparameters: Hyperparameters, dataset: Dataset, **settings
) -> tuple[Params, History]:
    """Trains one run, or many at once.

    Member i of many equals the same run trained alone, to float rounding.

    Args:
      key: PRNG key of the initial parameters and of the order; or keys [C], one a run.
      hyperparameters: scalars for one run; where some are arrays [C], C runs.
      dataset: what to train on; its validation examples are only measured.
      **settings: as for `epochs`.

    Returns:
      The trained parameters, and the `History` with fields [n_epochs + 1] (of length 0 with
      `measure=False`); both with a leading axis [C] for many runs.

    Examples:
      Four values of λ at once:

      >>> from linear_cifar.datasets import load_dataset
      >>> four = Hyperparameters(lam=jnp.array([0, 0.01, 0.1, 1]), learning_rate=0.001)
      >>> params, history = train(jax.random.key(0), four, load_dataset("synthetic"), n_epochs=2)
      >>> params.weights.shape, history.validation_accuracy.shape
      ((4, 10, 3072), (4, 3))
    """
    measured = []
    for step in epochs(key, hyperparameters, dataset, **settings):
        state, metrics = step
        if metrics is not None:
            measured.append(metrics)
    return state.params, stack_history(measured)


def stack_history(measured: list[History]) -> History:
    """One `History` with a trailing epoch axis, from what `epochs` gave; of length 0 for none."""
    if not measured:
        return History(*(jnp.zeros(0) for _ in History._fields))
    return jax.tree.map(lambda *values: jnp.stack(values, axis=-1), *measured)


def epochs(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    *,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
    n_epochs: int = 40,
    batch_size: int = 100,
    shuffle: bool = False,
    measure: bool = True,
    optimizer: Optimizer = sgd,
    gradient: Gradient = cost_gradient,
    dtype=jnp.float32,
    mesh: Mesh | None = None,
) -> Iterator[tuple[TrainState, History | None]]:
    """Trains an epoch at a time: the loop of `train`, for progress, checkpoints and interrupts.

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
      mesh: devices that share the work, as from `devices.device_mesh`: each has its part of many
        runs, whose number has to be a multiple of the devices', or of a single run's features;
        None for the default device.

    Yields:
      The state and what was measured (scalars, or [C] for C runs; None unless `measure`), before
      training and then after each epoch: n_epochs + 1 times.

    Raises:
      SettingsError: a setting out of its range, `shuffle` with several keys, or runs that can't be
        split evenly over the mesh.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    shape = jnp.broadcast_shapes(key.shape, *map(jnp.shape, hyperparameters))
    n_runs, many = math.prod(shape), bool(shape)
    _check(
        len(dataset.train.labels),
        n_runs if many else None,
        key,
        n_epochs,
        batch_size,
        shuffle,
        mesh,
    )

    hyperparameters = jax.tree.map(partial(_broadcast, shape=shape, dtype=dtype), hyperparameters)
    keys = jax.random.key_data(jnp.broadcast_to(key, shape))
    order_key = jax.random.key_data(key)
    data = (dataset.train, dataset.validation, dataset.standardiser)
    if mesh is None:
        data = jax.tree.map(jnp.asarray, data)
    elif many:
        data, order_key = devices.replicate((data, order_key), mesh)
        keys, hyperparameters = devices.split_runs((keys, hyperparameters), mesh)
    else:
        data = devices.split_features(data, mesh, dataset.n_features)
        order_key = devices.replicate(order_key, mesh)
    training, validation, standardiser = data

    n_batches = batches_per_block(
        batch_size, dataset.n_classes, n_runs, 1 if shuffle else n_epochs, optimizer, gradient
    )
    impl = str(jax.random.key_impl(key))
    state = _start(
        keys, hyperparameters, impl=impl, n_features=dataset.n_features,
        n_classes=dataset.n_classes, optimizer=optimizer, dtype=dtype, many=many,
    )  # fmt: skip
    if mesh is not None:  # as the epochs leave it, for one program to do for all of them
        state = (
            devices.split_runs(state, mesh)
            if many
            else devices.split_features(state, mesh, dataset.n_features)
        )
    examples, products = training, None
    for epoch in range(n_epochs + 1):
        if epoch:
            if shuffle:
                examples = _shuffled(order_key, epoch, training, impl=impl)
            if shuffle or products is None:
                products = inner_products(
                    examples.inputs, standardiser, batch_size=batch_size, n_batches=n_batches,
                    dtype=dtype,
                )  # fmt: skip
            state = _advance(
                state, hyperparameters, examples, standardiser, products, many=many,
                batch_size=batch_size, n_batches=n_batches, loss=loss, optimizer=optimizer,
                gradient=gradient,
            )  # fmt: skip
        metrics = None
        if measure:
            lam = hyperparameters.lam
            on_training, on_validation = (
                evaluate_runs(state.params, split, standardiser, lam, loss, many=many)
                for split in (training, validation)
            )
            metrics = History(*on_training, *on_validation)
        yield state, metrics


def _check(n, n_runs, key, n_epochs, batch_size, shuffle, mesh) -> None:
    if not 1 <= batch_size <= n:
        raise SettingsError(f"batch_size is {batch_size}: it has to be from 1 to {n}")
    if n_epochs < 1:
        raise SettingsError(f"n_epochs is {n_epochs}: it has to be at least 1")
    if shuffle and key.ndim:
        raise SettingsError("shuffle takes one key: runs that share data share their order")
    if mesh is not None and n_runs is not None and n_runs % mesh.size:
        raise SettingsError(f"{n_runs} runs can't be split evenly over {mesh.size} devices")


@partial(
    jax.jit, static_argnames=("many", "batch_size", "n_batches", "loss", "optimizer", "gradient")
)
def _advance(
    state: TrainState,
    hyperparameters: Hyperparameters,
    examples: Split,
    standardiser: Standardiser,
    products: tuple[InnerProducts, InnerProducts],
    *,
    many: bool,
    **settings,
) -> TrainState:
    """One epoch of one run or many."""

    def advance(state, hyperparameters):
        return run_epoch(state, hyperparameters, examples, standardiser, products, **settings)

    return _each(advance, many)(state, hyperparameters)


@partial(jax.jit, static_argnames=("impl", "n_features", "n_classes", "optimizer", "dtype", "many"))
def _start(
    keys, hyperparameters, *, impl, n_features, n_classes, optimizer, dtype, many
) -> TrainState:
    """The initial state of one run or many, from the data of their keys."""

    def start(key, hyperparameters):
        params = init_params(jax.random.fold_in(key, 0), n_features, n_classes, dtype=dtype)
        return TrainState(params, optimizer(hyperparameters, 1).init(params))

    return _each(start, many)(jax.random.wrap_key_data(keys, impl=impl), hyperparameters)


@partial(jax.jit, static_argnames="impl")
def _shuffled(key_data: jax.Array, epoch: jax.Array | int, examples: Split, *, impl: str) -> Split:
    """The examples in the order of an epoch, from 1 on; 0 is the initial parameters' key."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=impl), epoch)
    order = jax.random.permutation(key, len(examples.labels))
    return Split(examples.inputs[order], examples.labels[order])


def _broadcast(value, shape, dtype):
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(dtype)
    return jnp.broadcast_to(value, shape)


def _each(function: Callable, many: bool) -> Callable:
    """The function for many runs, or for the only one, whose arrays have no axis of runs."""
    return jax.vmap(function) if many else function
