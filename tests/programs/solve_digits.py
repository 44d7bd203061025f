"""Solves a few λ on digits with as many devices as it is told of, and prints the costs."""

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
    dataset = dataset_from_arrays((inputs[:500], labels[:500]))
    how = {"tolerance": 1e-12, "dtype": np.float64, "mesh": device_mesh()}
    found = solve([1e-3, 0.1, 10.0], dataset, **how)
    print(json.dumps([found.cost.tolist(), found.passes.tolist(), found.converged.tolist()]))
