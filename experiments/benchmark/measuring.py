"""What a section is given and gives, and the two ways in which one comes to its rows."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from experiments.benchmark import agreement, limits
from experiments.benchmark.contenders import Contender, Examples, is_numpy
from experiments.benchmark.timing import Turn, seconds_an_epoch, spread, take_turns
from linear_cifar.data import Dataset

Rows: TypeAlias = list[dict[str, Any]]


class Setup(NamedTuple):
    """What a section is given."""

    dataset: Dataset
    data_dir: str | None  # where the data are, for those who load them again
    seed: int  # of the initial parameters and of the orders of turns
    n_rounds: int
    quick: bool  # few sizes

    def examples(self, dataset: Dataset | None = None) -> Examples:
        """What contenders learn from: the data set, or another one."""
        return Examples(dataset or self.dataset, jax.random.key(self.seed))


class Measured(NamedTuple):
    """What a section gives."""

    rows: Rows
    peaks: Sequence[float] = ()  # GFLOP/s of matrix products, of every round


def measure_training(contenders: Sequence[Contender], setup: Setup) -> Measured:
    """Checks that contenders agree, and times them in turns with the machine's matrix product.

    Args:
      contenders: the first one of each task is ours.
      setup: with the number of rounds.

    Returns:
      A row a contender; ratios are formed round by round.

    Raises:
      DisagreementError: a contender trains something else than ours.
    """
    agreement.check(contenders)
    turns = [Turn(of.name, partial(seconds_an_epoch, of)) for of in contenders]
    samples = take_turns([*turns, *limits.peak_turns(setup.quick)], setup.n_rounds, setup.seed)
    seconds, peak = samples[: len(turns)], limits.peak(samples[len(turns) :])
    rows = []
    for contender, of_contender in zip(contenders, seconds, strict=True):
        loops = [i for i, other in enumerate(contenders) if _is_reference(other, contender)]
        row = _row(contender, of_contender, peak)
        if loops:
            fastest = loops[int(np.argmin(np.median(seconds[loops], axis=1)))]
            row |= spread("times_numpy", seconds[fastest] / of_contender)
        rows.append(row)
    return Measured(rows, peak.tolist())


def _is_reference(other: Contender, contender: Contender) -> bool:
    """Whether it is a NumPy loop with the same examples and batches."""
    same = (other.task.examples, other.task.batch_size)
    return is_numpy(other) and same == (contender.task.examples, contender.task.batch_size)


def _row(contender: Contender, seconds: np.ndarray, peak: np.ndarray) -> dict[str, Any]:
    """A contender's row, of its seconds and the peak's GFLOP/s in each round."""
    task, dataset = contender.task, contender.task.examples.dataset
    n, d = dataset.train.inputs.shape
    operations = 4 * n * d * dataset.n_classes  # two products of [n, d] with [d, K] an epoch
    times = spread("milliseconds", 1e3 * seconds)
    return {
        "contender": contender.name,
        "configurations": task.n_configurations,
        "batch_size": task.batch_size,
        "n": n,
        "d": d,
        **times,
        "gflops": 1e-6 * operations / times["milliseconds"],
        "peak_gflops": float(np.median(peak)),
        **spread("fraction_of_peak", 1e-9 * operations / seconds / peak),
    }


def measure_seconds(
    turns: Sequence[Turn], n_rounds: int, seed: int, ours: int | None = None
) -> Rows:
    """Times things that have seconds and nothing else, in turns.

    Args:
      turns: each measures its own seconds.
      n_rounds: how often.
      seed: of the orders.
      ours: which turn the others are compared with, round by round; None for none.

    Returns:
      A row a turn, under its name.
    """
    samples = take_turns(turns, n_rounds, seed)
    rows = []
    for turn, seconds in zip(turns, samples, strict=True):
        row = {"contender": turn.name, **spread("seconds", seconds)}
        if ours is not None:
            row |= spread("times_ours", seconds / samples[ours])
        rows.append(row)
    return rows
