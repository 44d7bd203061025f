"""`LinearProbeCV`: the optimum for the λ that a cross-validation chooses."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold, check_cv

from linear_cifar.checks import check_choice
from linear_cifar.errors import InputError
from linear_cifar.estimators.base import Examples, LinearClassifier, centred_dataset
from linear_cifar.metrics import fold_metrics
from linear_cifar.model import Params
from linear_cifar.optimum import DEFAULTS, ExampleWeights, check_lam
from linear_cifar.selection import best, one_standard_error

_LAMS = np.geomspace(1e-6, 10, 15)


@dataclass(eq=False, repr=False)  # its constructor, whose signature scikit-learn reads
class LinearProbeCV(LinearClassifier):
    """The exact optimum for the λ that a cross-validation chooses.

    λ is per example, so it means the same for a fold's examples and for all examples.

    Args:
      lams: λ > 0, [C]; None for 15 values from 1e-6 to 10 at equal ratios.
      cv: number of stratified folds, or a splitter or splits as in scikit-learn.
      loss: as for `LinearProbe`, like `tol`.
      select: the mean over folds that chooses λ, "accuracy" or "loss"; the other one breaks ties.
        Both use the weights of examples and ignore the weights of classes.
      one_standard_error: choose the largest λ that is within one standard error of the best.
      tol: certified gap over cost at which a fit ends.
      max_iter: passes over the data that each λ and fold may take.
      class_weight: as for `LinearProbe`; "balanced" is computed in each fold.
      random_state: seed of shuffled folds, if `cv` is a number; None: in the examples' order.

    Attributes:
      lam_: the chosen λ. The attributes of `LinearProbe` are its optimum for all examples.
      lams_: every λ, [C].
      fold_accuracy_: on the left-out examples, [folds, C].
      fold_loss_: likewise, in nats.

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
    class_weight: Mapping | str | None = None
    random_state: Any = None

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Chooses λ and finds its optimum for all examples.

        It takes and raises the same as `LinearProbe.fit`. The weights also count in the metrics of
        the folds, and a fold whose left-out examples have no weight is a ValueError.
        """
        check_choice("select", self.select, ("accuracy", "loss"))
        self.lams_ = check_lam(_LAMS if self.lams is None else self.lams, np.float64)
        examples = self._examples(X, y, sample_weight)
        fitted, left_out = self._fold_weights(examples)
        n_rows, n_lams = len(fitted), len(self.lams_)
        dataset = centred_dataset(examples, fitted[0], len(self.classes_))
        weights = ExampleWeights(fitted, np.repeat(np.arange(n_rows), n_lams))
        optimum = self._solve(np.tile(self.lams_, n_rows), dataset, weights, None)
        with jax.enable_x64(True):
            params = Params(*(array[n_lams:] for array in optimum.params))
            metrics = fold_metrics(params, left_out, weights.index[:-n_lams], dataset, self._loss)
        self.fold_loss_, self.fold_accuracy_ = np.reshape(metrics, (2, n_rows - 1, n_lams))
        if self.one_standard_error:
            values = self.fold_loss_ if self.select == "loss" else self.fold_accuracy_
            error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            index = one_standard_error(self.lams_, values.mean(axis=0), error, by=self.select)
        else:
            means = self.fold_accuracy_.mean(axis=0), self.fold_loss_.mean(axis=0)
            index = best(*means, by=self.select)
        self.lam_ = float(self.lams_[index])
        self._set_attributes(optimum, index, dataset)
        return self

    def _fold_weights(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the examples to fit, [1 + folds, n], and of the left-out ones, [folds, n].

        The first row leaves none out. Only the weights to fit include the weights of classes.
        """
        inputs, labels, weights, n = examples
        cv = self.cv
        if isinstance(cv, Integral) and self.random_state is not None:
            cv = StratifiedKFold(cv, shuffle=True, random_state=self.random_state)
        splits = check_cv(cv, labels[:n], classifier=True).split(inputs[:n], labels[:n])
        counts = [[np.bincount(part, minlength=len(labels)) for part in split] for split in splits]
        fitted, left_out = np.moveaxis(weights * np.array(counts), 1, 0)
        empty = np.flatnonzero(~left_out.any(axis=1))
        if empty.size:
            raise InputError(f"the examples that fold {empty[0]} leaves out have no weight")
        rows = [self._times_class_weights(row, labels) for row in (weights, *fitted)]
        return np.array(rows), left_out
