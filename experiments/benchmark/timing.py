"""Timing on a noisy machine: contenders take turns, and ratios are formed round by round."""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.common.progress import progress
from linear_cifar.training import device_mesh

T = TypeVar("T")
Turns: TypeAlias = list[tuple[str, Callable[[], float]]]  # names and measurements
TURN_SECONDS = 0.3  # a turn lasts at least this long
# The threads of NumPy's OpenBLAS spin for 0.1 s after a matrix product, PyTorch's for 0.01 s, and
# they slow down the next turn: ten small XLA products take 21 ms right after a NumPy loop and
# 15.8 ms after `rest`. A spinning thread takes at least 30 % of a core, an idle process under 3 %.
REST_STEP, QUIET_STEPS, QUIET_SHARE, MAX_REST = 0.01, 3, 0.1, 2.0


class Options(NamedTuple):
    """The command's flags that sections read."""

    batch_size: int
    seed: int  # of the initial parameters, the folds and the order of turns
    n_rounds: int
    quick: bool  # small sizes


def take_turns(turns: Turns, n_rounds: int, seed: int) -> np.ndarray:
    """Measures every turn once per round; the result is [turns, rounds].

    Each round has its own random order, so that no turn always follows the same neighbour, which
    leaves its data in the caches. Compile beforehand.
    """
    rng = np.random.default_rng(seed)
    order = [(k, i) for k in range(n_rounds) for i in rng.permutation(len(turns))]
    samples = np.empty((len(turns), n_rounds))
    steps = progress(order, len(order), lambda step: f"round {step[0] + 1}: {turns[step[1]][0]}")
    for k, i in steps:
        rest()
        samples[i, k] = turns[i][1]()
    return samples


def rest() -> None:
    """Sleeps until no thread of this process spins, or for `MAX_REST` seconds."""
    quiet_steps, start = 0, time.perf_counter()
    while quiet_steps < QUIET_STEPS and time.perf_counter() - start < MAX_REST:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(REST_STEP)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        quiet_steps = quiet_steps + 1 if share < QUIET_SHARE else 0


def timed(job: Callable[[], T]) -> tuple[T, float]:
    """The result of a job and its seconds."""
    start = time.perf_counter()
    result = job()
    return result, time.perf_counter() - start


def spread(name: str, values: np.ndarray) -> dict[str, float]:
    """Columns of a row: the median over rounds, and the quartiles as NAME_q1 and NAME_q3."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {name: median, f"{name}_q1": q1, f"{name}_q3": q3}


def peak_turns(quick: bool) -> Turns:
    """Turns that give the GFLOP/s of a float32 matrix product: XLA's, and NumPy's on a CPU."""
    # On two cores 2048 is as fast as 4096, and other processes interrupt it less often.
    on_cpu, mesh = jax.devices()[0].platform == "cpu", device_mesh()
    side = 1024 if quick else 2048 if on_cpu else 8192
    side -= side % mesh.size
    a = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    rows = jax.device_put(a, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    copies = jax.device_put(a, NamedSharding(mesh, PartitionSpec()))
    product = jax.jit(jnp.matmul)
    products: dict[str, Callable[[], Any]] = {"XLA": lambda: product(rows, copies)}
    if on_cpu:
        products["NumPy"] = lambda: a @ a

    def gflops(job: Callable[[], Any]) -> float:
        """The median over a turn; the first call isn't counted."""
        jax.block_until_ready(job())
        seconds: list[float] = []
        start = time.perf_counter()
        while not seconds or time.perf_counter() - start < TURN_SECONDS:
            seconds.append(timed(lambda: jax.block_until_ready(job()))[1])
        return 2e-9 * side**3 / statistics.median(seconds)

    return [(f"matrix product, {name}", partial(gflops, job)) for name, job in products.items()]


def cpu_seconds_of_others() -> float:
    """CPU seconds of other processes since the machine started; NaN without Linux's /proc/stat."""
    try:
        ticks = [int(tick) for tick in Path("/proc/stat").read_text().split()[1:9]]
    except OSError:
        return float("nan")
    busy = sum(ticks) - ticks[3] - ticks[4]  # without idle and iowait
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])  # without us and our children
