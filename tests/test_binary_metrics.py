"""Measures of binary targets and their intervals, against scikit-learn and direct formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn import metrics as sklearn_metrics

from linear_cifar import InputError
from linear_cifar.metrics import BinaryMetrics, binary_metrics, binary_scores, pseudo_values
from tests.conftest import assert_close

MEASURES = BinaryMetrics._fields[2:]
# scikit-learn's functions of targets and scores.
ORACLES = {
    "accuracy": lambda y, s, **w: sklearn_metrics.accuracy_score(y, s > 0, **w),
    "balanced_accuracy": lambda y, s, **w: sklearn_metrics.balanced_accuracy_score(y, s > 0, **w),
    "auroc": sklearn_metrics.roc_auc_score,
    "average_precision": sklearn_metrics.average_precision_score,
    "loss": lambda y, s, **w: sklearn_metrics.log_loss(y, special.expit(s), **w),
}
Z = stats.norm.ppf(0.975)


def examples(n=200, n_targets=4, seed=0):
    """Scores with ties, and targets of rising frequency; a sixth of the labels is unknown."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, n_targets)) < np.linspace(0.05, 0.6, n_targets)).astype(int)
    scores = np.round(targets - 0.5 + rng.normal(size=targets.shape), 1)
    return scores, np.where(rng.random(targets.shape) < 1 / 6, -1, targets)


SCORES, TARGETS = examples()
MEASURED = binary_metrics(SCORES, TARGETS)


def known_examples():
    """Targets and scores of the known examples, target by target."""
    for scores, targets in zip(SCORES.T, TARGETS.T, strict=True):
        yield targets[targets >= 0], scores[targets >= 0]


def by_target(function):
    """Applies a function of labels and scores to each target's known examples: [T] or [2, T]."""
    return np.transpose([function(y, s) for y, s in known_examples()])


@pytest.mark.parametrize("measure", MEASURES)
def test_each_measure_matches_scikit_learn_with_ties_and_unknown_targets(measure):
    assert_close(getattr(MEASURED, measure).estimate, by_target(ORACLES[measure]))


def test_the_known_and_the_positive_examples_are_counted():
    assert np.array_equal(MEASURED.n, by_target(lambda y, _: len(y)))
    assert np.array_equal(MEASURED.n_positive, by_target(lambda y, _: y.sum()))
    assert all(np.array_equal(interval.n, MEASURED.n) for interval in MEASURED[2:])
    assert MEASURED.n.dtype.kind == MEASURED.n_positive.dtype.kind == "i"


def wilson(n_right, n):
    return stats.binomtest(int(n_right), int(n)).proportion_ci(0.95, "wilson")


def test_the_accuracy_has_wilsons_interval():
    expected = by_target(lambda y, s: wilson(np.sum((s > 0) == y), len(y)))
    assert_close(MEASURED.accuracy[1:3], expected)


def mover(y, s):
    """Zou and Donner's limits of a sum of two independent estimates, halved."""
    right = [np.sum(s[y == 1] > 0), np.sum(s[y == 0] <= 0)]
    n = [np.sum(y == 1), np.sum(y == 0)]
    (l1, u1), (l2, u2) = map(wilson, right, n)
    p1, p2 = np.divide(right, n)
    low = p1 + p2 - np.sqrt((p1 - l1) ** 2 + (p2 - l2) ** 2)
    return low / 2, (p1 + p2 + np.sqrt((u1 - p1) ** 2 + (u2 - p2) ** 2)) / 2


def test_the_balanced_accuracy_has_the_mover_interval():
    assert_close(MEASURED.balanced_accuracy[1:3], by_target(mover))


def placements(y, s):
    """Each positive's share of lower negatives, and each negative's of higher positives."""
    pairs = s[y == 1][:, None] - s[y == 0]
    ordered = np.where(pairs == 0, 0.5, pairs > 0)
    return ordered.mean(axis=1), ordered.mean(axis=0)


