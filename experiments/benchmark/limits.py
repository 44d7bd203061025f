"""The machine's own limits: products of float32 matrices, and copies in memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.timing import Turn, seconds_of, take_turns
from linear_cifar.training import device_mesh, replicate, shard_runs

_product = jax.jit(jnp.matmul)
_copy = jax.jit(lambda array: array + 1)


def peak_turns(quick: bool) -> list[Turn]:
    """A turn for each way to multiply float32 matrices, which gives 10⁹ operations a second.

    NumPy's on the CPU; XLA's on the default device, and with the rows of one factor split over all.

    Args:
      quick: with small matrices.
    """
    # On two cores 2048 is as fast as 4096 (207 and 201 GFLOP/s), and while others work too it is
    # less often interrupted; a turn has three of them.
    on_cpu = jax.devices()[0].platform == "cpu"
    side = 1024 if quick else 2048 if on_cpu else 8192
    a = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    whole, mesh = jnp.asarray(a), device_mesh()
    ways: dict[str, Callable[[], object]] = {
        "XLA": lambda: _product(whole, whole).block_until_ready()
    }
    if side % mesh.size == 0:
        rows, other = shard_runs(whole, mesh), replicate(whole, mesh)
        ways["XLA, rows split"] = lambda: _product(rows, other).block_until_ready()
    if on_cpu:
        ways["NumPy"] = lambda: a @ a

    def gflops(way: Callable[[], object]) -> float:
        return 2e-9 * side**3 / seconds_of(way)

    return [Turn(f"matrix product, {name}", partial(gflops, way)) for name, way in ways.items()]


def peak(rates: np.ndarray) -> np.ndarray:
    """The peak of each round: the rates [ways, rounds] of the way that is fastest by its median.

    The fastest of each round would be above what any of them does, the more so the more noise.
    """
    return rates[np.argmax(np.median(rates, axis=1))]


def bandwidth_gb_s(n_rounds: int, quick: bool) -> float:
    """10⁹ bytes a second, read and written, of the fastest copy of an array, the median."""
    n_bytes = 2**26 if quick else 2**29
    if jax.devices()[0].platform != "cpu":
        array = jnp.zeros(n_bytes // 4, jnp.float32)
        return _copied(n_bytes, {"XLA": lambda: _copy(array).block_until_ready()}, n_rounds)
    n_threads = len(jax.devices())
    source, target = np.ones((2, n_threads, n_bytes // n_threads), np.uint8)
    with ThreadPoolExecutor(n_threads) as pool:
        ways: dict[str, Callable[[], object]] = {
            "NumPy": lambda: np.copyto(target, source),
            "NumPy, in threads": lambda: list(pool.map(np.copyto, target, source)),
        }
        return _copied(source.nbytes, ways, n_rounds)


def _copied(n_bytes: int, ways: dict[str, Callable[[], object]], n_rounds: int) -> float:
    turns = [Turn(f"copy, {name}", partial(seconds_of, way)) for name, way in ways.items()]
    return 2e-9 * n_bytes / float(np.min(np.median(take_turns(turns, n_rounds), axis=1)))
