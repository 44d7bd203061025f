"""The optimum for the λ that a cross-validation chooses."""

from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold, check_cv

from linear_cifar.data.types import Dataset
from linear_cifar.estimators.classifier import LinearClassifier
from linear_cifar.estimators.examples import Examples, centred
from linear_cifar.evaluation import evaluate_examples
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum.settings import DEFAULTS, check_lam
from linear_cifar.search import best, one_standard_error
from linear_cifar.settings import SettingsError

_LAMS = tuple(np.geomspace(1e-6, 10, 15).tolist())


class LinearProbeCV(LinearClassifier):
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
        dataset = centred(examples, fitted[0], len(self.classes_))
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

    def _folds(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
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


def _held_out(
    params: Params, dataset: Dataset, weights: np.ndarray, loss: Loss
) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss and the accuracy of rows, [R] each, over examples with the weights [R, n]."""
    with jax.enable_x64(True):
        measured = evaluate_examples(params, dataset.train, dataset.standardiser, loss)
        of_loss, correct = map(np.asarray, measured)
    of_loss, correct = (np.average(a, axis=1, weights=weights) for a in (of_loss, correct))
    return of_loss, correct
