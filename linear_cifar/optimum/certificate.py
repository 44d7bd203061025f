"""The certificate: how far at most a cost is above its minimum, in float64.

For given W let b minimise J(W, b). Then f(W) = min_b J(W, b) is convex, and 2λ-strongly so, since
J is the sum of a convex function of (W, b) and of λ‖W‖². Its gradient is ∂J/∂W = M + 2λW at that b,
so that

    f(W) − f* ≤ ‖M + 2λW‖² / (4λ)    and    ‖W − W*‖ ≤ ‖M + 2λW‖ / (2λ).

The first is also the Fenchel duality gap at the dual point G, which is feasible because Σᵢ Gᵢ = 0.
With any other b neither holds, for the bias is not penalised: there the gap is infinite here.

A class without examples has no optimal bias: its probabilities are driven to nothing. What is left
of them, and of Σᵢ Gᵢ, is in the gap. Products and sums are taken in float64, with the inputs as
they are stored, whatever the coordinates and dtype of the descent, so that its rounding is in the
gap and not beside it; that of float64 itself, about 1e-16 of the logits' size, is not.
"""

from typing import NamedTuple

import jax
import numpy as np

from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.objective import penalty, penalty_gradient
from linear_cifar.optimum import passes, shards
from linear_cifar.optimum.examples import Examples

# The largest |Σᵢ Gᵢ| of a class, over Σᵢ |Gᵢ|, at which its bias counts as optimal; or what float64
# makes of a sum of 0.
BIAS_TOLERANCE, _ROUNDING = 1e-9, 1e-15
_NEWTON_STEPS = 80
# Newton's method squares the residual: from below this one, a further step is enough.
_NEARLY = 1e-5
_NOTHING = 1e-12  # of the scaled Hessian's eigenvalues: softmax has 0 along the constant
_FURTHEST = 2.0  # that a bias is moved at a time: so far the quadratic model holds


class Certified(NamedTuple):
    """What is known of C runs; numpy arrays in float64."""

    params: Params  # [C, K, d] and [C, K], the latter minimising the cost for the former
    cost: np.ndarray  # [C], J
    gap: np.ndarray  # [C], which J − J* is not above
    distance: np.ndarray  # [C], which ‖W − W*‖ is not above


def certify(
    params: Params,
    examples: Examples,
    shares: np.ndarray,
    of_row: np.ndarray,
    lam: np.ndarray,
    loss: Loss,
    refit_bias: bool = True,
) -> Certified:
    """Certifies parameters of C runs.

    Args:
      params: [C, K, d] and [C, K], float64.
      examples: that they were fitted to.
      shares: what these count, [D, n], float64, with a sum of 1 over n.
      of_row: which of the shares each run has, [C].
      lam: λ > 0, [C], float64.
      loss: the loss per example.
      refit_bias: minimise over the bias first; else a bias that isn't optimal has an infinite gap.
    """
    of = _Sums(examples, shares, of_row, loss)
    weights, bias = (np.asarray(a, np.float64) for a in params)
    n_steps = _NEWTON_STEPS if refit_bias else 0
    bias, n_steps = _nearly_optimal(of, Params(weights, bias), n_steps)
    while True:
        sums, of_bias = of(Params(weights, bias))
        if not n_steps or of_bias.settled:
            break
        bias, n_steps = bias + of_bias.newton_step(), n_steps - 1
    fitted = Params(weights, bias)
    with jax.enable_x64(True):
        of_penalty = penalty_gradient(weights, lam[:, None, None])
        costs = sums.loss + np.asarray(jax.vmap(penalty)(fitted, lam))
    norm = np.sqrt(np.sum((sums.weights + np.asarray(of_penalty)) ** 2, axis=(1, 2)))
    norm = np.where(of_bias.optimal.all(axis=1), norm, np.inf)
    return Certified(fitted, costs, norm**2 / (4 * lam) + of_bias.gap(), norm / (2 * lam))