def logit_interval(share, variance):
    half = Z * np.sqrt(variance) / (share * (1 - share))
    return special.expit(special.logit(share) + np.array([-half, half]))


def delong(y, s):
    variance = sum(np.var(v, ddof=1) / len(v) for v in placements(y, s))
    return logit_interval(sklearn_metrics.roc_auc_score(y, s), variance)


def test_the_auroc_has_delongs_variance_on_the_logit_scale():
    assert_close(MEASURED.auroc[1:3], by_target(delong))


def boyd(y, s):
    """logit θ ± z / √(n θ (1 − θ)) for n positives."""
    share = sklearn_metrics.average_precision_score(y, s)
    half = Z / np.sqrt(np.sum(y) * share * (1 - share))
    return special.expit(special.logit(share) + np.array([-half, half]))


def test_average_precision_has_boyds_logit_interval():
    assert_close(MEASURED.average_precision[1:3], by_target(boyd))


def student(y, s):
    losses = -np.where(y == 1, special.log_expit(s), special.log_expit(-s))
    return stats.t.interval(0.95, len(y) - 1, loc=losses.mean(), scale=stats.sem(losses))


def test_the_loss_has_students_interval():
    assert_close(MEASURED.loss[1:3], by_target(student))


def test_the_intervals_cover_planted_truths_in_95_percent_of_draws():
    """Scores are N(0, 1), and N(1.5, 1) for positives, a fifth of all."""
    rng, shift, share = np.random.default_rng(0), 1.5, 0.2
    targets = (rng.random((300, 1000)) < share).astype(int)
    measured = binary_metrics(shift * targets + rng.normal(size=targets.shape), targets)

    def precision(recall):
        positives = share * recall
        return positives / (positives + (1 - share) * stats.norm.sf(stats.norm.isf(recall) + shift))

    sensitivity = stats.norm.cdf(shift)
    truths = {
        "accuracy": share * sensitivity + (1 - share) / 2,
        "balanced_accuracy": (sensitivity + 0.5) / 2,
        "auroc": stats.norm.cdf(shift / np.sqrt(2)),
        "average_precision": integrate.quad(precision, 0, 1)[0],
    }
    for measure, truth in truths.items():
        _, low, high, _ = getattr(measured, measure)
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.02), measure


def test_a_measure_that_does_not_exist_is_nan_for_its_target_alone():
    scores, targets = np.repeat([[0.3], [-0.2], [1.0], [np.nan]], 6, axis=1), np.zeros((4, 6), int)
    targets[:2] = [[1], [0]]
    targets[3] = -1  # the score that isn't finite belongs to no known target
    targets[:, 1] = [1, 1, 1, -1]
    targets[:, 2] = [0, 0, 0, -1]
    targets[:, 3] = -1
    scores[0, 4], scores[1, 5] = np.inf, np.nan
    measured = binary_metrics(scores, targets)
    missing = {m: np.isnan(getattr(measured, m).estimate).tolist() for m in MEASURES}
    one_kind = [False, True, True, True, True, True]
    assert missing["accuracy"] == missing["loss"] == [False] * 3 + [True] * 3
    assert all(missing[m] == one_kind for m in MEASURES[1:4])
    assert all(
        np.isnan(getattr(measured, m)[i][missing[m]]).all() for m in MEASURES for i in (1, 2)
    )
    assert measured.n.tolist() == [3, 3, 3, 0, 3, 3]
    assert all(
        np.isnan(pseudo_values(scores, targets, m)).all(axis=0).tolist() == missing[m]
        for m in MEASURES
    )


def test_perfect_rankings_and_single_examples_have_no_interval():
    scores = np.array([[3.0, -3.0, 2.0], [2.0, -2.0, 3.0], [-1.0, 1.0, 1.0], [-2.0, 2.0, 0.0]])
    targets = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
    measured = binary_metrics(scores, targets)
    assert_close(measured.auroc.estimate, [1, 0, 2 / 3])
    assert np.isnan(measured.auroc[1:3]).all()
    assert np.isnan(measured.average_precision.low).tolist() == [True, False, False]
    alone = binary_metrics([[0.0]], [[1]]).loss
    assert_close(alone.estimate, [np.log(2)])
    assert np.isnan(alone[1:3]).all()


