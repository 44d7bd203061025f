"""Tables of configurations, and the choice of the best one."""

import numpy as np
import pytest
from scipy import stats

from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import adam, sgd
from linear_cifar.selection import best, grid, one_standard_error, random_grid, ranking


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


def test_draws_follow_their_distribution_and_the_seed():
    axes = {"lam": stats.loguniform(1e-5, 1.0), "batch_size": [10, 50]}
    table = random_grid(3, 4000, **axes)
    assert stats.kstest(np.log10(table["lam"]), stats.uniform(-5, 5).cdf).pvalue > 0.01
    assert abs(np.mean(table["batch_size"] == 10) - 0.5) < 0.03
    assert not np.array_equal(table["lam"], random_grid(4, 4000, **axes)["lam"])


def test_a_seed_keeps_giving_the_draws_of_earlier_versions_each_column_its_own():
    table = random_grid(7, 3, lam=stats.loguniform(1e-3, 1), batch_size=[10, 50, 100])
    generators = np.random.default_rng(7).spawn(2)
    lam = stats.loguniform(1e-3, 1).rvs(size=3, random_state=generators[0])
    assert table["lam"].tolist() == lam.tolist()
    places = generators[1].integers(3, size=3)
    assert table["batch_size"].tolist() == [(10, 50, 100)[place] for place in places]


def test_the_best_never_diverged_and_ties_go_by_the_other_column():
    accuracy = np.array([np.nan, 0.3, 0.4, 0.4, 0.4, np.nan])
    loss = np.array([np.nan, 1.0, 1.9, 1.8, 1.8, 0.1])
    assert best(accuracy) == 2
    assert best(accuracy, loss) == 3
    assert best(accuracy, loss, by="loss") == 1
    assert ranking(accuracy, loss).tolist() == [3, 4, 2, 1, 5, 0]
    assert ranking(accuracy, loss, by="loss").tolist() == [1, 3, 4, 2, 5, 0]
    assert ranking([0.5, 0.3], [np.inf, 1.0]).tolist() == [1, 0]


def test_one_standard_error_takes_the_largest_lambda_that_is_as_good():
    lam = np.array([1.0, 0.01, 10.0, 0.1])
    accuracy, loss = np.array([0.68, 0.69, 0.5, 0.70]), np.array([1.02, 1.3, 1.5, 1.0])
    error = np.array([9, 9, 9, 0.02])
    assert one_standard_error(lam, accuracy, error) == 0
    assert one_standard_error(lam, accuracy, error * 0.9) == 3
    assert one_standard_error(lam, loss, error, "loss") == 0
    assert one_standard_error(lam, accuracy, np.full(4, np.nan)) == 3
    accuracy[0] = np.nan
    assert one_standard_error(lam, accuracy, error) == 3


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: best([np.nan, np.nan]), "diverged"),
        (lambda: best([0.3], [np.inf]), "diverged"),
        (lambda: best([]), "no validation data"),
        (lambda: ranking([0.3], by="cost"), "by is 'cost'"),
        (lambda: ranking([0.3, 0.4], [0.1]), "accuracy, loss"),
        (lambda: ranking(["a"]), "accuracy"),
        (lambda: one_standard_error([1.0], [np.nan], [0.1]), "diverged"),
        (lambda: one_standard_error([1.0], [[0.5]], [0.1]), "lam, mean, error"),
    ],
)
def test_no_choice_or_bad_arguments_are_errors(call, match):
    with pytest.raises(InputError, match=match):
        call()
