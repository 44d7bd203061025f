"""Training by mini-batch gradient descent: one scanned epoch, and `train` over epochs.

What varies between runs is a traced array in `Hyperparameters`, so that no value of it compiles
anything again and `jax.vmap` trains many runs at once; what fixes shapes is keyword-only and
static.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linear_cifar.datasets import Dataset, Split, Standardiser
from linear_cifar.evaluation import evaluate
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, init_params
from linear_cifar.objective import cost, cost_gradient
from linear_cifar.optimizers import Hyperparameters, Optimizer, sgd


class SettingsError(ValueError):
    """A training setting out of its range; one line says which, and what the range is."""


class TrainState(NamedTuple):
    """Where a run stands; with a leading axis [C], C runs."""

    params: Params
    optimizer_state: optax.OptState  # the number of steps taken among it


class History(NamedTuple):
    """What was measured before training and after each epoch, each field [n_epochs + 1]."""

    train_loss: jax.Array | np.ndarray
    train_cost: jax.Array | np.ndarray
    train_accuracy: jax.Array | np.ndarray
    validation_loss: jax.Array | np.ndarray
    validation_cost: jax.Array | np.ndarray
    validation_accuracy: jax.Array | np.ndarray


Gradient: TypeAlias = Callable[[Params, jax.Array, jax.Array, ArrayLike, Loss], Params]


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

    Yields:
      The state and what was measured (scalars, or [C] for C runs; None unless `measure`), before
      training and then after each epoch: n_epochs + 1 times.

    Raises:
      SettingsError: a setting out of its range, or `shuffle` with several keys.
    """
    n = len(dataset.train.labels)
    if not 1 <= batch_size <= n:
        raise SettingsError(f"batch_size is {batch_size}: it has to be from 1 to {n}")
    if n_epochs < 1:
        raise SettingsError(f"n_epochs is {n_epochs}: it has to be at least 1")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if shuffle and key.ndim:
        raise SettingsError("shuffle takes one key: runs that share data share their order")

    shape = jnp.broadcast_shapes(key.shape, *map(jnp.shape, hyperparameters))
    hyperparameters = jax.tree.map(partial(_broadcast, shape=shape, dtype=dtype), hyperparameters)
    each = jax.vmap if shape else _only
    data = jax.tree.map(jnp.asarray, (dataset.train, dataset.validation))
    (training, validation), standardiser = data, jax.tree.map(jnp.asarray, dataset.standardiser)

    start = partial(
        _start, n_features=dataset.n_features, n_classes=dataset.n_classes, optimizer=optimizer,
        dtype=dtype,
    )  # fmt: skip
    state = each(start)(jnp.broadcast_to(key, shape), hyperparameters)

    def advance(state, hyperparameters, examples):
        return run_epoch(
            state, hyperparameters, examples, standardiser, batch_size=batch_size, loss=loss,
            optimizer=optimizer, gradient=gradient,
        )  # fmt: skip

    def measured(state, hyperparameters):
        metrics = [
            evaluate(state.params, split, standardiser, hyperparameters.lam, loss)
            for split in (training, validation)
        ]
        return History(*metrics[0], *metrics[1])

    for epoch in range(n_epochs + 1):
        if epoch:
            examples = _shuffled(key, epoch, training) if shuffle else training
            state = each(advance, (0, 0, None))(state, hyperparameters, examples)
        yield state, each(measured, (0, 0))(state, hyperparameters) if measure else None


@partial(jax.jit, static_argnames=("batch_size", "loss", "optimizer", "gradient"))
def run_epoch(
    state: TrainState,
    hyperparameters: Hyperparameters,
    examples: Split,
    standardiser: Standardiser,
    *,
    batch_size: int,
    loss: Loss,
    optimizer: Optimizer,
    gradient: Gradient,
) -> TrainState:
    """Trains one run for one epoch: a scan over mini-batches, in the order of the examples.

    When n isn't a multiple of `batch_size`, the last step takes the mean over what is left.
    """
    n_full, n_left = divmod(len(examples.labels), batch_size)
    transformation = optimizer(hyperparameters, n_full + (n_left > 0))

    def step(state: TrainState, start: jax.Array | int, size: int) -> TrainState:
        inputs, labels = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in examples)
        # Standardised here and not beforehand: as fast, a quarter of the memory, and no pass over
        # the data at the start.
        inputs = standardiser(inputs, state.params.weights.dtype)
        gradients = gradient(state.params, inputs, labels, hyperparameters.lam, loss)
        updates, optimizer_state = transformation.update(
            gradients, state.optimizer_state, state.params
        )
        return TrainState(optax.apply_updates(state.params, updates), optimizer_state)

    starts = batch_size * jnp.arange(n_full)
    state, _ = jax.lax.scan(lambda s, start: (step(s, start, batch_size), None), state, starts)
    return step(state, batch_size * n_full, n_left) if n_left else state


@partial(jax.jit, static_argnames=("n_features", "n_classes", "optimizer", "dtype"))
def _start(key, hyperparameters, *, n_features, n_classes, optimizer, dtype) -> TrainState:
    params = init_params(jax.random.fold_in(key, 0), n_features, n_classes, dtype=dtype)
    return TrainState(params, optimizer(hyperparameters, 1).init(params))


@jax.jit
def _shuffled(key: jax.Array, epoch: jax.Array | int, examples: Split) -> Split:
    """The examples in the order of an epoch, from 1 on; 0 is the initial parameters' key."""
    order = jax.random.permutation(jax.random.fold_in(key, epoch), len(examples.labels))
    return Split(examples.inputs[order], examples.labels[order])


def _broadcast(value, shape, dtype):
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(dtype)
    return jnp.broadcast_to(value, shape)


def _only(function: Callable, in_axes=0) -> Callable:
    """Stands for `jax.vmap` where there is one run and no axis to map over."""
    del in_axes
    return function
