"""What the estimators share."""

import warnings
from collections.abc import Mapping

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from linear_cifar.data.types import Dataset
from linear_cifar.estimators.examples import Examples, filled
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.optimum.solver import Optimum, solve
from linear_cifar.settings import SettingsError

# Gap over cost that a fit aims at, and above which it warns, where no tolerance is given: what
# rounding leaves is no reason to warn. Coefficients are off by about the root of it, and
# scikit-learn wants predictions to 1e-7 where weights stand for repetitions: 1e-16 may fail there,
# and 1e-18 takes a fifth more passes than 1e-14. float32 gets no further than 1e-6 on features of
# unequal scales.
PRECISION = {np.dtype(np.float64): (1e-18, 1e-12), np.dtype(np.float32): (1e-6, 1e-6)}
# Of two classes there is one vector w. At the optimum W₁ = −W₀, so that w = share · (W₁ − W₀)
# has scores whose logistic function is the probability of the second class.
SHARE = {SOFTMAX_CROSS_ENTROPY.name: 1.0, MULTIPLE_BINARY_CROSS_ENTROPY.name: 0.5}


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """What the estimators share: the way in, the way to the optimum, and predictions."""

    loss: str
    tolerance: float | None
    max_passes: int
    class_weight: Mapping | str | None
    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """The logits, [n, K]; of two classes the log-odds of the second one, [n].

        Args:
          X: features [n, d].
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=list(PRECISION))
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable class of each example, [n], one of `classes_`.

        Args:
          X: features [n, d].
        """
        scores = self.decision_function(X)
        return self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0) * 1]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The probability of each class, [n, K]; for multi_bce those of the classes over their sum.

        Args:
          X: features [n, d].
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """The logarithm of the probability of each class, [n, K]; it doesn't underflow.

        Args:
          X: features [n, d].
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        of_class = log_expit(scores) if self._loss is MULTIPLE_BINARY_CROSS_ENTROPY else scores
        return log_softmax(of_class, axis=1)

    @property
    def _loss(self) -> Loss:
        if self.loss not in SHARE:
            raise SettingsError(f"loss is {self.loss!r}: it has to be one of {', '.join(SHARE)}")
        return LOSSES[self.loss]

    def _checked(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Examples:
        inputs, y = validate_data(self, X, y, dtype=list(PRECISION))
        check_classification_targets(y)
        weights = _check_sample_weight(
            sample_weight, inputs, dtype=np.float64, ensure_non_negative=True
        )
        self.classes_, labels = np.unique(y, return_inverse=True)
        found = np.unique(labels[weights > 0])
        if len(found) == 1:
            raise ValueError(
                f"{type(self).__name__} needs examples of at least 2 classes, but the data "
                f"contains only one class: {self.classes_[found[0]]}"
            )
        return filled(Examples(inputs, labels.astype(np.int32), weights, len(inputs)))

    def _with_classes(self, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The weights of examples, [n], times those of their classes."""
        if self.class_weight == "balanced":
            counts = np.bincount(labels, weights, len(self.classes_))
            # Only ratios count; a class without examples, as in a fold, has no weight to share out.
            of_classes = np.divide(1, counts, out=np.zeros(len(counts)), where=counts > 0)
        else:
            of_classes = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_
            )
        return weights * of_classes[labels]

    def _solved(
        self,
        lam: np.ndarray,
        dataset: Dataset,
        weights: np.ndarray,
        start: Params | None = None,
    ) -> Optimum:
        """The optimum for λ [C] with the weights [C, n]; a warning where it isn't reached."""
        dtype = dataset.train.inputs.dtype
        given = self.tolerance
        aim, enough = PRECISION[dtype] if given is None else (given, given)
        with jax.enable_x64(True):  # whatever the user's mode, and for the fit alone
            optimum = solve(
                lam,
                dataset,
                loss=self._loss,
                weights=weights,
                tolerance=aim,
                max_passes=self.max_passes,
                dtype=dtype,
                start=start,
            )
        with np.errstate(divide="ignore", invalid="ignore"):  # a cost may vanish
            relative = np.where(optimum.converged, 0, optimum.gap / optimum.cost)
        worst = int(relative.argmax())
        if not relative[worst] <= enough:  # NaN isn't
            warnings.warn(
                f"lam {lam[worst]:g}: the cost is certified to be within {relative[worst]:.1e} of "
                f"itself above its minimum after {optimum.passes[worst]} passes, and not within "
                f"{enough:g}: raise max_passes, scale the features, or raise the tolerance",
                ConvergenceWarning,
                stacklevel=3,
            )
        return optimum

    def _keep(self, optimum: Optimum, row: int, dataset: Dataset) -> None:
        """Sets the attributes that a fit leaves, for the features as they came."""
        weights, bias = (array[row] for array in optimum.params)
        if len(self.classes_) == 2:
            share = SHARE[self.loss]
            weights, bias = share * np.diff(weights, axis=0), share * np.diff(bias)
        elif self._loss is SOFTMAX_CROSS_ENTROPY:
            bias = bias - bias.mean()  # it is free up to a constant
        dtype = dataset.train.inputs.dtype
        self.coef_ = weights[:, : self.n_features_in_].astype(dtype)
        self.intercept_ = (bias - weights @ dataset.standardiser.mean).astype(dtype)
        self.n_iter_ = int(optimum.passes[row])
        self.cost_, self.gap_ = float(optimum.cost[row]), float(optimum.gap[row])
