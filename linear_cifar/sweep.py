"""Tables of configurations, trained in chunks of many at once.

A table is columns of C values, one a configuration. What fixes shapes (batch size, loss, optimiser)
divides it into groups; each group has one compiled program and is trained in chunks of the size
that runs fastest within a bound on memory.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar import devices
from linear_cifar.datasets import Dataset, Split, Standardiser
from linear_cifar.epoch import TrainState
from linear_cifar.evaluation import Metrics, evaluate_runs
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, init_params
from linear_cifar.optimizers import Hyperparameters, Optimizer, sgd
from linear_cifar.training import History, SettingsError, epochs

# Runs at once on a device. Measured on two cores; a GPU has room for more before it is busy, but
# none was at hand to measure on.
_RUNS_AT_ONCE = 64


@dataclass(frozen=True)
class Step:
    """A chunk of a table after one of its epochs, 0 for before training."""

    rows: np.ndarray  # [c], of the table
    epoch: int
    finished: bool  # the last epoch of the chunk
    state: TrainState  # on the devices; c runs and then copies, or without an axis the only one
    measured: History | None  # of the same form; None unless measured
    lam: np.ndarray  # of the same form
    loss: Loss

    @property
    def metrics(self) -> History:
        """What was measured of the chunk's runs, numpy [c]; [c, 0] where nothing was."""
        if self.measured is None:
            return History(*[np.zeros((len(self.rows), 0), np.float32)] * len(History._fields))
        return self.rows_of(self.measured)

    @property
    def params(self) -> Params:
        """The parameters of the chunk's runs, numpy [c, K, d] and [c, K]."""
        return self.rows_of(self.state.params)

    def evaluate(self, splits: Sequence[Split], standardiser: Standardiser) -> list[Metrics]:
        """The chunk's figures over some splits, each numpy [c].

        Args:
          splits: on the devices of the sweep, as `devices.replicate` puts them.
          standardiser: the training set's, likewise.
        """
        many = self.state.params.bias.ndim > 1
        lam = self.lam.astype(self.state.params.weights.dtype)
        return [
            self.rows_of(
                evaluate_runs(self.state.params, split, standardiser, lam, self.loss, many=many)
            )
            for split in splits
        ]

    def rows_of(self, tree: Any) -> Any:
        """Arrays of the form of `state` as numpy arrays [c, …]."""
        many = self.state.params.bias.ndim > 1
        host = devices.fetch(tree)
        return jax.tree.map(lambda a: a[: len(self.rows)] if many else np.asarray(a)[None], host)


def sweep(
    key: jax.Array, hyperparameters: Hyperparameters, dataset: Dataset, **settings: Any
) -> tuple[Params, History]:
    """Trains a table of configurations.

    Args:
      key: PRNG key, or keys [C].
      hyperparameters: fields [C], or scalars that go for every configuration.
      dataset: what to train on; its validation examples are only measured.
      **settings: as for `steps`.

    Returns:
      In the order given, and as numpy arrays: the parameters, [C, K, d] and [C, K], and the
      `History`, [C, n_epochs + 1] ([C, 0] with `measure=False`).

    Examples:
      >>> from linear_cifar.datasets import load_dataset
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
    rows, results = [], []
    measured: list[History] = []
    for step in steps(key, hyperparameters, dataset, **settings):
        measured = [*measured, step.metrics] if step.epoch else [step.metrics]
        if step.finished:
            rows.append(step.rows)
            results.append((step.params, stack_metrics(measured)))
    order = np.argsort(np.concatenate(rows))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *results)


def stack_metrics(measured: Sequence[History]) -> History:
    """The metrics of a chunk's steps as one numpy `History`, [c, n_epochs + 1]."""
    if measured[0].train_loss.ndim > 1:
        return measured[0]
    return jax.tree.map(lambda *values: np.stack(values, axis=-1), *measured)


