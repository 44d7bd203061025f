"""Tables of configurations, and the plan by which they are trained: table → groups → chunks.

A table is columns of C values, one a configuration. What fixes shapes (batch size, loss, optimiser)
divides it into groups; each group has one compiled program and is trained in chunks of the size
that runs fastest within a bound on memory. Nothing here computes; `tables` carries the plan out.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.engine.loop import Runs
from linear_cifar.engine.state import Training
from linear_cifar.engine.training import as_key, check_training
from linear_cifar.losses import Loss
from linear_cifar.model import init_params
from linear_cifar.optimizers import Hyperparameters, Optimizer, cast, check_hyperparameters
from linear_cifar.settings import SettingsError, numbers

# Runs at once on a device. Measured on two cores; a GPU has room for more before it is busy, but
# none was at hand to measure on.
_RUNS_AT_ONCE = 64


class Table(NamedTuple):
    """The columns, of C values each; `make_table` makes one."""

    keys: np.ndarray  # [C, …], uint32
    key_impl: str
    hyperparameters: Hyperparameters  # fields [C]
    batch_size: list[int]
    loss: list[Loss]
    optimizer: list[Optimizer]

    def runs(self, rows: list[int], dtype: Any) -> Runs:
        """What the runs of some rows begin with; they share the order of the first one's key."""
        fields = cast(jax.tree.map(lambda f: f[rows], self.hyperparameters), dtype)
        return Runs(self.keys[rows], self.keys[rows[0]], self.key_impl, fields)


class Chunk(NamedTuple):
    """Rows of a table to train at once, all of one group."""

    rows: tuple[int, ...]
    size: int  # runs at once; the last row fills up where there are fewer rows

    @property
    def padded(self) -> list[int]:
        """The rows of all runs, `size` of them."""
        return [*self.rows, *self.rows[-1:] * (self.size - len(self.rows))]


class Group(NamedTuple):
    """Rows that one program trains, and how."""

    rows: list[int]
    how: Training


def make_table(
    key: jax.Array,
    hyperparameters: Hyperparameters,
    batch_size: int | Sequence[int],
    loss: Loss | Sequence[Loss],
    optimizer: Optimizer | Sequence[Optimizer],
) -> Table:
    """Makes columns of C values of what may be one for all.

    Raises:
      SettingsError: columns of different lengths, empty ones, or a hyper-parameter out of its
        range.
    """
    hyperparameters = check_hyperparameters(hyperparameters)
    key = as_key(key)
    if hasattr(batch_size, "dtype"):
        batch_size = numbers("batch_size", batch_size).tolist()
    columns: dict[str, Any] = {"batch_size": batch_size, "loss": loss, "optimizer": optimizer}
    # A `Loss` is a tuple, and one for all.
    many = {n: isinstance(c, (list, tuple)) and not isinstance(c, Loss) for n, c in columns.items()}
    for name, column in columns.items():
        for value in column if many[name] else [column]:
            _check_one(name, value)
    lengths = {name: len(columns[name]) for name in many if many[name]}
    named = {"key": key, **hyperparameters._asdict()}
    lengths |= {name: len(column) for name, column in named.items() if np.ndim(column)}
    if nested := [name for name, column in named.items() if np.ndim(column) > 1]:
        raise SettingsError(f"a column has to be [C]: {nested[0]} is {np.shape(named[nested[0]])}")
    if len(set(lengths.values())) > 1:
        raise SettingsError(
            "a table's columns have different lengths: "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
        )
    n = max(lengths.values(), default=1)
    if not n:
        raise SettingsError("a table needs at least one row")
    key_data = np.asarray(jax.random.key_data(key))
    return Table(
        np.broadcast_to(key_data, (n, *key_data.shape[key.ndim :])),
        str(jax.random.key_impl(key)),
        jax.tree.map(lambda field: np.broadcast_to(np.asarray(field), n), hyperparameters),
        *(list(column) if many[name] else [column] * n for name, column in columns.items()),
    )


def _check_one(name: str, value: Any) -> None:
    """That it can tell rows apart; what it has to be is checked of each group."""
    try:
        hash(value)
    except TypeError as error:
        raise SettingsError(f"{name} is {value!r}: a column has one value a row") from error


def groups(table: Table, how: Training, n: int) -> list[Group]:
    """The rows that one program trains at once, in the order of the table.

    Args:
      table: of configurations.
      how: for all of them, but for the columns of the table.
      n: training examples.

    Raises:
      SettingsError: a setting out of its range, in whichever row.
    """
    cast(table.hyperparameters, how.dtype)
    found: dict[tuple, list[int]] = {}
    for row, shape in enumerate(zip(*table[3:], strict=True)):
        # Runs that are shuffled together share their order, which their key gives.
        own = table.keys[row].tobytes() if how.shuffle else b""
        found.setdefault((*shape, own), []).append(row)
    result = []
    for (batch_size, loss, optimizer, _), rows in found.items():
        size = int(batch_size) if isinstance(batch_size, np.integer) else batch_size
        of_group = how._replace(batch_size=size, loss=loss, optimizer=optimizer)
        check_training(of_group, n)
        result.append(Group(rows, of_group))
    return result


def chunks(
    rows: Sequence[int], at_once: int, n_devices: int, finished: Collection[int] = ()
) -> list[Chunk]:
    """Cuts rows into chunks of one size, a multiple of the devices.

    Args:
      rows: of a group.
      at_once: the most runs at once.
      n_devices: that share them.
      finished: rows to leave out; the chunks are the same with and without them, so that a sweep
        that goes on with those that are missing gives the same bits.
    """
    n_chunks = -(-len(rows) // at_once)
    size = -(-len(rows) // (n_chunks * n_devices)) * n_devices
    cut = (rows[start : start + size] for start in range(0, len(rows), size))
    left = (tuple(row for row in chunk if row not in finished) for chunk in cut)
    return [Chunk(chunk, size) for chunk in left if chunk]


def runs_at_once(
    table: Table, group: Group, n_features: int, n_classes: int, memory_bytes: int
) -> int:
    """How many runs of a group to train at once on a device, within a bound on memory.

    It counts parameters, optimiser state, gradient, updates and the parameters that come of them.
    """

    def arrays(hyperparameters):
        params = init_params(jax.random.key(0), n_features, n_classes, dtype=group.how.dtype)
        return params, group.how.optimizer(hyperparameters, 1).init(params)

    own = jax.tree.map(lambda field: field[group.rows[0]], table.hyperparameters)
    state = jax.tree.leaves(jax.eval_shape(arrays, own))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    passing_bytes = 3 * jnp.dtype(group.how.dtype).itemsize * n_features * n_classes
    return max(1, min(_RUNS_AT_ONCE, memory_bytes // (state_bytes + passing_bytes)))
