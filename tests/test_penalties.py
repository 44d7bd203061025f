"""λ in the terms of other libraries: at their optima the gradient of our cost is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar.errors import InputError
from linear_cifar.losses import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY as BINARY,
    SOFTMAX_CROSS_ENTROPY as SOFTMAX,
)
from linear_cifar.model import Params
from linear_cifar.objective import cost_gradient
from linear_cifar.penalties import Penalties, lam_from, lam_to

N, LAM = 200, 0.02
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_size = pytest.mark.parametrize("n_classes", [2, 4])


def digits(n_classes):
    """The first N standardised images of the first classes, and their labels."""
    inputs, labels = load_digits(n_class=n_classes, return_X_y=True)
    inputs = inputs[:N] - inputs[:N].mean(axis=0)
    deviation = inputs.std(axis=0)
    return inputs / np.where(deviation == 0, 1, deviation), labels[:N]


def scikit_learn_optimum(n_classes, loss):
    """Our parameters, from scikit-learn's fit with the C of `lam_to`."""
    C = lam_to(LAM, N, n_classes, loss).C.item()
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    if loss is BINARY and n_classes > 2:
        models = OneVsRestClassifier(model).fit(*digits(n_classes)).estimators_
        weights, bias = np.concatenate([m.coef_ for m in models]), [m.intercept_[0] for m in models]
        return Params(weights, np.array(bias))
    model.fit(*digits(n_classes))
    if n_classes > 2:
        return Params(model.coef_, model.intercept_)
    # It has one vector for two classes: our logits are ± it, or differ by it.
    signs = np.array([-1, 1]) / (2 if loss is SOFTMAX else 1)
    return Params(np.outer(signs, model.coef_), signs * model.intercept_)


def largest(gradient):
    return max(np.abs(a).max() for a in jax.tree.leaves(gradient))


@each_loss
@each_size
def test_c_matches_scikit_learn(loss, n_classes):
    optimum = scikit_learn_optimum(n_classes, loss)
    assert largest(cost_gradient(optimum, *digits(n_classes), LAM, loss)) < 1e-7
    assert largest(cost_gradient(optimum, *digits(n_classes), 1.01 * LAM, loss)) > 1e-6


@pytest.mark.parametrize(("loss", "n_classes"), [(BINARY, 4), (BINARY, 2), (SOFTMAX, 2)])
def test_alpha_matches_scikit_learn_s_sgd(loss, n_classes):
    inputs, labels = digits(n_classes)
    optimum, alpha = scikit_learn_optimum(n_classes, loss), lam_to(LAM, N, n_classes, loss).alpha
    factor = 2 if loss is SOFTMAX else 1
    weights, bias = factor * optimum.weights[1], factor * optimum.bias[1:2]

    def drift(alpha, rate=1e-7):
        """The gradient at the optimum, from an epoch of SGD in tiny steps."""
        settings = {"learning_rate": "constant", "eta0": rate, "max_iter": 1, "tol": None}
        model = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **settings)
        model.fit(inputs, labels == 1, coef_init=weights.copy(), intercept_init=bias.copy())
        return np.abs(model.coef_[0] - weights).max() / (rate * N)

    assert drift(alpha.item()) < 1e-5
    assert drift(1.1 * alpha.item()) > 1e-4


@each_loss
def test_weight_decay_matches_optax(loss):
    optimum = scikit_learn_optimum(4, loss)
    decay = lam_to(LAM, N, 4, loss).weight_decay.item()
    unpenalised = cost_gradient(optimum, *digits(4), 0.0, loss)
    transformation = optax.add_decayed_weights(decay, mask=Params(weights=True, bias=False))
    updates, _ = transformation.update(unpenalised, transformation.init(optimum), optimum)
    assert largest(updates) < 1e-7


@each_loss
@pytest.mark.parametrize("name", ["l2reg", "glmnet_lambda"])
def test_l2reg_and_glmnet_lambda_give_their_objectives_the_same_minimum(loss, name):
    """As in jaxopt's documentation, and in J. Friedman et al., J. Stat. Software 33, 2010."""
    inputs, labels = digits(4)
    optimum = scikit_learn_optimum(4, loss)
    strength = getattr(lam_to(LAM, N, 4, loss), name).item()

    def objective(weights):
        scores = inputs @ weights.T + optimum.bias[None]
        if loss is SOFTMAX:
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        else:  # the sum of the separate problems of the classes
            losses = optax.sigmoid_binary_cross_entropy(scores, np.eye(4)[labels]).sum(axis=1)
        return jnp.mean(losses) + strength * jnp.sum(weights**2) / 2

    assert largest(jax.grad(objective)(jnp.asarray(optimum.weights))) < 1e-6


@each_loss
@each_size
@pytest.mark.parametrize("name", Penalties._fields)
def test_lam_from_inverts_lam_to(loss, n_classes, name):
    lam = np.geomspace(1e-6, 10, 5)
    penalties = lam_to(lam, 123, n_classes, loss)
    back = lam_from(123, n_classes, loss, **{name: getattr(penalties, name)})
    np.testing.assert_allclose(back, lam, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lam_to(0.0, 10, 2), "lam is 0.0"),
        (lambda: lam_to(0.1, 0, 2), "n is 0"),
        (lambda: lam_to(0.1, 10, 1), "n_classes is 1"),
        (lambda: lam_to(0.1, 10, 2, SOFTMAX._replace(title="focal")), "focal"),
        (lambda: lam_from(10, 2), "not none"),
        (lambda: lam_from(10, 2, C=1, alpha=1), "not C, alpha"),
        (lambda: lam_from(10, 2, c=1), "not c"),
        (lambda: lam_from(10, 2, C=-1.0), "C is -1.0"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
