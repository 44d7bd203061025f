"""Tests of whether models differ, against SciPy, direct definitions and planted truths."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from linear_cifar import InputError
from linear_cifar.metrics import holm, mcnemar, paired_test, pseudo_values
from tests.conftest import assert_close
from tests.test_binary_metrics import examples, placements


def test_a_paired_test_matches_scipys_column_by_column():
    a, b = np.random.default_rng(0).normal(size=(2, 40, 3))
    for x, y in ((a, b), (a[:, 0], b[:, 0])):
        expected = stats.ttest_rel(x, y)
        interval = expected.confidence_interval()
        for number, other in zip(
            paired_test(x, y), (np.mean(x - y, axis=0), *interval, expected.pvalue), strict=True
        ):
            assert_close(number, other)
            assert np.shape(number) == x.shape[1:]


def test_a_constant_difference_is_its_own_interval_and_one_pair_has_none():
    assert paired_test([2.0, 3, 4], [1.0, 2, 3])[:3] == (1, 1, 1)
    assert paired_test([1.0], [0.5])[:3] == pytest.approx((0.5, np.nan, np.nan), nan_ok=True)


def test_equal_values_have_p_1_and_a_constant_difference_or_one_pair_has_no_p():
    a = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    assert np.array_equal(paired_test(a, a - [0, 1, 0]).p, [1, np.nan, np.nan], equal_nan=True)
    assert np.isnan(paired_test([1.0], [0.5]).p)


def test_a_paired_test_of_the_auroc_is_delongs():
    scores, targets = examples(150, 2)
    y, other = targets[:, 0], np.round(scores[:, 1] + targets[:, 0], 1)
    labelled = y >= 0
    shares = [placements(y[labelled], s[labelled]) for s in (scores[:, 0], other)]
    variance = sum(np.var(v - w) / len(v) for v, w in zip(*shares, strict=True)) * 150 / 149
    a, b = (pseudo_values(s[:, None], y[:, None], "auroc")[:, 0] for s in (scores[:, 0], other))
    test = paired_test(a, b)
    t = test.estimate / np.sqrt(variance)
    assert_close(test.p, 2 * stats.t.sf(abs(t), 149))


def test_mcnemar_matches_the_exact_binomial_test():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400, 30)) < np.linspace(0.6, 0.95, 60).reshape(2, 1, 30)
    wins, losses = np.sum(a & ~b, axis=0), np.sum(~a & b, axis=0)
    expected = [stats.binomtest(w, w + v).pvalue for w, v in zip(wins, losses, strict=True)]
    assert_close(mcnemar(a, b), expected)
    assert mcnemar(a[:, 0], b[:, 0].astype(float)) == pytest.approx(expected[0])


def test_mcnemar_is_1_for_as_many_wins_as_losses_and_for_equal_predictions():
    assert mcnemar([1, 0, 1], [0, 1, 1]) == 1
    assert mcnemar([1, 0], [1, 0]) == 1


def test_holm_matches_its_definition():
    """It rejects the smallest p-value at α/m, the next at α/(m − 1), ..., until one is larger."""
    p = np.random.default_rng(0).integers(0, 20, 12) / 200
    order = np.argsort(p)
    for level in (0.01, 0.051, 0.11, 0.31, 0.99):
        larger = [p[i] > level / (12 - j) for j, i in enumerate(order)]
        rejected = order[: [*larger, True].index(True)]
        assert set(np.flatnonzero(holm(p) <= level)) == set(rejected)
    assert holm(p).max() <= 1
    assert np.array_equal(holm([0.04, np.nan, 0.01]), [0.08, np.nan, 0.03], equal_nan=True)
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("measure", ["accuracy", "auroc", "average_precision", "loss"])
def test_models_of_equal_skill_differ_in_at_most_5_percent_of_draws(measure):
    """Three models, all pairs compared and corrected by Holm's method; up to the draws' noise."""
    rng = np.random.default_rng(0)
    targets = (rng.random((500, 400)) < 0.3).astype(int)
    shared = targets - 0.5 + rng.normal(size=targets.shape)
    models = [shared + 0.7 * rng.normal(size=targets.shape) for _ in range(3)]
    if measure == "accuracy":
        correct = [(scores > 0) == targets for scores in models]
        p = [mcnemar(a, b) for a, b in combinations(correct, 2)]
    else:
        values = [pseudo_values(scores, targets, measure) for scores in models]
        p = [paired_test(a, b).p for a, b in combinations(values, 2)]
    rejected = np.mean([holm(draw).min() <= 0.05 for draw in np.transpose(p)])
    assert 0.01 < rejected <= stats.binom.ppf(0.99, 400, 0.05) / 400


def test_a_point_of_accuracy_in_10_000_examples_is_detected_as_often_as_theory_says():
    """A alone is right in 6 % of the examples, B alone in 5 %."""
    n, only_a, only_b, draws = 10_000, 0.06, 0.05, 400
    u = np.random.default_rng(0).random((n, draws), np.float32)
    a, b = u < 0.7 + only_a, (u < 0.7) | (u > 1 - only_b)
    detected = np.mean(mcnemar(a, b) <= 0.05)
    size = np.arange(n + 1)  # examples that only one model gets right
    most = stats.binom.ppf(0.025, size, 0.5)  # losses at which the test may reject
    most -= stats.binom.cdf(most, size, 0.5) > 0.025
    share = only_a / (only_a + only_b)
    rejects = stats.binom.cdf(most, size, 1 - share) + stats.binom.cdf(most, size, share)
    power = np.sum(stats.binom.pmf(size, n, only_a + only_b) * rejects)
    assert 0.8 < power < 0.9
    assert detected == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / draws))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: paired_test([1.0], [1.0, 2.0]), "a and b"),
        (lambda: paired_test(1.0, 1.0), "a and b"),
        (lambda: mcnemar([1, 0], [[1, 0]]), "correct_a and correct_b"),
        (lambda: mcnemar([1, 0], [1, 2]), "correct_b"),
        (lambda: mcnemar([np.nan, 0], [1, 0]), "correct_a"),
        (lambda: holm([0.5, 1.5]), "p has to be"),
        (lambda: holm([[0.5]]), "p has to be"),
    ],
)
def test_shapes_and_values_that_do_not_fit_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
