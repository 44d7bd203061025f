"""λ in the terms of other libraries.

Our cost is J = (1/n) Σᵢ l(sᵢ, yᵢ) + λ‖W‖², without ½ and without the bias. Other libraries
minimise, with the binary loss of one class against the rest if they have no softmax:

    C               scikit-learn, LogisticRegression: Σᵢ l + ‖W‖²/(2C)
    alpha           scikit-learn, SGDClassifier: (1/n) Σᵢ l + (alpha/2) ‖W‖², one against the rest
    weight_decay    PyTorch, SGD; optax, add_decayed_weights: the gradient plus weight_decay · W
    l2reg           jaxopt, objective.l2_multiclass_logreg: (1/n) Σᵢ l + (l2reg/2) ‖W‖²
    glmnet_lambda   glmnet, alpha = 0: (1/n) Σᵢ l + (lambda/2) ‖W‖²

Our multiple binary cross-entropy is a mean over the K classes. If you fit each class separately,
your loss is K times ours, and Kλ takes the place of λ. Weight decay is added to the gradient of our
own loss, so it needs no factor.

With two classes scikit-learn fits one vector w instead of W₁ and W₀. For softmax w = W₁ − W₀, and
at the optimum W₁ = −W₀ = w/2, so λ‖W‖² = (λ/2) ‖w‖²: λ/2 takes the place of λ.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import Setting
from linear_cifar.errors import InputError
from linear_cifar.losses import BINARY_CROSS_ENTROPY, LOSSES, SOFTMAX_CROSS_ENTROPY, Loss, as_loss


class Penalties(NamedTuple):
    """The penalties of other libraries that equal a λ, float64 in its shape."""

    C: Any
    alpha: Any
    weight_decay: Any
    l2reg: Any
    glmnet_lambda: Any


def lam_to(
    lam: ArrayLike, n: int, n_classes: int, loss: Loss | str = SOFTMAX_CROSS_ENTROPY
) -> Penalties:
    """Converts λ > 0, a scalar or an array, to the penalties of other libraries.

    There are n training examples and K = `n_classes` classes. For `BINARY_CROSS_ENTROPY`, a target
    with n known labels, K is 1.

    Examples:
      >>> lam_to(0.1, n=10_000, n_classes=10).C.item()
      0.0005
    """
    Setting("", above=0).check("lam", lam)
    Setting("", low=1, integer=True).check("n", n)
    loss, lam = as_loss(loss), np.asarray(lam, np.float64)
    fewest = 1 if loss == BINARY_CROSS_ENTROPY else 2
    Setting("", low=fewest, integer=True).check("n_classes", n_classes)
    if loss not in (BINARY_CROSS_ENTROPY, *LOSSES.values()):
        raise InputError(f"loss is {loss.title}: other libraries don't have it")
    per_class = n_classes if loss == LOSSES["multi_bce"] else 1
    # With two classes, scikit-learn's softmax has one vector w, and λ/2 its penalty.
    per_vector = 1 / 2 if loss == SOFTMAX_CROSS_ENTROPY and n_classes == 2 else per_class
    l2reg = 2 * per_class * lam
    return Penalties(1 / (2 * n * per_vector) / lam, 2 * per_vector * lam, 2 * lam, l2reg, l2reg)


def lam_from(
    n: int, n_classes: int, loss: Loss | str = SOFTMAX_CROSS_ENTROPY, **parameter: ArrayLike
) -> np.ndarray:
    """Converts one field of `Penalties`, such as `C=0.1`, to λ in its shape; else as `lam_to`."""
    if len(parameter) != 1 or not parameter.keys() <= set(Penalties._fields):
        wrong = ", ".join(parameter) or "none"
        raise InputError(f"give one of {', '.join(Penalties._fields)}, not {wrong}")
    ((name, penalty),) = parameter.items()
    Setting("", above=0).check(name, penalty)
    values, unit = np.asarray(penalty, np.float64), getattr(lam_to(1.0, n, n_classes, loss), name)
    return unit / values if name == "C" else values / unit
