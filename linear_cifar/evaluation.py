"""What a trained model is worth: figures over a whole split, in one batched pass."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linear_cifar.data.on_disk import OnDisk, blocks
from linear_cifar.data.types import Split, Standardiser
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params, logits, predicted
from linear_cifar.objective import penalty

# Examples standardised at a time: enough for large matrix products, and 12 MB in float32.
_BATCH = 1000


class Metrics(NamedTuple):
    """Means over a split, of one run [] or of many [C].

    All are NaN where a logit is not finite, as after a divergence, and where there are no examples;
    the accuracy also where the cost is not finite.
    """

    loss: jax.Array  # nats
    cost: jax.Array  # loss + λ‖W‖²
    accuracy: jax.Array  # from 0 to 1


class PerExample(NamedTuple):
    """Figures of n examples, [n] of one run or [C, n] of many; NaN where a logit is not finite."""

    loss: jax.Array  # nats
    correct: jax.Array  # 1 or 0


def in_blocks(split: Split) -> Iterator[tuple[slice, Split]]:
    """A split as it is, if its inputs are in memory; else in blocks, each with its place."""
    if not isinstance(split.inputs, OnDisk):
        yield slice(0, len(split.labels)), split
        return
    for start, rows in blocks(split.inputs):
        where = slice(start, start + len(rows))
        yield where, Split(rows, split.labels[where])


def _taking_blocks(join: Callable) -> Callable[[Callable], Any]:
    """Makes a function of a split take one whose inputs are on a disk, a block at a time.

    Args:
      join: makes one array of the blocks' arrays and of the blocks' numbers of examples.
    """

    def decorate(function: Callable) -> Any:
        @wraps(function)
        def whole(params: Params, split: Split, *args: Any, **settings: Any) -> Any:
            if not isinstance(split.inputs, OnDisk):
                return function(params, split, *args, **settings)
            parts, sizes = [], []
            for _, block in in_blocks(split):
                parts.append(jax.device_get(function(params, block, *args, **settings)))
                sizes.append(len(block.labels))
            return jax.tree.map(lambda *arrays: join(arrays, sizes), *parts)

        return whole

    return decorate


def _mean(arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    return np.average(np.stack(arrays), axis=0, weights=sizes).astype(arrays[0].dtype)


def _side_by_side(arrays: Sequence[np.ndarray], _: Sequence[int]) -> np.ndarray:
    return np.concatenate(arrays, axis=-1)


def _sum(arrays: Sequence[np.ndarray], _: Sequence[int]) -> np.ndarray:
    return np.sum(arrays, axis=0, dtype=arrays[0].dtype)


@_taking_blocks(_mean)
@partial(jax.jit, static_argnames="loss")
def evaluate(
    params: Params,
    split: Split,
    standardiser: Standardiser,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Metrics:
    """Mean loss, cost and accuracy over a split.

    Args:
      params: weights [K, d] and bias [K]; they fix the dtype.
      split: n examples as they are stored.
      standardiser: the training set's.
      lam: λ of the cost, a scalar.
      loss: the loss per example.

    Returns:
      `Metrics`, scalars in the dtype of the parameters.
    """
    losses, correct, finite = _measured(params, split, standardiser, loss)
    dtype = params.weights.dtype
    all_finite = jnp.where(finite.all(), 1, jnp.nan).astype(dtype)
    # Behind the barrier the compiler can't turn the division into a product with 1/n, which makes
    # 0.44169998 of 4417/10000.
    n = jax.lax.optimization_barrier(jnp.asarray(len(correct), dtype))
    mean_loss = jnp.mean(losses) * all_finite
    cost = mean_loss + penalty(params, lam)
    # Logits may be finite where ‖W‖² no longer is: no accuracy stands beside such a cost.
    accuracy = jnp.where(jnp.isfinite(cost), jnp.sum(correct) / n, jnp.nan)
    return Metrics(mean_loss, cost, accuracy)


@_taking_blocks(_mean)
@partial(jax.jit, static_argnames="loss")
def evaluate_runs(
    params: Params,
    split: Split,
    standardiser: Standardiser,
    lam: ArrayLike,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> Metrics:
    """`evaluate` for many runs in one pass over the data.

    Args:
      params: weights [C, K, d] and bias [C, K].
      split: n examples as they are stored.
      standardiser: the training set's.
      lam: λ of each run, [C].
      loss: the loss per example.

    Returns:
      `Metrics`, each [C].
    """

    def one(params, lam):
        return evaluate(params, split, standardiser, lam, loss)

    return jax.vmap(one)(params, jnp.asarray(lam))


@_taking_blocks(_side_by_side)
@partial(jax.jit, static_argnames="loss")
def evaluate_examples(
    params: Params,
    split: Split,
    standardiser: Standardiser,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> PerExample:
    """The loss of each example and whether it is predicted, for many runs in one pass.

    Their means are the `Metrics`; their spread gives intervals, and their pairs compare models.

    Args:
      params: weights [C, K, d] and bias [C, K]; they fix the dtype.
      split: n examples as they are stored.
      standardiser: the training set's.
      loss: the loss per example.

    Returns:
      `PerExample`, each [C, n].
    """

    def one(params):
        losses, correct, finite = _measured(params, split, standardiser, loss)
        correct = correct.astype(params.weights.dtype)
        return PerExample(*(jnp.where(finite, a, jnp.nan) for a in (losses, correct)))

    return jax.vmap(one)(params)


@_taking_blocks(_side_by_side)
@jax.jit
def predictions(params: Params, split: Split, standardiser: Standardiser) -> jax.Array:
    """The class with the largest logit, the first of equal ones, for many runs in one pass.

    Args:
      params: weights [C, K, d] and bias [C, K].
      split: n examples as they are stored.
      standardiser: the training set's.

    Returns:
      Class ids [C, n], int32; −1 where a logit is not finite.
    """

    def one(params):
        def example(scores, _):
            return predicted(scores)

        return _map_examples(example, params, split, standardiser)

    return jax.vmap(one)(params)


@_taking_blocks(_side_by_side)
@partial(jax.jit, static_argnames="loss")
def ground_truth_probabilities(
    params: Params,
    split: Split,
    standardiser: Standardiser,
    loss: Loss = SOFTMAX_CROSS_ENTROPY,
) -> tuple[jax.Array, jax.Array]:
    """The probability that the model gives each example's true class, and whether it is predicted.

    Args:
      params: weights [K, d] and bias [K].
      split: n examples as they are stored.
      standardiser: the training set's.
      loss: its link makes probabilities of logits, softmax or σ.

    Returns:
      Probabilities [n], in the dtype of the parameters and NaN for a label out of range, and
      correctness [n], bool.
    """

    def example(scores, label):
        known = (label >= 0) & (label < len(scores))
        probability = jnp.where(known, loss.probabilities(scores)[label], jnp.nan)
        return probability, predicted(scores) == label

    return _map_examples(example, params, split, standardiser)


@_taking_blocks(_sum)
@jax.jit
def confusion_matrix(params: Params, split: Split, standardiser: Standardiser) -> jax.Array:
    """Counts [K, K] int32 of examples by true class (rows) and predicted class (columns).

    The diagonal over the row sums is the accuracy of each class. An example whose label is
    out of range, or whose logits are not all finite, isn't counted.
    """
    n_classes = len(params.bias)

    def example(scores, label):
        # In int32: labels of uint8 would overflow from 16 classes on.
        label, found = label.astype(jnp.int32), predicted(scores)
        counts = (label >= 0) & (label < n_classes) & (found >= 0)
        return jnp.where(counts, label * n_classes + found, n_classes**2)  # or behind the last one

    cells = _map_examples(example, params, split, standardiser)
    return jnp.bincount(cells, length=n_classes**2).reshape(n_classes, n_classes).astype(jnp.int32)


def roughness(params: Params, image_shape: tuple[int, int, int]) -> jax.Array:
    """How rough the weight images are: their total variation over their size.

    Σ (|∂W/∂row| + |∂W/∂column|) / (2 Σ |W − mean|), with differences of neighbouring pixels and the
    mean of each class and channel. Independent noise gives about √2, a smooth image little; a
    factor on W changes nothing, so that weights don't count as smooth for being small.

    Args:
      params: weights [K, d] and bias [K].
      image_shape: (channels, rows, columns), whose product is d.

    Returns:
      A scalar in the dtype of the weights.
    """
    images = params.weights.reshape(-1, *image_shape)
    variation = sum(jnp.mean(jnp.abs(jnp.diff(images, axis=axis))) for axis in (-2, -1))
    size = jnp.mean(jnp.abs(images - images.mean(axis=(-2, -1), keepdims=True)))
    return variation / (2 * size)


def _measured(params: Params, split: Split, standardiser: Standardiser, loss: Loss):
    """The loss of each example, whether it is predicted, and whether its logits are finite."""

    def example(scores, label):
        return loss.value(scores, label), predicted(scores) == label, jnp.isfinite(scores).all()

    return _map_examples(example, params, split, standardiser)


def _map_examples(
    function: Callable, params: Params, split: Split, standardiser: Standardiser
):  # -> what the function returns, each with a leading axis [n]
    """Applies `function(logits [K], label)` to every example, a batch at a time."""

    def example(pair):
        stored, label = pair
        return function(logits(params, standardiser(stored, params.weights.dtype)), label)

    examples = (jnp.asarray(split.inputs), jnp.asarray(split.labels))
    if not len(split.labels):
        return jax.vmap(example)(examples)  # `map` can't make batches of none
    return jax.lax.map(example, examples, batch_size=_BATCH)
