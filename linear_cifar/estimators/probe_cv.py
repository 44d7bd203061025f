"""`LinearProbeCV`: the optimum for the λ that a cross-validation chooses."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import KFold, StratifiedKFold, check_cv

from linear_cifar.checks import check_choice
from linear_cifar.data import Dataset
from linear_cifar.errors import InputError
from linear_cifar.estimators.base import Examples, LinearClassifier, centred_dataset
from linear_cifar.metrics import binary_scores, fold_metrics
from linear_cifar.model import Params
from linear_cifar.optimum import DEFAULTS, ExampleWeights, check_lam
from linear_cifar.selection import best, one_standard_error

_LAMS = np.geomspace(1e-6, 10, 15)
_MEASURES = ("accuracy", "loss")
_TARGET_MEASURES = (*_MEASURES, "auroc", "average_precision")


@dataclass(eq=False, repr=False)  # its constructor, whose signature scikit-learn reads
class LinearProbeCV(LinearClassifier):
    """The exact optimum for the λ that a cross-validation chooses.

    λ is per example, so it means the same for a fold's examples and for all examples. y may be
    targets as for `LinearProbe`, and each target then has its own λ. The mean over folds leaves out
    those without the measure, such as the AUROC if the left-out labels are all equal. If no fold
    has it, the loss chooses.

    Args:
      lams: λ > 0, [C]; None for 15 values from 1e-6 to 10 at equal ratios.
      cv: number of folds, stratified unless y is targets; or a splitter or splits as in
        scikit-learn.
      loss: as for `LinearProbe`, like `tol`.
      select: the mean over folds that chooses λ, "accuracy" or "loss"; the other one breaks ties.
        Both use the weights of examples and ignore the weights of classes. For targets also
        "auroc" or "average_precision", with ties by the loss.
      one_standard_error: choose the largest λ that is within one standard error of the best.
      tol: certified gap over cost at which a fit ends.
      max_iter: passes over the data that each λ and fold may take.
      class_weight: as for `LinearProbe`; "balanced" is computed in each fold.
      random_state: seed of shuffled folds, if `cv` is a number; None: in the examples' order.

    Attributes:
      lam_: the chosen λ; of targets [T]. The attributes of `LinearProbe` are its optimum for all
        examples.
      lams_: every λ, [C].
      fold_accuracy_: on the left-out examples, [folds, C]; of targets [folds, C, T].
      fold_loss_: likewise, in nats.
      fold_auroc_: likewise, of targets only.
      fold_average_precision_: likewise.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> probe = LinearProbeCV([0.001, 0.1, 10.0], cv=3).fit(X, y)
      >>> probe.lam_, probe.fold_accuracy_.shape
      (0.001, (3, 3))
    """

    lams: ArrayLike | None = None
    cv: Any = 5
    loss: str = "softmax"
    _: KW_ONLY
    select: str = "accuracy"
    one_standard_error: bool = False
    tol: float | None = None
    max_iter: int = DEFAULTS.max_passes
    class_weight: Mapping | ArrayLike | str | None = None
    random_state: Any = None

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Chooses λ and finds its optimum for all examples.

        It takes and raises the same as `LinearProbe.fit`. The weights also count in the metrics of
        the folds, and a fold whose left-out examples have no weight is a ValueError. With targets
        any weights are a ValueError, because the metrics of the folds don't take them.
        """
        self.lams_ = check_lam(_LAMS if self.lams is None else self.lams, np.float64)
        examples = self._examples(X, y, sample_weight)
        check_choice("select", self.select, _TARGET_MEASURES if self.multilabel_ else _MEASURES)
        if self.multilabel_ and sample_weight is not None:
            raise InputError("sample_weight has to be None for targets; LinearProbe takes it")
        fitted, left_out = self._fold_weights(examples)
        n_rows, n_lams = len(fitted), len(self.lams_)
        dataset = centred_dataset(examples, fitted[0], len(self.classes_))
        weights = ExampleWeights(fitted, np.repeat(np.arange(n_rows), n_lams))
        optimum = self._solve(np.tile(self.lams_, n_rows), dataset, weights, None)
        by_row = jax.tree.map(lambda a: a.reshape(n_rows, n_lams, *a.shape[1:]), optimum)
        without_fold = jax.tree.map(lambda array: array[1:], by_row.params)
        measure = self._target_measures if self.multilabel_ else self._class_measures
        measures = measure(without_fold, left_out, dataset)
        for name, values in measures.items():
            setattr(self, f"fold_{name}_", values)
        index = self._best_lam(measures)
        self.lam_ = self.lams_[index] if self.multilabel_ else self.lams_[index].item()
        places = (0, index, np.arange(len(index))) if self.multilabel_ else (0, index)
        self._set_attributes(jax.tree.map(lambda array: array[places], by_row), dataset)
        return self

    def _class_measures(
        self, params: Params, left_out: np.ndarray, dataset: Dataset
    ) -> dict[str, np.ndarray]:
        """Mean loss and accuracy on left-out examples, [folds, C], for parameters [folds, C, …]."""
        n_folds, n_lams = params.bias.shape[:2]
        fold = np.repeat(np.arange(n_folds), n_lams)
        with jax.enable_x64(True):
            models = Params(*(array.reshape(-1, *array.shape[2:]) for array in params))
            pair = fold_metrics(models, left_out, fold, dataset, self._loss)
        return dict(zip(("loss", "accuracy"), np.reshape(pair, (2, n_folds, n_lams)), strict=True))

    def _target_measures(
        self, params: Params, left_out: np.ndarray, dataset: Dataset
    ) -> dict[str, np.ndarray]:
        """`binary_scores` on left-out examples, [folds, C, T], for parameters [folds, C, T, …]."""
        measures = {name: np.empty(params.bias.shape) for name in _TARGET_MEASURES}
        for fold, counts in enumerate(left_out.astype(int)):
            inputs, labels = (np.repeat(array, counts, axis=0) for array in dataset.train)
            inputs = inputs - dataset.standardiser.mean
            for i, (weights, bias) in enumerate(zip(*(a[fold] for a in params), strict=True)):
                for name, values in binary_scores(inputs @ weights.T + bias, labels).items():
                    measures[name][fold, i] = values
        return measures

    def _best_lam(self, measures: dict[str, np.ndarray]) -> np.ndarray:
        """The index of the chosen λ; for targets the index for each, [T]."""
        by, score = ("loss", "accuracy") if self.select == "loss" else ("accuracy", self.select)
        loss, loss_error = _over_folds(measures["loss"])
        value, value_error = _over_folds(measures[score])
        missing = np.flatnonzero(np.isnan(loss).all(axis=0))
        if missing.size:  # never for classes
            raise InputError(f"target {missing[0]}: no fold has known labels inside and outside")
        value = np.where(np.isnan(value).all(axis=0), 0.0, value)  # so that the loss decides

        def best_of_target(value: np.ndarray, loss: np.ndarray, error: np.ndarray) -> int:
            if self.one_standard_error:
                mean = loss if by == "loss" else value
                return one_standard_error(self.lams_, mean, error, by)
            return best(value, loss, by)

        columns = value.T, loss.T, (loss_error if by == "loss" else value_error).T
        if not self.multilabel_:
            return np.array(best_of_target(*columns))
        return np.array([best_of_target(*column) for column in zip(*columns, strict=True)])

    def _fold_weights(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the examples to fit, [1 + folds, n], and of the left-out ones, [folds, n].

        The first row leaves none out. Only the weights to fit include the weights of classes.
        """
        inputs, labels, weights, n = examples
        y, cv = labels[:n], self.cv
        if isinstance(cv, Integral) and self.random_state is not None:
            kind = KFold if self.multilabel_ else StratifiedKFold
            cv = kind(cv, shuffle=True, random_state=self.random_state)
        splits = check_cv(cv, y, classifier=True).split(inputs[:n], y)
        counts = [[np.bincount(part, minlength=len(labels)) for part in split] for split in splits]
        fitted, left_out = np.moveaxis(weights * np.array(counts), 1, 0)
        empty = np.flatnonzero(~left_out.any(axis=1))
        if empty.size:
            raise InputError(f"the examples that fold {empty[0]} leaves out have no weight")
        rows = [self._times_class_weights(row, labels) for row in (weights, *fitted)]
        return np.array(rows), left_out


def _over_folds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means [C, …] over folds and their standard errors, from values [folds, C, …].

    A fold counts unless all its values, over C, are NaN.
    """
    exists = ~np.isnan(values).all(axis=1, keepdims=True)
    n = exists.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN if there are too few
        mean = values.sum(axis=0, where=exists) / n
        squares = np.square(values - mean).sum(axis=0, where=exists)
        return mean, np.sqrt(squares / (n - 1) / n)
