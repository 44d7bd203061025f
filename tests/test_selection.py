"""Tables of configurations, and the choice of the best one."""

import numpy as np
import pytest
from scipy import stats

from linear_cifar import LOSSES, InputError, adam, best, grid, random_grid, sgd
from linear_cifar.selection import one_standard_error, ranking


def test_a_grid_has_every_combination_once():
    table = grid(batch_size=[10, 20], learning_rate=[0.1, 0.2], lam=[0.0, 0.5, 1.0])
    rows = list(zip(*(column.tolist() for column in table.values()), strict=True))
    assert rows == [(b, e, lam) for b in (10, 20) for e in (0.1, 0.2) for lam in (0.0, 0.5, 1.0)]
    assert table["batch_size"].dtype.kind == "i"


@pytest.mark.parametrize("draw", [grid, lambda **axes: random_grid(0, 50, **axes)])
def test_columns_can_hold_losses_functions_and_text(draw):
    losses = list(LOSSES.values())
    table = draw(loss=losses, optimizer=[sgd, adam], name=["sgd", "adam"], lam=np.array([0.1]))
    assert set(table["loss"]) == set(losses)
    assert set(table["optimizer"]) == {sgd, adam}
    assert set(table["name"].tolist()) == {"sgd", "adam"}
    assert len({len(column) for column in table.values()}) == 1


def test_draws_follow_their_distribution_and_the_seed_whatever_the_other_columns():
    axes = {"lam": stats.loguniform(1e-5, 1.0), "batch_size": [10, 50]}
    table = random_grid(3, 4000, **axes)
    assert stats.kstest(np.log10(table["lam"]), stats.uniform(-5, 5).cdf).pvalue > 0.01
    assert abs(np.mean(table["batch_size"] == 10) - 0.5) < 0.03
    other = random_grid(3, 4000, lam=axes["lam"], batch_size=[1, 2, 3])
    assert np.array_equal(table["lam"], other["lam"])
    assert not np.array_equal(table["lam"], random_grid(4, 4000, **axes)["lam"])


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("accuracy", "loss", "by", "order"),
    [
        ([0.3, 0.4, 0.4], None, "accuracy", [1, 2, 0]),  # the first of equals
        ([0.3, 0.4, 0.4, 0.4], [1.0, 1.9, 1.8, 1.8], "accuracy", [2, 3, 1, 0]),
        ([0.3, 0.4, 0.4, 0.4], [1.0, 1.9, 1.8, 1.8], "loss", [0, 2, 3, 1]),
        ([0.3, 0.4, 0.5], [1.0, 1.0, 1.1], "loss", [1, 0, 2]),
        ([NAN, 0.1, 0.3], [0.1, 2.0, 1.0], "accuracy", [2, 1]),  # the first has diverged
        ([0.9, 0.1, 0.3, 0.8], [NAN, 1.0, 2.0, INF], "accuracy", [2, 1]),
        ([0.9, 0.1, 0.3, 0.8], [-INF, 1.0, 2.0, NAN], "loss", [1, 2]),
    ],
)
def test_the_best_come_first_ties_go_by_the_other_column_and_diverged_runs_are_last(
    accuracy, loss, by, order
):
    assert best(accuracy, loss, by) == order[0]
    indices = ranking(accuracy, loss, by).tolist()
    assert indices[: len(order)] == order
    assert sorted(indices) == list(range(len(accuracy)))


LAM, ERROR = [1.0, 0.01, 10.0, 0.1], np.array([9, 9, 9, 0.02])


@pytest.mark.parametrize(
    ("mean", "error", "by", "row"),
    [
        ([0.68, 0.69, 0.5, 0.70], ERROR, "accuracy", 0),  # exactly one error below the best
        ([0.68, 0.69, 0.5, 0.70], 0.9 * ERROR, "accuracy", 3),
        ([1.02, 1.3, 1.5, 1.0], ERROR, "loss", 0),
        ([1.02, 1.3, 0.5, 1.0], ERROR, "loss", 2),
        ([0.68, 0.69, 0.5, 0.70], ERROR * NAN, "accuracy", 3),
        ([0.7, 0.7, 0.5, 0.7], ERROR * NAN, "accuracy", 0),  # the largest λ of equals
        ([NAN, 0.69, 0.5, 0.70], ERROR, "accuracy", 3),
        ([NAN, INF, 0.5, 0.70], 100 * ERROR, "accuracy", 2),
    ],
)
def test_one_standard_error_takes_the_largest_lambda_that_is_as_good(mean, error, by, row):
    assert one_standard_error(LAM, mean, error, by) == row


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: best([NAN, NAN]), "diverged"),
        (lambda: best([0.3, NAN], [INF, 0.3]), "diverged"),
        (lambda: ranking([0.3], by="cost"), "by is 'cost'"),
        (lambda: one_standard_error([1.0], [[0.5]], [0.1]), "lam, mean, error"),
    ],
)
def test_no_choice_or_bad_arguments_are_errors(call, match):
    with pytest.raises(InputError, match=match):
        call()
