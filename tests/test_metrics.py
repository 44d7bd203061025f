"""Metrics of runs on a split, class by class, and their intervals."""

import importlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits

from linear_cifar.data.blocks import LazyRows
from linear_cifar.data.dataset import Split, dataset_from_arrays
from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES, SOFTMAX_CROSS_ENTROPY
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
from linear_cifar.model import init_params
from tests.conftest import assert_close
from tests.oracle import losses_and_gradient

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_size = pytest.mark.parametrize("n_classes", [2, 7, 300])


@pytest.fixture(scope="module")
def digits():
    """1797 images, so that two evaluation batches are needed, of different sizes."""
    inputs, labels = load_digits(return_X_y=True)
    return dataset_from_arrays((inputs.astype(np.uint8), labels))


def draw_params(dataset, dtype=jnp.float64, seed=0):
    return init_params(jax.random.key(seed), dataset.n_features, dataset.n_classes, 0.05, dtype)


def stack(*trees):
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def numpy_logits(params, inputs, dataset):
    mean, scale = dataset.standardiser
    weights, bias = (np.asarray(a, float) for a in params)
    return (inputs.astype(float) - mean) / scale @ weights.T + bias


def in_file(split, monkeypatch, rows_per_block):
    module = importlib.import_module("linear_cifar.data.blocks")
    monkeypatch.setattr(module, "BLOCK_BYTES", 64 * rows_per_block)
    inputs = split.inputs
    rows = LazyRows(lambda start, stop: inputs[start:stop].copy(), inputs.shape, inputs.dtype)
    return Split(rows, split.labels)


def first_rows(split, n):
    return Split(split.inputs[:n], split.labels[:n])


@each_loss
@pytest.mark.parametrize("n", [1, 1000, 1797])
def test_evaluation_matches_numpy(digits, loss, n):
    params, split = draw_params(digits), first_rows(digits.train, n)
    scores = numpy_logits(params, split.inputs, digits)
    right = scores.argmax(axis=1) == split.labels
    losses = losses_and_gradient(scores, split.labels, loss.name)[0]
    measured = evaluate(params, split, digits.standardiser, 0.3, loss)
    penalty = 0.3 * (np.asarray(params.weights) ** 2).sum()
    assert_close(measured, [losses.mean(), losses.mean() + penalty, right.mean()])
    examples = evaluate_examples(params, split, digits.standardiser, loss)
    link = special.softmax if loss.exclusive else lambda s, axis: special.expit(s)
    p = link(scores, axis=1)[np.arange(n), split.labels]
    assert_close(examples, [losses, p, scores.argmax(axis=1), right])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_vmapped_runs_equal_single_runs_in_the_dtype_of_the_parameters(digits, dtype):
    runs = [draw_params(digits, dtype, seed) for seed in range(3)]
    lams, data = np.array([0.0, 0.1, 1.0]), (digits.train, digits.standardiser)
    together = jax.vmap(evaluate, (0, None, None, 0))(stack(*runs), *data, lams)
    alone = [evaluate(run, *data, lam) for run, lam in zip(runs, lams, strict=True)]
    assert {a.dtype for metrics in (together, *alone) for a in metrics} == {np.dtype(dtype)}
    assert_close(together, stack(*alone), dtype)


@pytest.mark.parametrize("function", [evaluate, evaluate_examples])
def test_inputs_in_a_file_are_measured_like_inputs_in_memory(digits, monkeypatch, function):
    params = stack(draw_params(digits), draw_params(digits, seed=1))
    lam = (0.1,) if function is evaluate else ()

    def measure(split):
        return jax.vmap(lambda p: function(p, split, digits.standardiser, *lam))(params)

    expected = measure(digits.train)
    measured = measure(in_file(digits.train, monkeypatch, rows_per_block=450))
    jax.tree.map(partial(assert_close, dtype=float), measured, expected)


def test_evaluation_works_under_jit_and_grad(digits):
    params, split = draw_params(digits), digits.train
    gradient = jax.jit(jax.grad(lambda p: evaluate(p, split, digits.standardiser, 0.1).cost))
    scores = numpy_logits(params, split.inputs, digits)
    expected = losses_and_gradient(scores, split.labels, "softmax")[1].mean(axis=0)
    assert_close(gradient(params).bias, expected)


