"""Which predictions the exact optimum shares, by a bound on weights and bias.

Let (W*, b*) be the optimum, D ≥ ‖W − W*‖ certified, and g, r the norms of ∂J/∂W and ∂J/∂b at (W,
b). For softmax b* is free up to a constant, chosen so that Σₖ (b* − b)ₖ = 0. Write ΔW = W* − W, Δb
= b* − b, B = ‖Δb‖, and δᵢ = ΔW xᵢ + Δb for the change of the logits of a training example. Hᵢ is
the Hessian of its loss in the logits at (W, b), and means are over examples.

1. Along the segment, h(t) = J(W + tΔW, b + tΔb) has h'(1) = 0 and −h'(0) ≤ gD + rB. With
   E = gD + rB, ∫₀¹ h''(t) dt ≤ E.
2. Either loss has H(s + δ) ⪰ exp(−2 max|δ|) H(s): a variance Var_p(v) = min_c Σ pₖ (vₖ − c)² falls
   by no more than the probabilities do (F. Bach, Self-concordant analysis for logistic regression,
   Electronic Journal of Statistics 4, 2010). With R = maxᵢ ‖xᵢ‖ and ρ = 2(DR + B) that gives
   h''(t) ≥ exp(−tρ) mean δᵢᵀHᵢδᵢ, and so, because ∫₀¹ exp(−tρ) dt ≥ 1/(1 + ρ),

       mean δᵢᵀHᵢδᵢ ≤ E (1 + ρ).

3. √(mean vᵢᵀHᵢvᵢ) is a seminorm. With μ the least eigenvalue of mean Hᵢ (for softmax, of those
   orthogonal to 1), Hᵢ ⪯ κ and T = mean ‖xᵢ‖²,

       √μ B ≤ √(mean ΔbᵀHᵢΔb) ≤ √(E (1 + ρ)) + √(κT) D.

4. Squared by (u + v)² ≤ 2u² + 2v²: μB² ≤ 2 (gD + rB)(1 + 2DR + 2B) + 2κTD², so that

       (μ − 4r) B² ≤ (4gD + 2r (1 + 2DR)) B + 2gD (1 + 2DR) + 2κTD²,

   and B is at most the larger root, if μ > 4r.

At the optimum, the difference of two logits of a test example changes by less than √2 (D‖x‖ + B). A
class that leads by more is the optimum's prediction too.
"""

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.checks import Setting
from linear_cifar.data.blocks import blocks
from linear_cifar.data.dataset import Dataset, Split
from linear_cifar.errors import InputError
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty_gradient
from linear_cifar.optimum.basis import mean_curvature
from linear_cifar.optimum.solve import LAM

_N_ROWS = 1000  # in a block: 25 MB of images in float64


def certain_predictions(
    params: Params, distance: float, lam: float, dataset: Dataset, split: Split, loss: Loss
) -> np.ndarray:
    """Which examples the exact optimum is certain to predict as these parameters do.

    Args:
      params: [K, d] and [K], as `solve` returns them.
      distance: D ≥ ‖W − W*‖, as in `Optimum.distance`.
      lam: λ of the fit.
      dataset: whose training examples, all with the same weight, they were fitted to.
      split: n examples.
      loss: the loss that was minimised.

    Returns:
      [n], bool, from sums in float64. `InputError` if λ, the distance or a shape is impossible.
    """
    params = Params(*(np.asarray(array, np.float64) for array in params))
    radius = bias_distance(params, distance, lam, dataset, loss)
    certain = np.zeros(len(split.labels), bool)
    for part, rows in blocks(split.inputs, n_rows=_N_ROWS):
        inputs = _standardised(rows, dataset)
        scores = np.sort(inputs @ params.weights.T + params.bias)
        reach = np.sqrt(2) * (distance * np.linalg.norm(inputs, axis=1) + radius)
        certain[part] = scores[:, -1] - scores[:, -2] > reach
    return certain


def bias_distance(
    params: Params, distance: float, lam: float, dataset: Dataset, loss: Loss
) -> float:
    """B, an upper bound of ‖b − b*‖; for softmax up to a constant. See `certain_predictions`."""
    k, n = dataset.n_classes, len(dataset.train.labels)
    if (np.shape(params.weights), np.shape(params.bias)) != ((k, dataset.n_features), (k,)):
        raise InputError(f"params have to be [{k}, {dataset.n_features}] and [{k}]")
    LAM.check("lam", lam)
    Setting("", low=0).check("distance", distance)
    params = Params(*(np.asarray(array, np.float64) for array in params))
    max_curvature = 1 / 2 if loss.exclusive else 1 / (4 * k)  # κ
    with jax.enable_x64(True):
        gradient, by_bias = np.asarray(penalty_gradient(params.weights, lam)), np.zeros(k)
    hessian, squares, labels = np.zeros((k, k)), np.zeros(n), np.asarray(dataset.train.labels)
    for part, rows in blocks(dataset.train.inputs, n_rows=_N_ROWS):
        inputs = _standardised(rows, dataset)
        scores = inputs @ params.weights.T + params.bias
        with jax.enable_x64(True):
            by_logit = np.asarray(loss.logit_gradient(jnp.asarray(scores), labels[part])) / n
            p = np.asarray(loss.probabilities(jnp.asarray(scores)))
        gradient, by_bias = gradient + by_logit.T @ inputs, by_bias + by_logit.sum(axis=0)
        hessian += mean_curvature(loss, p) * (len(p) / n)
        squares[part] = np.sum(inputs**2, axis=1)
    slope, rest = np.linalg.norm(gradient), np.linalg.norm(by_bias)
    # For softmax the first eigenvalue is 0, along the constant.
    least = np.linalg.eigvalsh(hessian)[int(loss.exclusive)] - 4 * rest
    if least <= 0 or not np.bincount(labels, minlength=k).all():  # an empty class has no bias
        return np.inf
    reach, mean_square = 1 + 2 * distance * np.sqrt(squares.max()), squares.mean()
    linear = 4 * slope * distance + 2 * rest * reach
    constant = 2 * slope * distance * reach + 2 * max_curvature * mean_square * distance**2
    return float((linear + np.sqrt(linear**2 + 4 * least * constant)) / (2 * least))


def _standardised(rows: np.ndarray, dataset: Dataset) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(dataset.standardiser(np.asarray(rows), np.float64))
