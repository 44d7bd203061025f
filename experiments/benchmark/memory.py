"""Trains or solves random data and prints what it took, as JSON.

python -m experiments.benchmark.memory train N D K C
python -m experiments.benchmark.memory solve N D K C

N examples of D features and K classes; C configurations for two epochs, or C λ from 1e-4 to 10 to a
certified relative gap of 1e-6. `peak_mb` is the process's peak memory in 10⁶ bytes. It is for
Linux, for the peak is read from /proc; `resource.getrusage` counts what the parent had when it
began this process.
"""

import json
import re
import sys
import time
from pathlib import Path

import jax
import numpy as np

from experiments.benchmark.contenders import CONFIG, Examples, Task, train_ours
from experiments.common.command import use_all_cores
from linear_cifar.data import Dataset, dataset_from_arrays
from linear_cifar.optimum import solve
from linear_cifar.training import device_mesh

N_EPOCHS = 2
N_FACTORS = 64  # that features have in common, as those of images do


def main(argv: list[str]) -> None:
    """Trains or solves, and prints what it took."""
    what, *sizes = argv
    n, d, n_classes, c = map(int, sizes)
    use_all_cores()
    found = {"train": _train, "solve": _solve}[what](n, d, n_classes, c)
    print(json.dumps({**found, "peak_mb": 1.024e-3 * peak_kib()}))


def _train(n: int, d: int, n_classes: int, c: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
    labels = rng.integers(0, n_classes, n, dtype=np.int32)
    dataset = _dataset(inputs, labels, n_classes)
    task = Task(Examples(dataset, jax.random.key(0)), c)
    train_ours(task, CONFIG._replace(n_epochs=N_EPOCHS))
    return {}


def _solve(n: int, d: int, n_classes: int, c: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, N_FACTORS), np.float32)
    inputs = factors @ rng.standard_normal((N_FACTORS, d), np.float32)
    inputs += 4 * rng.standard_normal((n, d), np.float32)
    scores = factors @ rng.standard_normal((N_FACTORS, n_classes), np.float32)
    labels = np.argmax(scores + 4 * rng.gumbel(size=scores.shape), axis=1).astype(np.int32)
    dataset = _dataset(inputs, labels, n_classes)
    start = time.perf_counter()
    optimum = solve(np.geomspace(1e-4, 10, c), dataset, mesh=device_mesh())
    return {
        "seconds": time.perf_counter() - start,
        "passes": float(optimum.passes.mean()),
        "most_passes": int(optimum.passes.max()),
        "relative_gap": float(np.max(optimum.gap / optimum.cost)),
    }


def _dataset(inputs: np.ndarray, labels: np.ndarray, n_classes: int) -> Dataset:
    names = [str(k) for k in range(n_classes)]
    return dataset_from_arrays((inputs, labels), class_names=names)


def peak_kib() -> int:
    """The most memory that this process has had, in 2¹⁰ bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


if __name__ == "__main__":
    main(sys.argv[1:])
