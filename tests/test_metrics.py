"""Metrics of runs on a split, class by class, and their intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits
from sklearn.preprocessing import scale

from linear_cifar import InputError, Params, Split, dataset_from_arrays, evaluate, metrics
from tests import oracle
from tests.conftest import assert_close, each_loss, on_disk


@pytest.fixture(scope="module")
def digits():
    """1797 images, so that two evaluation batches are needed, of different sizes."""
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs.astype(np.uint8), labels))


def draw_params(n_runs=None, dtype=np.float64):
    rng, lead = np.random.default_rng(0), () if n_runs is None else (n_runs,)
    weights, bias = (0.05 * rng.normal(size=(*lead, *shape)) for shape in ((10, 64), (10,)))
    return Params(weights.astype(dtype), bias.astype(dtype))


def expected(params, digits, lam, loss="softmax"):
    """Loss, cost and accuracy in NumPy."""
    inputs, labels = digits.train
    arrays = (array.astype(float) for array in params)
    return oracle.measure(*arrays, scale(inputs.astype(float)), labels, lam, loss)


@each_loss
@pytest.mark.parametrize("stored", ["in memory", "in a file"])
def test_evaluation_matches_numpy(digits, loss, stored, monkeypatch):
    params, (inputs, labels) = draw_params(), digits.train
    data = digits if stored == "in memory" else on_disk(digits, monkeypatch, 450)
    measured = evaluate(params, data.train, digits.standardiser, 0.3, loss)
    assert_close(measured, expected(params, digits, 0.3, loss.name))
    scores = scale(inputs.astype(float)) @ params.weights.T + params.bias
    losses = oracle.losses_and_gradient(scores, labels, loss.name)[0]
    probabilities = oracle.LINKS[loss.name](scores)[np.arange(1797), labels]
    predicted = scores.argmax(axis=1)
    examples = metrics.evaluate_examples(params, data.train, digits.standardiser, loss)
    assert_close(examples, [losses, probabilities, predicted, predicted == labels])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vmapped_runs_match_numpy_in_the_dtype_of_the_parameters(digits, dtype):
    runs, lams = draw_params(3, dtype), np.array([0.0, 0.1, 1.0], dtype)
    together = jax.vmap(evaluate, (0, None, None, 0))(runs, digits.train, digits.standardiser, lams)
    assert {array.dtype for array in together} == {np.dtype(dtype)}
    for i, lam in enumerate(lams):
        run = Params(*(array[i] for array in runs))
        assert_close([array[i] for array in together], expected(run, digits, lam), dtype)


def assert_nan(split, digits, rows, loss):
    """Asserts that all means are NaN, and the measures of exactly these rows."""
    assert np.isnan(evaluate(draw_params(), split, digits.standardiser, 0.0, loss)).all()
    examples = metrics.evaluate_examples(draw_params(), split, digits.standardiser, loss)
    for array in (examples.loss, examples.probability, examples.correct):
        assert np.flatnonzero(np.isnan(array)).tolist() == rows
    return examples


@each_loss
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_one_logit_that_is_not_finite_makes_all_means_nan_and_its_own_example(digits, loss, value):
    inputs = digits.train.inputs[:1200].astype(np.float32)
    inputs[1100, 5] = value
    examples = assert_nan(Split(inputs, digits.train.labels[:1200]), digits, [1100], loss)
    assert np.flatnonzero(examples.predicted == -1).tolist() == [1100]


@each_loss
def test_a_label_out_of_range_gives_nan_and_so_do_no_examples(digits, loss):
    inputs, labels = digits.train.inputs[:5], np.array([0, -1, 10, 3, 4], np.int32)
    assert_nan(Split(inputs, labels), digits, [1, 2], loss)
    assert_nan(Split(inputs[:0], labels[:0]), digits, [], loss)


def test_there_is_no_accuracy_if_the_cost_is_not_finite(digits):
    """As after --learning_rate=1e23: the logits are finite, and ‖W‖² isn't."""
    params = jax.tree.map(lambda a: np.float32(1e25) * a, draw_params(dtype=np.float32))
    measured = evaluate(params, digits.train, digits.standardiser, 0.0)
    assert np.isfinite(measured).tolist() == [True, False, False]


