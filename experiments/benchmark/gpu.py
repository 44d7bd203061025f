"""Section `gpu`: a sweep, a path and a thousand classes, each beside the device's peak.

It is meant to take less than four minutes on a GPU, and takes much longer on a processor, so it
runs only if `--section` names it. Each job runs twice, and `seconds` are those of the second run,
without compilation. The peak is the rate of a float32 matrix product: in full precision for
`solve`, whose own products are; for training in the device's default, which may round the factors.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.benchmark.path import LAM, our_row
from experiments.benchmark.timing import Options, matmul_turn, timed
from linear_cifar import TrainConfig, sweep
from linear_cifar.data import Dataset, dataset_from_arrays
from linear_cifar.optimum import solve
from linear_cifar.training import device_mesh

N_CONFIGURATIONS, BATCH_SIZE = 1024, 1000
CLASSES_SIZE, CLASSES_LAM = (200_000, 1024, 1000), [1e-4, 1e-3]  # n, d, K


def gpu(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of the three jobs."""
    n_configurations, lam, size = N_CONFIGURATIONS, LAM, CLASSES_SIZE
    if options.quick:
        n_configurations, lam, size = 4, LAM[::20], (2000, 32, 100)
    mesh, key = device_mesh(), jax.random.key(options.seed)
    config = TrainConfig(n_epochs=4, batch_size=BATCH_SIZE, measure=False)
    table = {"lam": np.geomspace(1e-4, 1, n_configurations)}
    timed(train := partial(sweep, key, table, dataset, config, mesh=mesh))
    seconds = timed(train)[1]
    row = {"contender": "sweep", "configurations": n_configurations, "seconds": seconds}
    rows = [_row(row, dataset, config.n_epochs * n_configurations)]
    many_classes = prototypes(*size, options.seed)
    paths = (("path", lam, dataset, 1e-6), ("a thousand classes", CLASSES_LAM, many_classes, 1e-4))
    for name, values, data, tolerance in paths:
        job = partial(solve, values, data, tolerance=tolerance, max_passes=200, mesh=mesh)
        first = timed(job)[1]
        optimum, seconds = timed(job)
        row = our_row(name, optimum, seconds) | {"seconds_with_compilation": first}
        rows.append(_row(row, data, int(optimum.passes.sum()), "highest"))
    return rows


def prototypes(n: int, d: int, n_classes: int, seed: int) -> Dataset:
    """Examples of n_classes ≤ n classes, each its class's prototype and four times the noise."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    inputs = rng.standard_normal((n_classes, d), np.float32)[labels]
    inputs += 4 * rng.standard_normal((n, d), np.float32)
    return dataset_from_arrays((inputs.astype(np.float16), labels))


def _row(
    row: dict[str, Any], dataset: Dataset, n_passes: int, precision: str | None = None
) -> dict[str, Any]:
    """A row with the operations a second of its passes over the data, beside the peak."""
    (n, d), k = dataset.train.inputs.shape, dataset.n_classes
    rate, peak = 4e-9 * n * d * k * n_passes / row["seconds"], matmul_turn(precision)()
    speed = {"gflops": rate, "peak_gflops": peak, "fraction_of_peak": rate / peak}
    device = jax.devices()[0].device_kind
    return {**row, "n": n, "d": d, "n_classes": k, **speed, "device": device}
