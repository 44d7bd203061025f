"""Timing on a noisy machine: contenders take turns, and no job starts while threads still spin."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from experiments.common.progress import progress

T = TypeVar("T")
TURN_SECONDS = 0.3  # about what a turn takes, if an epoch takes less
# The threads of NumPy's OpenBLAS spin for 0.1 s after a matrix product and slow down the next job:
# ten small XLA products take 21 ms right after a NumPy loop and 15.8 ms after a rest.
REST_SECONDS = 0.2


class Options(NamedTuple):
    """The command's flags that sections read."""

    batch_size: int
    seed: int  # of the initial parameters, the folds and the order of turns
    n_rounds: int
    quick: bool  # small sizes


def take_turns(
    turns: Sequence[tuple[str, Callable[[], float]]], n_rounds: int, seed: int
) -> np.ndarray:
    """Calls every turn, a name and a measurement, once per round; returns [turns, rounds].

    Each round has its own random order, so that no turn always follows the same neighbour, which
    leaves its data in the caches. Compile beforehand.
    """
    rng = np.random.default_rng(seed)
    order = [(k, i) for k in range(n_rounds) for i in rng.permutation(len(turns))]
    samples = np.empty((len(turns), n_rounds))
    steps = progress(order, len(order), lambda step: f"round {step[0] + 1}: {turns[step[1]][0]}")
    for k, i in steps:
        time.sleep(REST_SECONDS)
        samples[i, k] = turns[i][1]()
    return samples


def timed(job: Callable[[], T]) -> tuple[T, float]:
    """Rests, runs a job, and returns its result and its seconds."""
    time.sleep(REST_SECONDS)
    start = time.perf_counter()
    result = job()
    return result, time.perf_counter() - start


def matmul_turn(precision: Any = None) -> Callable[[], float]:
    """A turn that multiplies float32 matrices on the whole machine and returns GFLOP/s.

    `precision` is that of JAX's products; only GPUs heed it.
    """
    on_cpu = jax.default_backend() == "cpu"
    side = 2048 if on_cpu else 8192  # on two cores as fast as 4096, and less often interrupted
    matrix = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    # NumPy's product uses all cores; two of them reach 190 GFLOP/s, and 150 with XLA's.
    copies = [matrix] if on_cpu else [jax.device_put(matrix, device) for device in jax.devices()]

    def multiply() -> float:
        start = time.perf_counter()
        with jax.default_matmul_precision(precision):
            jax.block_until_ready([copy @ copy for copy in copies])
        return time.perf_counter() - start

    def gflops() -> float:
        multiply()  # isn't counted: it may compile
        seconds = [multiply()]
        while sum(seconds) < TURN_SECONDS:
            seconds.append(multiply())
        return 2e-9 * side**3 * len(copies) / statistics.median(seconds)

    return gflops
