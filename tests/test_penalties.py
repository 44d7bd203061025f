"""λ in the terms of others: with their own code, where it is installed."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar import (
    Elsewhere,
    Params,
    cost_gradient,
    dataset_from_arrays,
    elsewhere,
    lam_of,
    solve,
)
from linear_cifar.losses import (
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY as BINARY,
    SOFTMAX_CROSS_ENTROPY as SOFTMAX,
)
from linear_cifar.settings import SettingsError

N, K, LAM = 200, 4, 0.02
NEWTON = {"solver": "newton-cholesky", "tol": 1e-13, "max_iter": 1000}


def first(n_classes):
    """The first N images of the first classes: a dataset, its standardised inputs, labels."""
    inputs, labels = load_digits(n_class=n_classes, return_X_y=True)
    dataset = dataset_from_arrays((inputs[:N], labels[:N]))
    standardiser = dataset.standardiser
    return dataset, (inputs[:N] - standardiser.mean) / standardiser.scale, labels[:N]


@pytest.fixture(scope="module")
def digits():
    return first(K)


@pytest.fixture(scope="module")
def optima(digits):
    """The optimum of each loss, [K, d] and [K]."""
    found = {}
    for loss in LOSSES.values():
        optimum = solve([LAM], digits[0], loss=loss, tolerance=1e-13, dtype=jnp.float64)
        found[loss] = jax.tree.map(lambda a: a[0], optimum.params)
    return found


def test_c_is_scikit_learn_s(digits, optima):
    _, inputs, labels = digits
    model = LogisticRegression(C=elsewhere(LAM, N, K).C.item(), **NEWTON).fit(inputs, labels)
    np.testing.assert_allclose(model.coef_, optima[SOFTMAX].weights, atol=1e-6)
    of_class = LogisticRegression(C=elsewhere(LAM, N, K, BINARY).C.item(), **NEWTON)
    models = OneVsRestClassifier(of_class).fit(inputs, labels).estimators_
    coef = np.concatenate([model.coef_ for model in models])
    np.testing.assert_allclose(coef, optima[BINARY].weights, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_two_classes_have_one_vector_in_scikit_learn(loss):
    _, inputs, labels = first(2)
    C, alpha, *_ = elsewhere(LAM, N, 2, loss)
    model = LogisticRegression(C=C.item(), **NEWTON).fit(inputs, labels)
    # Ours has one for each class: the logits differ by theirs, or are theirs.
    of_classes = np.array([-1, 1]) / (2 if loss is SOFTMAX else 1)
    ours = Params(np.outer(of_classes, model.coef_), of_classes * model.intercept_)
    gradient = cost_gradient(ours, inputs, labels, LAM, loss)
    assert np.abs(gradient.weights).max() < 1e-7
    assert np.abs(gradient.bias).max() < 1e-7
    assert drift((inputs, labels), model.coef_[0], model.intercept_, alpha.item()) < 1e-5
    assert drift((inputs, labels), model.coef_[0], model.intercept_, 1.1 * alpha.item()) > 1e-4


def drift(data, weights, bias, alpha, rate=1e-7):
    """The gradient by an epoch of scikit-learn's SGD, in steps that are small."""
    how = {"learning_rate": "constant", "eta0": rate, "max_iter": 1, "tol": None}
    model = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **how)
    # It descends in the arrays that it is given.
    model.fit(*data, coef_init=weights.copy(), intercept_init=bias.copy())
    return np.abs(model.coef_[0] - weights).max() / (rate * N)


def test_alpha_is_sgd_classifier_s(digits, optima):
    _, inputs, labels = digits
    alpha = elsewhere(LAM, N, K, BINARY).alpha.item()
    weights, bias = optima[BINARY].weights[3], optima[BINARY].bias[3]
    assert drift((inputs, labels == 3), weights, bias, alpha) < 1e-5
    assert drift((inputs, labels == 3), weights, bias, 1.1 * alpha) > 1e-4


def check_optax(digits, optima, loss):
    import optax

    _, inputs, labels = digits
    decay = elsewhere(LAM, N, K, loss).weight_decay.item()
    without = cost_gradient(optima[loss], inputs, labels, 0.0, loss)
    change = optax.add_decayed_weights(decay, mask=Params(weights=True, bias=False))
    updates, _ = change.update(without, change.init(optima[loss]), optima[loss])
    assert np.abs(updates.weights).max() < 1e-7
    assert np.abs(updates.bias).max() < 1e-7