def examples(n_classes, n=2000):
    """Logits, and labels drawn by their softmax: they are calibrated."""
    rng = np.random.default_rng(n_classes)
    scores = 2 * rng.normal(size=(n, n_classes))
    labels = (special.softmax(scores, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return scores, np.minimum(labels, n_classes - 1)


def wilson(n_right, n):
    return stats.binomtest(int(n_right), int(n)).proportion_ci(0.95, "wilson")


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_the_confusion_matrix_and_the_class_report_match_scikit_learn(as_array):
    scores, labels = examples(7)
    labels = np.minimum(labels, 5)  # the last class doesn't occur
    predicted, classes = scores.argmax(axis=1), {"labels": range(7)}
    counts = metrics.confusion_matrix(as_array(labels), as_array(predicted), 7)
    assert counts.dtype.kind == "i"
    assert np.array_equal(counts, sklearn_metrics.confusion_matrix(labels, predicted, **classes))
    report = metrics.class_report(as_array(counts))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, zero_division=np.nan, **classes
    )
    assert_close(report[:2], [support, recall])
    assert_close(report.precision, precision)
    assert_close(report.f1[:6], f1[:6])
    for k in range(6):
        assert_close([report.low[k], report.high[k]], wilson(counts[k, k], support[k]))
    assert_close(metrics.balanced_accuracy(counts), recall[:6].mean())
    shares = sklearn_metrics.confusion_matrix(labels, predicted, normalize="true", **classes)
    assert_close(metrics.row_shares(counts)[:6], shares[:6])
    assert np.isnan([*metrics.row_shares(counts)[6], report.accuracy[6], report.low[6]]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_the_confusion_matrix_counts_only_classes_and_no_dtype_overflows(dtype):
    labels = np.arange(100).astype(dtype)
    assert np.array_equal(metrics.confusion_matrix(labels, labels, 100), np.eye(100))
    assert metrics.confusion_matrix(labels, labels, 98).sum() == 98
    assert metrics.confusion_matrix([0, 1, -1, 1], [0, -1, 0, 2], 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("n_classes", [3, 300])
def test_top_k_accuracy_matches_scikit_learn_with_wilsons_interval(n_classes):
    scores, labels = examples(n_classes)
    for k in (1, 2):
        top, classes = metrics.top_k_accuracy(scores, jnp.asarray(labels), k), range(n_classes)
        share = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=classes)
        assert top == pytest.approx((share, *wilson(round(share * 2000), 2000), 2000))
    everything = metrics.top_k_accuracy(scores, labels, n_classes)
    assert everything.low < everything.estimate == everything.high == 1
    assert metrics.top_k_accuracy(-np.eye(3), np.arange(3))[:2] == (0, 0)


def test_top_k_accuracy_takes_the_first_of_ties_and_is_nan_without_finite_logits():
    top = [metrics.top_k_accuracy(np.zeros((4, 4)), np.arange(4), k).estimate for k in (1, 2, 3)]
    assert top == [0.25, 0.5, 0.75]
    for scores, labels in (([[0.0, np.inf]], [0]), (np.zeros((0, 2)), np.zeros(0, int))):
        assert np.isnan(metrics.top_k_accuracy(scores, labels)[:3]).all()


@pytest.mark.parametrize(
    ("scores", "labels", "k", "match"),
    [
        (np.zeros((2, 3)), [0, 3], 1, r"labels.*row 1 has 3"),
        (np.zeros(3), [0], 1, "logits"),
        (np.zeros((1, 3)), [0], 4, "k is 4"),
    ],
)
def test_labels_logits_and_k_that_do_not_fit_are_refused(scores, labels, k, match):
    with pytest.raises(InputError, match=match):
        metrics.top_k_accuracy(scores, labels, k)


VALUES = np.random.default_rng(0).normal(0.39, 0.002, 10)


def test_a_summary_matches_scipy_over_the_last_axis():
    summary = metrics.summarise(VALUES)
    low, high = stats.t.interval(0.95, 9, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert_close(summary, [VALUES.mean(), VALUES.std(ddof=1), low, high, 10])
    assert_close(metrics.summarise(jnp.asarray([VALUES, -VALUES])).low, [low, -high])
    for values, n_nan in (([], 4), ([0.1, np.nan], 4), ([0.1], 3), (np.zeros((3, 0)), 12)):
        assert np.isnan(np.stack(metrics.summarise(values)[:4])).sum() == n_nan
