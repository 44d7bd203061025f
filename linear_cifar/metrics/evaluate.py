"""Loss, cost and accuracy of one run on a split; `jax.vmap` measures many runs in one pass.

All functions are pure and work under `jit`, `vmap` and `grad`. `vmap` over runs reads the data
once, because the products of the inputs with the weights of all runs merge into one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linear_cifar.data.blocks import blocks
from linear_cifar.data.dataset import Dataset, Split, Standardiser, take_rows
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.metrics.binary import binary_scores
from linear_cifar.model import Params, logits, predicted_class
from linear_cifar.objective import penalty

# Examples standardised at a time: enough for large matrix products, and 12 MB in float32.
_BATCH = 1000


class Metrics(NamedTuple):
    """Means over a split, scalars; `vmap` over C runs makes them [C].

    All are NaN if a logit isn't finite, a label is out of range, or there are no examples; the
    accuracy also if the cost isn't finite.
    """

    loss: jax.Array  # nats
    cost: jax.Array  # loss + λ‖W‖²
    accuracy: jax.Array  # from 0 to 1


class PerExample(NamedTuple):
    """Measures by example, [n]; NaN if a logit isn't finite, or the label is out of range."""

    loss: jax.Array  # nats
    probability: jax.Array  # of the true class, by softmax or σ
    predicted: jax.Array  # class id, int32; −1 if a logit isn't finite
    correct: jax.Array  # 1 or 0, in the dtype of the parameters


