"""Training by mini-batch gradient descent: one run as a pure function.

`train` initialises a run and scans over epochs; each epoch scans over batches and is measured.
`epochs` is the same loop on the host, one epoch at a time. `sweep` trains tables of runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linear_cifar.checks import Setting, as_dtype, as_key
from linear_cifar.data.dataset import Dataset, Split, check_dataset
from linear_cifar.errors import InputError
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss, as_loss
from linear_cifar.metrics.evaluate import evaluate
from linear_cifar.model import Params, init_params
from linear_cifar.objective import cost_gradient
from linear_cifar.optimizers import (
    Hyperparameters,
    Optimizer,
    as_optimizer,
    checked_hyperparameters,
    sgd,
)
from linear_cifar.training import fused_batches

Gradient: TypeAlias = Callable[[Params, jax.Array, jax.Array, ArrayLike, Loss], Params]
SETTINGS: dict[str, Setting] = {
    "n_epochs": Setting("passes over the training examples", low=1, high=2**31 - 1, integer=True),
    "batch_size": Setting(
        "examples per step, or all if fewer", low=1, high=2**31 - 1, integer=True
    ),
    "shuffle": Setting("visit the examples in a new order in each epoch, not as they are stored"),
}


class TrainConfig(NamedTuple):
    """What fixes the program of a run. Static: it is hashed, and changing it compiles anew."""

    loss: Loss = SOFTMAX_CROSS_ENTROPY  # per example; or a name in `LOSSES`
    n_epochs: int = 40
    batch_size: int = 100  # the last batch of an epoch takes what remains
    shuffle: bool = False  # draw a permutation for each epoch
    measure: bool = True  # training and validation data, before training and after each epoch
    optimizer: Optimizer = sgd  # makes an optax transformation; or a name in `OPTIMIZERS`
    gradient: Gradient = cost_gradient  # by hand, or `autodiff_gradient`
    dtype: Any = jnp.float32  # of parameters and arithmetic

    def __repr__(self) -> str:
        fields = (f"{k}={getattr(v, '__name__', v)!s}" for k, v in self._asdict().items())
        return f"TrainConfig({', '.join(fields)})"


DEFAULTS = TrainConfig()


class TrainState(NamedTuple):
    """What goes on from step to step."""

    params: Params
    optimizer_state: optax.OptState  # with the number of steps taken


class History(NamedTuple):
    """Metrics of a run over its epochs, [n_epochs + 1]; epoch 0 is before training.

    [0] with `measure=False`. `epochs` yields scalars, and `sweep` returns [C, n_epochs + 1].
    """

    train_loss: Any  # nats
    train_cost: Any  # loss + λ‖W‖²
    train_accuracy: Any  # from 0 to 1
    validation_loss: Any
    validation_cost: Any
    validation_accuracy: Any


def train(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    config: TrainConfig = DEFAULTS,
) -> tuple[Params, History]:
    """Trains one run; a pure function.

    It works under `jit` (`config` is static), `vmap`, and `grad` in hyper-parameters and data.
    `sweep` trains tables faster than `vmap`, because it knows how many runs share a step.

    Args:
      key: PRNG key of the initial parameters and of the order of the examples.
      hyperparameters: scalars.
      dataset: inputs in memory. Its validation examples are only measured.
      config: the static settings.

    Returns:
      The trained parameters, weights [K, d] and bias [K], and the `History`.

    Raises:
      InputError: a setting that isn't traced is out of its range.
      DataError: the inputs are left on disk.

    Examples:
      >>> from linear_cifar.data import load_dataset
      >>> dataset, config = load_dataset("synthetic"), TrainConfig(n_epochs=2)
      >>> params, history = jax.vmap(
      ...     lambda lam: train(jax.random.key(0), Hyperparameters(lam), dataset, config)
      ... )(jnp.array([0, 0.01, 0.1, 1]))
      >>> params.weights.shape, history.validation_accuracy.shape
      ((4, 10, 3072), (4, 3))
    """
    hyperparameters, dataset, config = checked_run(hyperparameters, dataset, config)
    return _train(as_key(key), hyperparameters, dataset, config)


@partial(jax.jit, static_argnames="config")
def _train(key, hyperparameters, dataset: Dataset, config: TrainConfig) -> tuple[Params, History]:
    fused = fuses_batches(dataset, config, n_runs=1)
    products = inner_products(dataset, config) if fused and not config.shuffle else None

    def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, History]:
        order = epoch_order(key, number, dataset, config)
        state = epoch_step(state, hyperparameters, dataset, config, order, products, fused)
        return state, measure_epoch(state, hyperparameters, dataset, config)

    state = init_state(key, hyperparameters, dataset, config)
    before = measure_epoch(state, hyperparameters, dataset, config)
    state, after = jax.lax.scan(epoch, state, jnp.arange(1, config.n_epochs + 1))
    if not config.measure:
        return state.params, History(*[jnp.zeros(0, config.dtype)] * len(History._fields))
    return state.params, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), before, after)


def epochs(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    config: TrainConfig = DEFAULTS,
) -> Iterator[tuple[TrainState, History | None]]:
    """The loop of `train` on the host, for checkpoints, progress or a stopping rule of your own.

    Arguments and errors are as for `train`.

    Yields:
      The state and the metrics (None with `measure=False`), n_epochs + 1 times: before training,
      and after each epoch.
    """
    hyperparameters, dataset, config = checked_run(hyperparameters, dataset, config)
    keys, runs = jax.tree.map(lambda a: jnp.asarray(a)[None], (as_key(key), hyperparameters))
    dataset = jax.tree.map(jnp.asarray, dataset)  # to the device once, not in each epoch
    key_impl = str(jax.random.key_impl(keys))
    state = start_runs(jax.random.key_data(keys), runs, dataset, config, key_impl)
    steps = run_epochs(state, runs, as_key(key), dataset, config)
    return (jax.tree.map(lambda a: a[0], step) for step in steps)


def run_epochs(
    state: TrainState,
    hyperparameters: Hyperparameters,
    order_key: jax.Array,
    dataset: Dataset,
    config: TrainConfig,
) -> Iterator[tuple[TrainState, History | None]]:
    """What `epochs` yields, for C runs on their devices that share their order; fields [C]."""
    fused = fuses_batches(dataset, config, len(state.params.bias))
    program = config._replace(n_epochs=1)  # so a new number of epochs compiles nothing
    products = inner_products(dataset, program) if fused and not config.shuffle else None
    yield state, _measure_runs(state, hyperparameters, dataset, program)
    for number in range(1, config.n_epochs + 1):
        order = epoch_order(order_key, number, dataset, program)
        state = _step_runs(state, hyperparameters, dataset, order, products, program, fused)
        yield state, _measure_runs(state, hyperparameters, dataset, program)


def init_state(
    key: jax.Array, hyperparameters: Hyperparameters, dataset: Dataset, config: TrainConfig
) -> TrainState:
    """The state of a run before training."""
    return _init_state(key, hyperparameters, dataset.n_features, dataset.n_classes, config)


def _init_state(key, hyperparameters, n_features: int, n_classes: int, config: TrainConfig):
    params = init_params(jax.random.fold_in(key, 0), n_features, n_classes, dtype=config.dtype)
    return TrainState(params, config.optimizer(hyperparameters, 1).init(params))


@partial(jax.jit, static_argnames="config")
def epoch_order(key: jax.Array, number: Any, dataset: Dataset, config: TrainConfig) -> Any:
    """The order of the examples [n] in an epoch, counted from 1; None: as they are stored."""
    epoch_key = jax.random.fold_in(key, number)
    return jax.random.permutation(epoch_key, len(dataset.train.labels)) if config.shuffle else None


def epoch_step(
    state: TrainState,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    config: TrainConfig,
    order: jax.Array | None = None,
    products: Any = None,
    fused: bool = False,
) -> TrainState:
    """Trains one run for one epoch: ⌈n / batch_size⌉ steps.

    The last batch takes the examples that remain, with their own number in the mean. `order` [n] is
    of the examples; None is as they are stored. `fused` takes several batches in one step, which is
    the same up to rounding, and computes the `inner_products` unless it gets them.
    """
    n, size = len(dataset.train.labels), config.batch_size
    transform = config.optimizer(hyperparameters, -(-n // size))
    batch = partial(take_batch, dataset, config.dtype, order)
    if fused:
        products = fused_batches.inner_products(batch, n, size) if products is None else products
        lam, loss = hyperparameters.lam, config.loss
        after = fused_batches.fused_epoch(*state, batch, (n, size), products, lam, transform, loss)
        return TrainState(*after)

    def step(state: TrainState, start: jax.Array | int, size: int) -> TrainState:
        params, optimizer_state = state
        gradients = config.gradient(params, *batch(start, size), hyperparameters.lam, config.loss)
        updates, optimizer_state = transform.update(gradients, optimizer_state, params)
        return TrainState(optax.apply_updates(params, updates), optimizer_state)

    n_full, n_rest = divmod(n, size)
    state, _ = jax.lax.scan(
        lambda state, start: (step(state, start, size), None), state, size * jnp.arange(n_full)
    )
    return step(state, n - n_rest, n_rest) if n_rest else state


def take_batch(
    dataset: Dataset, dtype: Any, order: jax.Array | None, start: jax.Array | int, size: int
) -> tuple[jax.Array, jax.Array]:
    """Training examples from `start` on in an order: inputs [size, d], standardised, and labels.

    They are standardised here and not beforehand: that is as fast, and takes a quarter of the
    memory where the inputs are uint8.
    """
    arrays = map(jnp.asarray, dataset.train)
    if order is None:
        stored, labels = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in arrays)
    else:
        rows = jax.lax.dynamic_slice_in_dim(order, start, size)
        stored, labels = (array[rows] for array in arrays)
    return dataset.standardiser(stored, dtype), labels


def fuses_batches(dataset: Dataset, config: TrainConfig, n_runs: int) -> bool:
    """Whether an epoch takes several batches in one step.

    Only plain gradient descent can: its updates are linear in the gradient, without memory.
    """
    if config.optimizer is not sgd or config.gradient is not cost_gradient:
        return False
    n_epochs = 1 if config.shuffle else config.n_epochs  # with the same inner products
    inputs, n_classes = dataset.train.inputs, dataset.n_classes
    return fused_batches.pays(config.batch_size, inputs, n_classes, n_runs, n_epochs)


@partial(jax.jit, static_argnames="config")
def inner_products(dataset: Dataset, config: TrainConfig) -> Any:
    """The inner products of `fused_batches` for examples in stored order, for all epochs."""
    batch = partial(take_batch, dataset, config.dtype, None)
    return fused_batches.inner_products(batch, len(dataset.train.labels), config.batch_size)


def measure_epoch(
    state: TrainState, hyperparameters: Hyperparameters, dataset: Dataset, config: TrainConfig
) -> Any:
    """The metrics of a run now, a `History` of scalars; None with `measure=False`."""
    if not config.measure:
        return None
    metrics = [
        evaluate(state.params, split, dataset.standardiser, hyperparameters.lam, config.loss)
        for split in (dataset.train, dataset.validation)
    ]
    return History(*metrics[0], *metrics[1])


def start_runs(keys, hyperparameters, dataset: Dataset, config: TrainConfig, key_impl: str):
    """`init_state` of C runs, from the data of their keys, [C, …]."""
    # Compiled once for all batch sizes and losses, on which it doesn't depend.
    program = TrainConfig(dtype=config.dtype, optimizer=config.optimizer)
    sizes = (dataset.n_features, dataset.n_classes)
    return _start_runs(keys, hyperparameters, *sizes, program, key_impl)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _start_runs(keys, hyperparameters, n_features, n_classes, config, key_impl):
    start = partial(_init_state, n_features=n_features, n_classes=n_classes, config=config)
    return jax.vmap(start)(jax.random.wrap_key_data(keys, impl=key_impl), hyperparameters)


@partial(jax.jit, static_argnums=(5, 6))
def _step_runs(state, hyperparameters, dataset, order, products, config: TrainConfig, fused: bool):
    def step(state: TrainState, hyperparameters: Hyperparameters) -> TrainState:
        return epoch_step(state, hyperparameters, dataset, config, order, products, fused)

    return jax.vmap(step)(state, hyperparameters)


@partial(jax.jit, static_argnums=3)
def _measure_runs(state, hyperparameters, dataset, config: TrainConfig):
    return jax.vmap(partial(measure_epoch, dataset=dataset, config=config))(state, hyperparameters)


def checked_run(
    hyperparameters: Hyperparameters, dataset: Dataset, config: TrainConfig, axes: int = 0
) -> tuple[Hyperparameters, Dataset, TrainConfig]:
    """The arguments of a training, checked, without the examples that it doesn't use.

    Hyper-parameters may have `axes` axes, and names of losses and optimisers are looked up.
    """
    check_dataset(dataset, with_targets=False)
    for name in ("n_epochs", "batch_size"):
        SETTINGS[name].check(name, getattr(config, name))
    none = Split(np.zeros((0, dataset.n_features), np.uint8), np.zeros(0, np.int32))
    dataset = replace(dataset, test=none, validation=dataset.validation if config.measure else none)
    # `np.asarray` raises an on-disk array's own error.
    dataset = jax.tree.map(lambda a: a if isinstance(a, jax.Array) else np.asarray(a), dataset)
    config = config._replace(
        loss=as_loss(config.loss),
        optimizer=as_optimizer(config.optimizer),
        batch_size=min(int(config.batch_size), len(dataset.train.labels)),
        dtype=as_dtype(config.dtype),
    )
    hyperparameters = checked_hyperparameters(hyperparameters, config.dtype)
    for name, values in hyperparameters._asdict().items():
        if jnp.ndim(values) > axes:
            shape = list(jnp.shape(values))
            raise InputError(f"{name} is {shape}: train takes one run's scalars; see sweep or vmap")
    return hyperparameters, dataset, config
