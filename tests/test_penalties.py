"""λ in the terms of other libraries: at their optima the gradient of our cost is zero."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY as BINARY,
    SOFTMAX_CROSS_ENTROPY as SOFTMAX,
    InputError,
    Params,
    lam_from,
    lam_to,
)
from linear_cifar.penalties import Penalties
from tests import oracle

N, LAM = 200, 0.02
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_size = pytest.mark.parametrize("n_classes", [2, 4])


def digits(n_classes=4):
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


def gradient(optimum, loss, lam):
    n_classes = len(optimum.bias)
    return Params(*oracle.cost_gradient(*optimum, *digits(n_classes), lam, loss.name))


def largest(gradient):
    return max(np.abs(array).max() for array in gradient)


@each_loss
@each_size
def test_c_matches_scikit_learn(loss, n_classes):
    optimum = scikit_learn_optimum(n_classes, loss)
    assert largest(gradient(optimum, loss, LAM)) < 1e-7
    assert largest(gradient(optimum, loss, 1.01 * LAM)) > 1e-6


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


@pytest.mark.slow
@each_loss
def test_weight_decay_matches_pytorch(loss):
    """CI has PyTorch and jaxopt for these tests: without them they fail."""
    import torch

    optimum = Params(*map(torch.from_numpy, scikit_learn_optimum(4, loss)))
    inputs, labels = map(torch.from_numpy, digits())
    weights, bias = (array.clone().requires_grad_() for array in optimum)
    decay = lam_to(LAM, N, 4, loss).weight_decay.item()
    groups = [{"params": [weights], "weight_decay": decay}, {"params": [bias]}]
    optimizer, scores = torch.optim.SGD(groups, lr=1.0), inputs @ weights.T + bias
    one_hot = torch.nn.functional.one_hot(labels.long(), 4).double()
    losses = {
        "softmax": torch.nn.functional.cross_entropy,
        "multi_bce": torch.nn.functional.binary_cross_entropy_with_logits,
    }
    losses[loss.name](scores, one_hot).backward()
    optimizer.step()
    moved = ((weights - optimum.weights).detach(), (bias - optimum.bias).detach())
    assert largest(array.numpy() for array in moved) < 1e-7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained")
def test_l2reg_matches_jaxopt():
    import jax
    from jaxopt import objective

    weights, bias = scikit_learn_optimum(4, SOFTMAX)
    l2reg = lam_to(LAM, N, 4, SOFTMAX).l2reg.item()
    with jax.numpy_rank_promotion("allow"):
        gradients = jax.grad(objective.l2_multiclass_logreg_with_intercept)(
            (weights.T, bias), l2reg, digits()
        )
    assert largest(gradients) < 1e-7


@each_loss
@pytest.mark.parametrize("name", ["weight_decay", "l2reg", "glmnet_lambda"])
def test_penalties_give_their_objectives_the_same_minimum(loss, name):
    """As optax and jaxopt document them, and J. Friedman et al., J. Stat. Software 33, 2010."""
    optimum = scikit_learn_optimum(4, loss)
    strength = getattr(lam_to(LAM, N, 4, loss), name).item()
    # Weight decay is for our own loss; the others sum the separate problems of the classes.
    n_problems = 4 if loss is BINARY and name != "weight_decay" else 1
    of_the_losses = n_problems * gradient(optimum, loss, 0.0).weights
    assert np.abs(of_the_losses + strength * optimum.weights).max() < 1e-6


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
        (lambda: lam_to(0.0, 10, 2), "lam"),
        (lambda: lam_to(0.1, 10, 1), "n_classes"),
        (lambda: lam_to(0.1, 10, 2, SOFTMAX._replace(title="focal")), "focal"),
        (lambda: lam_from(10, 2, C=1, alpha=1), "C, alpha"),
        (lambda: lam_from(10, 2, C=-1.0), "C is -1.0"),
    ],
)
def test_arguments_without_a_meaning_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
