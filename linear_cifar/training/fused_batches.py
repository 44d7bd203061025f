"""The fast path of plain gradient descent: several batches in one step.

A step of a linear classifier is two thin matrix products, W xᵀ and Gᵀx, which cost little more than
fetching x and W. Plain gradient descent can take several batches at once and still be plain
gradient descent. Within a block of batches with examples X [S, d], the weights are a multiple of
the block's first weights W₀ plus a combination of the examples,

    W = α W₀ + U X,    U [K, S],

because every gradient is 2λW plus a combination of examples. So the logits of a later batch x are

    W xᵀ + b = α (W₀ xᵀ) + U (X xᵀ) + b,

and only α, U and b change from batch to batch: W₀ Xᵀ before them and U X after them are one product
per block. The inner products X xᵀ don't depend on the weights, so all runs share them, and so do
all epochs in which the examples come in the same order. The result differs from single steps only
by rounding. The mean and the penalty come from `objective`, and `experiments.gradient_check`
measures how far a fused step is from steps by `cost_gradient`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from linear_cifar.losses import Loss
from linear_cifar.model import Params, logits
from linear_cifar.objective import mean_logit_gradient, penalty_gradient

# (start, size) -> standardised inputs [size, d] and labels [size]
TakeBatch: TypeAlias = Callable[[Any, int], tuple[jax.Array, jax.Array]]
# For each batch of a block but the first, with the examples before it: [examples before, examples].
InnerProducts: TypeAlias = tuple[jax.Array, ...]

BATCHES_PER_BLOCK = 4  # more gain little, and each makes the program larger
_MAX_EXAMPLES = 400  # in a block; more don't stay in the processor's cache
_LARGE_BATCH = 100  # from this size on, several runs gain nothing
_MAX_EXTRA_WORK = 0.25  # the most that inner products may add to the arithmetic of training


class Coefficients(NamedTuple):
    """Parameters within a block: W = α W₀ + U X, and b."""

    alpha: jax.Array  # [], of the weights at the block's start
    u: jax.Array  # [K, S], of the block's examples up to now
    bias: jax.Array  # [K]


def pays(batch_size: int, inputs: Any, n_classes: int, n_runs: int, n_epochs: int) -> bool:
    """Whether fused batches save time, within the memory that the inputs take.

    They save fetching W for each small batch, and X for a single run. The inner products of T
    batches of B examples take (T − 1) B d / 2 multiplications per example, once for all runs and
    epochs that share them; training takes 2 K d per example, run and epoch.
    """
    n_before = (BATCHES_PER_BLOCK - 1) * batch_size / 2  # earlier examples in the block, on average
    fits_cache = BATCHES_PER_BLOCK * batch_size <= _MAX_EXAMPLES
    fits_memory = 4 * n_before <= inputs.shape[1] * inputs.dtype.itemsize
    is_thin = batch_size < _LARGE_BATCH or n_runs == 1
    is_little_work = n_before <= _MAX_EXTRA_WORK * 2 * n_classes * n_runs * n_epochs
    return fits_cache and fits_memory and is_thin and is_little_work


def inner_products(
    take_batch: TakeBatch, n: int, batch_size: int
) -> tuple[InnerProducts, InnerProducts]:
    """The inner products that `fused_epoch` needs: of all full blocks, and of the remainder."""

    def products(start: Any, sizes: Sequence[int]) -> InnerProducts:
        x, _ = take_batch(start, sum(sizes))
        ends = list(accumulate(sizes))
        return tuple(x[:a] @ x[a:b].T for a, b in pairwise(ends))

    starts, full, remainder = _blocks(n, batch_size)
    of_blocks = jax.lax.map(partial(products, sizes=full), starts)
    return of_blocks, products(n - sum(remainder), remainder) if remainder else ()


def fused_epoch(
    params: Params,
    optimizer_state: optax.OptState,
    take_batch: TakeBatch,
    sizes: tuple[int, int],
    products: tuple[InnerProducts, InnerProducts],
    lam: ArrayLike,
    transform: optax.GradientTransformation,
    loss: Loss,
) -> tuple[Params, optax.OptState]:
    """Trains one run for one epoch, equal to one batch after the other up to rounding.

    `sizes` are n and the batch size. The transformation has to be linear in the gradients, without
    a memory, like `optimizers.sgd`.
    """

    def block(state, start, products, sizes):
        inputs, labels = take_batch(start, sum(sizes))
        return _fused_steps(state, inputs, labels, products, sizes, lam, transform, loss)

    n, batch_size = sizes
    starts, full, remainder = _blocks(n, batch_size)
    state, _ = jax.lax.scan(
        lambda state, xs: (block(state, *xs, sizes=full), None),
        (params, optimizer_state),
        (starts, products[0]),
    )
    return block(state, n - sum(remainder), products[1], remainder) if remainder else state


def _fused_steps(state, inputs, labels, products, sizes, lam, transform, loss):
    """The steps of one block, whose batches have the given sizes: see the top of the module."""
    params, optimizer_state = state
    first_scores = logits(params._replace(bias=jnp.zeros_like(params.bias)), inputs).T  # W₀ Xᵀ
    no_examples = jnp.zeros_like(first_scores[:, :0])
    coefficients = Coefficients(jnp.ones((), inputs.dtype), no_examples, params.bias)
    start = 0
    for i, size in enumerate(sizes):
        alpha, u, bias = coefficients
        batch = slice(start, start + size)
        scores = alpha * first_scores[:, batch] + bias[:, None]
        if start:
            scores += u @ products[i - 1]
        by_score = mean_logit_gradient(scores.T, labels[batch], loss).T  # Gᵀ/n, [K, n]
        # The gradient 2λW + Gᵀx/n and the weights, in terms of W₀ and of the examples so far. The
        # penalty's part is linear in W, and so the same function of α and U.
        u = jnp.concatenate([u, jnp.zeros_like(by_score)], axis=1)
        gradients = Coefficients(
            alpha=penalty_gradient(alpha, lam),
            u=jnp.concatenate([penalty_gradient(u[:, :start], lam), by_score], axis=1),
            bias=jnp.sum(by_score, axis=1),
        )
        coefficients = Coefficients(alpha, u, bias)
        updates, optimizer_state = transform.update(gradients, optimizer_state, coefficients)
        coefficients = optax.apply_updates(coefficients, updates)
        start += size
    weights = coefficients.alpha * params.weights + coefficients.u @ inputs
    return Params(weights, coefficients.bias), optimizer_state


def _blocks(n: int, batch_size: int) -> tuple[jax.Array, list[int], list[int]]:
    """The starts of the full blocks, their batch sizes, and the remainder's batch sizes."""
    n_batches = min(BATCHES_PER_BLOCK, n // batch_size)
    n_blocks, n_rest = divmod(n, batch_size * n_batches)
    remainder = [batch_size] * (n_rest // batch_size)
    remainder += [n_rest % batch_size] * (n_rest % batch_size > 0)
    return batch_size * n_batches * jnp.arange(n_blocks), [batch_size] * n_batches, remainder
