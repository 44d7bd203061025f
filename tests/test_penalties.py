"""λ in the terms of other libraries: with `lam_to`'s penalty their optimum is ours."""

from functools import cache
from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar import LOSSES, InputError, dataset_from_arrays, lam_from, lam_to, solve
from tests import oracle
from tests.conftest import each_loss

N, LAM = 200, 0.02
SOFTMAX, BINARY = LOSSES["softmax"], LOSSES["multi_bce"]
each_case = pytest.mark.parametrize(("loss", "n_classes"), [*product((SOFTMAX, BINARY), (2, 4))])


@cache
def problem(loss, n_classes):
    """Standardised digits, their labels, and our optimum."""
    digits = load_digits(n_class=n_classes, return_X_y=True)
    data = dataset_from_arrays([array[:N] for array in digits])
    optimum = solve(LAM, data, loss=loss, tolerance=1e-13, dtype=jnp.float64)
    inputs = data.standardiser(data.train.inputs, np.float64)
    return np.asarray(inputs), data.train.labels, optimum.params


def as_scikit_learn(params, loss):
    """As scikit-learn has them: two classes have one vector, and softmax's constant is fixed."""
    if len(params.bias) > 2:
        return [array - (loss is SOFTMAX) * array.mean(axis=0) for array in params]
    return [array[1:] - (loss is SOFTMAX) * array[:1] for array in params]


@each_case
def test_c_matches_scikit_learn(loss, n_classes):
    inputs, labels, params = problem(loss, n_classes)
    C = lam_to(LAM, N, n_classes, loss).C.item()
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    separate = OneVsRestClassifier(model).fit(inputs, labels)
    models = separate.estimators_ if loss is BINARY else [model.fit(inputs, labels)]
    for name, expected in zip(("coef_", "intercept_"), as_scikit_learn(params, loss), strict=True):
        actual = np.concatenate([getattr(model, name) for model in models])
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("loss", "n_classes"), [(SOFTMAX, 2), (BINARY, 2), (BINARY, 4)])
def test_alpha_matches_scikit_learns_sgd(loss, n_classes):
    inputs, labels, params = problem(loss, n_classes)
    weights, bias = (array[-1:] for array in as_scikit_learn(params, loss))
    alpha, rate = lam_to(LAM, N, n_classes, loss).alpha.item(), 1e-7

    def drift(alpha):
        """The gradient at the optimum, from an epoch of SGD in tiny steps."""
        settings = {"learning_rate": "constant", "eta0": rate, "max_iter": 1, "tol": None}
        model = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **settings)
        start = {"coef_init": weights.copy(), "intercept_init": bias.copy()}
        model.fit(inputs, labels == n_classes - 1, **start)
        return np.abs(model.coef_ - weights).max() / (rate * N)

    assert drift(alpha) < 1e-5
    assert drift(1.1 * alpha) > 1e-4


@each_loss
@pytest.mark.parametrize("name", ["weight_decay", "l2reg", "glmnet_lambda"])
def test_penalties_give_their_objectives_the_same_minimum(loss, name):
    """As optax and jaxopt document them, and J. Friedman et al., J. Stat. Software 33, 2010."""
    inputs, labels, params = problem(loss, 4)
    strength = getattr(lam_to(LAM, N, 4, loss), name).item()
    # Weight decay is for our own loss; the others sum the separate problems of the classes.
    n_problems = 4 if loss is BINARY and name != "weight_decay" else 1
    of_losses = oracle.cost_gradient(*params, inputs, labels, 0.0, loss.name)[0]
    np.testing.assert_allclose(n_problems * of_losses, -strength * params.weights, atol=2e-6)


@each_case
def test_lam_from_inverts_lam_to(loss, n_classes):
    lam = np.geomspace(1e-6, 10, 5)
    for name, values in lam_to(lam, 123, n_classes, loss)._asdict().items():
        back = lam_from(123, n_classes, loss, **{name: values})
        np.testing.assert_allclose(back, lam, rtol=1e-14)


def test_a_loss_of_ones_own_and_two_penalties_at_once_are_refused():
    with pytest.raises(InputError, match="focal"):
        lam_to(0.1, 10, 2, SOFTMAX._replace(title="focal"))
    with pytest.raises(InputError, match="C, alpha"):
        lam_from(10, 2, C=1, alpha=1)
