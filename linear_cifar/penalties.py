"""λ in the terms of other libraries.

Our cost is J = (1/n) Σᵢ l(sᵢ, yᵢ) + λ‖W‖², without ½ and without the bias. Others have, with l of
one class against the rest where they have no softmax:

    C               scikit-learn, LogisticRegression: Σᵢ l + ‖W‖²/(2C)
    alpha           scikit-learn, SGDClassifier: (1/n) Σᵢ l + (alpha/2) ‖W‖², one against the rest
    weight_decay    PyTorch, SGD; optax, add_decayed_weights: the gradient plus weight_decay · W
    l2reg           jaxopt, objective.l2_multiclass_logreg: (1/n) Σᵢ l + (l2reg/2) ‖W‖²
    glmnet_lambda   glmnet, alpha = 0: (1/n) Σᵢ l + (lambda/2) ‖W‖²

The multiple binary cross-entropy is a mean over classes too. Who fits each class by itself has K
times that, and so K λ in the place of λ; a gradient that is taken of our loss has not.

Softmax of two classes is scikit-learn's binary loss of one vector w = W₁ − W₀. At the optimum
W₁ = −W₀ = w/2, so that λ‖W‖² = (λ/2) ‖w‖²: there scikit-learn has λ/2 in the place of λ.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.losses import (
    MULTIPLE_BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    Loss,
    check_loss,
)
from linear_cifar.settings import Setting, SettingsError, numbers

_VALUE = Setting("strength of a penalty", above=0)
_COUNTS = {"n": Setting("examples", low=1), "n_classes": Setting("classes", low=2)}


class Elsewhere(NamedTuple):
    """λ as others call it, each a scalar or of λ's shape, float64."""

    C: np.ndarray
    alpha: np.ndarray
    weight_decay: np.ndarray
    l2reg: np.ndarray
    glmnet_lambda: np.ndarray


class _Fit(NamedTuple):
    """What is fitted, as far as a parameter depends on it."""

    n: int
    of_class: int  # what λ is multiplied with where every class has its own vector
    of_vector: float  # and where two classes share one


# The parameter is a factor times λ or 1/λ.
_FORMULAS: Mapping[str, tuple[Callable[[_Fit], float], int]] = {
    "C": (lambda fit: 1 / (2 * fit.n * fit.of_vector), -1),
    "alpha": (lambda fit: 2 * fit.of_vector, 1),
    "weight_decay": (lambda fit: 2, 1),
    "l2reg": (lambda fit: 2 * fit.of_class, 1),
    "glmnet_lambda": (lambda fit: 2 * fit.of_class, 1),
}


def elsewhere(
    lam: ArrayLike, n: int, n_classes: int, loss: Loss = SOFTMAX_CROSS_ENTROPY
) -> Elsewhere:
    """What others call λ.

    Args:
      lam: λ > 0, a scalar or an array.
      n: examples that are fitted to.
      n_classes: K.
      loss: the loss per example.

    Raises:
      SettingsError: a value out of its range, or a loss that others don't have.

    Examples:
      >>> elsewhere(0.1, n=10_000, n_classes=10).C.item()
      0.0005
    """
    values = _checked("lam", lam)
    fit = _fit(n, n_classes, loss)
    return Elsewhere(*(factor(fit) * values**power for factor, power in _FORMULAS.values()))


def lam_of(
    n: int, n_classes: int, loss: Loss = SOFTMAX_CROSS_ENTROPY, **parameter: ArrayLike
) -> np.ndarray:
    """λ of what others call it.

    Args:
      n: examples that are fitted to.
      n_classes: K.
      loss: the loss per example.
      **parameter: one of the fields of `Elsewhere`, above 0, a scalar or an array.

    Returns:
      λ, in the parameter's shape, float64.

    Raises:
      SettingsError: not exactly one parameter, or as `elsewhere`.

    Examples:
      >>> lam_of(10_000, 10, C=0.0005).item()
      0.1
    """
    if len(parameter) != 1 or not parameter.keys() <= _FORMULAS.keys():
        raise SettingsError(
            f"give one of {', '.join(_FORMULAS)}, not {', '.join(parameter) or 'none'}"
        )
    ((name, values),) = parameter.items()
    factor, power = _FORMULAS[name]
    return (_checked(name, values) / factor(_fit(n, n_classes, loss))) ** power


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    values = numbers(name, values).astype(np.float64)
    for value in values.ravel():
        _VALUE.check(name, value)
    return values


def _fit(n: int, n_classes: int, loss: Loss) -> _Fit:
    _COUNTS["n"].check_integer("n", n)
    _COUNTS["n_classes"].check_integer("n_classes", n_classes)
    check_loss(loss)
    if loss == SOFTMAX_CROSS_ENTROPY:
        return _Fit(n, 1, 1 / 2 if n_classes == 2 else 1)
    if loss == MULTIPLE_BINARY_CROSS_ENTROPY:
        return _Fit(n, n_classes, n_classes)
    raise SettingsError(f"others have no {loss.title}")
