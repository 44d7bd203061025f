"""The plan of a table: groups that are one program, in chunks that are trained at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import SEEDS, keys, mixed_table

from linear_cifar.engine import plan
from linear_cifar.engine.plan import Chunk, make_table
from linear_cifar.engine.state import Training
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY
from linear_cifar.optimizers import Hyperparameters, adam, momentum, sgd

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("shuffle", "expected"),
    [(False, [[0, 2], [1], [3, 5], [4], [6]]), (True, [[0, 2], [1], [3], [4], [5], [6]])],
)
def test_rows_of_one_program_are_a_group_and_where_they_are_shuffled_of_one_order(
    shuffle, expected
):
    hyperparameters, columns = mixed_table()
    table = make_table(keys(SEEDS), hyperparameters, **columns)
    groups = plan.groups(table, Training(n_epochs=3, shuffle=shuffle), 400)
    assert [group.rows for group in groups] == expected
    for group in groups:
        for row in group.rows:
            own = {name: column[row] for name, column in columns.items()}
            assert group.how == Training(n_epochs=3, shuffle=shuffle, **own)


@pytest.mark.parametrize(
    ("n_rows", "at_once", "n_devices", "expected"),
    [
        (7, 64, 1, [range(7)]),
        (11, 4, 1, [range(4), range(4, 8), range(8, 11)]),
        (9, 4, 1, [range(3), range(3, 6), range(6, 9)]),  # evenly, not 4, 4 and 1
        (11, 8, 4, [range(8), range(8, 11)]),
        (3, 256, 4, [range(3)]),  # more devices than rows
        (1, 64, 1, [range(1)]),
    ],
)
def test_chunks_are_few_even_and_a_multiple_of_the_devices(n_rows, at_once, n_devices, expected):
    rows = [10 * row for row in range(n_rows)]
    chunks = plan.chunks(rows, at_once, n_devices)
    assert [list(chunk.rows) for chunk in chunks] == [[10 * i for i in part] for part in expected]
    (size,) = {chunk.size for chunk in chunks}
    assert size % n_devices == 0
    assert len(expected[0]) <= size <= at_once
    for chunk in chunks:
        n_padded = size - len(chunk.rows)
        assert chunk.padded == [*chunk.rows, *[chunk.rows[-1]] * n_padded]


def test_chunks_are_the_same_without_what_is_finished():
    finished = {1, 2, 4, 5, 6, 7}
    assert plan.chunks(range(11), 4, 2, finished) == [Chunk((0, 3), 4), Chunk((8, 9, 10), 4)]
    assert plan.chunks(range(11), 4, 2, set(range(11))) == []


def test_runs_at_once_are_bounded_by_the_bytes_of_their_states():
    def n(memory_bytes, **settings):
        how = Training(**settings)
        table = make_table(KEY, Hyperparameters(0.1, 0.01), 100, how.loss, how.optimizer)
        (group,) = plan.groups(table, how, 400)
        return plan.runs_at_once(table, group, 192, 10, memory_bytes)

    arrays = 4 * 192 * 10  # bytes of parameters in float32, but for the bias
    # Parameters, gradient, updates and new parameters; momentum keeps one array, adam two.
    memory = 61 * arrays
    assert n(memory, optimizer=sgd) == 15
    assert n(memory, optimizer=momentum) == 12
    assert n(memory, optimizer=adam) == 10
    assert n(memory, dtype=jnp.float64) == 7
    assert n(0) == 1
    assert n(2**40) == 64  # more gain nothing


@pytest.mark.parametrize("as_column", [tuple, list, np.array])
def test_columns_may_be_tuples_lists_and_arrays(as_column):
    sizes, lam = as_column((20, 40)), as_column((0.0, 0.1))
    table = make_table(
        KEY, Hyperparameters(np.array(lam)), sizes, SOFTMAX_CROSS_ENTROPY, (sgd, adam)
    )
    first, second = plan.groups(table, Training(), 400)
    assert (first.rows, first.how) == ([0], Training(batch_size=20))
    assert (second.rows, second.how) == ([1], Training(batch_size=40, optimizer=adam))
    assert type(first.how.batch_size) is int
    assert table.hyperparameters.lam.tolist() == [0.0, 0.1]
