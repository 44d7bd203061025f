"""The whole of training in plain NumPy float64, written independently of the library."""

import jax.numpy as jnp
import numpy as np

from linear_cifar.losses import LOSSES


def softmax(scores, targets):
    shifted = scores - scores.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return -np.log(p[targets == 1]), p - targets


def multi_bce(scores, targets):
    p = 1 / (1 + np.exp(-scores))
    terms = targets * np.log(p) + (1 - targets) * np.log(1 - p)
    return -terms.mean(axis=1), (p - targets) / scores.shape[1]


DEFINITIONS = {"softmax": softmax, "multi_bce": multi_bce}


def losses_and_gradient(scores, labels, loss):
    """Per-example losses [n] and dl/ds [n, K], from the definitions.

    A loss that has none here is taken from the library: everything else is still compared with an
    independent computation, and its gradient with `jax.grad` and finite differences.
    """
    if loss not in DEFINITIONS:
        scores, labels = jnp.asarray(scores, float), jnp.asarray(labels)
        found = LOSSES[loss].value(scores, labels), LOSSES[loss].logit_gradient(scores, labels)
        return tuple(map(np.asarray, found))
    targets = np.zeros(scores.shape)
    targets[np.arange(len(scores)), labels] = 1
    return DEFINITIONS[loss](scores, targets)


def measure(weights, bias, inputs, labels, lam, loss):
    """Mean loss, cost and accuracy."""
    scores = inputs @ weights.T + bias
    mean = losses_and_gradient(scores, labels, loss)[0].mean()
    accuracy = (scores.argmax(axis=1) == labels).mean()
    return mean, mean + lam * (weights**2).sum(), accuracy


def train(
    weights,
    bias,
    dataset,
    *,
    lam,
    learning_rate,
    n_epochs,
    batch_size,
    loss,
    decay_factor=1.0,
    decay_every=10,
):
    """Parameters and history rows (train loss, cost, accuracy, validation ditto) by epoch."""
    weights, bias = np.array(weights), np.array(bias)
    stored = dataset.train.inputs.astype(float)
    mean, deviation = stored.mean(axis=0), stored.std(axis=0)
    deviation[deviation == 0] = 1
    x_train = (stored - mean) / deviation
    x_validation = (dataset.validation.inputs.astype(float) - mean) / deviation
    y_train, y_validation = dataset.train.labels, dataset.validation.labels

    def row():
        return (
            *measure(weights, bias, x_train, y_train, lam, loss),
            *measure(weights, bias, x_validation, y_validation, lam, loss),
        )

    rows = [row()]
    for epoch in range(n_epochs):
        rate = learning_rate / decay_factor ** (epoch // decay_every)
        for start in range(0, len(y_train), batch_size):
            x, y = x_train[start : start + batch_size], y_train[start : start + batch_size]
            g = losses_and_gradient(x @ weights.T + bias, y, loss)[1] / len(y)
            weights -= rate * (g.T @ x + 2 * lam * weights)
            bias -= rate * g.sum(axis=0)
        rows.append(row())
    return weights, bias, np.array(rows)