def check_torch(digits, optima, loss):
    import torch

    _, inputs, labels = digits
    weights, bias = (torch.tensor(np.array(a), requires_grad=True) for a in optima[loss])
    scores = torch.tensor(inputs) @ weights.T + bias
    if loss is SOFTMAX:
        mean = torch.nn.functional.cross_entropy(scores, torch.tensor(labels))
    else:
        one_hot = torch.eye(K, dtype=scores.dtype)[labels]
        mean = torch.nn.functional.binary_cross_entropy_with_logits(scores, one_hot)
    decay = elsewhere(LAM, N, K, loss).weight_decay.item()
    optimizer = torch.optim.SGD(
        [{"params": [weights], "weight_decay": decay}, {"params": [bias]}], lr=1.0
    )
    mean.backward()
    optimizer.step()
    assert np.abs(weights.detach().numpy() - optima[loss].weights).max() < 1e-7
    assert np.abs(bias.detach().numpy() - optima[loss].bias).max() < 1e-7


def check_jaxopt(digits, optima, loss):
    """It has no penalised binary objective: there a step of proximal descent stays."""
    import jaxopt

    check = {SOFTMAX: check_jaxopt_softmax, BINARY: check_jaxopt_binary}[loss]
    check(jaxopt, digits, optima[loss])


def check_jaxopt_softmax(jaxopt, digits, optimum):
    _, inputs, labels = digits
    weights, bias = optimum
    with jax.numpy_rank_promotion("allow"):
        gradient = jax.grad(jaxopt.objective.l2_multiclass_logreg_with_intercept)(
            (weights.T, bias), elsewhere(LAM, N, K).l2reg.item(), (inputs, labels)
        )
    assert np.abs(gradient[0]).max() < 1e-7
    assert np.abs(gradient[1]).max() < 1e-7


def check_jaxopt_binary(jaxopt, digits, optimum):
    _, inputs, labels = digits
    with_one = np.column_stack([inputs, np.ones(N)])
    start = np.append(optimum.weights[3], optimum.bias[3])
    gradient = jax.grad(jaxopt.objective.binary_logreg)(start, (with_one, (labels == 3) * 1))
    l2reg = elsewhere(LAM, N, K, BINARY).l2reg.item()
    weights = jaxopt.prox.prox_ridge((start - gradient)[:-1], l2reg)
    assert np.abs(weights - start[:-1]).max() < 1e-7
    assert np.abs(gradient[-1]) < 1e-7


CHECKS = {"optax": check_optax, "torch": check_torch, "jaxopt": check_jaxopt}


@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained")
@pytest.mark.parametrize("name", [name for name in CHECKS if importlib.util.find_spec(name)])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_parameters_are_those_of_what_is_installed(digits, optima, name, loss):
    CHECKS[name](digits, optima, loss)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_glmnet_s_objective_has_its_minimum_there(digits, optima, loss):
    """Without R: as in J. Friedman et al., Journal of Statistical Software 33, 2010; alpha = 0."""
    _, inputs, labels = digits
    strength = elsewhere(LAM, N, K, loss).glmnet_lambda.item()

    def objective(weights):
        scores = inputs @ weights.T + optima[loss].bias[None]
        if loss is SOFTMAX:
            mean = jnp.mean(jax.nn.logsumexp(scores, axis=1) - scores[np.arange(N), labels])
        else:  # the sum of the classes' own problems
            one_hot = np.eye(K)[labels]
            mean = jnp.sum(jax.nn.softplus(scores) - one_hot * scores) / N
        return mean + strength * jnp.sum(weights**2) / 2

    assert np.abs(jax.grad(objective)(jnp.asarray(optima[loss].weights))).max() < 1e-6


@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_both_directions_agree(loss, n_classes):
    lam = np.geomspace(1e-6, 10, 5)
    others = elsewhere(lam, 123, n_classes, loss)
    for name in Elsewhere._fields:
        back = lam_of(123, n_classes, loss, **{name: getattr(others, name)})
        np.testing.assert_allclose(back, lam, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: elsewhere(0.0, 10, 2), "lam is 0.0: it has to be above 0"),
        (lambda: elsewhere([0.1, np.nan], 10, 2), "lam is nan"),
        (lambda: elsewhere(0.1, 0, 2), "n is 0: it has to be at least 1"),
        (lambda: elsewhere(0.1, 10, 1), "n_classes is 1: it has to be at least 2"),
        (lambda: elsewhere(0.1, 10, 2, "softmax"), "loss is 'softmax': it has to be a Loss"),
        (lambda: elsewhere(0.1, 10, 2, SOFTMAX._replace(title="hinge")), "others have no hinge"),
        (lambda: lam_of(10, 2), "give one of C, alpha, .*, not none"),
        (lambda: lam_of(10, 2, C=1, alpha=1), "not C, alpha"),
        (lambda: lam_of(10, 2, c=1), "not c"),
        (lambda: lam_of(10, 2, C=-1.0), "C is -1.0: it has to be above 0"),
    ],
)
def test_what_has_no_meaning_is_refused(call, message):
    with pytest.raises(SettingsError, match=message):
        call()
