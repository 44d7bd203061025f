"""Sections `memory` and `path_sizes`: memory and time over n, d, K and the configurations.

Each size gets its own process on random data: python -m experiments.benchmark.sizes TASK N D K C.
`train` trains C configurations for two epochs; `solve` solves C values of λ from 1e-4 to 10 to a
certified relative gap of 1e-6. Both need Linux, because the peak memory is read from /proc
(`resource.getrusage` also counts the parent's).
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark.path import our_row
from experiments.benchmark.timing import Options, timed
from experiments.common.progress import progress
from linear_cifar import TrainConfig, sweep
from linear_cifar.data import Dataset, dataset_from_arrays
from linear_cifar.optimum import solve
from linear_cifar.training import device_mesh

TRAIN_SIZES = (  # n, d, K, configurations
    *((10_000, 3072, n_classes, c) for n_classes in (10, 100) for c in (1, 64)),
    *((49_000, 3072, 10, c) for c in (1, 64)),
    *((10_000, 6144, 10, 1), (10_000, 3072, 10, 128)),
)
SOLVE_SIZES = (
    *((10_000, 768, n_classes, 41) for n_classes in (10, 100, 1000)),
    *((10_000, 3072, 10, n_lam) for n_lam in (1, 41, 164)),
    *((49_000, 3072, 10, 41), (10_000, 8192, 10, 41)),
    (2_000, 8192, 10, 41),  # the examples' inner products are decomposed
    (9_000, 9_000, 10, 41),  # nothing is decomposed
)
QUICK_SIZES = ((500, 64, 10, 2), (20_000, 3072, 10, 2))
N_FACTORS = 64  # that the features have in common


def memory(_: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of processes that train; the command's data aren't used."""
    return _rows("train", QUICK_SIZES if options.quick else TRAIN_SIZES)


def path_sizes(_: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of processes that solve a path of λ; the command's data aren't used."""
    return _rows("solve", QUICK_SIZES[:1] if options.quick else SOLVE_SIZES)


def _rows(task: str, sizes: Sequence[tuple[int, ...]]) -> list[dict[str, Any]]:
    """The rows that processes print, one for each size, with as many devices as this process."""
    if not Path("/proc").exists():
        print("note: memory is read from /proc, so this section needs Linux", file=sys.stderr)
        return []
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.config.values["jax_num_cpu_devices"])}
    rows = []
    for size in progress(sizes, len(sizes), "n, d, K, C = {}".format):
        command = [sys.executable, "-m", "experiments.benchmark.sizes", task, *map(str, size)]
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        if done.returncode:
            line = f"{task} {size}: exit code {done.returncode}: {done.stderr[-200:]}"
            print(f"note: left out, {line}", file=sys.stderr)
        else:
            rows.append(json.loads(done.stdout))
    return rows


def main(task: str, n: int, d: int, n_classes: int, c: int) -> None:
    """Trains or solves random data, and prints a row as JSON."""
    row = {"train": _train, "solve": _solve}[task](n, d, n_classes, c)
    peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    row |= {"contender": f"ours, {n_classes} classes", "configurations": c, "n": n, "d": d}
    print(json.dumps({**row, "peak_mb": 1.024e-3 * peak_kib}))


def _train(n: int, d: int, n_classes: int, c: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
    labels = rng.integers(0, n_classes, n, dtype=np.int32)
    dataset = _dataset(inputs, labels, n_classes)
    config = TrainConfig(n_epochs=2, measure=False)
    lam = np.geomspace(1e-4, 1, c)
    sweep(jax.random.key(0), {"lam": lam}, dataset, config, mesh=device_mesh())
    return {"batch_size": config.batch_size}


def _solve(n: int, d: int, n_classes: int, c: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, N_FACTORS), np.float32)
    inputs = factors @ rng.standard_normal((N_FACTORS, d), np.float32)
    inputs += 4 * rng.standard_normal((n, d), np.float32)
    scores = factors @ rng.standard_normal((N_FACTORS, n_classes), np.float32)
    labels = np.argmax(scores + 4 * rng.gumbel(size=scores.shape), axis=1).astype(np.int32)
    dataset = _dataset(inputs, labels, n_classes)
    lam = np.geomspace(1e-4, 10, c)
    return our_row("ours", *timed(lambda: solve(lam, dataset, mesh=device_mesh())))


def _dataset(inputs: np.ndarray, labels: np.ndarray, n_classes: int) -> Dataset:
    return dataset_from_arrays((inputs, labels), class_names=list(map(str, range(n_classes))))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
