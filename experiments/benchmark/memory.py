"""Trains random data for two epochs and prints the process's peak memory, in 10⁶ bytes.

python -m experiments.benchmark.memory N D K C

N examples of D features and K classes, C configurations at once. It is for Linux, for the peak is
read from /proc; `resource.getrusage` counts what the parent had when it began this process.
"""

import re
import sys
from pathlib import Path

import jax
import numpy as np

from experiments.benchmark.contenders import Examples, Task, ours
from experiments.common.command import use_all_cores
from linear_cifar.data import dataset_from_arrays

N_EPOCHS = 2


def main(argv: list[str]) -> None:
    """Trains, and prints the peak."""
    n, d, n_classes, n_configurations = map(int, argv)
    use_all_cores()
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
    labels = rng.integers(0, n_classes, n, dtype=np.int32)
    names = [str(k) for k in range(n_classes)]
    dataset = dataset_from_arrays((inputs, labels), class_names=names)
    training = ours(Task(Examples(dataset, jax.random.key(0)), n_configurations)).begin()
    for _ in range(N_EPOCHS):
        next(training)
    print(1.024e-3 * peak_kib())


def peak_kib() -> int:
    """The most memory that this process has had, in 2¹⁰ bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


if __name__ == "__main__":
    main(sys.argv[1:])
