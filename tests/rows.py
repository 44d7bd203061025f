"""Rows of a table that share little with each other."""

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.losses import MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from linear_cifar.optimizers import Hyperparameters, adam, momentum, sgd


def mixed_table(n=7):
    """Up to seven rows in five groups, in no order; the first three are in two."""
    softmax, binary = SOFTMAX_CROSS_ENTROPY, MULTIPLE_BINARY_CROSS_ENTROPY
    hyperparameters = Hyperparameters(
        lam=np.array([0.0, 1.0, 0.0, 0.1, 0.1, 0.2, 0.3])[:n],
        learning_rate=np.array([1e-3, 1e-3, 1e-2, 1e-3, 1e-3, 2e-3, 1e-3])[:n],
        momentum=np.array([0.9, 0.9, 0.9, 0.5, 0.9, 0.8, 0.9])[:n],
        b1=np.array([0.9, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9])[:n],
    )
    columns = {
        "batch_size": [30, 100, 30, 100, 30, 100, 100][:n],
        "loss": [softmax, binary, softmax, softmax, binary, softmax, softmax][:n],
        "optimizer": [sgd, adam, sgd, momentum, sgd, momentum, sgd][:n],
    }
    return hyperparameters, columns


SEEDS = [0, 1, 0, 2, 1, 0, 0]


def keys(seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def of_row(hyperparameters, i):
    """The hyper-parameters of a row alone."""
    return type(hyperparameters)(*(f[i] if np.ndim(f) else f for f in hyperparameters))
