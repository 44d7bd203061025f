"""`sweep`: trains a table of configurations, chunk by chunk.

A table has C configurations, one value of each column per configuration. Batch size, loss and
optimiser fix shapes and programs, so they divide the table into groups. The runs of a group are
trained in chunks, as many at once as run fastest within a bound on memory.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from linear_cifar.checks import Setting, as_key, real_numbers
from linear_cifar.data.blocks import even_size
from linear_cifar.data.dataset import Dataset
from linear_cifar.errors import InputError
from linear_cifar.losses import Loss, as_loss
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters, as_optimizer
from linear_cifar.training import devices
from linear_cifar.training.train import (
    DEFAULTS,
    SETTINGS,
    History,
    TrainConfig,
    checked_run,
    init_state,
    run_epochs,
    start_runs,
)

# Runs at once on a device. More gain nothing on two cores; a GPU may have room for more.
_MAX_AT_ONCE = 64
_STATIC = ("batch_size", "loss", "optimizer")


class SweepChunk(NamedTuple):
    """Runs that are trained together, after an epoch."""

    rows: np.ndarray  # [c], of the table
    params: Params  # [c, K, d] and [c, K]
    history: History  # NumPy, [c, epoch + 1]; [c, 0] unless measured
    epoch: int  # 0 is before training


class _Runs(NamedTuple):
    """The columns of runs that don't fix programs; NumPy."""

    keys: np.ndarray  # [C, …], uint32: the data of the PRNG keys
    hyperparameters: Hyperparameters  # fields [C]


def sweep(
    key: jax.Array,
    table: Mapping[str, Any],
    dataset: Dataset,
    config: TrainConfig = DEFAULTS,
    *,
    mesh: Mesh | None = None,
    memory_bytes: int = 2**30,
    finished: Collection[int] = (),
    on_epoch: Callable[[SweepChunk], None] | None = None,
    on_chunk: Callable[[SweepChunk], None] | None = None,
) -> tuple[Params, History]:
    """Trains a table of configurations.

    Each configuration gives what `train` gives for it alone, to float rounding. With
    `config.shuffle` one permutation per epoch serves all configurations with the same key.

    Args:
      key: PRNG key, or keys [C].
      table: columns by name, [C] or one value for all: fields of `Hyperparameters`, `batch_size`,
        `loss` and `optimizer` (objects or names). `selection.grid` makes one. A NamedTuple of
        hyper-parameters of your own works too, with an optimiser that reads it.
      dataset: inputs in memory. Its validation examples are only measured.
      config: the static settings; columns of the table take precedence.
      mesh: devices that share the work, from `device_mesh`; None for the default device.
      memory_bytes: bound for the parameters, gradients and optimiser states of a chunk on a device;
        the data are not counted.
      finished: rows of the table to leave out. That doesn't change the bits of the others.
      on_epoch: called before training and after each epoch of a chunk. The parameters are on the
        devices; copies of the last run may follow them.
      on_chunk: called with each finished chunk, in NumPy arrays. Chunks aren't collected then, so
        that a sweep can be larger than the memory.

    Returns:
      NumPy arrays in the order of the table: parameters, [C, K, d] and [C, K], and the `History`,
      [C, n_epochs + 1] ([C, 0] with `measure=False`). Without the rows in `finished`, and without
      any rows if `on_chunk` is given.

    Raises:
      InputError: an unknown column, columns of different lengths, or a setting out of its range;
        before anything is trained.
      DataError: the inputs are left on disk.

    Examples:
      >>> from linear_cifar.data import load_dataset
      >>> from linear_cifar.selection import grid
      >>> table = grid(batch_size=[50, 100], lam=[0.0, 0.1, 1.0])
      >>> params, history = sweep(
      ...     jax.random.key(0), table, load_dataset("synthetic"), TrainConfig(n_epochs=2)
      ... )
      >>> params.weights.shape, history.validation_accuracy.shape
      ((6, 10, 3072), (6, 3))
    """
    devices.check_mesh(mesh)
    Setting("", low=1, integer=True).check("memory_bytes", memory_bytes)
    key = as_key(key)
    key_impl = str(jax.random.key_impl(key))
    runs, static = _columns(key, table, config)
    hyperparameters, dataset, config = checked_run(runs.hyperparameters, dataset, config, axes=1)
    runs = runs._replace(hyperparameters=hyperparameters)
    n_devices, d = 1 if mesh is None else mesh.size, dataset.n_features
    placed: dict[bool, Dataset] = {}  # by whether the features are split
    nothing = np.zeros((0, dataset.n_classes, d), config.dtype)
    collected: list[tuple] = [
        (np.zeros(0, int), Params(nothing, nothing[..., 0]), _history([], 0, config))
    ]
    for rows, group_config in _groups(runs, static, dataset, config):
        # A run alone isn't padded to the number of devices if they can share its features.
        alone = len(rows) == 1 and devices.splits_features(mesh, d)
        at_once = _runs_at_once(runs, rows[0], dataset, group_config, memory_bytes)
        for chunk_rows in _cut(rows, n_devices * at_once, 1 if alone else n_devices):
            if all(row in finished for row in chunk_rows):
                continue
            place: Any = partial(devices.shard_runs, mesh=mesh)
            if alone:
                place = partial(devices.shard_features, mesh=mesh, n_features=d)
            if alone not in placed:
                placed[alone] = place(dataset) if alone else devices.replicate(dataset, mesh)
            # The whole chunk is trained, because a chunk of another size rounds differently.
            settings = (placed[alone], group_config, place, on_epoch)
            chunk = _train_chunk(runs, key_impl, np.array(chunk_rows), *settings)
            wanted = np.isin(chunk.rows, list(finished), invert=True)
            arrays: tuple[Any, Any, Any] = jax.tree.map(lambda a: a[wanted], chunk[:3])  # noqa: B023
            if on_chunk:
                on_chunk(SweepChunk(*arrays, chunk.epoch))
            else:
                collected.append(arrays)
    order = np.argsort(np.concatenate([rows for rows, _, _ in collected]))
    _, params, history = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *collected)
    return params, history


