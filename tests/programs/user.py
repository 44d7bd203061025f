"""Research code that imports the library beside a folder of its own called experiments."""

import jax
import jax.numpy as jnp
import numpy as np

import experiments
import linear_cifar
from linear_cifar import (
    Hyperparameters,
    Params,
    TrainConfig,
    dataset_from_arrays,
    softmax_cross_entropy,
    train,
)

assert experiments.MINE
loss: jax.Array = softmax_cross_entropy(jnp.zeros((4, 3)), jnp.zeros(4, int))
data = dataset_from_arrays((np.eye(4), np.array([0, 1, 1, 0])))
params, history = train(
    jax.random.key(0), Hyperparameters(0.1, 0.1), data, TrainConfig(batch_size=4)
)
weights: jax.Array = params.weights
print(linear_cifar.__version__, weights.shape)
wrong: str = Params(weights, params.bias)  # the type checker has to find this line