def steps(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    dataset: Dataset,
    *,
    batch_size: int | Sequence[int] = 100,
    loss: Loss | list[Loss] = SOFTMAX_CROSS_ENTROPY,
    optimizer: Optimizer | list[Optimizer] = sgd,
    n_epochs: int = 40,
    shuffle: bool = False,
    mesh: Mesh | None = None,
    memory_bytes: int = 2**30,
    finished: Collection[int] = (),
    **settings: Any,
) -> Iterator[Step]:
    """Trains a table chunk by chunk and an epoch at a time: the loop of `sweep`.

    A chunk that runs out of memory is begun anew with half as many configurations at once, and a
    `RuntimeWarning` says so. Where several processes share the mesh it is an error, since the
    others go on.

    Args:
      key: PRNG key, or keys [C].
      hyperparameters: fields [C], or scalars that go for every configuration.
      dataset: what to train on.
      batch_size: examples a step; a list or array [C], or one for all.
      loss: the loss per example; a list [C], or one for all.
      optimizer: makes the optax transformation; a list [C], or one for all.
      n_epochs: passes over the training examples.
      shuffle: draw a permutation of the examples each epoch, one for all configurations of a key.
      mesh: the devices that share the work; None for the default device.
      memory_bytes: what the parameters, gradients and optimiser states of a chunk may take on a
        device; the data come on top.
      finished: rows of the table to leave out. Chunks are the same with and without them, so that
        a sweep that goes on with those that are missing gives the same bits.
      **settings: further ones of `training.epochs`.

    Yields:
      A `Step` a chunk and epoch, n_epochs + 1 of each chunk.

    Raises:
      SettingsError: a setting out of its range, or columns of different lengths.
      MemoryError: out of memory with one configuration a device.
    """
    table = _table(key, hyperparameters, batch_size, loss, optimizer)
    n_devices = 1 if mesh is None else mesh.size
    for rows in _groups(table, shuffle):
        limit = n_devices * _runs_at_once(table, rows[0], dataset, memory_bytes)
        alone = len(rows) == 1 and _splits_features(mesh)
        size = 1 if alone else _chunk_size(len(rows), limit, n_devices)
        chunks = [[row for row in chunk if row not in finished] for chunk in _cut(rows, size)]
        while chunks:
            chunk = chunks.pop(0)
            try:
                if chunk:
                    yield from _train_chunk(
                        table, chunk, size, dataset, n_epochs=n_epochs, shuffle=shuffle,
                        mesh=mesh, **settings,
                    )  # fmt: skip
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
                    raise
                if size <= n_devices or jax.process_count() > 1:
                    raise MemoryError(
                        f"out of memory with {size} configurations at once"
                    ) from error
                warnings.warn(
                    f"out of memory with {size} configurations at once: going on with half as many",
                    RuntimeWarning,
                    stacklevel=2,
                )
                left = [row for rest in (chunk, *chunks) for row in rest]
                size = _chunk_size(len(left), max(n_devices, size // 2), n_devices)
                chunks = _cut(left, size)


def _splits_features(mesh: Mesh | None) -> bool:
    """Whether a single run is worth splitting: on the cores of one processor, not among GPUs."""
    if mesh is None:
        return True
    return mesh.devices.flat[0].platform == "cpu" and not mesh.is_multi_process


class _Table(NamedTuple):
    """The columns, of C values each."""

    keys: np.ndarray  # [C, ...], uint32
    key_impl: str
    hyperparameters: Hyperparameters  # fields [C]
    batch_size: list[int]
    loss: list[Loss]
    optimizer: list[Optimizer]


def _table(key, hyperparameters, *columns) -> _Table:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    lengths = {len(c) for c in columns if isinstance(c, (list, np.ndarray))}
    lengths |= {np.size(c) for c in (key, *hyperparameters) if np.ndim(c)}
    if len(lengths) > 1:
        raise SettingsError(f"a table's columns have different lengths: {sorted(lengths)}")
    n = max(lengths, default=1)

    def column(value) -> list:
        return list(value) if isinstance(value, (list, np.ndarray)) else [value] * n

    key_data = np.asarray(jax.random.key_data(key))
    return _Table(
        np.broadcast_to(key_data, (n, *key_data.shape[key.ndim :])),
        str(jax.random.key_impl(key)),
        jax.tree.map(lambda field: np.broadcast_to(np.asarray(field), n), hyperparameters),
        *(column(c) for c in columns),
    )


def _groups(table: _Table, shuffle: bool) -> list[list[int]]:
    """Rows that one program trains at once, in the order of the table."""
    groups: dict[tuple, list[int]] = {}
    for row, shape in enumerate(zip(*table[3:], strict=True)):
        # Runs that are shuffled together share their order, which their key gives.
        own = table.keys[row].tobytes() if shuffle else b""
        groups.setdefault((*shape, own), []).append(row)
    return list(groups.values())


def _runs_at_once(table: _Table, row: int, dataset: Dataset, memory_bytes: int) -> int:
    """How many runs like that of a row to train at once on a device."""

    def arrays(hyperparameters):
        params = init_params(jax.random.key(0), dataset.n_features, dataset.n_classes)
        return params, table.optimizer[row](hyperparameters, 1).init(params)

    own = jax.tree.map(lambda field: field[row], table.hyperparameters)
    # Beside those: the gradient, the updates, and the parameters that come of them.
    state_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(jax.eval_shape(arrays, own)))
    run_bytes = state_bytes + 3 * 4 * dataset.n_features * dataset.n_classes
    return max(1, min(_RUNS_AT_ONCE, memory_bytes // run_bytes))


def _chunk_size(n: int, limit: int, n_devices: int) -> int:
    """Runs a chunk, the same for all of n and a multiple of the devices."""
    n_chunks = -(-n // limit)
    return -(-n // (n_chunks * n_devices)) * n_devices


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _train_chunk(
    table: _Table, rows: list[int], size: int, dataset: Dataset, **settings: Any
) -> Iterator[Step]:
    alone = size == 1
    padded = rows + rows[-1:] * (size - len(rows))
    select: Any = rows[0] if alone else padded
    fields = jax.tree.map(lambda field: field[select], table.hyperparameters)
    keys = jnp.asarray(table.keys[rows[0] if settings["shuffle"] else select])
    loss = table.loss[rows[0]]
    trained = epochs(
        jax.random.wrap_key_data(keys, impl=table.key_impl),
        fields,
        dataset,
        loss=loss,
        batch_size=int(table.batch_size[rows[0]]),
        optimizer=table.optimizer[rows[0]],
        **settings,
    )
    for epoch, (state, metrics) in enumerate(trained):
        jax.block_until_ready(state)  # for what went wrong to be known here
        devices.await_others()
        finished = epoch == settings["n_epochs"]
        yield Step(np.array(rows), epoch, finished, state, metrics, np.asarray(fields.lam), loss)
