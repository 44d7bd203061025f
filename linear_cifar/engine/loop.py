"""The loop of training: C runs, placed on devices with their data, an epoch at a time.

What varies between runs is a traced array in `Hyperparameters`, so that no value of it compiles
anything again; what fixes shapes is static, in `Training`. Every array of runs has its axis [C].
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linear_cifar.data.on_disk import OnDisk
from linear_cifar.data.types import Split, Standardiser
from linear_cifar.engine.blocks import (
    InnerProducts,
    batches_per_block,
    inner_products,
    run_epoch_in_blocks,
)
from linear_cifar.engine.devices import Data, Layout
from linear_cifar.engine.epoch import run_epoch
from linear_cifar.engine.state import DEFAULTS, EpochMetrics, Training, TrainState
from linear_cifar.evaluation import evaluate_runs
from linear_cifar.losses import Loss
from linear_cifar.model import init_params
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.settings import SettingsError


class Runs(NamedTuple):
    """What C runs begin with."""

    keys: Any  # [C, …], uint32: data of the keys of the initial parameters
    order_key: Any  # […], of the order of the examples, which all share
    key_impl: str
    hyperparameters: Hyperparameters  # fields [C]

    def placed(self, where: Layout) -> "Runs":
        """The same on devices."""
        keys, hyperparameters = where.runs((self.keys, self.hyperparameters))
        return Runs(keys, where.whole(self.order_key), self.key_impl, hyperparameters)


def run_epochs(
    runs: Runs, data: Data, how: Training
) -> Iterator[tuple[TrainState, EpochMetrics | None]]:
    """`epochs` of runs, placed as the data, and of settings, all of which are checked."""
    keys, order_key, key_impl, hyperparameters = runs
    n_features, n_classes = data.dataset.n_features, data.dataset.n_classes
    state = _start(
        keys,
        hyperparameters,
        key_impl=key_impl,
        n_features=n_features,
        n_classes=n_classes,
        how=_static(how),
    )
    state = data.where.runs(state)  # as the epochs leave it, for one program to do for all
    on_disk = isinstance(data.dataset.train.inputs, OnDisk)
    if how.shuffle and on_disk:
        raise SettingsError("shuffle needs the inputs in memory: shuffle the file, once")
    n_batches = 1 if on_disk else batches_per_block(how, n_classes, len(keys))
    shuffled, products = data.train, None
    for epoch in range(how.n_epochs + 1):
        if epoch:
            if how.shuffle:
                shuffled = _shuffled(order_key, epoch, data.train, key_impl=key_impl)
            if n_batches > 1 and (how.shuffle or products is None):
                products = inner_products(
                    shuffled,
                    data.standardiser,
                    batch_size=how.batch_size,
                    n_batches=n_batches,
                    dtype=how.dtype,
                )
            for examples in data.blocks(how.batch_size) if on_disk else (shuffled,):
                state = _advance(
                    state,
                    hyperparameters,
                    examples,
                    data.standardiser,
                    products,
                    n_of_epoch=len(data.dataset.train.labels),
                    n_batches=n_batches,
                    how=_static(how),
                )
                if on_disk:  # else it is read faster than it is used
                    jax.block_until_ready(state)
        yield state, _measure(state, hyperparameters.lam, data, how.loss) if how.measure else None


def _static(how: Training) -> Training:
    """What the program of an epoch depends on, for the number of epochs to compile nothing."""
    return how._replace(n_epochs=DEFAULTS.n_epochs, measure=DEFAULTS.measure, shuffle=False)


def _measure(state: TrainState, lam: ArrayLike, data: Data, loss: Loss) -> EpochMetrics:
    of_splits = (
        evaluate_runs(state.params, split, data.standardiser, lam, loss)
        for split in (data.train, data.validation)
    )
    return EpochMetrics(*of_splits)


@partial(jax.jit, static_argnames=("n_of_epoch", "n_batches", "how"))
def _advance(
    state: TrainState,
    hyperparameters: Hyperparameters,
    examples: Split,
    standardiser: Standardiser,
    products: tuple[InnerProducts, InnerProducts] | None,
    *,
    n_of_epoch: int,
    n_batches: int,
    how: Training,
) -> TrainState:
    """One epoch of C runs, or a block of its examples."""

    def advance(state, hyperparameters):
        run = (state, hyperparameters, examples, standardiser)
        if products is None:
            return run_epoch(*run, how, n_of_epoch)
        return run_epoch_in_blocks(*run, products, n_batches, how)

    return jax.vmap(advance)(state, hyperparameters)


@partial(jax.jit, static_argnames=("key_impl", "n_features", "n_classes", "how"))
def _start(keys, hyperparameters, *, key_impl, n_features, n_classes, how: Training) -> TrainState:
    """The initial state of C runs, from the data of their keys."""

    def start(key, hyperparameters):
        params = init_params(jax.random.fold_in(key, 0), n_features, n_classes, dtype=how.dtype)
        return TrainState(params, how.optimizer(hyperparameters, 1).init(params))

    return jax.vmap(start)(jax.random.wrap_key_data(keys, impl=key_impl), hyperparameters)


@partial(jax.jit, static_argnames="key_impl")
def _shuffled(
    key_data: jax.Array, epoch: jax.Array | int, examples: Split, *, key_impl: str
) -> Split:
    """The examples in the order of an epoch, from 1 on; 0 is the initial parameters' key."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl=key_impl), epoch)
    order = jax.random.permutation(key, len(examples.labels))
    return Split(*(jnp.asarray(array)[order] for array in examples))