def _nearly_optimal(of: "_Sums", params: Params, n_steps: int) -> tuple[np.ndarray, int]:
    """A bias that one step of Newton's method at most is missing to, and how many are left."""
    weights, bias = params
    while n_steps:
        _, of_bias = of(Params(weights, bias), weights=False)
        if of_bias.settled:
            break
        bias, n_steps = bias + of_bias.newton_step(), n_steps - 1
        if not of_bias.residual.max() > _NEARLY:
            break
    return bias, n_steps


class _OfBias(NamedTuple):
    """What is known of the bias of C runs."""

    gradient: np.ndarray  # Σᵢ Gᵢ, [C, K]
    size: np.ndarray  # Σᵢ |Gᵢ|, [C, K]
    hessian: np.ndarray  # [C, K, K]
    present: np.ndarray  # [C, K], classes with examples

    @property
    def optimal(self) -> np.ndarray:
        """Whether nothing can be gained, [C, K]."""
        size = np.where(self.present, self.size, 0)
        return np.abs(self.gradient) <= np.maximum(BIAS_TOLERANCE * size, _ROUNDING)

    @property
    def settled(self) -> bool:
        """Whether no step would help: each bias is optimal, or not a number."""
        return bool((self.optimal | ~np.isfinite(self.gradient)).all())

    @property
    def residual(self) -> np.ndarray:
        """|Σᵢ Gᵢ| over Σᵢ |Gᵢ|, [C, K]; of a class without examples 0 or 1."""
        return np.where(self.optimal, 0, np.abs(self.gradient) / np.maximum(self.size, _ROUNDING))

    def newton_step(self) -> np.ndarray:
        """What to add to the bias, [C, K].

        The probabilities of a class without examples go as its bias' exponential, which takes them
        below rounding at once; the others' Hessian is solved, scaled to a diagonal of about 1.
        """
        scale = 1 / np.sqrt(np.maximum(self.size, _ROUNDING))
        scale = np.where(self.present, scale, 0)
        scaled = scale[:, :, None] * self.hessian * scale[:, None, :]
        known = np.isfinite(scaled).all(axis=(1, 2), keepdims=True)
        inverse = np.linalg.pinv(np.where(known, scaled, 0), _NOTHING, hermitian=True)
        step = -scale * np.einsum("ckl,cl->ck", inverse, scale * self.gradient)
        largest = np.abs(step).max(axis=1, keepdims=True)
        step *= np.minimum(1, _FURTHEST / np.maximum(largest, _ROUNDING))
        away = np.log(_ROUNDING / 2 / np.maximum(self.size, _ROUNDING / 2))
        return np.where(self.present, step, np.where(self.optimal, 0, away))

    def gap(self) -> np.ndarray:
        """About twice what the bias could still gain: r²/(2 curvature), or the probabilities."""
        size = np.where(self.present, self.size, 0)
        gains = np.where(
            size > 0, self.gradient**2 / np.where(size > 0, size, 1), np.abs(self.gradient)
        )
        return 2 * np.sum(gains, axis=1)


class _Sums:
    """Sums over the examples in float64, as a function of parameters."""

    def __init__(
        self, examples: Examples, shares: np.ndarray, of_row: np.ndarray, loss: Loss
    ) -> None:
        self._blocks, self._standardiser = examples.blocks(shares), examples.standardiser
        self._of_row = of_row.astype(np.int32)
        self._how = passes.Pass(loss, examples.mesh, np.dtype(np.float64))
        k = examples.dataset.n_classes
        labels = np.asarray(examples.dataset.train.labels)
        counts = [np.bincount(labels, weights=of, minlength=k) for of in shares]
        self._present = (np.array(counts) > 0)[of_row]

    def __call__(self, params: Params, weights: bool = True) -> tuple[passes.Sums, _OfBias]:
        """A pass; half of one without ∂/∂W."""
        with jax.enable_x64(True):
            placed, of_row = shards.put((params, self._of_row), self._how.mesh, shards.WHOLE)
            where = (self._standardiser, self._how)
            total = passes.sum_over(
                self._blocks, placed, of_row, *where, weights=weights, of_bias=True
            )
            sums = passes.joined(total)
        return sums, _OfBias(sums.bias, sums.size, sums.hessian, self._present)
