"""`LinearProbe`: the optimum for one λ."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Self

import jax
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.data import Dataset
from linear_cifar.estimators.base import SHARE, LinearClassifier, centred_dataset
from linear_cifar.model import Params
from linear_cifar.optimum import DEFAULTS, ExampleWeights


@dataclass(eq=False, repr=False)  # its constructor, whose signature scikit-learn reads
class LinearProbe(LinearClassifier):
    """The exact optimum for one λ, with its certificate.

    y is class labels [n], or a matrix [n, T] of T ≥ 2 binary targets, 0 and 1, as scikit-learn's
    multilabel classifiers take it. Each target has its own logistic regression. A label of −1 is
    unknown, and its target ignores the example. (scikit-learn's metrics don't accept −1, and
    neither does `score`, the share of examples whose targets are all predicted;
    `linear_cifar.metrics.binary_metrics` does.) If the known labels of a target are all equal, its
    weights are 0 and its intercept is ±10⁴, so its probabilities are exactly 0 or 1.

    Args:
      lam: λ > 0, per example; the package's docstring converts it to C. For targets also [T].
      loss: "softmax", or "multi_bce" for each class against the rest; targets don't use it.
      tol: certified gap over cost at which the fit ends. None: 1e-6 in float32; in float64 as far
        as rounding allows, which certifies 1e-10 or better.
      max_iter: passes over the data; a fit that misses its tolerance gives a `ConvergenceWarning`.
      class_weight: the weight of an example of each class, a dict; "balanced" for the reciprocal of
        the class's total weight; None for 1. For targets "balanced", None, or factors of the
        weights of negative and positive examples, [2] or [T, 2].
      warm_start: descend from the coefficients of the last fit, if it had as many classes and
        features: the same data then take few passes. The optimum is the same.

    Attributes:
      classes_: the distinct labels, sorted, [K]; or the numbers of the targets, [T].
      multilabel_: whether y was targets.
      coef_: weights [K, d]; with two classes [1, d], of the second one; of targets [T, d]. In the
        dtype of X.
      intercept_: biases [K], [1] or [T]; likewise.
      cost_: J, in nats; of targets [T], like `gap_` and `n_iter_`.
      gap_: upper bound of the distance of J from its minimum, in nats, before the parameters are
        rounded to the dtype of X.
      n_iter_: passes over the data.
      n_features_in_: d; `feature_names_in_` are their names, if X has names that are strings.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> X, y = load_iris(return_X_y=True)
      >>> probe = LinearProbe(lam=0.001).fit(X, y)
      >>> round(probe.score(X, y), 3), probe.gap_ <= 1e-12 * probe.cost_
      (0.987, True)
    """

    lam: float = 0.01
    loss: str = "softmax"
    _: KW_ONLY
    tol: float | None = None
    max_iter: int = DEFAULTS.max_passes
    class_weight: Mapping | ArrayLike | str | None = None
    warm_start: bool = False

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Finds the optimum.

        Args:
          X: features [n, d]; float32 is fitted in float32, and any other dtype in float64.
          y: labels [n], of at least two classes; or targets [n, T].
          sample_weight: weights of the examples, at least 0, [n]; None for 1. An example of weight
            2 counts like two equal examples.

        Raises:
          ValueError: a setting is out of its range (λ = 0 too), or the data can't be fitted.
        """
        examples = self._examples(X, y, sample_weight)
        weights = self._times_class_weights(examples.weights, examples.labels)
        dataset = centred_dataset(examples, weights, len(self.classes_))
        start = self._last_params(dataset) if self.warm_start else None
        example_weights = ExampleWeights(weights[None], np.zeros(1, int))
        optimum = self._solve(np.array([self.lam]), dataset, example_weights, start)
        self._set_attributes(jax.tree.map(lambda array: array[0], optimum), dataset)
        return self

    def _last_params(self, dataset: Dataset) -> Params | None:
        """The last fit's parameters as a start for `solve`; None if they have another shape."""
        n_vectors = len(self.classes_)
        n_vectors = 1 if n_vectors == 2 and not self.multilabel_ else n_vectors
        if not hasattr(self, "coef_") or self.coef_.shape != (n_vectors, self.n_features_in_):
            return None
        weights, bias = self.coef_.astype(np.float64), self.intercept_.astype(np.float64)
        if n_vectors == 1:
            sides = np.array([-0.5, 0.5]) / SHARE[self.loss]
            weights, bias = np.outer(sides, weights), sides * bias
        mean = dataset.standardiser.mean
        weights = np.pad(weights, ((0, 0), (0, len(mean) - weights.shape[1])))
        return Params(weights[None], (bias + weights @ mean)[None])