def evaluate(
    params: Params,
    split: Split,
    standardiser: Standardiser,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Metrics:
    """Mean loss, cost and accuracy over a split.

    Args:
      params: weights [K, d] and bias [K]; the metrics are scalars in their dtype.
      split: n examples as they are stored, inputs in memory or in a file, labels int32.
      standardiser: the training set's.
      lam: λ of the cost, a scalar.
      loss: the loss per example.

    Examples:
      >>> split, standardiser = Split(np.eye(2), np.zeros(2, int)), Standardiser(*np.ones((2, 2)))
      >>> two_runs = Params(jnp.stack([jnp.eye(2), -jnp.eye(2)]), jnp.zeros((2, 2)))
      >>> measure = jax.vmap(evaluate, in_axes=(0, None, None, 0))
      >>> measure(two_runs, split, standardiser, jnp.array([0.0, 1.0])).cost.shape
      (2,)
    """
    sums = [
        _sums(params, Split(block, split.labels[part]), standardiser, loss)
        for part, block in blocks(split.inputs)
    ]
    loss_sum, n_correct = map(sum, zip(*sums, strict=True))
    return _metrics(loss_sum, n_correct, params, lam, len(split.labels))


def evaluate_examples(
    params: Params, split: Split, standardiser: Standardiser, loss: Loss = SOFTMAX_CROSS_ENTROPY
) -> PerExample:
    """Loss, probability and prediction of each example; arguments of `evaluate`."""
    parts = [
        _measure(params, Split(block, split.labels[part]), standardiser, loss)
        for part, block in blocks(split.inputs)
    ]
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def fold_metrics(
    params: Params,
    weights: np.ndarray,
    index: np.ndarray,
    dataset: Dataset,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss in nats [R] and accuracy [R] of R models, each on the fold that it didn't train on.

    Parameters are [R, K, d] and [R, K]. `weights` [F, n] are the training examples' weights in each
    fold, 0 outside it, and `index` [R] is the fold of each model. A fold without weight gives NaN.
    """
    measure = jax.vmap(partial(evaluate_examples, loss=loss), in_axes=(0, None, None))
    sums = np.zeros((2, len(index)))
    for part, block in blocks(dataset.train.inputs):
        split, shares = Split(block, dataset.train.labels[part]), weights[index, part]
        measured = measure(params, split, dataset.standardiser)
        measures = (measured.loss, measured.correct)
        sums += [np.where(shares, shares * a, 0).sum(axis=1, dtype=float) for a in measures]
    totals = weights.sum(axis=1, dtype=float)[index]
    mean_loss, accuracy = sums / np.where(totals, totals, np.nan)
    return mean_loss, accuracy


def target_metrics(
    params: Params, target: np.ndarray, split: Split, standardiser: Standardiser
) -> dict[str, np.ndarray]:
    """`binary_scores` of R models, [R] each, on a split whose labels are T targets [n, T].

    Parameters are [R, d] and [R]; `target` [R] is the target of each model.
    """
    scores = split_logits(params, split.inputs, standardiser)
    return binary_scores(scores, np.asarray(split.labels)[:, target])


def fold_target_metrics(
    params: Params, target: np.ndarray, folds: np.ndarray, index: np.ndarray, dataset: Dataset
) -> dict[str, np.ndarray]:
    """`target_metrics` of R models, [R] each, on the fold that each model didn't train on.

    Parameters are [R, d] and [R]; `target` [R] is the target of each model, `index` [R] its fold,
    and `folds` [n] the fold of each training example.
    """
    metrics: dict[str, np.ndarray] = {}
    for fold in np.unique(index):
        places, examples = np.flatnonzero(index == fold), np.flatnonzero(folds == fold)
        models = Params(*(array[places] for array in params))
        split = take_rows(dataset.train, examples)
        measured = target_metrics(models, target[places], split, dataset.standardiser)
        for name, values in measured.items():
            metrics.setdefault(name, np.full(len(index), np.nan))[places] = values
    return metrics


def split_logits(params: Params, inputs: Any, standardiser: Standardiser) -> np.ndarray:
    """Logits [n, K] of inputs as they are stored, in memory or in a file; see `logits`."""
    parts = [_logits(params, block, standardiser) for _, block in blocks(inputs)]
    return np.concatenate([np.asarray(part) for part in parts])


@jax.jit
def _logits(params: Params, inputs: Any, standardiser: Standardiser) -> jax.Array:
    return logits(params, standardiser(inputs, params.weights.dtype))


@partial(jax.jit, static_argnames="loss")
def _measure(params: Params, split: Split, standardiser: Standardiser, loss: Loss) -> PerExample:
    """`evaluate_examples` of examples in memory."""
    arrays: Any = split
    n_in_full = len(split.labels) // _BATCH * _BATCH

    def batch(start: Any, size: int) -> Any:
        rows, labels = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in arrays)
        scores = logits(params, standardiser(rows, params.weights.dtype))
        predicted = predicted_class(scores)
        finite = predicted >= 0  # with a logit of −∞ loss and probability can be finite
        valid = finite & (labels >= 0) & (labels < scores.shape[-1])
        index = jnp.where(valid, labels, 0)[:, None]
        probabilities = jnp.take_along_axis(loss.probabilities(scores), index, axis=-1)[:, 0]
        return PerExample(
            jnp.where(finite, loss.value(scores, labels), jnp.nan),
            jnp.where(valid, probabilities, jnp.nan),
            predicted,
            jnp.where(valid, predicted == labels, jnp.nan).astype(scores.dtype),
        )

    # The last, smaller batch is apart, because padding or reshaping would copy all inputs.
    parts = [batch(n_in_full, len(split.labels) - n_in_full)]
    if n_in_full:
        full = jax.lax.map(partial(batch, size=_BATCH), jnp.arange(0, n_in_full, _BATCH))
        parts.insert(0, jax.tree.map(jnp.ravel, full))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


@partial(jax.jit, static_argnames="loss")
def _sums(params: Params, split: Split, standardiser: Standardiser, loss: Loss) -> tuple:
    """The sum of the losses of examples in memory, and the number of correct predictions."""
    examples = _measure(params, split, standardiser, loss)
    # An integer, because float32 stops counting at 2²⁴.
    return jnp.sum(examples.loss), jnp.sum(examples.predicted == split.labels)


@partial(jax.jit, static_argnames="n")
def _metrics(
    loss_sum: jax.Array, n_correct: jax.Array, params: Params, lam: Any, n: int
) -> Metrics:
    """Means from the sums over n examples."""
    # The barrier keeps the compiler from turning the division into a product with 1/n, which makes
    # 0.44169998 of 4417/10000.
    size = jax.lax.optimization_barrier(jnp.asarray(n, loss_sum.dtype))
    mean_loss = loss_sum / size
    cost = mean_loss + penalty(params, jnp.asarray(lam, loss_sum.dtype))
    # Finite logits can come with an infinite ‖W‖²; such a run has diverged and gets no accuracy.
    accuracy = jnp.where(jnp.isfinite(cost), n_correct / size, jnp.nan)
    return Metrics(mean_loss, cost, accuracy)
