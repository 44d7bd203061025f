"""The certificate: an upper bound on how far a cost is above its minimum, in float64.

Write P for the probabilities at (W, b), Y for the one-hot labels, and G = c (P − Y) for the
gradient of the loss in the logits, with c = 1 for exclusive classes (softmax) and 1/K for
independent ones. Means are over the examples with their weights. Every G′ with mean G′ = 0 is
feasible for the dual problem, because the bias isn't penalised. By Fenchel–Young the gap between
J(W, b) and the dual cost at G′, with M′ = mean G′xᵀ, is

    gap = mean [l(s) + l*(G′) − ⟨G′, s⟩] + ‖M′ + 2λW‖² / (4λ)  ≥  J − J*.

At an optimal bias mean G = 0, so that G itself is feasible; the first term vanishes, and the gap is
‖M + 2λW‖²/(4λ). For any other bias, mix P with constant probabilities q:

    P′ = (1 − t) P + t q,    q = p̄ + (π − p̄)/t,    p̄ = mean P,  π = mean Y,

with t just large enough that q are probabilities. Then mean P′ = π and G′ = c (P′ − Y) is feasible.
The conjugate l* is convex (it is Σ p log p of the probabilities), so the first term is at most

    t mean [l(s) + l*(c (q − Y)) − c ⟨q − Y, s⟩]  =  t mean KL(q ‖ P),

and ‖M′ − M‖ = t ‖mean c (q − P) xᵀ‖ ≤ t c √(mean ‖q − P‖² mean ‖x‖²). Independent classes are mixed
one by one, each with its own t; the bounds hold with the largest. All of this comes from one pass.

Before that pass the bias is refined to bring t down, on logits that are kept if they fit. Classes
without examples get a bias at which their probabilities vanish.

Products and sums are taken in float64 with the inputs as they are stored, whatever the coordinates
and dtype of the descent, so the descent's rounding is inside the gap. A sum over m rows in each of
B blocks, and then over the blocks, is off by at most (m + B) 2⁻⁵³ of the sum of magnitudes
(N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2). Twice that is added
to mean G and to M. The rounding of the logits themselves is not inside.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.data.dataset import Standardiser
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty_gradient
from linear_cifar.optimum.data_pass import (
    Examples,
    ReadChunks,
    cached,
    input_gradient,
    run_logits,
    sum_over,
    transform,
    weighted_logit_gradient,
)
from linear_cifar.optimum.interval import Certificate, gap_at
from linear_cifar.optimum.tasks import Tasks, run_examples

VANISHING = 1e4  # minus the bias at which a class has probability 0 in float64
_SCORE_BYTES = 2**28  # of logits that are kept while the bias is refined
_MAX_STEPS, _MAX_IDLE = 40, 4  # of the bias; in a row that lower neither t nor the loss
_NEAR = 2.0  # a step may exceed the difference of the logits by it, by twice it after each fall
_FALL, _TINY = 1e-9, 1e-300  # the least relative change of a loss that counts; in place of 0
_MEMORY = 8  # earlier steps that one combines
_NEGLIGIBLE = 0.02  # share of the tolerance that a bias may take up


class Certified(NamedTuple):
    """Certified parameters of C runs; NumPy, float64."""

    params: Params  # [C, K, d] and [C, K]
    cost: np.ndarray  # [C], J
    gap: np.ndarray  # [C], an upper bound of J − J*
    certificate: Certificate  # [C], for every λ


class _Sums(NamedTuple):
    loss: Any  # [C], mean l
    bias: Any  # [C, K], mean G
    magnitude: Any  # [C, K], mean |G|
    weights: Any  # [C, K, d], M = mean G xᵀ
    scores: Any  # [C, K], mean s
    label_scores: Any  # [C], mean s of the label's class
    squares: Any  # [C], mean ‖x‖²


def certify(
    params: Params,
    lam: np.ndarray,
    examples: Examples,
    tasks: Tasks,
    standardiser: Standardiser,
    loss: Loss,
    tolerance: float = 0.0,
) -> Certified:
    """Refines the biases of C runs, with λ [C] and parameters [C, K, d], [C, K], and certifies J.

    Once the bias takes up little of the tolerance, a gap over cost, it isn't refined further.
    """
    matrix, bias = (np.asarray(array, np.float64) for array in params)
    shares, k, n = tasks.shares, bias.shape[1], len(examples.split.labels)
    settings: dict[str, Any] = {"loss": loss, "mesh": examples.mesh, "dtype": np.float64}
    with jax.enable_x64(True):
        chunks = examples.labelled(tasks.labels, tasks.weights, np.float64)
        # The logits W x without bias in place of the inputs, [blocks, m, C K]; kept if they fit.
        columns = matrix.reshape(-1, matrix.shape[2]).T
        place = (standardiser, columns, examples.mesh, np.float64)
        scores = cached(
            lambda: (chunk._replace(inputs=transform(chunk.inputs, *place)) for chunk in chunks()),
            8 * n * columns.shape[1] <= _SCORE_BYTES,
        )
        bias = _refined_bias(bias, scores, tasks, (tolerance, lam / matrix.shape[2]), settings)
        params = Params(matrix, bias)
        sums = sum_over(chunks, _terms, (params, tasks.run), standardiser=standardiser, **settings)
        sums = jax.tree.map(np.asarray, sums)
        slope = sums.weights + np.asarray(penalty_gradient(matrix, lam[:, None, None]))
    rounding = 2 * (examples.n_rows + -(-n // examples.n_rows)) * 2.0**-53
    c = 1.0 if loss.exclusive else 1 / k
    t, q = _mixture(sums.bias / c, rounding * sums.magnitude / c, shares, loss.exclusive)
    with np.errstate(invalid="ignore", over="ignore"):  # of runs that diverged; their gap is NaN
        divergence = sums.loss + c * (sums.label_scores - np.sum(q * sums.scores, axis=1))
        if loss.exclusive:
            divergence += np.sum(q * np.log(np.where(q > 0, q, 1)), axis=1)
        # c ‖q − P‖ is at most √2 for exclusive classes, and 1/√K for independent ones. The mean of
        # ‖G‖² is at most the mean of |G|, because no entry of G exceeds 1.
        shift = t * np.sqrt(2 if loss.exclusive else c)
        shift += rounding * np.sqrt(sums.magnitude.sum(axis=1))
        shift, divergence = shift * np.sqrt(sums.squares), t * np.maximum(divergence, 0)
        squares = np.sum(matrix**2, axis=(1, 2))
        along = np.sum(slope * matrix, axis=(1, 2)) / np.where(squares == 0, 1, squares)
        least = np.sqrt(np.sum((slope - along[:, None, None] * matrix) ** 2, axis=(1, 2)))
        certificate = Certificate(sums.loss, squares, lam - along / 2, least, shift, divergence)
    return Certified(params, *gap_at(certificate, lam), certificate)


def _terms(loss: Loss, inputs, labels, weights, runs) -> _Sums:
    params, task = runs
    scores, (labels, weights) = run_logits(params, inputs), run_examples(task, labels, weights)
    gradients = weighted_logit_gradient(loss, scores, labels, weights)
    # The labels' logits are ⟨Y, s⟩, and Y = P − G/c.
    c = 1.0 if loss.exclusive else 1 / scores.shape[-1]
    products = jnp.einsum("cm,cmk->ck", weights, loss.probabilities(scores) * scores)
    products -= jnp.einsum("ckm,cmk->ck", gradients, scores) / c
    return _Sums(
        jnp.sum(weights * jax.vmap(loss.value)(scores, labels), axis=-1),
        jnp.sum(gradients, axis=-1),
        jnp.sum(jnp.abs(gradients), axis=-1),
        input_gradient(gradients, inputs),
        jnp.einsum("cm,cmk->ck", weights, scores),
        jnp.sum(products, axis=-1),
        weights @ jnp.sum(inputs**2, axis=-1),
    )


def _mixture(
    excess: np.ndarray, error: np.ndarray, shares: np.ndarray, exclusive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The t [C] and q [C, K] of the feasible mixture, from p̄ − π, its error, and π [C, K]."""
    mean = shares + excess  # p̄
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean > 0, (excess + error) / mean, 0)  # so that q ≥ 0
        if exclusive:
            t = t.max(axis=1, keepdims=True)
        else:  # so that q ≤ 1
            t = np.maximum(t, np.where(mean < 1, (error - excess) / (1 - mean), 0))
    t = np.clip(t, np.finfo(np.float64).tiny, 1)  # NaN stays NaN
    return t.max(axis=1), np.clip(mean - excess / t, 0, 1)


