"""Planted features, and what commands have to answer, by NumPy and scikit-learn in float64.

The labels of test examples are noise, so whoever selects by them selects something else.
"""

from functools import cache

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from linear_cifar import init_params
from tests.oracle import cost_gradient, losses_and_gradient

CLASSES = np.array(["ant", "bee", "cat"])
SIZES = {"train": 150, "validation": 90, "test": 80}
FITTED = ("train", "validation")  # by a refit


@cache
def planted():
    """Inputs and class ids by split."""
    draws = np.random.default_rng(3)
    centres, data = draws.normal(size=(3, 8)), {}
    for split, n in SIZES.items():
        labels = np.arange(n) % 3
        inputs = 10 + 3 * (0.4 * centres[labels] + draws.normal(size=(n, 8)))
        data[split] = inputs.astype(np.float32), labels
    return data | {"test": (data["test"][0], draws.permutation(data["test"][1]))}


def save(folder):
    """Writes the splits as a folder of features."""
    for split, (inputs, labels) in planted().items():
        np.save(folder / f"{split}_features.npy", inputs)
        np.save(folder / f"{split}_labels.npy", CLASSES[labels])
    return folder


def examples(*splits, reference=("train",)):
    """Inputs and labels of splits, standardised with the statistics of the reference's inputs."""
    inputs, labels = (np.concatenate([planted()[s][i] for s in splits]) for i in (0, 1))
    if not isinstance(reference, np.ndarray):
        reference = np.concatenate([planted()[s][0] for s in reference])
    reference = reference.astype(float)
    return (inputs - reference.mean(axis=0)) / reference.std(axis=0), labels


def optimum(inputs, labels, lam, loss="softmax"):
    """scikit-learn's weights and bias at the minimum of our cost."""
    strength = 1 / (2 * lam * len(labels) * (1 if loss == "softmax" else 3))
    fit = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    if loss == "softmax":
        return fit.fit(inputs, labels).coef_, fit.intercept_
    fits = OneVsRestClassifier(fit).fit(inputs, labels).estimators_
    return np.concatenate([one.coef_ for one in fits]), np.ravel([one.intercept_ for one in fits])


def measures(params, inputs, labels, loss):
    """Losses and whether predictions are right, each [n]."""
    scores = inputs @ params[0].T + params[1]
    return losses_and_gradient(scores, labels, loss)[0], scores.argmax(axis=1) == labels


def descend(
    seed, inputs, labels, *, n_epochs, loss="softmax", lam=0.0, learning_rate=0.001,
    batch_size=100, momentum=0.0, decay_factor=1.0, decay_every=10, shuffle=False,
):  # fmt: skip
    """Weights and bias before training and after each epoch of mini-batch gradient descent."""
    keys = [jax.random.fold_in(jax.random.key(seed), epoch) for epoch in range(n_epochs + 1)]
    params = init_params(keys[0], inputs.shape[1], labels.max() + 1)
    weights, bias = (np.array(array, float) for array in params)
    velocity, epochs = [0, 0], [(weights, bias)]
    for epoch, key in enumerate(keys[1:]):
        rate = learning_rate / decay_factor ** (epoch // decay_every)
        order = np.arange(len(labels))
        order = np.asarray(jax.random.permutation(key, order)) if shuffle else order
        for rows in np.split(order, range(batch_size, len(order), batch_size)):
            gradient = cost_gradient(weights, bias, inputs[rows], labels[rows], lam, loss)
            velocity = [momentum * v + g for v, g in zip(velocity, gradient, strict=True)]
            weights, bias = weights - rate * velocity[0], bias - rate * velocity[1]
        epochs.append((weights, bias))
    return epochs