def test_large_scores_have_a_finite_loss():
    measured = binary_metrics([[1e4], [-1e4], [1e4]], [[1], [1], [0]])
    assert_close(measured.loss.estimate, [2e4 / 3])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32])
def test_scores_of_any_dtype_and_boolean_targets_give_float64(dtype):
    scores, targets = jnp.asarray(SCORES, dtype), TARGETS == 1
    measured = binary_metrics(scores, targets)
    expected = binary_metrics(np.asarray(scores, float), targets.astype(float))
    for interval, other in zip(measured[2:], expected[2:], strict=True):
        assert np.array_equal(interval, other)
        assert interval.estimate.dtype == np.float64


def test_scores_without_intervals_are_the_same_numbers():
    scores = binary_scores(SCORES, TARGETS)
    assert set(scores) == set(MEASURES) - {"balanced_accuracy"}
    for measure, values in scores.items():
        assert np.array_equal(values, getattr(MEASURED, measure).estimate)


def test_thousands_of_columns_have_the_numbers_of_each_alone():
    scores, targets = examples(300, 3600)
    measured, alone = (
        binary_metrics(scores, targets),
        binary_metrics(scores[:, -1:], targets[:, -1:]),
    )
    assert all(
        np.array_equal(np.array(a)[:, -1:], b) for a, b in zip(measured[2:], alone[2:], strict=True)
    )
    assert measured.n.shape == (3600,)


def test_no_targets_and_no_examples_give_arrays_of_their_size():
    assert binary_metrics(np.zeros((3, 0)), np.zeros((3, 0))).auroc.estimate.shape == (0,)
    empty = binary_metrics(np.zeros((0, 2)), np.zeros((0, 2)))
    assert empty.n.tolist() == [0, 0]
    assert np.isnan(empty.loss.estimate).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_pseudo_values_are_the_derivatives_of_scikit_learns_weighted_measure(measure):
    values, estimates = pseudo_values(SCORES, TARGETS, measure), getattr(MEASURED, measure).estimate
    assert_close(values.mean(axis=0), estimates)
    for t, (y, s) in enumerate(known_examples()):
        ends = [
            [ORACLES[measure](y, s, sample_weight=1 + w) for w in step * np.eye(len(y))[::20]]
            for step in (-1e-5, 1e-5)
        ]
        expected = estimates[t] + len(SCORES) * np.diff(ends, axis=0)[0] / 2e-5
        np.testing.assert_allclose(values[TARGETS[:, t] >= 0, t][::20], expected, atol=1e-6)
        assert_close(values[TARGETS[:, t] < 0, t], estimates[t])


@pytest.mark.parametrize(
    ("scores", "targets", "match"),
    [
        (SCORES, TARGETS[:-1], "scores and targets"),
        (SCORES[:, 0], TARGETS[:, 0], "scores and targets"),
        (np.zeros((2, 3)), [[0, 1, -1], [0, 0, 2]], "targets: row 1, column 2 is 2"),
        (np.zeros((1, 2)), [[0, -2]], "targets: row 0, column 1 is -2"),
        (np.zeros((1, 2)), [[0, np.nan]], "targets: row 0, column 1 is nan"),
        (np.zeros((1, 1)), [["a"]], "targets"),
        (np.zeros((1, 1)) * 1j, [[0]], "scores"),
    ],
)
def test_targets_and_shapes_that_do_not_fit_are_refused(scores, targets, match):
    with pytest.raises(InputError, match=match):
        binary_metrics(scores, targets)


def test_an_unknown_measure_is_refused():
    with pytest.raises(InputError, match="measure is 'f1'"):
        pseudo_values(SCORES, TARGETS, "f1")
