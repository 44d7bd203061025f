"""The base class of the estimators, and the data of a fit in the form that `solve` takes."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from scipy.special import log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from linear_cifar.checks import check_choice
from linear_cifar.data import Dataset, Split, Standardiser
from linear_cifar.data.dataset import as_targets
from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.model import Params
from linear_cifar.optimum import SETTINGS, ExampleWeights, Optimum, solve

# Gap over cost that a fit aims at, and above which it warns, if `tol` is None. Coefficients are off
# by about the root of the gap, and scikit-learn wants predictions to 1e-7 when weights replace
# repetitions: 1e-16 may fail there, and 1e-18 takes a fifth more passes than 1e-14. The certificate
# itself ended at 1e-13 to 4e-12 with n up to 1e5, because it includes the rounding of sums. float32
# gets no further than 1e-6 if the scales of the features differ.
PRECISION = {np.dtype(np.float64): (1e-18, 1e-10), np.dtype(np.float32): (1e-6, 1e-6)}
# With two classes there is one vector w. At the optimum W₁ = −W₀, and the logistic function of the
# scores of w = SHARE · (W₁ − W₀) is the probability of the second class.
SHARE = {"softmax": 1.0, "multi_bce": 0.5}
# A program is compiled for each shape, which takes seconds, and small fits take milliseconds. Data
# of up to this many numbers are padded to one of few shapes, powers of two from the smallest.
_SMALL, _SMALLEST_SHAPE = 2**16, (512, 32)


class Examples(NamedTuple):
    """Checked examples, perhaps padded: the first `n` are the user's."""

    inputs: np.ndarray  # [n, d], float64 or float32
    labels: np.ndarray  # [n], int32 from 0 to K − 1; or targets [n, T], int8
    weights: np.ndarray  # [n], at least 0, float64; without the weights of classes
    n: int


