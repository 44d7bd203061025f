"""The report's runs of gradient descent, to see how far from the optimum each one stopped."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.common import runs as training
from experiments.common.progress import Stopwatch
from experiments.common.settings import Settings
from experiments.report import plan
from linear_cifar.data import Dataset

N_EPOCHS = Settings().n_epochs


class Stopped(NamedTuple):
    """A run of gradient descent, trained."""

    title: str
    lam: float
    outcome: training.Outcome


def runs(split: str, loss: str) -> list[plan.Run]:
    """Those with a penalty, without which there may be no optimum."""
    return [
        run
        for run in plan.every_run().values()
        if (run.settings.split, run.settings.loss, run.settings.n_epochs) == (split, loss, N_EPOCHS)
        and run.lam > 0
    ]


def train(chosen: Sequence[plan.Run], dataset: Dataset, watch: Stopwatch) -> list[Stopped]:
    """Trains them, from the plan's seed.

    Raises:
      KeyboardInterrupt: an interrupt came before the end.
    """
    if not chosen:
        return []
    outcomes = training.train([run.settings for run in chosen], dataset, watch)
    if any(outcome.interrupted for outcome in outcomes):
        raise KeyboardInterrupt
    return [
        Stopped(run.title, run.lam, outcome) for run, outcome in zip(chosen, outcomes, strict=True)
    ]
