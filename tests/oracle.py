"""The mathematics and the whole of training in NumPy float64, written independently of the library.

A new loss or optimiser needs its definition here: no expected value comes from the library.
"""

from functools import partial

import numpy as np
from scipy import special


def softmax(scores, targets):
    losses = special.logsumexp(scores, axis=1) - (scores * targets).sum(axis=1)
    return losses, special.softmax(scores, axis=1) - targets


def binary_cross_entropy(scores, targets):
    """The loss of each entry, and its derivative in the score."""
    terms = targets * special.log_expit(scores) + (1 - targets) * special.log_expit(-scores)
    return -terms, special.expit(scores) - targets


def multi_bce(scores, targets):
    losses, gradient = binary_cross_entropy(scores, targets)
    return losses.mean(axis=1), gradient / scores.shape[1]


DEFINITIONS = {"softmax": softmax, "multi_bce": multi_bce}
LINKS = {"softmax": partial(special.softmax, axis=-1), "multi_bce": special.expit}


def losses_and_gradient(scores, labels, loss):
    """Per-example losses [n] and dl/ds [n, K]; a loss without a definition is a KeyError."""
    return DEFINITIONS[loss](scores, np.eye(scores.shape[1])[labels])


def measure(weights, bias, inputs, labels, lam, loss):
    """Mean loss, cost and accuracy."""
    scores = inputs @ weights.T + bias
    mean = losses_and_gradient(scores, labels, loss)[0].mean()
    accuracy = (scores.argmax(axis=1) == labels).mean()
    return mean, mean + lam * (weights**2).sum(), accuracy


def cost_gradient(weights, bias, inputs, labels, lam, loss):
    """The cost's derivatives in the weights and in the bias."""
    g = losses_and_gradient(inputs @ weights.T + bias, labels, loss)[1] / len(labels)
    return g.T @ inputs + 2 * lam * weights, g.sum(axis=0)


# Each optimiser's step divided by −η, from all gradients so far, the newest first.


def sgd(gradients):
    return gradients[0]


def heavy_ball(gradients, momentum):
    """B. Polyak, Some methods of speeding up the convergence of iteration methods, 1964."""
    return sum(momentum**age * g for age, g in enumerate(gradients))


def adam(gradients, b1, b2, eps):
    """D. Kingma and J. Ba, Adam, 2015: with bias correction, its moments are weighted means."""
    ages = np.arange(len(gradients))
    mean = np.average(gradients, axis=0, weights=b1**ages)
    mean_square = np.average(np.square(gradients), axis=0, weights=b2**ages)
    return mean / (np.sqrt(mean_square) + eps)


OPTIMIZERS = {"sgd": sgd, "momentum": heavy_ball, "adam": adam}


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
    optimizer="sgd",
    **numbers,  # of the optimiser, such as `momentum`
):
    """Parameters and history rows (train loss, cost, accuracy, validation ditto) by epoch."""
    weights, bias = np.array(weights, float), np.array(bias, float)
    stored = dataset.train.inputs.astype(float)
    mean, deviation = stored.mean(axis=0), stored.std(axis=0)
    deviation[deviation == 0] = 1
    x_train = (stored - mean) / deviation
    x_validation = (dataset.validation.inputs.astype(float) - mean) / deviation
    y_train, y_validation = dataset.train.labels, dataset.validation.labels
    gradients = []

    def row():
        splits = (x_train, y_train), (x_validation, y_validation)
        return np.ravel([measure(weights, bias, *split, lam, loss) for split in splits])

    rows = [row()]
    for epoch in range(n_epochs):
        rate = learning_rate / float(decay_factor) ** (epoch // decay_every)
        for start in range(0, len(y_train), batch_size):
            batch = slice(start, start + batch_size)
            gradient = cost_gradient(weights, bias, x_train[batch], y_train[batch], lam, loss)
            gradients.insert(0, np.column_stack(gradient))
            step = -rate * OPTIMIZERS[optimizer](gradients, **numbers)
            weights, bias = weights + step[:, :-1], bias + step[:, -1]
        rows.append(row())
    return weights, bias, np.array(rows)
