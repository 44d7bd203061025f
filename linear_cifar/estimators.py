"""The exact optimum as scikit-learn estimators; they need the extra `sklearn`.

Two classifiers with scikit-learn's methods and attributes, for its pipelines and searches, and with
a certificate of what was reached. The cost is that of the rest of the library,

    J = Σᵢ wᵢ l(sᵢ, yᵢ) / Σᵢ wᵢ + λ‖W‖²,

with the weights w of examples, 1 unless given: without ½ and without the bias, and with the
features as they come. `StandardScaler` in a pipeline standardises them.

λ is per example, and scikit-learn's C is of a sum. With n = Σᵢ wᵢ the same problem has

    C = 1/(2λn)      softmax of three classes or more
    C = 1/(λn)       softmax of two classes, of which scikit-learn has one vector
    C = 1/(2λnK)     multi_bce, in OneVsRestClassifier; K is 2 for two classes too

which `linear_cifar.lam_of` and `elsewhere` compute. The weights of classes are in n too; with
"balanced", where scikit-learn's have a mean of 1, n is as without them.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.evaluation import evaluate_examples
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, Loss
from linear_cifar.model import Params
from linear_cifar.optimum.settings import DEFAULTS, check_lam
from linear_cifar.optimum.solver import Optimum, solve
from linear_cifar.search import best, one_standard_error
from linear_cifar.settings import SettingsError

# Gap over cost that a fit aims at, and above which it warns, where no tolerance is given: what
# rounding leaves is no reason to warn. Coefficients are off by about the root of it, and
# scikit-learn wants predictions to 1e-7 where weights stand for repetitions: 1e-16 may fail there,
# and 1e-18 takes a fifth more passes than 1e-14. float32 gets no further than 1e-6 on features of
# unequal scales.
_PRECISION = {np.dtype(np.float64): (1e-18, 1e-12), np.dtype(np.float32): (1e-6, 1e-6)}
# A program is compiled for each shape, which takes seconds, and small fits take milliseconds. Up to
# this many numbers the examples are filled up to one of few shapes, powers of two from these on.
_SMALL, _LEAST_SHAPE = 2**16, (512, 32)
# Of two classes there is one vector w. At the optimum W₁ = −W₀, so that w = share · (W₁ − W₀)
# has scores whose logistic function is the probability of the second class.
_SHARE = {SOFTMAX_CROSS_ENTROPY.name: 1.0, MULTIPLE_BINARY_CROSS_ENTROPY.name: 0.5}
_LAMS = tuple(np.geomspace(1e-6, 10, 15).tolist())


class _Examples(NamedTuple):
    """What a fit is given, checked; small data are filled up by `_filled`."""

    inputs: np.ndarray  # [n, d], float64 or float32
    labels: np.ndarray  # [n], int32 from 0 to K − 1
    weights: np.ndarray  # [n], at least 0, float64; without those of classes
    n_given: int  # the examples that were given, which come first


class _LinearClassifier(ClassifierMixin, BaseEstimator):
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
        X = validate_data(self, X, reset=False, dtype=list(_PRECISION))
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
        if self.loss not in _SHARE:
            raise SettingsError(f"loss is {self.loss!r}: it has to be one of {', '.join(_SHARE)}")
        return LOSSES[self.loss]

    def _checked(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> _Examples:
        inputs, y = validate_data(self, X, y, dtype=list(_PRECISION))
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
        return _filled(_Examples(inputs, labels.astype(np.int32), weights, len(inputs)))

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
        aim, enough = _PRECISION[dtype] if given is None else (given, given)
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
            share = _SHARE[self.loss]
            weights, bias = share * np.diff(weights, axis=0), share * np.diff(bias)
        elif self._loss is SOFTMAX_CROSS_ENTROPY:
            bias = bias - bias.mean()  # it is free up to a constant
        dtype = dataset.train.inputs.dtype
        self.coef_ = weights[:, : self.n_features_in_].astype(dtype)
        self.intercept_ = (bias - weights @ dataset.standardiser.mean).astype(dtype)
        self.n_iter_ = int(optimum.passes[row])
        self.cost_, self.gap_ = float(optimum.cost[row]), float(optimum.gap[row])


class LinearProbe(_LinearClassifier):
    """The exact optimum for one λ, with its certificate.

    Args:
      lam: λ > 0, per example; the module's docstring has C as a function of it.
      loss: "softmax", or "multi_bce" for each class against the rest.
      tolerance: gap over cost at which the fit ends. None: 1e-6 in float32; in float64 1e-18, or
        what rounding leaves below 1e-12.
      max_passes: over the data; what isn't within the tolerance then gives a `ConvergenceWarning`.
      class_weight: what an example of each class counts, a dict; "balanced" for the reciprocal of
        the weight of its examples; None for 1.
      warm_start: descend from the coefficients of the last fit, where classes and features are as
        many as then: the same data take hardly a pass. The optimum is the same.

    Attributes:
      classes_: the labels that occur, sorted, [K].
      coef_: weights [K, d]; of two classes [1, d], for the second one. In the dtype of X.
      intercept_: biases [K], or [1]; likewise.
      cost_: J, in nats.
      gap_: what J is above its minimum by at most, in nats, before rounding to the dtype of X.
      n_iter_: passes over the data.
      n_features_in_: d.
      feature_names_in_: names of the features [d], where X has names that are strings.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> probe = LinearProbe(lam=0.001).fit(X, y)
      >>> round(probe.score(X, y), 3), probe.gap_ <= 1e-18 * probe.cost_
      (0.987, True)
    """

    def __init__(
        self,
        lam: float = 0.01,
        loss: str = "softmax",
        *,
        tolerance: float | None = None,
        max_passes: int = DEFAULTS.max_passes,
        class_weight: Mapping | str | None = None,
        warm_start: bool = False,
    ):
        self.lam = lam
        self.loss = loss
        self.tolerance = tolerance
        self.max_passes = max_passes
        self.class_weight = class_weight
        self.warm_start = warm_start

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Finds the optimum.

        Args:
          X: features [n, d]; float32 is fitted in float32, and all else in float64.
          y: labels [n], of at least two classes.
          sample_weight: what examples count, at least 0, [n]; None for 1. An example of weight 2
            counts as one that stands there twice.

        Raises:
          ValueError: a setting out of its range, λ = 0 among them, or data that can't be fitted.
        """
        present = self._present() if self.warm_start and hasattr(self, "coef_") else None
        examples = self._checked(X, y, sample_weight)
        weights = self._with_classes(examples.weights, examples.labels)
        dataset = _centred(examples, weights, len(self.classes_))
        start = None
        if present and present.weights.shape == (len(self.classes_), self.n_features_in_):
            start = _centred_params(present, dataset)
        optimum = self._solved(np.array([self.lam]), dataset, weights[None], start)
        self._keep(optimum, 0, dataset)
        return self

    def _present(self) -> Params:
        """What was fitted last, [K, d] and [K], for features as they came."""
        weights, bias = self.coef_, self.intercept_
        if len(self.classes_) == 2:
            sides = np.array([-0.5, 0.5]) / _SHARE[self.loss]
            weights, bias = np.outer(sides, weights), sides * bias
        return Params(weights.astype(np.float64), bias.astype(np.float64))


