"""The optimum for one λ."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.estimators.classifier import SHARE, LinearClassifier
from linear_cifar.estimators.examples import centred, centred_params
from linear_cifar.model import Params
from linear_cifar.optimum.settings import DEFAULTS


class LinearProbe(LinearClassifier):
    """The exact optimum for one λ, with its certificate.

    Args:
      lam: λ > 0, per example; the package's docstring has C as a function of it.
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
        dataset = centred(examples, weights, len(self.classes_))
        start = None
        if present and present.weights.shape == (len(self.classes_), self.n_features_in_):
            start = centred_params(present, dataset)
        optimum = self._solved(np.array([self.lam]), dataset, weights[None], start)
        self._keep(optimum, 0, dataset)
        return self

    def _present(self) -> Params:
        """What was fitted last, [K, d] and [K], for features as they came."""
        weights, bias = self.coef_, self.intercept_
        if len(self.classes_) == 2:
            sides = np.array([-0.5, 0.5]) / SHARE[self.loss]
            weights, bias = np.outer(sides, weights), sides * bias
        return Params(weights.astype(np.float64), bias.astype(np.float64))
