"""A thousand classes and 4,096 features: the optimum for two λ, with its time and memory.

python docs/examples/many_classes.py
"""

import resource
import time

import jax
import numpy as np

from linear_cifar import dataset_from_arrays, device_mesh, solve


def examples(n, n_features, n_classes, seed=0):
    """Normal features about a centre for each class, float32, and their labels."""
    draws = np.random.default_rng(seed)
    centres = draws.normal(size=(n_classes, n_features), scale=0.1).astype(np.float32)
    labels = draws.permutation(np.arange(n) % n_classes)
    return centres[labels] + draws.standard_normal((n, n_features), np.float32), labels


def main(n=10_000, n_features=4096, n_classes=1000, lam=(0.01, 0.1)):
    """Solves, and prints gaps, passes, time and memory."""
    data = dataset_from_arrays(examples(n, n_features, n_classes))
    start = time.perf_counter()
    optimum = solve(lam, data, mesh=device_mesh())
    seconds = time.perf_counter() - start
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # kilobytes, on Linux
    for i, value in enumerate(lam):
        gap = optimum.gap[i] / optimum.cost[i]
        print(f"λ = {value:g}: cost {optimum.cost[i]:.4f}, gap over cost {gap:.1e}")
    print(f"{optimum.passes} passes, {seconds:.0f} s, {megabytes:,.0f} MB at most")
    return optimum


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