def test_another_lambda_or_run_does_not_compile_again(digits):
    loss, n_traces = SOFTMAX_CROSS_ENTROPY, []

    def value(scores, labels):
        n_traces.append(1)
        return loss.value(scores, labels)

    counted = loss._replace(value=value)
    evaluate(draw_params(digits), digits.train, digits.standardiser, 0.1, counted)
    first = len(n_traces)
    evaluate(draw_params(digits, seed=1), digits.train, digits.standardiser, 0.2, counted)
    assert first == len(n_traces) > 0


def test_an_accuracy_is_the_exact_quotient(digits):
    params = draw_params(digits, jnp.float32)
    for n in (3, 10, 1797):
        split = first_rows(digits.train, n)
        n_correct = evaluate_examples(params, split, digits.standardiser).correct.sum()
        for measure in (evaluate, jax.jit(evaluate)):
            measured = measure(params, split, digits.standardiser, 0.0)
            assert measured.accuracy == np.float32(n_correct) / np.float32(n)


@each_loss
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_one_logit_that_is_not_finite_makes_all_means_nan_and_its_own_example(digits, loss, value):
    params, split = draw_params(digits), first_rows(digits.train, 1200)
    inputs = split.inputs.astype(np.float32)
    inputs[1100, 5] = value
    data = (Split(inputs, split.labels), digits.standardiser)
    assert np.isnan(evaluate(params, *data, 0.0, loss)).all()
    examples = evaluate_examples(params, *data, loss)
    for array in (examples.loss, examples.probability, examples.correct):
        assert np.flatnonzero(np.isnan(array)).tolist() == [1100]
    assert np.flatnonzero(examples.predicted == -1).tolist() == [1100]


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_gives_nan_and_so_do_no_examples(digits, label):
    split = Split(digits.train.inputs[:5], np.array([0, 1, label, 3, 4], np.int32))
    params = draw_params(digits)
    for examples in (split, first_rows(split, 0)):
        assert np.isnan(evaluate(params, examples, digits.standardiser, 0.0)).all()
    measured = evaluate_examples(params, split, digits.standardiser)
    assert np.flatnonzero(np.isnan(measured.probability)).tolist() == [2]
    assert np.flatnonzero(np.isnan(measured.correct)).tolist() == [2]


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_there_is_no_accuracy_if_the_cost_is_not_finite(digits, lam):
    """As after --learning_rate=1e23: the logits are finite, and ‖W‖² isn't."""
    params = jax.tree.map(lambda a: 1e25 * a, draw_params(digits, jnp.float32))
    measured = evaluate(params, digits.train, digits.standardiser, lam)
    assert np.isfinite(measured.loss)
    assert not np.isfinite(measured.cost)
    assert np.isnan(measured.accuracy)


@each_loss
@pytest.mark.parametrize("lazy", [False, True])
def test_fold_metrics_are_means_over_the_fold_left_out(digits, loss, lazy, monkeypatch):
    runs = [draw_params(digits, seed=seed) for seed in range(4)]
    fold_index, folds = np.array([0, 2, 3, 1]), np.arange(1797) % 3
    weights = (folds == np.arange(4)[:, None]) * (1 + np.arange(1797) % 2)
    split = in_file(digits.train, monkeypatch, rows_per_block=500) if lazy else digits.train
    dataset = type(digits)(split, split, split, digits.standardiser, digits.class_names)
    losses, accuracy = fold_metrics(stack(*runs), weights, fold_index, dataset, loss)
    assert np.isnan([losses[2], accuracy[2]]).all()
    for i in (0, 1, 3):
        scores = numpy_logits(runs[i], digits.train.inputs, digits)
        right, shares = scores.argmax(axis=1) == digits.train.labels, weights[fold_index[i]]
        expected = losses_and_gradient(scores, digits.train.labels, loss.name)[0]
        assert_close(losses[i], np.average(expected, weights=shares))
        assert_close(accuracy[i], np.average(right, weights=shares))


