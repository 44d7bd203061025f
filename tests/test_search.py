"""The choice of the best: tables to train, the ranking of what they gave, data to refit on."""

import numpy as np
import pytest
from conftest import assert_close
from scipy import stats

from linear_cifar import search
from linear_cifar.data import fit_standardiser, with_validation


def test_a_grid_has_every_combination_once():
    table = search.grid(batch_size=[10, 20], learning_rate=[0.1, 0.2], lam=[0.0, 0.5, 1.0])
    rows = list(zip(*(column.tolist() for column in table.values()), strict=True))
    assert rows == [(b, e, lam) for b in (10, 20) for e in (0.1, 0.2) for lam in (0.0, 0.5, 1.0)]
    assert table["batch_size"].dtype.kind == "i"


def test_draws_are_as_asked_for_and_depend_on_the_seed_alone():
    axes = {"lam": stats.loguniform(1e-5, 1.0), "batch_size": [10, 50]}
    table, same = search.draw(3, 4000, **axes), search.draw(3, 4000, **axes)
    assert all(np.array_equal(table[name], same[name]) for name in axes)
    logs = np.log10(table["lam"])
    assert stats.kstest(logs, stats.uniform(-5, 5).cdf).pvalue > 0.01
    assert abs(np.mean(table["batch_size"] == 10) - 0.5) < 0.03
    assert not np.array_equal(table["lam"], search.draw(4, 4000, **axes)["lam"])


def test_the_draws_of_an_axis_do_not_depend_on_the_values_of_others():
    lam = stats.loguniform(1e-5, 1.0)
    one, other = (
        search.draw(3, 20, batch_size=sizes, lam=lam)["lam"] for sizes in ([10], [10, 20, 50])
    )
    assert np.array_equal(one, other)


def test_the_best_is_never_diverged_and_ties_go_by_the_other_figure():
    accuracy = np.array([np.nan, 0.3, 0.4, 0.4, 0.4, np.nan])
    loss = np.array([np.nan, 1.0, 1.9, 1.8, 1.8, 0.1])
    assert search.best(accuracy) == 2
    assert search.best(accuracy, loss) == 3
    assert search.best(accuracy, loss, by="loss") == 1
    assert search.ranking(accuracy, loss).tolist() == [3, 4, 2, 1, 5, 0]
    assert search.ranking(accuracy, loss, by="loss").tolist() == [1, 3, 4, 2, 5, 0]
    assert search.ranking(np.array([0.5, 0.3]), np.array([np.inf, 1.0])).tolist() == [1, 0]
    for diverged in ((np.full(2, np.nan), None), (np.array([0.3]), np.array([np.inf]))):
        with pytest.raises(ValueError, match="diverged"):
            search.best(*diverged)


def test_refitting_takes_validation_data_with_statistics_of_all(small):
    both = with_validation(small)
    for name in ("inputs", "labels"):
        parts = [getattr(split, name) for split in (small.train, small.validation)]
        assert np.array_equal(getattr(both.train, name), np.concatenate(parts))
    assert_close(both.standardiser.mean, fit_standardiser(both.train.inputs).mean)
    assert np.array_equal(both.test.inputs, small.test.inputs)


def test_one_standard_error_takes_the_largest_lambda_that_is_as_good():
    lam = np.array([1.0, 0.01, 10.0, 0.1])
    accuracy, loss = np.array([0.68, 0.69, 0.5, 0.70]), np.array([1.02, 1.3, 1.5, 1.0])
    error = np.array([9, 9, 9, 0.02])
    assert search.one_standard_error(lam, accuracy, error) == 0
    assert search.one_standard_error(lam, accuracy, error * 0.9) == 3
    assert search.one_standard_error(lam, loss, error, "loss") == 0
    assert search.one_standard_error(lam, accuracy, np.full(4, np.nan)) == 3
    accuracy[0] = np.nan
    assert search.one_standard_error(lam, accuracy, error) == 3
    for arguments, message in (
        ((lam, np.full(4, np.nan), error), "no configuration"),
        ((lam, np.zeros((5, 4)), error), r"have to be \[C\]: they are \(4,\), \(5, 4\)"),
        ((lam, accuracy, error, "error"), "by is 'error'"),
    ):
        with pytest.raises(ValueError, match=message):
            search.one_standard_error(*arguments)
