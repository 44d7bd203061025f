"""That contenders do the same as ours: their parameters after two epochs, compared with ours."""

from collections.abc import Sequence

import numpy as np

from experiments.benchmark.contenders import Contender, Task, Trained
from experiments.common.progress import progress
from experiments.common.records import RecordError
from linear_cifar.model import Params

CHECKED_EPOCHS = 2
# The largest difference of a parameter, against the largest change of one by the training. On the
# real and the synthetic images those who agree differ by 2e-6 to 3e-5, and the loop stacked by hand
# by 1e-4, for it rounds 1 − 2ηλ; η or λ wrong by one in a hundred makes 1e-2 or 2e-3.
TOLERANCE = 1e-3


class DisagreementError(RecordError):
    """A contender that trains something else: a record would compare what isn't comparable."""


def check(contenders: Sequence[Contender]) -> None:
    """Trains each contender for two epochs and compares its parameters with those of ours.

    The first contender of a task is ours. Whatever is compiled is compiled here, so that nothing is
    in the turns.

    Raises:
      DisagreementError: a contender differs by more than float32 arithmetic does.
    """
    ours: dict[Task, Params] = {}
    for contender in progress(contenders, len(contenders), lambda of: f"agreement: {of.name}"):
        params = _train(contender)
        difference = relative_difference(
            params, ours.setdefault(contender.task, params), contender.task.examples.start
        )
        if not difference <= TOLERANCE:  # NaN neither
            raise DisagreementError(
                f"{contender.name} doesn't train as ours does: after {CHECKED_EPOCHS} epochs a "
                f"parameter differs by {difference:.1e} of the largest change, where "
                f"{TOLERANCE:.0e} is allowed; nothing is measured"
            )


def relative_difference(theirs: Params, ours: Params, start: Params) -> float:
    """The largest difference of a parameter, against the largest change of one; weights, biases.

    Args:
      theirs: [C, K, d] and [C, K].
      ours: likewise.
      start: what all configurations began with, [K, d] and [K].

    Returns:
      The larger one of the weights' and the biases', of the configuration where it is largest.
    """
    largest = 0.0
    for own, other, first in zip(ours, theirs, start, strict=True):
        axes = tuple(range(1, np.ndim(own)))
        change = np.max(np.abs(np.asarray(own) - first), axis=axes)
        difference = np.max(np.abs(np.asarray(own) - np.asarray(other)), axis=axes)
        largest = np.maximum(largest, np.max(difference / change))  # which keeps NaN
    return float(largest)


def _train(contender: Contender) -> Params:
    states: list[Trained] = []

    def enough(trained: Trained) -> bool:
        states.append(trained)
        return len(states) > CHECKED_EPOCHS

    contender.train(enough)
    return states[-1].params()
