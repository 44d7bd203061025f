"""How fast things are: contenders in turns, and the machine's own limits."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.contenders import Contender
from linear_cifar.devices import device_mesh, replicate, split_runs

EPOCHS = 40  # over which what is done once a training counts
ROUND_SECONDS, ROUND_EPOCHS = 0.3, 2  # a contender's turn lasts at least so long
REST_SECONDS = 0.1  # between turns: the threads of a BLAS spin on for a while


def seconds_an_epoch(contenders: Mapping[str, Contender], n_rounds: int) -> dict[str, float]:
    """Median seconds a configuration and epoch of each contender, compilation apart.

    They take turns, so that a noisy machine is as noisy for all. In each turn a training is begun
    anew and its first epoch, with what is done once a training, counts as one of `EPOCHS`.

    Args:
      contenders: by name.
      n_rounds: turns of each, after one that isn't counted.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    turns = [(turn, name) for turn in range(n_rounds + 1) for name in contenders]
    for turn, name in runner.progress(turns, len(turns), lambda turn: turn[1]):
        time.sleep(REST_SECONDS)
        training = contenders[name]()
        times = [time.perf_counter()]
        while len(times) < 1 + ROUND_EPOCHS or times[-1] - times[0] < ROUND_SECONDS * (turn > 0):
            n_configurations = next(training)
            times.append(time.perf_counter())
        first, *others = [b - a for a, b in pairwise(times)]
        if turn:
            seconds = (first + (EPOCHS - 1) * statistics.median(others)) / EPOCHS
            samples[name].append(seconds / n_configurations)
    return {name: statistics.median(values) for name, values in samples.items()}


def matmul_gflops(n: int, n_rounds: int) -> float:
    """10⁹ operations a second of the fastest product of float32 matrices [n, n], the median.

    NumPy's on the CPU; XLA's on the default device, and with the rows of one factor split over all.
    """
    a = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    product = jax.jit(jnp.matmul)
    mesh = device_mesh()
    whole = jnp.asarray(a)
    candidates: list[Callable] = [lambda: product(whole, whole).block_until_ready()]
    if n % mesh.size == 0:
        rows, other = split_runs(whole, mesh), replicate(whole, mesh)
        candidates.append(lambda: product(rows, other).block_until_ready())
    if jax.devices()[0].platform == "cpu":
        candidates.append(lambda: a @ a)
    return 2e-9 * n**3 / _best_median(candidates, n_rounds)


def bandwidth_gb_s(n_bytes: int, n_rounds: int) -> float:
    """10⁹ bytes a second, read and written, of the fastest copy of an array, the median."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        array = jnp.zeros(n_bytes // 4, jnp.float32)
        copy = jax.jit(lambda a: a + 1)
        return 2e-9 * n_bytes / _best_median([lambda: copy(array).block_until_ready()], n_rounds)
    n_threads = len(jax.devices())
    source, target = np.ones((2, n_threads, n_bytes // n_threads), np.uint8)
    with ThreadPoolExecutor(n_threads) as pool:
        candidates: Sequence[Callable] = [
            lambda: list(pool.map(np.copyto, target, source)),
            lambda: np.copyto(target, source),
        ]
        return 2e-9 * source.nbytes / _best_median(candidates, n_rounds)


def _best_median(candidates: Sequence[Callable], n_rounds: int) -> float:
    samples: list[list[float]] = [[] for _ in candidates]
    for turn in range(n_rounds + 1):
        for candidate, of_candidate in zip(candidates, samples, strict=True):
            time.sleep(REST_SECONDS)
            candidate()  # wakes its threads
            start = time.perf_counter()
            candidate()
            if turn:
                of_candidate.append(time.perf_counter() - start)
    return min(map(statistics.median, samples))
