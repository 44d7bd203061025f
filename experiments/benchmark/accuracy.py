"""Seconds to an accuracy, everyone on their own terms."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.contenders import CONFIG, LAM, Examples, Task, installed, train_ours
from experiments.benchmark.measuring import Measured, Setup, measure_seconds
from experiments.benchmark.timing import Turn, seconds_once

ROUNDS = 3  # at most, for scikit-learn takes seconds
PASSES = 20  # at most, of SGDClassifier
ITERATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # of LogisticRegression, to try


class Fit(NamedTuple):
    """How one of scikit-learn's classifiers is fitted with more and more effort."""

    name: str
    attempts: Callable[[], Iterator[tuple[int, Any]]]  # efforts and models, until one is enough
    fit: Callable[[int], object]  # from the beginning, with an effort that was enough
    most: int  # attempts


def accuracy(setup: Setup) -> Measured:
    """Seconds to the validation accuracy of ten epochs of ours.

    scikit-learn's classifiers take standardised images and their own defaults, with the same λ; how
    long they have to go on is found before they are timed.
    """
    examples = setup.examples()
    n_epochs = 1 if setup.quick else 10
    unseen = examples.standardise(setup.dataset.validation.inputs)
    right = np.asarray(setup.dataset.validation.labels)
    train = partial(train_ours, Task(examples), CONFIG._replace(n_epochs=n_epochs))
    params = train()  # compiles, too
    scores = unseen @ params.weights[0].T + params.bias[0]
    target = float(np.mean(np.argmax(scores, axis=1) == right))
    turns = [Turn(f"ours: {target:.4f} in {n_epochs} epochs", partial(seconds_once, train))]
    for fit in _fits(examples, setup.quick) if installed("sklearn") else ():
        turns.append(_turn(fit, target, unseen, right))
    rounds = min(ROUNDS, setup.n_rounds)
    return Measured(measure_seconds(turns, rounds, setup.seed, ours=0))


def _fits(examples: Examples, quick: bool) -> list[Fit]:
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    inputs, labels = examples.standardised

    def passes() -> Iterator[tuple[int, Any]]:
        model = SGDClassifier(loss="log_loss", alpha=2 * LAM, random_state=0)
        for n_passes in itertools.count(1):
            yield n_passes, model.partial_fit(inputs, labels, classes=np.unique(labels))

    def logistic(n_iterations: int) -> Any:
        model = LogisticRegression(C=1 / (2 * LAM * len(labels)), max_iter=n_iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # too few iterations to converge, on purpose
            return model.fit(inputs, labels)

    def iterations() -> Iterator[tuple[int, Any]]:
        return ((n, logistic(n)) for n in ITERATIONS)

    most = (1, 1) if quick else (PASSES, len(ITERATIONS))
    return [
        Fit("SGDClassifier", passes, lambda n: list(itertools.islice(passes(), n)), most[0]),
        Fit("LogisticRegression", iterations, logistic, most[1]),
    ]


def _turn(fit: Fit, target: float, unseen: np.ndarray, right: np.ndarray) -> Turn:
    """A classifier's turn, with the first effort that meets the target, or else with the last."""
    name = f"scikit-learn {fit.name}"
    for effort, model in itertools.islice(fit.attempts(), fit.most):
        needed, reached = effort, model.score(unseen, right)
        if reached >= target:
            break
    else:
        name += f": {reached:.4f} after {fit.most} tries"
    return Turn(name, partial(seconds_once, partial(fit.fit, needed)))
