"""The learning curve: how good a probe is that is fitted to fewer examples."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.common.progress import Stopwatch, progress
from experiments.common.solving import predictions_of
from experiments.common.training import evaluate_runs
from linear_cifar.checks import Setting
from linear_cifar.data import (
    Dataset,
    Split,
    few_shot,
    fit_standardiser,
    stratified_subset,
)
from linear_cifar.errors import InputError
from linear_cifar.metrics import Summary, summarise
from linear_cifar.model import Params
from linear_cifar.optimum import SolveConfig, solve
from linear_cifar.selection import best
from linear_cifar.training import device_mesh

FLAGS = flags.FLAGS


class Size(NamedTuple):
    """How many examples are drawn."""

    n: int  # in all
    per_class: int | None  # of each class; None: each class has its share


class Point(NamedTuple):
    """What the draws of a size gave."""

    size: Size
    lam: list[float]  # chosen, a draw each
    accuracy: list[float]  # of the test examples
    over_draws: Summary


def define_flags() -> None:
    """Defines the flags of the learning curve."""
    flags.DEFINE_list(
        "n_train",
        [],
        "Numbers of training examples to fit to as well, for a learning curve: each class has its "
        "share of them. λ is chosen anew for each draw, on all validation examples.",
    )
    flags.DEFINE_list("n_per_class", [], "The same with so many examples of each class.")
    flags.DEFINE_integer("n_draws", 5, "Draws of each size, from --seed; at least 1.", 1)


def sizes(dataset: Dataset) -> list[Size]:
    """The sizes that the flags name.

    Raises:
      InputError: one of them can't be drawn, or there are no validation examples.
    """
    labels = np.asarray(dataset.train.labels)
    counts = np.bincount(labels, minlength=dataset.n_classes)
    of_share = Setting("", low=dataset.n_classes, high=len(labels))
    of_class = Setting("", low=1, high=int(counts.min()))
    asked = [Size(n, None) for n in _numbers("n_train", of_share)]
    asked += [Size(n * dataset.n_classes, n) for n in _numbers("n_per_class", of_class)]
    if asked and not len(dataset.validation.labels):
        raise InputError("--n_train and --n_per_class need validation examples, and no folds")
    return asked


def _numbers(name: str, setting: Setting) -> Iterator[int]:
    words: list[str] = FLAGS[name].value or []
    for word in words:
        if not word.strip().isdecimal():
            raise InputError(f"--{name}={word}: it has to be integers, separated by commas")
        setting.check(f"--{name}", int(word))
        yield int(word)


def measure(
    asked: Sequence[Size], lam: np.ndarray, dataset: Dataset, how: SolveConfig, watch: Stopwatch
) -> list[Point]:
    """Fits a path to each draw, and tests the λ that is best on the validation examples."""
    draws = [(size, i) for size in asked for i in range(FLAGS.n_draws)]
    found: dict[Size, list[tuple[float, float]]] = {}

    def fitted() -> Iterator[tuple[Size, float, float]]:
        for size, i in draws:
            with watch.phase("train"):
                yield (size, *_draw(size, i, lam, dataset, how))

    shown = progress(
        fitted(), len(draws), lambda of: f"{of[0].n} examples, test accuracy {of[2]:.4f}"
    )
    for size, chosen, accuracy in shown:
        found.setdefault(size, []).append((chosen, accuracy))
    return [
        Point(size, [a for a, _ in of], [b for _, b in of], summarise(np.array([b for _, b in of])))
        for size, of in found.items()
    ]


def _draw(
    size: Size, i: int, lam: np.ndarray, dataset: Dataset, how: SolveConfig
) -> tuple[float, float]:
    """The chosen λ of a draw, and its test accuracy."""
    key, labels = jax.random.fold_in(jax.random.key(FLAGS.seed), i), dataset.train.labels
    if size.per_class is None:
        rows = stratified_subset(key, labels, size.n)
    else:
        rows = few_shot(key, labels, size.per_class)
    inputs = dataset.train.inputs
    drawn = inputs[rows]
    few = replace(
        dataset,
        train=Split(drawn, np.asarray(labels)[rows]),
        standardiser=fit_standardiser(drawn).restricted_to(dataset.standardise),
    )
    unchanged = partial(predictions_of, few)
    optimum = solve(lam, few, **how._asdict(), mesh=device_mesh(), stop_when_unchanged=unchanged)
    params = Params(*(np.asarray(a, np.float32) for a in optimum.params))
    of_validation, of_test = (
        evaluate_runs(params, lam, split, few, how.loss) for split in ("validation", "test")
    )
    chosen = best(of_validation.accuracy, of_validation.loss, FLAGS.select)
    return float(lam[chosen]), float(of_test.accuracy[chosen])
