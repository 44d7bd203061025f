"""Tables of configurations, trained chunk by chunk: `sweep`, and its loop `sweep_epochs`."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from linear_cifar.data.types import Dataset, check_dataset
from linear_cifar.engine import plan
from linear_cifar.engine.devices import (
    Data,
    await_others,
    check_mesh,
    fetch,
    layout,
    splits_features,
)
from linear_cifar.engine.loop import run_epochs
from linear_cifar.engine.state import (
    DEFAULTS,
    EpochMetrics,
    Gradient,
    History,
    Training,
    stack_history,
)
from linear_cifar.evaluation import Metrics, evaluate_runs
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters, Optimizer
from linear_cifar.settings import Setting

MEMORY_BYTES = 2**30  # for the states of the runs of a chunk, on a device
_MEMORY = Setting("bytes that the states of a chunk may take on a device", low=1)


@dataclass(frozen=True)
class ChunkEpoch:
    """A chunk of a table after one of its epochs, 0 for before training.

    On the devices are the chunk's c runs, and copies of the last one that fill it up; what is given
    out is numpy arrays [c, …].
    """

    rows: np.ndarray  # [c], of the table
    epoch: int
    finished: bool  # the last epoch of the chunk
    _params: Params
    _measured: EpochMetrics | None
    _lam: ArrayLike
    _loss: Loss
    _data: Data

    @property
    def params(self) -> Params:
        """The parameters of the chunk's runs, [c, K, d] and [c, K]."""
        return self._own(self._params)

    @cached_property
    def metrics(self) -> EpochMetrics | None:
        """What was measured of the chunk's runs, [c]; None unless measured."""
        return self._own(self._measured)

    def evaluate(self, split: str) -> Metrics:
        """The chunk's figures over the data set's split "train", "validation" or "test", [c]."""
        examples = getattr(self._data, split)
        standardiser = self._data.standardiser
        return self._own(evaluate_runs(self._params, examples, standardiser, self._lam, self._loss))

    def _own(self, tree: Any) -> Any:
        return jax.tree.map(lambda array: array[: len(self.rows)], fetch(tree))


def sweep(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    *,
    batch_size: int | Sequence[int] = DEFAULTS.batch_size,
    loss: Loss | Sequence[Loss] = DEFAULTS.loss,
    optimizer: Optimizer | Sequence[Optimizer] = DEFAULTS.optimizer,
    n_epochs: int = DEFAULTS.n_epochs,
    shuffle: bool = DEFAULTS.shuffle,
    measure: bool = DEFAULTS.measure,
    gradient: Gradient = DEFAULTS.gradient,
    dtype: Any = DEFAULTS.dtype,
    mesh: Mesh | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[Params, History]:
    """Trains a table of configurations.

    Args:
      key: PRNG key, or keys [C].
      hyperparameters: fields [C], or scalars that go for every configuration.
      dataset: what to train on; its validation examples are only measured.
      batch_size: examples a step; a sequence of C, or one for all.
      loss: the loss per example; a sequence of C, or one for all.
      optimizer: makes the optax transformation; a sequence of C, or one for all.
      n_epochs: as for `train`.
      shuffle: draw a permutation of the examples each epoch, one for all configurations of a key.
      measure: as for `train`.
      gradient: as for `train`.
      dtype: as for `train`.
      mesh: the devices that share the work; None for the default device.
      memory_bytes: what the parameters, gradients and optimiser states of a chunk may take on a
        device; the data come on top.

    Returns:
      In the order given, and as numpy arrays: the parameters, [C, K, d] and [C, K], and the
      `History`, [C, n_epochs + 1] ([C, 0] with `measure=False`).

    Raises:
      SettingsError: a setting out of its range, or columns of different lengths.
      MemoryError: out of memory with one configuration a device.

    Examples:
      >>> from linear_cifar.data import load_dataset
      >>> from linear_cifar.search import grid
      >>> table = grid(batch_size=[50, 100], lam=[0.0, 0.1, 1.0])
      >>> batch_size = table.pop("batch_size")
      >>> params, history = sweep(
      ...     jax.random.key(0), Hyperparameters(**table, learning_rate=0.001),
      ...     load_dataset("synthetic"), batch_size=batch_size, n_epochs=2,
      ... )
      >>> params.weights.shape, history.validation_accuracy.shape
      ((6, 10, 3072), (6, 3))
    """
    table = plan.make_table(key, hyperparameters, batch_size, loss, optimizer)
    how = DEFAULTS._replace(
        n_epochs=n_epochs, shuffle=shuffle, measure=measure, gradient=gradient, dtype=dtype
    )
    rows, results = [], []
    measured: list[EpochMetrics] = []
    for step in sweep_epochs(table, dataset, how, mesh=mesh, memory_bytes=memory_bytes):
        measured = measured if step.epoch else []
        if step.metrics is not None:
            measured.append(step.metrics)
        if step.finished:
            rows.append(step.rows)
            params = step.params
            results.append((params, stack_history(measured, len(step.rows), params.bias.dtype)))
    order = np.argsort(np.concatenate(rows))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *results)


