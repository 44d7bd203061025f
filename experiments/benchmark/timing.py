"""How things are timed so that other work on the machine moves the figures little.

What is compared takes turns, round after round, in an order drawn anew for each; ratios are formed
within a round, and what is told is their median with its quartiles.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.benchmark.contenders import N_EPOCHS, Contender, Trained
from experiments.common.progress import progress

TURN_SECONDS, TURN_EPOCHS = 0.3, 2  # a turn lasts at least so long
# After a matrix product OpenBLAS's threads spin on for 90 to 100 ms, those of PyTorch for 10 at
# most, and XLA's don't: by this process's CPU time over sleeps of 10 ms, of which a spinning thread
# takes 3 to 20 ms, also where other processes want the cores, and 0.3 ms at most are used after it.
# Ten small products by XLA take 21 ms right after a NumPy loop, 19 after 0.1 s of rest, 16.4 after
# 0.2 s and 15.8 after `rest`, which is over in 0.14 s then (0.04 s after PyTorch).
REST_STEP, REST_STEPS, REST_LIMIT = 0.01, 3, 2.0  # seconds, steps, seconds
QUIET = 0.1  # the share of a core


class Turn(NamedTuple):
    """What takes turns."""

    name: str
    measure: Callable[[], float]  # once; seconds, say


def take_turns(turns: Sequence[Turn], n_rounds: int, seed: int = 0) -> np.ndarray:
    """Measures everything once a round, in an order of its own for each round.

    The order is drawn, so that nothing always follows the same neighbour, whose threads may spin
    and whose data fill the caches. What needs to be compiled has to be so before.

    Args:
      turns: what to measure.
      n_rounds: how often.
      seed: of the orders.

    Returns:
      What was measured, [turns, rounds].
    """
    rng = np.random.default_rng(seed)
    order = [(k, i) for k in range(n_rounds) for i in rng.permutation(len(turns))]
    samples = np.empty((len(turns), n_rounds))

    def describe(place: tuple[int, int]) -> str:
        return f"round {place[0] + 1} of {n_rounds}: {turns[place[1]].name}"

    for k, i in progress(order, len(order), describe):
        rest()
        samples[i, k] = turns[i].measure()
    return samples


def rest() -> None:
    """Sleeps until no thread of this process spins any more, at most `REST_LIMIT` seconds."""
    quiet, start = 0, time.perf_counter()
    while quiet < REST_STEPS and time.perf_counter() - start < REST_LIMIT:
        before, cpu = time.perf_counter(), time.process_time()
        time.sleep(REST_STEP)
        spent = (time.process_time() - cpu) / (time.perf_counter() - before)
        quiet = quiet + 1 if spent < QUIET else 0


def seconds_an_epoch(contender: Contender) -> float:
    """Seconds a configuration and epoch of a training that is begun anew.

    The first epoch, with what is done once a training, counts as one of `N_EPOCHS`; of the others
    it is the median.
    """
    times: list[float] = []
    configurations: list[int] = []

    def enough(trained: Trained) -> bool:
        times.append(time.perf_counter())
        configurations.append(trained.n_configurations)
        n_epochs = len(times) - 1
        long = n_epochs >= TURN_EPOCHS and times[-1] - times[0] >= TURN_SECONDS
        return long or n_epochs == N_EPOCHS

    contender.train(enough)
    first, *others = (b - a for a, b in itertools.pairwise(times))
    whole = first + (N_EPOCHS - 1) * statistics.median(others)
    return whole / N_EPOCHS / configurations[-1]


def seconds_once(job: Callable[[], object]) -> float:
    """Seconds of something long."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def seconds_of(job: Callable[[], object]) -> float:
    """Median seconds of something short, repeated for a turn; the first time isn't counted."""
    job()
    seconds: list[float] = []
    start = time.perf_counter()
    while not seconds or time.perf_counter() - start < TURN_SECONDS:
        seconds.append(seconds_once(job))
    return statistics.median(seconds)


def spread(name: str, values: np.ndarray) -> dict[str, float]:
    """Columns of a row: the median over rounds as `name`, and its quartiles as `_q1` and `_q3`."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {name: median, f"{name}_q1": q1, f"{name}_q3": q3}


class Cores(NamedTuple):
    """What the cores have done up to a moment, in seconds."""

    wall: float
    others: float  # of all cores together, for processes that aren't this one or its children

    @classmethod
    def now(cls) -> "Cores | None":
        """Up to now; None where there is no /proc, which Linux has."""
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()
        except OSError:
            return None
        user, nice, system, _, _, irq, soft_irq, steal = map(int, first[1:9])
        busy = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        return cls(time.perf_counter(), busy - sum(os.times()[:4]))

    def share_of_others(self, until: "Cores") -> float:
        """What others have had of all cores since, from 0 to 1."""
        cores = (os.cpu_count() or 1) * (until.wall - self.wall)
        return max(0.0, until.others - self.others) / cores
