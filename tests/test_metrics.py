"""Metrics of runs on a split, class by class, and their intervals."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits

from linear_cifar import LOSSES, InputError, Params, Split
from linear_cifar.data import LazyRows, dataset_from_arrays
from linear_cifar.metrics import (
    balanced_accuracy,
    class_report,
    confusion_matrix,
    evaluate,
    evaluate_examples,
    fold_metrics,
    paired_difference,
    row_shares,
    summarise,
    top_k_accuracy,
)
from tests import oracle
from tests.conftest import assert_close

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(scope="module")
def digits():
    """1797 images, so that two evaluation batches are needed, of different sizes."""
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs.astype(np.uint8), labels))


def draw_params(n_runs=None, dtype=np.float64):
    rng, lead = np.random.default_rng(0), () if n_runs is None else (n_runs,)
    weights, bias = (0.05 * rng.normal(size=(*lead, *shape)) for shape in ((10, 64), (10,)))
    return Params(weights.astype(dtype), bias.astype(dtype))


def standardised(split):
    """The inputs by the statistics of all digits, and the labels."""
    inputs, _ = load_digits(return_X_y=True)
    deviation = np.where(inputs.std(axis=0) == 0, 1, inputs.std(axis=0))
    return (split.inputs - inputs.mean(axis=0)) / deviation, np.asarray(split.labels)


def numpy_logits(params, split):
    weights, bias = (array.astype(float) for array in params)
    return standardised(split)[0] @ weights.T + bias


def expected(params, split, lam, loss="softmax"):
    """Loss, cost and accuracy."""
    return oracle.measure(
        *(array.astype(float) for array in params), *standardised(split), lam, loss
    )


def first_rows(split, n):
    return Split(split.inputs[:n], split.labels[:n])


def in_file(split, monkeypatch, rows_per_block):
    module = importlib.import_module("linear_cifar.data.blocks")
    monkeypatch.setattr(module, "BLOCK_BYTES", 64 * rows_per_block)
    inputs = split.inputs
    rows = LazyRows(lambda start, stop: inputs[start:stop].copy(), inputs.shape, inputs.dtype)
    return Split(rows, split.labels)


@each_loss
@pytest.mark.parametrize("n", [1000, 1797])
def test_evaluation_matches_numpy(digits, loss, n):
    params, split = draw_params(), first_rows(digits.train, n)
    measured = evaluate(params, split, digits.standardiser, 0.3, loss)
    assert_close(measured, expected(params, split, 0.3, loss.name))
    scores = numpy_logits(params, split)
    losses = oracle.losses_and_gradient(scores, split.labels, loss.name)[0]
    probabilities = oracle.LINKS[loss.name](scores)[np.arange(n), split.labels]
    predicted = scores.argmax(axis=1)
    examples = evaluate_examples(params, split, digits.standardiser, loss)
    assert_close(examples, [losses, probabilities, predicted, predicted == split.labels])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vmapped_runs_match_numpy_in_the_dtype_of_the_parameters(digits, dtype):
    runs, lams = draw_params(3, dtype), np.array([0.0, 0.1, 1.0], dtype)
    together = jax.vmap(evaluate, (0, None, None, 0))(runs, digits.train, digits.standardiser, lams)
    assert {array.dtype for array in together} == {np.dtype(dtype)}
    for i, lam in enumerate(lams):
        run = Params(*(array[i] for array in runs))
        assert_close([array[i] for array in together], expected(run, digits.train, lam), dtype)


def test_inputs_in_a_file_are_measured_block_by_block(digits, monkeypatch):
    params, split = draw_params(), in_file(digits.train, monkeypatch, rows_per_block=450)
    measured = evaluate(params, split, digits.standardiser, 0.1)
    assert_close(measured, expected(params, digits.train, 0.1))
    predicted = evaluate_examples(params, split, digits.standardiser).predicted
    assert np.array_equal(predicted, numpy_logits(params, digits.train).argmax(axis=1))


def test_evaluation_works_under_jit_and_grad(digits):
    params, split = draw_params(), digits.train
    gradient = jax.jit(jax.grad(lambda p: evaluate(p, split, digits.standardiser, 0.1).cost))
    scores = numpy_logits(params, split)
    expected = oracle.losses_and_gradient(scores, split.labels, "softmax")[1].mean(axis=0)
    assert_close(gradient(params).bias, expected)


def test_an_accuracy_is_the_exact_quotient(digits):
    params = draw_params(dtype=np.float32)
    for n in (3, 10, 1797):
        split = first_rows(digits.train, n)
        n_right = (numpy_logits(params, split).argmax(axis=1) == split.labels).sum()
        measured = jax.jit(evaluate)(params, split, digits.standardiser, 0.0)
        assert measured.accuracy == np.float32(n_right) / np.float32(n)


@each_loss
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_one_logit_that_is_not_finite_makes_all_means_nan_and_its_own_example(digits, loss, value):
    inputs = digits.train.inputs[:1200].astype(np.float32)
    inputs[1100, 5] = value
    data = (Split(inputs, digits.train.labels[:1200]), digits.standardiser)
    assert np.isnan(evaluate(draw_params(), *data, 0.0, loss)).all()
    examples = evaluate_examples(draw_params(), *data, loss)
    for array in (examples.loss, examples.probability, examples.correct):
        assert np.flatnonzero(np.isnan(array)).tolist() == [1100]
    assert np.flatnonzero(examples.predicted == -1).tolist() == [1100]


def test_a_label_out_of_range_gives_nan_and_so_do_no_examples(digits):
    split = Split(digits.train.inputs[:5], np.array([0, -1, 10, 3, 4], np.int32))
    for examples in (split, first_rows(split, 0)):
        assert np.isnan(evaluate(draw_params(), examples, digits.standardiser, 0.0)).all()
    measured = evaluate_examples(draw_params(), split, digits.standardiser)
    for array in (measured.loss, measured.probability, measured.correct):
        assert np.flatnonzero(np.isnan(array)).tolist() == [1, 2]


def test_there_is_no_accuracy_if_the_cost_is_not_finite(digits):
    """As after --learning_rate=1e23: the logits are finite, and ‖W‖² isn't."""
    params = jax.tree.map(lambda a: np.float32(1e25) * a, draw_params(dtype=np.float32))
    measured = evaluate(params, digits.train, digits.standardiser, 0.0)
    assert np.isfinite(measured.loss)
    assert not np.isfinite(measured.cost)
    assert np.isnan(measured.accuracy)


