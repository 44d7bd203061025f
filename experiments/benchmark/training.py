"""Sections `single` and `sweep`: gradient descent against NumPy, PyTorch and the machine's peak."""

import math
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmark import contenders as by, timing
from experiments.benchmark.contenders import Contender, Problem, installed
from experiments.benchmark.timing import Options
from experiments.common.progress import progress
from linear_cifar import InputError
from linear_cifar.data import Dataset
from linear_cifar.model import Params

N_EPOCHS = 40  # of the training that a turn represents
CHECKED_EPOCHS = 2
# Largest difference of a parameter over the largest change of one in training. Contenders that
# agree differ by 2e-6 to 1e-4; with η or λ 1 % off they differ by 1e-2 or 2e-3.
TOLERANCE = 1e-3
CONFIGURATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def single(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of one configuration."""
    problem = by.make_problem(dataset, options.seed, options.batch_size)
    contenders = [Contender("ours", problem, by.ours)]
    contenders.append(Contender("ours, autodiff", problem, by.ours_autodiff))
    contenders.append(Contender("NumPy", problem, by.numpy_loop))
    if installed("torch"):
        contenders.append(Contender("PyTorch nn.Linear", problem, by.torch_linear))
    return measure(contenders, options)


def sweep(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of 1 to 256 configurations at once; other methods train 32 at once, and NumPy one."""
    problem = by.make_problem(dataset, options.seed, options.batch_size)

    def several(c: int) -> Problem:
        return problem._replace(lam=np.geomspace(1e-4, 1, c)) if c > 1 else problem

    counts, n_others = ((1, 4), 4) if options.quick else (CONFIGURATIONS, 32)
    contenders = [Contender("ours", several(c), by.ours) for c in counts]
    contenders.append(Contender("NumPy", problem, by.numpy_loop))
    contenders.append(Contender("ours, autodiff", several(n_others), by.ours_autodiff))
    if installed("torch"):
        name = "PyTorch, stacked by hand"
        contenders.append(Contender(name, several(n_others), by.torch_stacked))
    return measure(contenders, options)


def measure(contenders: Sequence[Contender], options: Options) -> list[dict[str, Any]]:
    """Checks that the contenders agree, then times them in turns with the matrix product."""
    turns = timing.peak_turns(options.quick)
    for contender, duration in zip(contenders, check_agreement(contenders), strict=True):
        n_epochs = min(max(2, math.ceil(timing.TURN_SECONDS / duration)), N_EPOCHS)
        turns.append((contender.name, partial(seconds_per_epoch, contender, n_epochs)))
    samples = timing.take_turns(turns, options.n_rounds, options.seed)
    rates, seconds = np.split(samples, [-len(contenders)])
    fastest = np.argmax(np.median(rates, axis=1))  # a maximum in each round would favour noise
    return make_rows(contenders, seconds, rates[fastest])


def make_rows(
    contenders: Sequence[Contender], seconds: np.ndarray, peak: np.ndarray
) -> list[dict[str, Any]]:
    """A row per contender, including "NumPy"; ratios are formed within each round.

    Seconds per configuration and epoch are [contenders, rounds]; the peak's GFLOP/s are [rounds].
    """
    numpy_seconds = seconds[[contender.name for contender in contenders].index("NumPy")]
    rows = []
    for (name, problem, _), times in zip(contenders, seconds, strict=True):
        n, d = problem.inputs.shape
        operations = 4 * n * d * problem.dataset.n_classes  # two products of [n, d] with [d, K]
        row = {
            "contender": name,
            "configurations": len(problem.lam),
            "batch_size": problem.batch_size,
            "n": n,
            "d": d,
            **timing.spread("milliseconds", 1e3 * times),
            "gflops": 1e-9 * operations / float(np.median(times)),
            "peak_gflops": float(np.median(peak)),
            **timing.spread("fraction_of_peak", 1e-9 * operations / times / peak),
            **timing.spread("times_numpy", numpy_seconds / times),
        }
        rows.append(row)
    return rows


def check_agreement(contenders: Sequence[Contender]) -> list[float]:
    """Trains every contender for two epochs and compares its parameters with ours.

    The first contender with each number of configurations has to be ours. Returns the seconds of
    each contender's second epoch, by which time everything is compiled. Raises `InputError` if a
    contender differs by more than float32 rounding.
    """
    references: dict[int, Params] = {}
    epoch_seconds = []
    for contender in progress(contenders, len(contenders), lambda c: f"agreement: {c.name}"):
        params, seconds = _train(contender, CHECKED_EPOCHS)
        epoch_seconds.append(seconds[-1])
        reference = references.setdefault(len(contender.problem.lam), params)
        difference = relative_difference(params, reference, contender.problem.start)
        if not difference <= TOLERANCE:  # also true for NaN
            raise InputError(
                f"{contender.name} trains something else than ours: after {CHECKED_EPOCHS} epochs "
                f"a parameter differs by {difference:.1e} of the largest change in training, and "
                f"{TOLERANCE:.0e} is allowed; nothing was timed"
            )
    return epoch_seconds


def relative_difference(params: Params, reference: Params, start: Params) -> float:
    """The largest difference of a parameter over the largest change of one in training.

    The worst of C configurations; weights and biases apart. `start` is [K, d] and [K].
    """
    ratios = []
    for theirs, ours, first in zip(params, reference, start, strict=True):
        axes = tuple(range(1, np.ndim(ours)))
        change = np.abs(ours - first).max(axis=axes)
        ratios.append(np.abs(theirs - ours).max(axis=axes) / change)
    return float(np.max(ratios))  # NaN if any is


def seconds_per_epoch(contender: Contender, n_epochs: int) -> float:
    """Seconds per configuration and epoch of a new training.

    The first epoch contains work that is done once per training, so it counts as one of
    `N_EPOCHS`; the others are represented by their median.
    """
    _, (first, *others) = _train(contender, n_epochs)
    total = first + (N_EPOCHS - 1) * statistics.median(others)
    return total / N_EPOCHS / len(contender.problem.lam)


def _train(contender: Contender, n_epochs: int) -> tuple[Params, list[float]]:
    """The parameters, and the seconds of each epoch of all configurations."""
    marks: list[float] = []
    params = contender.train(contender.problem, n_epochs, lambda: marks.append(time.perf_counter()))
    # A sweep of more than 64 configurations per device has several chunks, each with its own marks.
    return params, np.diff(np.reshape(marks, (-1, n_epochs + 1))).sum(axis=0).tolist()