class LinearProbeCV(_LinearClassifier):
    """The exact optimum for the λ that a cross-validation chooses.

    All λ are fitted to all folds and to all examples in one batch. λ is per example, so that it
    means the same for a fold's examples and for all of them.

    Args:
      lams: λ > 0, [C]; None for 15 values from 1e-6 to 10 at equal ratios.
      cv: folds of a stratified cross-validation, or a splitter or splits of scikit-learn's.
      loss: "softmax", or "multi_bce" for each class against the rest.
      select: the mean over folds that chooses λ, "accuracy" or "loss"; the other one decides
        between equals. Both are weighted as the examples are, without the weights of classes.
      one_standard_error: choose the largest λ that is within one standard error of the best.
      tolerance: as for `LinearProbe`, like what follows.
      max_passes: over the data, for each λ and fold.
      class_weight: "balanced" is so in each fold.
      random_state: None for folds in the order of the examples, as in scikit-learn; otherwise they
        are shuffled. For a number of folds only: a splitter has its own.

    Attributes:
      lam_: the chosen λ.
      lams_: all of them, [C].
      fold_accuracy_: of the left-out examples, [folds, C].
      fold_loss_: likewise, in nats.
      classes_: as of `LinearProbe`, as are `coef_`, `intercept_`, `cost_`, `gap_`, `n_iter_`,
        `n_features_in_` and `feature_names_in_`: those of the chosen λ, fitted to all examples.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> probe = LinearProbeCV([0.001, 0.1, 10.0], cv=3).fit(X, y)
      >>> probe.lam_, probe.fold_accuracy_.shape
      (0.001, (3, 3))
    """

    def __init__(
        self,
        lams: ArrayLike | None = None,
        cv: Any = 5,
        loss: str = "softmax",
        *,
        select: str = "accuracy",
        one_standard_error: bool = False,
        tolerance: float | None = None,
        max_passes: int = DEFAULTS.max_passes,
        class_weight: Mapping | str | None = None,
        random_state: Any = None,
    ):
        self.lams = lams
        self.cv = cv
        self.loss = loss
        self.select = select
        self.one_standard_error = one_standard_error
        self.tolerance = tolerance
        self.max_passes = max_passes
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Chooses λ and finds its optimum for all examples.

        Args:
          X: as for `LinearProbe.fit`, like `y`.
          y: labels [n].
          sample_weight: as for `LinearProbe.fit`; it counts in the figures of the folds too.

        Raises:
          ValueError: as for `LinearProbe.fit`; or a fold whose examples have no weight.
        """
        if self.select not in ("accuracy", "loss"):
            raise SettingsError(f"select is {self.select!r}: it has to be accuracy or loss")
        self.lams_ = check_lam(_LAMS if self.lams is None else self.lams)
        examples = self._checked(X, y, sample_weight)
        fitted, left_out = self._folds(examples)
        dataset = _centred(examples, fitted[0], len(self.classes_))
        n_lams = len(self.lams_)
        optimum = self._solved(
            np.tile(self.lams_, len(fitted)), dataset, np.repeat(fitted, n_lams, axis=0)
        )
        of_folds = Params(*(array[n_lams:] for array in optimum.params))
        loss, accuracy = _held_out(of_folds, dataset, np.repeat(left_out, n_lams, 0), self._loss)
        self.fold_loss_, self.fold_accuracy_ = (a.reshape(-1, n_lams) for a in (loss, accuracy))
        chosen = self._chosen()
        self.lam_ = float(self.lams_[chosen])
        self._keep(optimum, chosen, dataset)
        return self

    def _folds(self, examples: _Examples) -> tuple[np.ndarray, np.ndarray]:
        """The weights of examples: fitted to, [1 + folds, n], first to all; left out, [folds, n].

        Classes have a part in the former alone.
        """
        inputs, labels, weights, n = examples
        cv = self.cv
        if isinstance(cv, int) and self.random_state is not None:
            cv = StratifiedKFold(cv, shuffle=True, random_state=self.random_state)
        splits = check_cv(cv, labels[:n], classifier=True).split(inputs[:n], labels[:n])
        times = [[np.bincount(part, minlength=len(labels)) for part in split] for split in splits]
        fitted, left_out = np.moveaxis(weights * np.array(times), 1, 0)
        empty = np.flatnonzero(~left_out.any(axis=1))
        if empty.size:
            raise ValueError(f"the examples that fold {empty[0]} leaves out have no weight")
        return np.array([self._with_classes(w, labels) for w in (weights, *fitted)]), left_out

    def _chosen(self) -> int:
        """The index of the chosen λ."""
        figures = {"accuracy": self.fold_accuracy_, "loss": self.fold_loss_}
        if not self.one_standard_error:
            accuracy, loss = (a.mean(axis=0) for a in figures.values())
            return best(accuracy, loss, by=self.select)
        by_fold = figures[self.select]
        error = by_fold.std(axis=0, ddof=1) / np.sqrt(len(by_fold))
        return one_standard_error(self.lams_, by_fold.mean(axis=0), error, by=self.select)


def _filled(examples: _Examples) -> _Examples:
    """Small data in one of few shapes: more examples of weight 0, and more features of value 0.

    Neither changes the optimum. The further examples are the given ones, so that the solver's
    preconditioner stays about the same.
    """
    inputs, labels, weights, n = examples
    if inputs.size > _SMALL:
        return examples
    n_rows, n_columns = (
        max(least, 1 << (size - 1).bit_length())
        for least, size in zip(_LEAST_SHAPE, inputs.shape, strict=True)
    )
    rows = np.arange(n_rows) % n
    return _Examples(
        np.pad(inputs[rows], ((0, 0), (0, n_columns - inputs.shape[1]))),
        labels[rows],
        np.pad(weights, (0, n_rows - n)),
        n,
    )


def _centred(examples: _Examples, weights: np.ndarray, n_classes: int) -> Dataset:
    """A data set whose features are about their mean, with the weights [n].

    Only the bias depends on the origin, for it isn't penalised; about the mean the solver gets
    there soonest. Scales do change the penalty, and stay.
    """
    inputs, labels, *_ = examples
    mean = np.einsum("n,nd->d", weights / weights.sum(), inputs, dtype=np.float64)
    none = Split(inputs[:0], labels[:0])
    return Dataset(
        name="arrays",
        train=Split(inputs, labels),
        validation=none,
        test=none,
        standardiser=Standardiser(mean, np.ones_like(mean)),
        class_names=tuple(map(str, range(n_classes))),
    )


def _centred_params(params: Params, dataset: Dataset) -> Params:
    """Parameters [K, d] and [K] as those of one run, [1, K, d] and [1, K], of the data set."""
    mean, (weights, bias) = dataset.standardiser.mean, params
    weights = np.pad(weights, ((0, 0), (0, len(mean) - weights.shape[1])))
    return Params(weights[None], (bias + weights @ mean)[None])


def _held_out(
    params: Params, dataset: Dataset, weights: np.ndarray, loss: Loss
) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss and the accuracy of rows, [R] each, over examples with the weights [R, n]."""
    with jax.enable_x64(True):
        measured = evaluate_examples(params, dataset.train, dataset.standardiser, loss)
        of_loss, correct = map(np.asarray, measured)
    of_loss, correct = (np.average(a, axis=1, weights=weights) for a in (of_loss, correct))
    return of_loss, correct
