"""Sections `single` and `sweep`: gradient descent against NumPy, PyTorch and the machine's peak."""

import statistics
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from experiments.benchmark import contenders as by
from experiments.benchmark.contenders import Contender, Problem
from experiments.benchmark.timing import TURN_SECONDS, Options, matmul_turn, take_turns
from experiments.common.progress import progress
from linear_cifar import InputError, autodiff_gradient
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
    contenders = [
        Contender("ours", problem, by.ours),
        Contender("ours, autodiff", problem, partial(by.ours, gradient=autodiff_gradient)),
        Contender("NumPy", problem, by.numpy_loop),
    ]
    if find_spec("torch"):
        contenders.append(Contender("PyTorch nn.Linear", problem, by.torch_linear))
    return measure(contenders, options)


def sweep(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of 1 to 256 configurations at once; PyTorch trains 32 at once, and NumPy one."""
    problem = by.make_problem(dataset, options.seed, options.batch_size)

    def several(c: int) -> Problem:
        return problem._replace(lam=np.geomspace(1e-4, 1, c)) if c > 1 else problem

    counts, n_torch = ((1, 4), 4) if options.quick else (CONFIGURATIONS, 32)
    contenders = [Contender("ours", several(c), by.ours) for c in counts]
    contenders.append(Contender("NumPy", problem, by.numpy_loop))
    if find_spec("torch"):
        name = "PyTorch, stacked by hand"
        contenders.append(Contender(name, several(n_torch), by.torch_stacked))
    return measure(contenders, options)


def measure(contenders: Sequence[Contender], options: Options) -> list[dict[str, Any]]:
    """A row per contender, timed in turns with the others and the matrix product.

    "NumPy" has to be among them. Ratios are formed within each round.
    """
    turns = [("matrix product", matmul_turn())]
    for contender, seconds in zip(contenders, check_agreement(contenders), strict=True):
        n_epochs = int(np.clip(TURN_SECONDS / seconds, 2, N_EPOCHS))
        turns.append((contender.name, partial(seconds_per_epoch, contender, n_epochs)))
    peak, *samples = take_turns(turns, options.n_rounds, options.seed)  # each is [rounds]
    numpy_seconds = samples[[contender.name for contender in contenders].index("NumPy")]
    rows = []
    for (name, problem, _), seconds in zip(contenders, samples, strict=True):
        n, d = problem.inputs.shape
        gflop = 4e-9 * n * d * problem.dataset.n_classes  # two products of [n, d] with [d, K]
        row = {
            "contender": name,
            "configurations": len(problem.lam),
            "batch_size": problem.batch_size,
            "n": n,
            "d": d,
            **quartiles("milliseconds", 1e3 * seconds),
            "gflops": gflop / float(np.median(seconds)),
            "peak_gflops": float(np.median(peak)),
            **quartiles("fraction_of_peak", gflop / seconds / peak),
            **quartiles("times_numpy", numpy_seconds / seconds),
        }
        rows.append(row)
    return rows


def quartiles(name: str, values: np.ndarray) -> dict[str, float]:
    """Columns of a row: the median over rounds, and the quartiles as NAME_q1 and NAME_q3."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {name: median, f"{name}_q1": q1, f"{name}_q3": q3}


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
        arrays = zip(params, reference, contender.problem.start, strict=True)
        difference = np.max(  # NaN if any is
            [abs(theirs - ours).max() / abs(ours - start).max() for theirs, ours, start in arrays]
        )
        if not difference <= TOLERANCE:  # also true for NaN
            raise InputError(
                f"{contender.name} trains something else than ours: after {CHECKED_EPOCHS} epochs "
                f"a parameter differs by {difference:.1e} of the largest change in training, and "
                f"{TOLERANCE:.0e} is allowed; nothing was timed"
            )
    return epoch_seconds


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
