"""Solves a few λ on digits with as many devices as its argument says, and prints the costs."""

import json
import sys

import jax
import numpy as np
from sklearn.datasets import load_digits

from linear_cifar import dataset_from_arrays, device_mesh, solve

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    jax.config.update("jax_enable_x64", True)
    inputs, labels = load_digits(return_X_y=True)
    dataset = dataset_from_arrays((inputs[:300], labels[:300]))
    settings = {"tolerance": 1e-11, "dtype": np.float64, "mesh": device_mesh()}
    optimum = solve([0.01, 1.0, 1e-3], dataset, **settings)
    print(json.dumps([a.tolist() for a in (optimum.cost, optimum.converged)]))