def sweep_epochs(
    table: plan.Table,
    dataset: Dataset,
    how: Training = DEFAULTS,
    *,
    mesh: Mesh | None = None,
    memory_bytes: int = MEMORY_BYTES,
    finished: Collection[int] = (),
) -> Iterator[ChunkEpoch]:
    """Trains a table chunk by chunk and an epoch at a time: the loop of `sweep`.

    A chunk that runs out of memory is begun anew with half as many configurations at once, and a
    `RuntimeWarning` says so. Where several processes share the mesh it is an error, since the
    others go on.

    Args:
      table: of `plan.make_table`.
      dataset: what to train on; its validation examples are only measured.
      how: what goes for all configurations; the table's columns take the place of its own.
      mesh: the devices that share the work; None for the default device.
      memory_bytes: as for `sweep`.
      finished: rows of the table to leave out; the others give the same bits as with them.

    Yields:
      A `ChunkEpoch` a chunk and epoch, n_epochs + 1 of each chunk.

    Raises:
      SettingsError: a setting out of its range, before anything is trained.
      MemoryError: out of memory with one configuration a device.
    """
    check_dataset(dataset)
    check_mesh(mesh)
    _MEMORY.check_integer("memory_bytes", memory_bytes)
    n_devices = 1 if mesh is None else mesh.size
    placed: dict[bool, Data] = {}  # by whether features are split
    for group in plan.groups(table, how, len(dataset.train.labels)):
        of_device = plan.runs_at_once(
            table, group, dataset.n_features, dataset.n_classes, memory_bytes
        )
        # A run alone isn't padded to the number of devices where they can share its features.
        alone = len(group.rows) == 1 and splits_features(mesh)
        left = plan.chunks(group.rows, n_devices * of_device, 1 if alone else n_devices, finished)
        while left:
            chunk = left[0]
            if alone not in placed:
                where = layout(mesh, chunk.size, dataset.n_features)
                placed[alone] = Data(dataset, where)
            try:
                yield from _train_chunk(table, chunk, placed[alone], group.how)
                del left[0]
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
                    raise
                if chunk.size <= n_devices or jax.process_count() > 1:
                    raise MemoryError(
                        f"out of memory with {chunk.size} configurations at once"
                    ) from error
                warnings.warn(
                    f"out of memory with {chunk.size} configurations at once: going on with half "
                    "as many",
                    RuntimeWarning,
                    stacklevel=2,
                )
                rows = [row for rest in left for row in rest.rows]
                left = plan.chunks(rows, max(n_devices, chunk.size // 2), n_devices)


def _train_chunk(
    table: plan.Table, chunk: plan.Chunk, data: Data, how: Training
) -> Iterator[ChunkEpoch]:
    runs = table.runs(chunk.padded, how.dtype).placed(data.where)
    for epoch, (state, measured) in enumerate(run_epochs(runs, data, how)):
        jax.block_until_ready(state)  # for what went wrong to be known here
        await_others()
        yield ChunkEpoch(
            np.array(chunk.rows),
            epoch,
            epoch == how.n_epochs,
            state.params,
            measured,
            runs.hyperparameters.lam,
            how.loss,
            data,
        )
