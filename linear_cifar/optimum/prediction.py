"""Which predictions are those of the exact optimum, by a bound on weights and bias.

Let (W, b) have b minimising J(W, b), (W*, b*) be the optimum, and D ≥ ‖W − W*‖ be certified, as
‖∂J/∂W‖/(2λ). For softmax b* is free up to a constant, and taken such that Σₖ (b* − b)ₖ = 0. Write
ΔW = W* − W, Δb = b* − b, B = ‖Δb‖, and δᵢ = ΔW xᵢ + Δb for the change of the logits of a training
example; Hᵢ is the Hessian of its loss in the logits at (W, b), and means are over examples.

1. Along the segment, h(t) = J(W + tΔW, b + tΔb) has h'(1) = 0 and −h'(0) ≤ ‖∂J/∂W‖ D + ‖∂J/∂b‖ B.
   With E = 2λD² + rB, where r = ‖∂J/∂b‖ is what rounding has left of 0, ∫₀¹ h''(t) dt ≤ E.
2. Either loss has H(s + δ) ⪰ exp(−2 max|δ|) H(s): a variance Var_p(v) = min_c Σ pₖ (vₖ − c)² falls
   by no more than the probabilities do (F. Bach, Self-concordant analysis for logistic regression,
   Electronic Journal of Statistics 4, 2010). With R = maxᵢ ‖xᵢ‖ and ρ = 2(DR + B) that gives
   h''(t) ≥ exp(−tρ) mean δᵢᵀHᵢδᵢ, and so, as ∫₀¹ exp(−tρ) dt ≥ 1/(1 + ρ),

       mean δᵢᵀHᵢδᵢ ≤ E (1 + ρ).

3. √(mean vᵢᵀHᵢvᵢ) is a seminorm. With μ the least eigenvalue of mean Hᵢ (for softmax, of those
   orthogonal to 1), Hᵢ ⪯ κ and T = mean ‖xᵢ‖²,

       √μ B ≤ √(mean ΔbᵀHᵢΔb) ≤ √(E (1 + ρ)) + √(κT) D.

4. Squared by (u + v)² ≤ 2u² + 2v²: μB² ≤ 2 (2λD² + rB)(1 + 2DR + 2B) + 2κTD², so that

       (μ − 4r) B² ≤ (8λD² + 2r (1 + 2DR)) B + 4λD² (1 + 2DR) + 2κTD²,

   and B is at most the larger root, if μ > 4r.

A test example's logits differ by less than √2 (D‖x‖ + B) more or less at the optimum, so that a
class that leads by more is the optimum's.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.losses import MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.optimum import weighted
from linear_cifar.optimum.settings import LAM
from linear_cifar.settings import Setting, SettingsError

DISTANCE = Setting("of the weights from the optimum's, at most", low=0)
_BATCH = 1000


def certain(
    params: Params, distance: float, lam: float, dataset: Dataset, split: Split, loss: Loss
) -> np.ndarray:
    """Which examples the exact optimum is certain to predict as these parameters do.

    Args:
      params: [K, d] and [K], as `solve` returns them, the bias optimal for the weights.
      distance: D, certified.
      lam: λ.
      dataset: whose training examples, all with the same weight, they were fitted to.
      split: n examples.
      loss: that was minimised.

    Returns:
      [n], bool, by sums in float64.

    Raises:
      SettingsError: a loss for which no bound is known; λ, the distance or a shape that can't be.
    """
    of_bias = bias_distance(params, distance, lam, dataset, loss)
    leads = []
    with jax.enable_x64(True):
        for inputs, _ in _batches(split, dataset.standardiser):
            scores = np.sort(_scores(params, inputs))
            reach = np.sqrt(2) * (distance * np.linalg.norm(inputs, axis=1) + of_bias)
            leads.append(scores[:, -1] - scores[:, -2] > reach)
    return np.concatenate([np.zeros(0, bool), *leads])


def bias_distance(
    params: Params, distance: float, lam: float, dataset: Dataset, loss: Loss
) -> float:
    """B, which ‖b − b*‖ is not above; for softmax up to a constant.

    Args:
      params: as for `certain`, like the others.
      distance: D.
      lam: λ.
      dataset: of the training examples.
      loss: that was minimised.
    """
    k = dataset.n_classes
    if (np.shape(params.weights), np.shape(params.bias)) != ((k, dataset.n_features), (k,)):
        raise SettingsError(f"params have to be [{k}, {dataset.n_features}] and [{k}]")
    LAM.check("lam", lam)
    DISTANCE.check("distance", distance)
    curvatures = {SOFTMAX_CROSS_ENTROPY: 1 / 2, MULTIPLE_BINARY_CROSS_ENTROPY: 1 / (4 * k)}
    if loss not in curvatures:
        raise SettingsError(f"no bound on the bias is known for the loss {loss.name}")
    n, gradient, hessian, squares = len(dataset.train.labels), np.zeros(k), np.zeros((k, k)), []
    with jax.enable_x64(True):
        for inputs, labels in _batches(dataset.train, dataset.standardiser):
            sums = _of_bias(_scores(params, inputs).T, labels, np.full(len(labels), 1 / n), loss)
            gradient, hessian = gradient + sums[0], hessian + sums[1]
            squares.append(np.sum(inputs**2, axis=1))
    of_examples, left = np.concatenate(squares), np.linalg.norm(gradient)
    # For softmax the first eigenvalue is 0, that of the constant.
    least = np.linalg.eigvalsh(hessian)[int(loss is SOFTMAX_CROSS_ENTROPY)] - 4 * left
    counts = np.bincount(np.asarray(dataset.train.labels), minlength=k)
    if least <= 0 or not counts.all():  # a class without examples has no bias
        return np.inf
    reach, mean = 1 + 2 * distance * np.sqrt(of_examples.max()), of_examples.mean()
    linear = 8 * lam * distance**2 + 2 * left * reach
    constant = distance**2 * (4 * lam * reach + 2 * curvatures[loss] * mean)
    return float((linear + np.sqrt(linear**2 + 4 * least * constant)) / (2 * least))


@partial(jax.jit, static_argnames="loss")
def _of_bias(
    scores: jax.Array, labels: jax.Array, shares: jax.Array, loss: Loss
) -> tuple[jax.Array, jax.Array]:
    """Gradient [K] and Hessian [K, K] of the mean loss in the bias, of logits [K, n]."""
    of = (scores[None], labels, shares[None], loss)
    return jnp.sum(weighted.logit_gradient(*of)[0], axis=-1), weighted.hessian(*of)[0]


def _scores(params: Params, inputs: np.ndarray) -> np.ndarray:
    """Logits [n, K] in float64."""
    return inputs @ np.asarray(params.weights, float).T + np.asarray(params.bias, float)


def _batches(split: Split, standardiser: Standardiser) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Standardised inputs in float64 and labels, a batch at a time; under `jax.enable_x64`."""
    for start in range(0, len(split.labels), _BATCH):
        stored, labels = (array[start : start + _BATCH] for array in split)
        yield np.asarray(standardiser(jnp.asarray(stored), jnp.float64)), np.asarray(labels)