def _columns(key: jax.Array, table: Any, config: TrainConfig) -> tuple[_Runs, list[Any]]:
    """The columns of a table with C values each, and the rows of columns that fix programs."""
    fields: Any = table if hasattr(table, "_asdict") else Hyperparameters()
    values = {name: getattr(config, name) for name in _STATIC} | fields._asdict()
    for name in () if fields is table else table:
        if name not in values:
            close = difflib.get_close_matches(name, values, 1) or values
            raise InputError(f"a table can't have a column {name!r}: use {', '.join(close)}")
        values[name] = table[name]
    columns = {name: _column(name, column) for name, column in values.items()}
    lengths = {name: len(column) for name, column in columns.items() if column.ndim}
    lengths |= {"key": len(key)} if key.ndim else {}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        described = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"the columns of the table need one length, at least 1: {described}")
    n = max(lengths.values(), default=1)
    columns = {name: np.broadcast_to(column, n) for name, column in columns.items()}
    key_data = np.asarray(jax.random.key_data(key))
    keys = np.broadcast_to(key_data, (n, *key_data.shape[key.ndim :]))
    hyperparameters = type(fields)(**{name: columns[name] for name in fields._fields})
    static = list(zip(*(columns[name].tolist() for name in _STATIC), strict=True))
    return _Runs(keys, hyperparameters), static


def _column(name: str, values: Any) -> np.ndarray:
    """Values [C], or one value []; losses and functions stay objects."""
    if name in _STATIC:
        # NumPy can't make an array of names beside losses, which are tuples.
        several = isinstance(values, (list, tuple)) or np.ndim(values)
        single = isinstance(values, (str, Loss)) or not several
        column = np.empty(1 if single else len(values), object)
        column[:] = [values] if single else values
        return column.reshape(()) if single else column
    column = real_numbers(name, values)
    if column.ndim > 1:
        raise InputError(f"{name} is {list(column.shape)}: a column of the table has to be [C]")
    return column