class LinearClassifier(MultiOutputMixin, ClassifierMixin, BaseEstimator):
    """Checks of the data, the call of `solve`, and predictions for features X [n, d]."""

    loss: str
    tol: float | None
    max_iter: int
    class_weight: Any  # as `LinearProbe` says

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """The logits, [n, K] or [n, T]; with two classes the log-odds of the second one, [n]."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=list(PRECISION))
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.coef_) == 1 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable class of each example, [n], one of `classes_`; or 0 and 1, [n, T]."""
        scores = self.decision_function(X)
        if self.multilabel_:
            return (scores > 0).astype(int)
        return self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0) * 1]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The probability of each class, [n, K], or target, [n, T].

        The classes' probabilities sum to 1, with multi_bce after a division by their sum. Those of
        targets are independent.
        """
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """The logarithm of each probability, [n, K] or [n, T]; it doesn't underflow."""
        scores = self.decision_function(X)
        if self.multilabel_:
            return log_expit(scores)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        return log_softmax(scores if self._loss.exclusive else log_expit(scores), axis=1)

    @property
    def _loss(self) -> Loss:
        check_choice("loss", self.loss, LOSSES)
        return LOSSES[self.loss]

    def _examples(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None) -> Examples:
        """Checks the data, sets `classes_`, and returns the examples, padded if they are small."""
        inputs, y = validate_data(self, X, y, dtype=list(PRECISION), multi_output=True)
        y = y.toarray() if issparse(y) else y
        self.multilabel_ = y.ndim == 2 and y.shape[1] > 1
        weights = _check_sample_weight(
            sample_weight, inputs, dtype=np.float64, ensure_non_negative=True
        )
        if self.multilabel_:
            targets = as_targets("y", y)
            unknown = np.flatnonzero((targets[weights > 0] < 0).all(axis=0))
            if unknown.size:
                raise InputError(f"y has no known label of target {unknown[0]}")
            self.classes_ = np.arange(targets.shape[1])
            return _padded(Examples(inputs, targets, weights, len(inputs)))
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        weighted = np.unique(labels[weights > 0])
        if len(weighted) == 1:
            only = self.classes_[weighted[0]]
            raise InputError(f"the data contain only one class: {only}; at least 2 are needed")
        return _padded(Examples(inputs, labels.astype(np.int32), weights, len(inputs)))

    def _times_class_weights(self, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The weights of examples times the weights of their classes, [n].

        For targets they are unchanged, because `solve` takes `class_weight` itself.
        """
        if self.multilabel_:
            return weights
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            totals = np.bincount(labels, weights, len(self.classes_))
            # Only ratios matter. A fold may have no examples of a class.
            by_class = 1 / np.where(totals > 0, totals, np.inf)
        else:
            classes = self.classes_
            by_class = compute_class_weight(self.class_weight, classes=classes, y=classes)
        return weights * by_class[labels]

    def _solve(
        self, lam: np.ndarray, dataset: Dataset, weights: ExampleWeights, start: Params | None
    ) -> Optimum:
        """The optimum for λ, [C]; for targets also [C, T]. Warns if it misses the tolerance."""
        dtype = dataset.train.inputs.dtype
        SETTINGS["max_passes"].check("max_iter", self.max_iter)
        if self.tol is not None:
            SETTINGS["tolerance"].check("tol", self.tol)
        goal, enough = PRECISION[dtype] if self.tol is None else (self.tol, self.tol)
        with jax.enable_x64(True):  # whatever the user's mode, and for the fit alone
            optimum = solve(
                lam,
                dataset,
                loss=self._loss,
                weights=weights,
                class_weight=self.class_weight if self.multilabel_ else None,
                tolerance=goal,
                max_passes=self.max_iter,
                dtype=dtype,
                start=start,
            )
        missed = ~(optimum.converged | (optimum.gap <= enough * optimum.cost))  # true for NaN
        missed &= optimum.passes > 0  # a target with one label, perhaps in a fold, takes no pass
        if missed.any():
            row = np.unravel_index(missed.argmax(), missed.shape)
            target = f", target {row[1]}" if self.multilabel_ else ""
            warnings.warn(
                f"lam {lam[row[: lam.ndim]]:g}{target}: after {optimum.passes[row]} passes the "
                f"cost may be {optimum.gap[row]:.1e} nats above its minimum, which misses the "
                f"tolerance of {enough:g} of the cost: raise max_iter, scale the features, or "
                "raise tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return optimum

    def _set_attributes(self, optimum: Optimum, dataset: Dataset) -> None:
        """Sets the attributes of a fit, in the coordinates of the user's features."""
        weights, bias = optimum.params
        numbers = optimum.passes, optimum.cost, optimum.gap
        if not self.multilabel_:
            numbers = tuple(number.item() for number in numbers)
            if len(self.classes_) == 2:
                share = SHARE[self.loss]
                weights, bias = share * np.diff(weights, axis=0), share * np.diff(bias)
            elif self._loss.exclusive:
                bias = bias - bias.mean()  # it is free up to a constant
        dtype, mean = dataset.train.inputs.dtype, dataset.standardiser.mean
        self.coef_ = weights[:, : self.n_features_in_].astype(dtype)
        self.intercept_ = (bias - weights @ mean).astype(dtype)
        self.n_iter_, self.cost_, self.gap_ = numbers


def _padded(examples: Examples) -> Examples:
    """Pads small data with examples of weight 0 and with features of value 0.

    Neither changes the optimum. The added examples repeat the user's, so that the curvature that
    the solver measures stays about the same.
    """
    inputs, labels, weights, n = examples
    if inputs.size > _SMALL:
        return examples
    powers = [1 << (size - 1).bit_length() for size in inputs.shape]
    n_rows, n_columns = np.maximum(powers, _SMALLEST_SHAPE)
    rows = np.arange(n_rows) % n
    inputs = np.pad(inputs[rows], ((0, 0), (0, n_columns - inputs.shape[1])))
    return Examples(inputs, labels[rows], np.pad(weights, (0, n_rows - n)), n)


def centred_dataset(examples: Examples, weights: np.ndarray, n_classes: int) -> Dataset:
    """A data set whose standardiser subtracts the mean of the features, with the weights [n].

    The solver is fastest so, and only the unpenalised bias depends on the origin.
    """
    mean = np.einsum("n,nd->d", weights / weights.sum(), examples.inputs, dtype=np.float64)
    train, empty = Split(examples.inputs, examples.labels), Split(*(a[:0] for a in examples[:2]))
    names = tuple(map(str, range(n_classes)))
    return Dataset(train, empty, empty, Standardiser(mean, np.ones_like(mean)), names)