def examples(n_classes, n=2000):
    """Logits, and labels drawn by their softmax."""
    rng = np.random.default_rng(n_classes)
    scores = 2 * rng.normal(size=(n, n_classes))
    labels = (special.softmax(scores, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return scores, np.minimum(labels, n_classes - 1)


def wilson(n_right, n):
    return stats.binomtest(int(n_right), int(n)).proportion_ci(0.95, "wilson")


@each_size
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_the_confusion_matrix_and_the_class_report_match_scikit_learn(n_classes, as_array):
    scores, labels = examples(n_classes)
    predicted, classes = scores.argmax(axis=1), {"labels": range(n_classes)}
    counts = confusion_matrix(as_array(labels), as_array(predicted), n_classes)
    assert counts.dtype.kind == "i"
    assert np.array_equal(counts, sklearn_metrics.confusion_matrix(labels, predicted, **classes))
    report = class_report(as_array(counts))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, zero_division=np.nan, **classes
    )
    assert_close(report[:2], [support, recall])
    assert_close(report[4:], [precision, f1])
    for k in range(min(n_classes, 3)):
        assert_close([report.low[k], report.high[k]], wilson(counts[k, k], support[k]))
    occurs = support > 0
    assert_close(balanced_accuracy(counts), recall[occurs].mean())
    shares = sklearn_metrics.confusion_matrix(labels, predicted, normalize="true", **classes)
    assert_close(row_shares(counts)[occurs], shares[occurs])
    assert np.isnan(row_shares(counts)[~occurs]).all()
    assert np.isnan(report.low[~occurs]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_the_confusion_matrix_counts_only_classes_and_no_dtype_overflows(dtype):
    labels = np.arange(100).astype(dtype)
    assert np.array_equal(confusion_matrix(labels, labels, 100), np.eye(100))
    assert confusion_matrix(labels, labels, 98).sum() == 98
    assert confusion_matrix([0, 1, -1, 1], [0, -1, 0, 2], 2).tolist() == [[1, 0], [0, 0]]
    assert math.isnan(balanced_accuracy(np.zeros((3, 3))))


@each_size
def test_top_k_accuracy_matches_scikit_learn_with_wilson_s_interval(n_classes):
    scores, labels = examples(n_classes)
    binary = scores[:, 1] - scores[:, 0] if n_classes == 2 else scores
    for k in {1, min(5, n_classes - 1)}:
        top = top_k_accuracy(jnp.asarray(scores), jnp.asarray(labels), k)
        classes = {"labels": range(n_classes)}
        expected = sklearn_metrics.top_k_accuracy_score(labels, binary, k=k, **classes)
        assert top == pytest.approx((expected, *wilson(round(expected * 2000), 2000), 2000))
    everything = top_k_accuracy(scores, labels, n_classes)
    assert everything.low < everything.estimate == everything.high == 1


def test_top_k_accuracy_takes_the_first_of_ties_and_is_nan_without_finite_logits():
    top = [top_k_accuracy(np.zeros((4, 4)), np.arange(4), k).estimate for k in (1, 2, 3)]
    assert top == [0.25, 0.5, 0.75]
    for scores, labels in (([[0.0, np.inf]], [0]), (np.zeros((0, 2)), np.zeros(0, int))):
        assert np.isnan(top_k_accuracy(scores, labels)[:3]).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: top_k_accuracy(np.zeros((2, 3)), [0, 3]), r"labels.*row 1 has 3"),
        (lambda: top_k_accuracy(np.zeros((2, 3)), [0.0, 1.0]), "labels"),
        (lambda: top_k_accuracy(np.zeros(3), [0]), "logits"),
        (lambda: top_k_accuracy(np.zeros((1, 3)), [0], 4), "k is 4"),
        (lambda: confusion_matrix([0, 1], [0], 2), "labels"),
        (lambda: class_report([[1, 2]]), "counts"),
        (lambda: summarise(["a"]), "values"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "a and b"),
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
    for values, n_nan in (([], 4), ([0.1, np.nan], 4), ([0.1], 3)):
        assert np.isnan(summarise(values)[:4]).sum() == n_nan


def test_a_paired_difference_is_the_paired_t_test_s():
    a, b = VALUES, VALUES[::-1] + 0.001
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert_close(paired_difference(a, b), [np.mean(a - b), *expected, 10])


def test_one_pair_has_no_interval_and_equal_differences_have_one_of_no_width():
    assert paired_difference([1.0], [0.5]) == pytest.approx((0.5, np.nan, np.nan, 1), nan_ok=True)
    assert paired_difference([2.0, 3, 4], [1.0, 2, 3]) == (1.0, 1.0, 1.0, 3)