@each_loss
@pytest.mark.parametrize("lazy", [False, True])
def test_fold_metrics_are_means_over_the_fold_that_a_model_did_not_see(
    digits, loss, lazy, monkeypatch
):
    runs, labels = draw_params(4), digits.train.labels
    fold_index, folds = np.array([0, 2, 3, 1]), np.arange(1797) % 3
    weights = (folds == np.arange(4)[:, None]) * (1 + np.arange(1797) % 2)
    split = in_file(digits.train, monkeypatch, rows_per_block=500) if lazy else digits.train
    dataset = type(digits)(split, split, split, digits.standardiser, digits.class_names)
    losses, accuracy = fold_metrics(runs, weights, fold_index, dataset, loss)
    assert np.isnan([losses[2], accuracy[2]]).all()
    for i in (0, 1, 3):
        scores, shares = numpy_logits([a[i] for a in runs], digits.train), weights[fold_index[i]]
        expected = oracle.losses_and_gradient(scores, labels, loss.name)[0]
        assert_close(losses[i], np.average(expected, weights=shares))
        assert_close(accuracy[i], np.average(scores.argmax(axis=1) == labels, weights=shares))


def examples(n_classes, n=2000):
    """Logits, and labels drawn by their softmax; the last class doesn't occur."""
    rng = np.random.default_rng(n_classes)
    scores = 2 * rng.normal(size=(n, n_classes))
    labels = (special.softmax(scores, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return scores, np.minimum(labels, n_classes - 2)


def wilson(n_right, n):
    return stats.binomtest(int(n_right), int(n)).proportion_ci(0.95, "wilson")


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_the_confusion_matrix_and_the_class_report_match_scikit_learn(as_array):
    scores, labels = examples(7)
    predicted, classes = scores.argmax(axis=1), {"labels": range(7)}
    counts = confusion_matrix(as_array(labels), as_array(predicted), 7)
    assert counts.dtype.kind == "i"
    assert np.array_equal(counts, sklearn_metrics.confusion_matrix(labels, predicted, **classes))
    report = class_report(as_array(counts))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, zero_division=np.nan, **classes
    )
    occurs = support > 0
    assert occurs.tolist() == [True] * 6 + [False]
    assert_close(report[:2], [support, recall])
    assert_close(report.precision, precision)
    assert_close(report.f1[occurs], f1[occurs])
    for k in range(6):
        assert_close([report.low[k], report.high[k]], wilson(counts[k, k], support[k]))
    assert_close(balanced_accuracy(counts), recall[occurs].mean())
    shares = sklearn_metrics.confusion_matrix(labels, predicted, normalize="true", **classes)
    assert_close(row_shares(counts)[occurs], shares[occurs])
    assert np.isnan([*row_shares(counts)[6], report.accuracy[6], report.low[6]]).all()
    assert np.isnan(balanced_accuracy(np.zeros((3, 3))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_the_confusion_matrix_counts_only_classes_and_no_dtype_overflows(dtype):
    labels = np.arange(100).astype(dtype)
    assert np.array_equal(confusion_matrix(labels, labels, 100), np.eye(100))
    assert confusion_matrix(labels, labels, 98).sum() == 98
    assert confusion_matrix([0, 1, -1, 1], [0, -1, 0, 2], 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("n_classes", [3, 300])
def test_top_k_accuracy_matches_scikit_learn_with_wilson_s_interval(n_classes):
    scores, labels = examples(n_classes)
    for k in (1, 2):
        top = top_k_accuracy(jnp.asarray(scores), jnp.asarray(labels), k)
        classes = {"labels": range(n_classes)}
        expected = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, **classes)
        assert top == pytest.approx((expected, *wilson(round(expected * 2000), 2000), 2000))
    everything = top_k_accuracy(scores, labels, n_classes)
    assert everything.low < everything.estimate == everything.high == 1
    assert top_k_accuracy(-np.eye(3), np.arange(3))[:2] == (0, 0)


def test_top_k_accuracy_takes_the_first_of_ties_and_is_nan_without_finite_logits():
    top = [top_k_accuracy(np.zeros((4, 4)), np.arange(4), k).estimate for k in (1, 2, 3)]
    assert top == [0.25, 0.5, 0.75]
    for scores, labels in (([[0.0, np.inf]], [0]), (np.zeros((0, 2)), np.zeros(0, int))):
        assert np.isnan(top_k_accuracy(scores, labels)[:3]).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: top_k_accuracy(np.zeros((2, 3)), [0, 3]), r"labels.*row 1 has 3"),
        (lambda: top_k_accuracy(np.zeros(3), [0]), "logits"),
        (lambda: top_k_accuracy(np.zeros((1, 3)), [0], 4), "k is 4"),
        (lambda: top_k_accuracy(np.zeros((1, 3)), [0], 1.5), "k is 1.5"),
        (lambda: paired_difference([[1.0]], [[1.0]]), "a and b"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, match):
    with pytest.raises(InputError, match=match):
        call()


VALUES = np.random.default_rng(0).normal(0.39, 0.002, 10)


def test_a_summary_matches_scipy_over_the_last_axis():
    summary = summarise(VALUES)
    low, high = stats.t.interval(0.95, 9, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert_close(summary, [VALUES.mean(), VALUES.std(ddof=1), low, high, 10])
    assert_close(summarise(jnp.asarray([VALUES, -VALUES])).low, [low, -high])
    for values, n_nan in (([], 4), ([0.1, np.nan], 4), ([0.1], 3), (np.zeros((3, 0)), 12)):
        assert np.isnan(np.stack(summarise(values)[:4])).sum() == n_nan


def test_a_paired_difference_is_the_paired_t_test_s():
    a, b = VALUES, VALUES[::-1] + 0.001
    interval = stats.ttest_rel(a, b).confidence_interval()
    assert_close(paired_difference(a, b), [np.mean(a - b), *interval, 10])


def test_one_pair_has_no_interval_and_equal_differences_have_one_of_no_width():
    assert paired_difference([1.0], [0.5]) == pytest.approx((0.5, np.nan, np.nan, 1), nan_ok=True)
    assert paired_difference([2.0, 3, 4], [1.0, 2, 3]) == (1.0, 1.0, 1.0, 3)
