"""An epoch of plain gradient descent, several batches at once.

A step of a linear classifier is two thin matrix products, W xᵀ and Gᵀx, whose cost is mostly that
of fetching x and W. Plain gradient descent can take several batches at once and still be plain
gradient descent. Within a block of batches, whose examples are X [S, d], the weights stay in the
span of what they were at its start and of the examples,

    W = α W₀ + U X,    U [K, S],

since every gradient is 2λW plus a combination of examples. So the logits of a later batch x are

    W xᵀ + b = α (W₀ xᵀ) + U (X xᵀ) + b,

and only α, U and b change from batch to batch: W₀ Xᵀ before and U X after them are one product a
block. The inner products X xᵀ don't depend on the weights, so that all runs share them, and all
epochs in which the examples come in the same order. But for rounding the result is that of
`epoch.run_epoch`; the mean and the penalty are those of `objective`, and
`experiments.gradient_check` says how far a step is from one by `cost_gradient`.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from linear_cifar.data.types import Split, Standardiser
from linear_cifar.engine.epoch import take_batch, updated
from linear_cifar.engine.state import Training, TrainState
from linear_cifar.model import Params, logits
from linear_cifar.objective import cost_gradient, mean_logit_gradient, penalty_gradient
from linear_cifar.optimizers import Hyperparameters, sgd

# Of each batch of a block but the first, with those before it: [examples before, examples].
InnerProducts: TypeAlias = tuple[jax.Array, ...]

_BATCHES_PER_BLOCK = 4  # more gain little, and each makes the program larger
_EXAMPLES_PER_BLOCK = 400  # more don't stay in the processor's cache
_LARGE_BATCH = 100  # from which several runs gain nothing
_WORTH = 0.25  # the most that inner products may add to the arithmetic of training


class Coefficients(NamedTuple):
    """Parameters within a block: W = α W₀ + U X, and b."""

    alpha: jax.Array  # [], of the weights at the block's start
    u: jax.Array  # [K, S], of the block's examples up to now
    bias: jax.Array  # [K]


def batches_per_block(how: Training, n_classes: int, n_runs: int) -> int:
    """How many batches to take at once; 1 where it doesn't pay or isn't the same mathematics.

    It saves fetching W for every small batch, and X for every single run. The inner products of T
    batches of B take (T − 1) B d / 2 multiplications an example, once for all that use them;
    training takes 2 K d an example, run and epoch.

    Args:
      how: its optimiser has to be `sgd`, whose updates are linear and keep nothing of past
        gradients, and its gradient `cost_gradient`.
      n_classes: K.
      n_runs: runs that share the inner products.
    """
    linear = how.optimizer is sgd and how.gradient is cost_gradient
    thin = how.batch_size < _LARGE_BATCH or n_runs == 1
    fits = _BATCHES_PER_BLOCK * how.batch_size <= _EXAMPLES_PER_BLOCK
    n_epochs = 1 if how.shuffle else how.n_epochs  # that share them too
    added = (_BATCHES_PER_BLOCK - 1) * how.batch_size / 2
    pays = added <= _WORTH * 2 * n_classes * n_runs * n_epochs
    return _BATCHES_PER_BLOCK if linear and thin and fits and pays else 1


@partial(jax.jit, static_argnames=("batch_size", "n_batches", "dtype"))
def inner_products(
    examples: Split, standardiser: Standardiser, *, batch_size: int, n_batches: int, dtype
) -> tuple[InnerProducts, InnerProducts]:
    """The inner products that `run_epoch_in_blocks` needs of examples in the order of an epoch.

    Args:
      examples: as they are stored, [n, d].
      standardiser: makes standardised inputs of them.
      batch_size: examples a batch.
      n_batches: batches a block.
      dtype: floating type of the result.

    Returns:
      Those of all full blocks, with a leading axis of blocks, and those of what is left.
    """

    def products(start: jax.Array | int, sizes: Sequence[int]) -> InnerProducts:
        x, _ = take_batch(examples, standardiser, start, sum(sizes), dtype)
        ends = list(accumulate(sizes))
        return tuple(x[:a] @ x[a:b].T for a, b in pairwise(ends))

    n = len(examples.labels)
    starts, full, left = _blocks(n, batch_size, n_batches)
    of_blocks = jax.lax.map(partial(products, sizes=full), starts)
    return of_blocks, products(n - sum(left), left)


def run_epoch_in_blocks(
    state: TrainState,
    hyperparameters: Hyperparameters,
    examples: Split,
    standardiser: Standardiser,
    products: tuple[InnerProducts, InnerProducts],
    n_batches: int,
    how: Training,
) -> TrainState:
    """Trains one run for one epoch, as `epoch.run_epoch` does but for rounding.

    Args:
      state: of one run.
      hyperparameters: of one run.
      examples: inputs [n, d] as they are stored, and labels, in the order to take them.
      standardiser: makes standardised inputs of them, where a block is used.
      products: `inner_products` of the examples.
      n_batches: batches a block.
      how: loss and batch size; its optimiser is `sgd`.

    Returns:
      The state after ⌈n / batch_size⌉ steps.
    """
    n = len(examples.labels)
    transformation = how.optimizer(hyperparameters, -(-n // how.batch_size))

    def block(state, start, products, sizes) -> TrainState:
        dtype = state.params.weights.dtype
        inputs, labels = take_batch(examples, standardiser, start, sum(sizes), dtype)
        own = (hyperparameters.lam, transformation, how.loss)
        return _run_block(state, inputs, labels, products, sizes, *own)

    starts, full, left = _blocks(n, how.batch_size, n_batches)
    state, _ = jax.lax.scan(
        lambda state, of_block: (block(state, *of_block, sizes=full), None),
        state,
        (starts, products[0]),
    )
    return block(state, n - sum(left), products[1], left) if left else state


def _run_block(state, inputs, labels, products, sizes, lam, transformation, loss) -> TrainState:
    """Several steps at once: see the module's first lines."""
    params, optimizer_state = state
    first_scores = logits(params._replace(bias=jnp.zeros_like(params.bias)), inputs).T  # W₀ Xᵀ
    empty = jnp.zeros_like(first_scores[:, :0])
    coefficients = Coefficients(jnp.ones((), inputs.dtype), empty, params.bias)
    start = 0
    for i, size in enumerate(sizes):
        alpha, u, bias = coefficients
        batch = slice(start, start + size)
        scores = alpha * first_scores[:, batch] + bias[:, None]
        if start:
            scores += u @ products[i - 1]
        by_score = mean_logit_gradient(scores.T, labels[batch], loss).T  # Gᵀ/n, [K, n]
        # The gradient 2λW + Gᵀx/n, and the weights, in terms of W₀ and of the examples up to here;
        # the penalty's is linear in W, and so the same function of α and U.
        u = jnp.concatenate([u, jnp.zeros_like(by_score)], axis=1)
        gradients = Coefficients(
            alpha=penalty_gradient(alpha, lam),
            u=jnp.concatenate([penalty_gradient(u[:, :start], lam), by_score], axis=1),
            bias=jnp.sum(by_score, axis=1),
        )
        coefficients, optimizer_state = updated(
            transformation, gradients, optimizer_state, Coefficients(alpha, u, bias)
        )
        start += size
    weights = coefficients.alpha * params.weights + coefficients.u @ inputs
    return TrainState(Params(weights, coefficients.bias), optimizer_state)


def _blocks(n: int, batch_size: int, n_batches: int) -> tuple[jax.Array, list[int], list[int]]:
    """Starts of the full blocks, the batch sizes of each, and those of what is left."""
    n_batches = min(n_batches, n // batch_size)
    n_blocks, n_left = divmod(n, batch_size * n_batches)
    left = [batch_size] * (n_left // batch_size) + [n_left % batch_size] * (n_left % batch_size > 0)
    return batch_size * n_batches * jnp.arange(n_blocks), [batch_size] * n_batches, left