def _groups(
    runs: _Runs, static: list[Any], dataset: Dataset, config: TrainConfig
) -> list[tuple[list[int], TrainConfig]]:
    """The rows that one program trains, in the order of the table, with their settings."""
    groups: dict[Any, list[int]] = {}
    for row, (batch_size, loss, optimizer) in enumerate(static):
        SETTINGS["batch_size"].check("batch_size", batch_size)
        row_config = config._replace(
            batch_size=min(int(batch_size), len(dataset.train.labels)),
            loss=as_loss(loss),
            optimizer=as_optimizer(optimizer),
        )
        # Runs that are shuffled together share their order, which comes from their key.
        order = runs.keys[row].tobytes() if config.shuffle else b""
        groups.setdefault((row_config, order), []).append(row)
    return [(rows, row_config) for (row_config, _), rows in groups.items()]


def _cut(rows: list[int], most: int, multiple: int) -> list[list[int]]:
    """Chunks of one size, at most `most` and a multiple of the devices, whatever is finished.

    The last row fills up the last chunk.
    """
    size = even_size(len(rows), most, multiple)
    starts = range(0, len(rows), size)
    return [(rows[start : start + size] + rows[-1:] * size)[:size] for start in starts]


def _runs_at_once(
    runs: _Runs, row: int, dataset: Dataset, config: TrainConfig, memory_bytes: int
) -> int:
    """How many runs like one fit into the bound on memory of a device, at most 64.

    A run takes its state, and the gradient, updates and new parameters of a step.
    """
    hyperparameters = jax.tree.map(lambda field: field[row], runs.hyperparameters)
    start = partial(init_state, dataset=dataset, config=config)
    state = jax.eval_shape(start, jax.random.key(0), hyperparameters)
    n_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    n_bytes += 3 * config.dtype.itemsize * dataset.n_features * dataset.n_classes
    return max(1, min(_MAX_AT_ONCE, memory_bytes // n_bytes))


def _train_chunk(
    runs: _Runs,
    key_impl: str,
    rows: np.ndarray,
    dataset: Dataset,
    config: TrainConfig,
    place: Callable[[Any], Any],
    on_epoch: Callable[[SweepChunk], None] | None,
) -> SweepChunk:
    """Trains the runs of some rows at once, an epoch at a time."""
    runs = jax.tree.map(lambda column: column[rows], runs)
    keys, hyperparameters = place(runs)
    state = place(start_runs(keys, hyperparameters, dataset, config, key_impl))
    order_key = jax.random.wrap_key_data(jnp.asarray(runs.keys[0]), impl=key_impl)
    distinct = rows[: len(set(rows.tolist()))]  # copies of the last row fill up the chunk
    measured: list[History] = []
    steps = run_epochs(state, hyperparameters, order_key, dataset, config)
    for epoch, (state, metrics) in enumerate(steps):
        jax.block_until_ready((state, metrics))
        devices.await_others()
        if metrics is not None:
            measured.append(devices.fetch(metrics))
        if on_epoch:
            history = _history(measured, len(distinct), config)
            on_epoch(SweepChunk(distinct, state.params, history, epoch))
    params = jax.tree.map(lambda a: a[: len(distinct)], devices.fetch(state.params))
    return SweepChunk(distinct, params, _history(measured, len(distinct), config), epoch)


def _history(measured: list[History], n_runs: int, config: TrainConfig) -> History:
    """The history of the first runs, [n_runs, len(measured)]; of no runs, of all epochs."""
    if measured:
        return jax.tree.map(lambda *epochs: np.stack(epochs, axis=-1)[:n_runs], *measured)
    n_columns = config.n_epochs + 1 if config.measure and not n_runs else 0
    return History(*[np.zeros((n_runs, n_columns), config.dtype)] * len(History._fields))