def _bias_terms(loss: Loss, scores, labels, weights, runs) -> tuple[jax.Array, ...]:
    """p̄ and mean p(1 − p) of C runs, [C, K] each, and the mean loss, at some biases."""
    bias, task = runs
    scores = jnp.moveaxis(scores.reshape(-1, *bias.shape), 1, 0) + bias[:, None]
    (labels, weights), p = run_examples(task, labels, weights), loss.probabilities(scores)
    return (
        *(jnp.einsum("cm,cmk->ck", weights, array) for array in (p, p * (1 - p))),
        jnp.sum(weights * jax.vmap(loss.value)(scores, labels), axis=-1),
    )


@np.errstate(invalid="ignore", over="ignore")  # of saturated classes, and runs that diverged
def _refined_bias(
    bias: np.ndarray,
    scores: ReadChunks,
    tasks: Tasks,
    goal: tuple[float, np.ndarray],
    settings: dict[str, Any],
) -> np.ndarray:
    """Biases [C, K] at which p̄ is close to π, by Newton's method for logit p̄ = logit π.

    The diagonal of the derivatives is mean p(1 − p)/(p̄(1 − p̄)) ≤ 1, because p(1 − p) is concave. So
    for independent classes, which have no other derivatives, a step as long as the difference of
    the logits doesn't overshoot. Exclusive classes move together, so they go 1 − 1/K of their step,
    which is combined with up to eight earlier ones by Anderson's method (H. Walker and P. Ni,
    Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 49, 2011). 5 to 20 steps
    are usual, without a K × K Hessian. `goal` is the tolerance, and λ/d.
    """
    exclusive, (tolerance, lam_share) = settings["loss"].exclusive, goal
    shares, n_kept = tasks.shares, _MEMORY + 1 if exclusive else 1
    fixed = (shares == 0) | (shares >= 1)  # classes that no or all examples have
    n_free = np.maximum(np.sum(~fixed, axis=1, keepdims=True), 1)
    bias = np.where(fixed, np.where(shares == 0, -VANISHING, VANISHING), bias)
    best, least, n_idle = bias, np.full(len(bias), np.inf), 0
    last_loss, reach = least, np.full(len(bias), _NEAR / 2)  # the first step doubles it
    low, high = np.full_like(bias, -np.inf), np.full_like(bias, np.inf)  # if independent
    pairs: list[np.ndarray] = []  # [2, C, K], biases and the steps from them
    for _ in range(_MAX_STEPS):
        sums = sum_over(scores, _bias_terms, (bias, tasks.run), **settings)
        mean, curvature, loss = map(np.asarray, sums)
        t, _ = _mixture(mean - shares, np.zeros_like(mean), shares, exclusive)
        improves, falls = t < least, loss < (1 - _FALL) * last_loss
        rises, last_loss = loss > (1 + _FALL) * last_loss, loss
        best, least = np.where(improves[:, None], bias, best), np.where(improves, t, least)
        n_idle = 0 if np.any(improves | falls) else n_idle + 1
        gap = tolerance * loss
        enough = least <= _NEGLIGIBLE * np.minimum(gap / (1 + loss), np.sqrt(lam_share * gap))
        if n_idle == _MAX_IDLE or np.all(enough | ~np.isfinite(t)):
            break
        low, high = np.where(mean < shares, bias, low), np.where(mean > shares, bias, high)
        mean, wanted = (np.clip(array, _TINY, 1 - 2.0**-53) for array in (mean, shares))
        difference = np.log(wanted / (1 - wanted)) - np.log(mean / (1 - mean))
        difference = np.where(fixed, 0, difference)
        reach = np.where(falls, 2 * reach, _NEAR)
        limit = np.abs(difference) + reach[:, None]
        step = difference * mean * (1 - mean) / np.maximum(curvature, _TINY)
        # Far from the optimum, or once the loss rises, earlier steps are forgotten.
        forgets = (rises | np.any(np.abs(step) > _NEAR, axis=1))[:, None]
        step = np.clip(step, -limit, limit)
        if exclusive:  # a constant in all biases changes nothing, and all of them move together
            step = ~fixed * (step - step.sum(axis=1, keepdims=True) / n_free) * (1 - 1 / n_free)
        pair = np.stack([bias, step])
        pairs = [*(np.where(forgets, pair, earlier) for earlier in pairs), pair][-n_kept:]
        change = np.nan_to_num(_combined_step(*np.stack(pairs, axis=1)))
        middle, bias = (low + high) / 2, bias + np.clip(change, -limit, limit)
        bias = np.where(exclusive | ((low <= bias) & (bias <= high)), bias, middle)
    return best


def _combined_step(biases: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Anderson's step [C, K] from the latest biases and steps, [T, C, K], oldest first."""
    bias_changes, step_changes = (np.moveaxis(np.diff(a, axis=0), 0, -1) for a in (biases, steps))
    coefficients = np.linalg.pinv(np.nan_to_num(step_changes)) @ steps[-1][..., None]
    return steps[-1] - ((bias_changes + step_changes) @ coefficients)[..., 0]
