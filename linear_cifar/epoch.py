"""One epoch of mini-batch gradient descent, as a scan over the examples in their order.

A step of a linear classifier is two thin matrix products, W xᵀ and Gᵀx, whose cost is mostly that
of fetching x and W. Plain gradient descent can take several batches at once and still be plain
gradient descent. Within a block of batches, whose examples are X [S, d], the weights stay in the
span of what they were at its start and of the examples,

    W = α W₀ + U X,    U [K, S],

since every gradient is 2λW plus a combination of examples. So the logits of a later batch x are

    W xᵀ + b = α (W₀ xᵀ) + U (X xᵀ) + b,

and only α, U and b change from batch to batch: W₀ Xᵀ before and U X after them are one product a
block. The inner products X xᵀ don't depend on the weights, so that all runs share them, and all
epochs in which the examples come in the same order. But for rounding the result is the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from linear_cifar.datasets import Split, Standardiser
from linear_cifar.losses import Loss
from linear_cifar.model import Params, logits
from linear_cifar.objective import cost_gradient
from linear_cifar.optimizers import Hyperparameters, Optimizer, sgd

Gradient: TypeAlias = Callable[[Params, jax.Array, jax.Array, ArrayLike, Loss], Params]
# Of each batch of a block but the first, with those before it: [examples before, examples].
InnerProducts: TypeAlias = tuple[jax.Array, ...]

_BATCHES_PER_BLOCK = 4  # more gain little, and each makes the program larger
_EXAMPLES_PER_BLOCK = 400  # more don't stay in the processor's cache
_LARGE_BATCH = 100  # from which several runs gain nothing
_WORTH = 0.25  # the most that inner products may add to the arithmetic of training


class TrainState(NamedTuple):
    """Where a run stands; with a leading axis [C], C runs."""

    params: Params
    optimizer_state: optax.OptState  # the number of steps taken among it


class Coefficients(NamedTuple):
    """Parameters within a block: W = α W₀ + U X, and b."""

    alpha: jax.Array  # [], of the weights at the block's start
    u: jax.Array  # [K, S], of the block's examples up to now
    bias: jax.Array  # [K]


def batches_per_block(
    batch_size: int,
    n_classes: int,
    n_runs: int,
    n_epochs: int,
    optimizer: Optimizer,
    gradient: Gradient,
) -> int:
    """How many batches to take at once; 1 where it doesn't pay or isn't the same mathematics.

    It saves fetching W for every small batch, and X for every single run. The inner products of T
    batches of B take (T − 1) B d / 2 multiplications an example, once for all that use them;
    training takes 2 K d an example, run and epoch.

    Args:
      batch_size: B.
      n_classes: K.
      n_runs: runs that share the inner products.
      n_epochs: epochs that share them.
      optimizer: has to be `sgd`: its updates are linear and keep nothing of past gradients.
      gradient: has to be `cost_gradient`.
    """
    linear = optimizer is sgd and gradient is cost_gradient
    thin = batch_size < _LARGE_BATCH or n_runs == 1
    fits = _BATCHES_PER_BLOCK * batch_size <= _EXAMPLES_PER_BLOCK
    added = (_BATCHES_PER_BLOCK - 1) * batch_size / 2
    pays = added <= _WORTH * 2 * n_classes * n_runs * n_epochs
    return _BATCHES_PER_BLOCK if linear and thin and fits and pays else 1


@partial(jax.jit, static_argnames=("batch_size", "n_batches", "dtype"))
def inner_products(
    inputs: jax.Array, standardiser: Standardiser, *, batch_size: int, n_batches: int, dtype
) -> tuple[InnerProducts, InnerProducts]:
    """The inner products that `run_epoch` needs of examples in the order of an epoch.

    Args:
      inputs: as they are stored, [n, d].
      standardiser: makes standardised inputs of them.
      batch_size: examples a batch.
      n_batches: batches a block.
      dtype: floating type of the result.

    Returns:
      Those of all full blocks, with a leading axis of blocks, and those of what is left.
    """

    def products(start: jax.Array | int, sizes: Sequence[int]) -> InnerProducts:
        x = jax.lax.dynamic_slice_in_dim(inputs, start, sum(sizes))
        x = standardiser(x, dtype)
        ends = list(accumulate(sizes))
        return tuple(x[:a] @ x[a:b].T for a, b in pairwise(ends))

    starts, full, left = _blocks(len(inputs), batch_size, n_batches)
    of_blocks = jax.lax.map(partial(products, sizes=full), starts)
    return of_blocks, products(len(inputs) - sum(left), left)


def run_epoch(
    state: TrainState,
    hyperparameters: Hyperparameters,
    examples: Split,
    standardiser: Standardiser,
    products: tuple[InnerProducts, InnerProducts],
    *,
    batch_size: int,
    n_batches: int,
    loss: Loss,
    optimizer: Optimizer,
    gradient: Gradient,
) -> TrainState:
    """Trains one run for one epoch.

    Args:
      state: of one run.
      hyperparameters: of one run.
      examples: inputs [n, d] as they are stored, and labels, in the order to take them.
      standardiser: makes standardised inputs of them, where a batch is used.
      products: `inner_products` of the examples.
      batch_size: examples a step; the last step takes the mean over what is left.
      n_batches: `batches_per_block`; 1 takes one at a time.
      loss: the loss per example.
      optimizer: makes the optax transformation.
      gradient: of the cost, where batches are taken one at a time.

    Returns:
      The state after ⌈n / batch_size⌉ steps.
    """
    n = len(examples.labels)
    transformation = optimizer(hyperparameters, -(-n // batch_size))

    def step(state: TrainState, inputs, labels) -> TrainState:
        gradients = gradient(state.params, inputs, labels, hyperparameters.lam, loss)
        return TrainState(*_updated(transformation, gradients, state.optimizer_state, state.params))

    def block(state: TrainState, start: jax.Array | int, products, sizes) -> TrainState:
        stored, labels = (jax.lax.dynamic_slice_in_dim(a, start, sum(sizes)) for a in examples)
        # Standardised here and not beforehand: as fast, a quarter of the memory, and no pass over
        # the data at the start.
        inputs = standardiser(stored, state.params.weights.dtype)
        if len(sizes) == 1:
            return step(state, inputs, labels)
        return _block(
            state, inputs, labels, products, sizes, hyperparameters.lam, transformation, loss
        )

    starts, full, left = _blocks(n, batch_size, n_batches)
    state, _ = jax.lax.scan(
        lambda state, block_: (block(state, *block_, sizes=full), None),
        state,
        (starts, products[0]),
    )
    return block(state, n - sum(left), products[1], left) if left else state


def _block(state, inputs, labels, products, sizes, lam, transformation, loss) -> TrainState:
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
        by_score = loss.logit_gradient(scores.T, labels[batch]).T / size  # Gᵀ/n, [K, n]
        # The gradient 2λW + Gᵀx, and the weights, in terms of W₀ and of the examples up to here.
        u = jnp.concatenate([u, jnp.zeros_like(by_score)], axis=1)
        gradients = Coefficients(
            alpha=2 * lam * alpha,
            u=jnp.concatenate([2 * lam * u[:, :start], by_score], axis=1),
            bias=jnp.sum(by_score, axis=1),
        )
        coefficients, optimizer_state = _updated(
            transformation, gradients, optimizer_state, Coefficients(alpha, u, bias)
        )
        start += size
    weights = coefficients.alpha * params.weights + coefficients.u @ inputs
    return TrainState(Params(weights, coefficients.bias), optimizer_state)


def _updated(transformation: optax.GradientTransformation, gradients, optimizer_state, params):
    """The parameters and the optimiser's state after an update."""
    updates, optimizer_state = transformation.update(gradients, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state


def _blocks(n: int, batch_size: int, n_batches: int) -> tuple[jax.Array, list[int], list[int]]:
    """Starts of the full blocks, the batch sizes of each, and those of what is left."""
    n_batches = min(n_batches, n // batch_size)
    n_blocks, n_left = divmod(n, batch_size * n_batches)
    left = [batch_size] * (n_left // batch_size) + [n_left % batch_size] * (n_left % batch_size > 0)
    return batch_size * n_batches * jnp.arange(n_blocks), [batch_size] * n_batches, left
