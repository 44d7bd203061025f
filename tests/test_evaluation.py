import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from oracle import losses_and_gradient
from sklearn import metrics

from linear_cifar.data import Split, dataset_from_arrays
from linear_cifar.evaluation import (
    confusion_matrix,
    evaluate,
    evaluate_examples,
    evaluate_runs,
    ground_truth_probabilities,
)
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params, init_params

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def initial(dataset, dtype=jnp.float32):
    return init_params(jax.random.key(0), dataset.n_features, dataset.n_classes, dtype=dtype)


def logits(params, split, dataset):
    inputs = (split.inputs - dataset.standardiser.mean) / dataset.standardiser.scale
    return inputs @ np.asarray(params.weights).T + np.asarray(params.bias)


@each_loss
@pytest.mark.parametrize("n", [1, 150])
def test_evaluation_agrees_with_the_definitions_and_scikit_learn(small, loss, n):
    params = jax.tree.map(lambda a: 10 * a, initial(small, jnp.float64))
    split = jax.tree.map(lambda a: a[:n], small.test)
    scores = logits(params, split, small)
    predicted = scores.argmax(axis=1)
    measured = evaluate(params, split, small.standardiser, 0.3, loss)
    assert_close(measured.loss, losses_and_gradient(scores, split.labels, loss.name)[0].mean())
    assert_close(measured.accuracy, metrics.accuracy_score(split.labels, predicted))
    assert_close(measured.cost - measured.loss, 0.3 * (np.asarray(params.weights) ** 2).sum())
    _, correct = ground_truth_probabilities(params, split, small.standardiser, loss)
    assert np.array_equal(correct, predicted == split.labels)
    counts = confusion_matrix(params, split, small.standardiser)
    expected = metrics.confusion_matrix(split.labels, predicted, labels=range(10))
    assert np.array_equal(counts, expected)


@pytest.mark.parametrize("name", ["softmax", "multi_bce"])
def test_losses_and_probabilities_are_scikit_learn_s(small, name):
    params, split = initial(small, jnp.float64), small.test
    scores = logits(params, split, small)
    if name == "softmax":
        every = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        expected = metrics.log_loss(split.labels, every, labels=range(10))
    else:
        every = 1 / (1 + np.exp(-scores))
        by_class = [
            metrics.log_loss(split.labels == k, every[:, k], labels=[0, 1]) for k in range(10)
        ]
        expected = np.mean(by_class)
    measured = evaluate(params, split, small.standardiser, 0.0, LOSSES[name])
    assert_close(measured.loss, expected)
    p, _ = ground_truth_probabilities(params, split, small.standardiser, LOSSES[name])
    assert_close(p, every[np.arange(len(scores)), split.labels])


def test_many_runs_are_evaluated_as_each_alone(small):
    one = initial(small)
    many = jax.tree.map(lambda a: np.stack([a, 2 * a, 3 * a]), one)
    lam = np.array([0.0, 0.1, 1.0], np.float32)
    measured = evaluate_runs(many, small.test, small.standardiser, lam)
    for i in range(3):
        run = Params(many.weights[i], many.bias[i])
        alone = evaluate(run, small.test, small.standardiser, lam[i])
        assert_close(jnp.stack(measured)[:, i], jnp.stack(alone))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_confusion_matrix_of_many_classes_overflows_no_label_dtype(dtype):
    labels = np.arange(40).astype(dtype)
    inputs = np.eye(40, dtype=np.float32)
    standardiser = dataset_from_arrays((inputs, labels.astype(int))).standardiser
    params = Params(jnp.eye(40), jnp.zeros(40))
    counts = confusion_matrix(params, Split(inputs, labels), standardiser)
    assert np.array_equal(counts, np.eye(40))


def test_no_examples_have_no_figures(small):
    nothing = Split(small.test.inputs[:0], small.test.labels[:0])
    measured = evaluate(initial(small), nothing, small.standardiser, 0.0)
    assert jnp.isnan(jnp.stack(measured)).all()
    assert not confusion_matrix(initial(small), nothing, small.standardiser).any()


def test_an_accuracy_is_the_exact_fraction(small):
    measured = evaluate(initial(small), small.test, small.standardiser, 0.0)
    correct = confusion_matrix(initial(small), small.test, small.standardiser).trace()
    assert measured.accuracy == np.float32(correct) / np.float32(150)


def test_nan_in_a_single_image_makes_every_figure_nan(small):
    inputs = small.test.inputs.astype(np.float32)
    inputs[77, 5] = np.nan
    split = small.test._replace(inputs=inputs)
    measured = evaluate(initial(small), split, small.standardiser, 0.0)
    assert jnp.isnan(jnp.stack(measured)).all()


@each_loss
def test_the_means_over_examples_are_the_figures_of_the_split(small, loss):
    params = jax.tree.map(lambda a: jnp.stack([a, 3 * a]), initial(small, jnp.float64))
    examples = evaluate_examples(params, small.test, small.standardiser, loss)
    whole = evaluate_runs(params, small.test, small.standardiser, jnp.zeros(2), loss)
    assert examples.loss.shape == examples.correct.shape == (2, 150)
    assert_close(examples.loss.mean(axis=1), whole.loss)
    assert_close(examples.correct.mean(axis=1), whole.accuracy)
    broken = Params(params.weights.at[1, 0, 0].set(jnp.nan), params.bias)
    examples = evaluate_examples(broken, small.test, small.standardiser, loss)
    assert np.isfinite(examples.correct[0]).all()
    assert np.isnan(examples.correct[1]).all()
    assert np.isnan(examples.loss[1]).all()


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_no_accuracy_stands_beside_a_cost_that_is_not_finite(small, lam):
    """As after --learning_rate=1e23: the logits are finite, and ‖W‖² is not."""
    params = jax.tree.map(lambda a: 1e25 * a, initial(small))
    measured = evaluate(params, small.test, small.standardiser, lam)
    assert np.isfinite(measured.loss)
    assert not np.isfinite(measured.cost)
    assert np.isnan(measured.accuracy)
