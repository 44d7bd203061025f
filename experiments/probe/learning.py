"""The learning curve: how good a probe is that is fitted to fewer examples."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.common.path import validation_predictions
from experiments.common.progress import Stopwatch, mean_and_sd, progress
from experiments.common.training import evaluate_runs
from linear_cifar import Dataset, InputError, Params, Split, best, solve
from linear_cifar.checks import Setting
from linear_cifar.data import few_shot, fit_standardiser, stratified_subset
from linear_cifar.metrics import summarise
from linear_cifar.optimum import SolveConfig
from linear_cifar.training import device_mesh

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
COLUMNS = ["n", "n_per_class", "draw", "lam", "test_accuracy"]


class Size(NamedTuple):
    """How many training examples are drawn."""

    n: int  # in all
    per_class: int | None  # of each class; None: each class has its share


def define_flags() -> None:
    """Defines the flags of the learning curve."""
    flags.DEFINE_list(
        "n_train",
        [],
        "Numbers of training examples for a learning curve, separated by commas. Each class keeps "
        "its share. Every draw chooses its own λ, on all validation examples.",
    )
    flags.DEFINE_list("n_per_class", [], "The same, with these numbers of examples per class.")
    flags.DEFINE_integer("n_draws", 5, "Draws of each size, from --seed.", 1)


def sizes_from_flags(dataset: Dataset) -> list[Size]:
    """The sizes that the flags name, each once."""
    n_classes, labels = dataset.n_classes, np.asarray(dataset.train.labels)
    fewest = int(np.bincount(labels, minlength=n_classes).min())
    sizes = [Size(n, None) for n in _numbers("n_train", n_classes, len(labels))]
    sizes += [Size(n * n_classes, n) for n in _numbers("n_per_class", 1, fewest)]
    if sizes and not len(dataset.validation.labels):
        raise InputError("--n_train and --n_per_class need validation examples, and no folds")
    return list(dict.fromkeys(sizes))


def _numbers(name: str, low: int, high: int) -> Iterator[int]:
    words: list[str] = FLAGS[name].value or []
    for word in words:
        if not word.strip().isdecimal():
            raise InputError(f"--{name}={word}: it has to be integers, separated by commas")
        Setting("", low=low, high=high).check(f"--{name}", int(word))
        yield int(word)


def learning_curve(
    sizes: Sequence[Size], lam: np.ndarray, dataset: Dataset, config: SolveConfig, watch: Stopwatch
) -> "pd.DataFrame":
    """Fits a path to each draw and tests its best λ on validation examples; a row per draw."""
    import pandas as pd

    draws = [(size, draw) for size in sizes for draw in range(FLAGS.n_draws)]
    with watch.phase("train"):
        rows = ((*size, draw, *_fit_draw(size, draw, lam, dataset, config)) for size, draw in draws)
        finished = progress(rows, len(draws), lambda r: f"{r[0]} examples, accuracy {r[-1]:.4f}")
        return pd.DataFrame(list(finished), columns=COLUMNS)


def _fit_draw(
    size: Size, draw: int, lam: np.ndarray, dataset: Dataset, config: SolveConfig
) -> tuple[float, float]:
    """The chosen λ of a draw, and its test accuracy."""
    key, labels = jax.random.fold_in(jax.random.key(FLAGS.seed), draw), dataset.train.labels
    if size.per_class is None:
        rows = stratified_subset(key, labels, size.n)
    else:
        rows = few_shot(key, labels, size.per_class)
    drawn = dataset.train.inputs[rows]
    subset = replace(
        dataset,
        train=Split(drawn, np.asarray(labels)[rows]),
        standardiser=fit_standardiser(drawn).restricted_to(dataset.standardise),
    )
    stop: Any = partial(validation_predictions, subset)
    optimum = solve(lam, subset, **config._asdict(), mesh=device_mesh(), stop_when_unchanged=stop)
    params = Params(*(np.asarray(a, np.float32) for a in optimum.params))
    validation, test = (
        evaluate_runs(params, lam, split, subset, config.loss) for split in ("validation", "test")
    )
    chosen = best(validation.accuracy, validation.loss, FLAGS.select or "accuracy")
    return float(lam[chosen]), float(test.accuracy[chosen])


def describe(curve: "pd.DataFrame") -> list[tuple[str, str]]:
    """A line per size, for the printed table."""
    lines = []
    for (n, per_class), draws in curve.groupby(["n", "n_per_class"], dropna=False):
        each = "" if np.isnan(per_class) else f", {per_class:.0f} per class"
        lines.append((f"with {n} examples{each}", mean_and_sd(draws.test_accuracy, "draws")))
    return lines


def figures(curve: "pd.DataFrame", title: str) -> dict[str, Any]:
    """The learning curves by shares of the classes, and by examples per class."""
    parts = {"learning_curve": curve.n_per_class.isna(), "few_shot": curve.n_per_class.notna()}
    return {name: plot_curve(curve[part], title) for name, part in parts.items() if part.any()}


def plot_curve(curve: "pd.DataFrame", title: str) -> Any:
    """Test accuracy over the number of training examples, with a point per draw."""
    from linear_cifar.plots import label_axes, new_figure  # matplotlib takes half a second

    sizes = np.unique(curve.n)
    over_draws = [summarise(curve.test_accuracy[curve.n == n].to_numpy()) for n in sizes]
    mean, low, high = np.transpose([(s.mean, s.low, s.high) for s in over_draws])
    low, high = np.clip((low, high), 0, 1)  # with few draws it may reach beyond
    figure = new_figure(title, (6.5, 4.4))
    ax = figure.subplots()
    label = "95 % interval of the mean"
    ax.fill_between(sizes, low, high, color="C0", alpha=0.2, lw=0, label=label)
    ax.plot(sizes, mean, color="C0", label="mean over draws")
    ax.plot(curve.n, curve.test_accuracy, "o", ms=4, color="C0", alpha=0.5, label="a draw", mew=0)
    ax.set_xscale("log")
    label_axes(ax, "training examples", "test accuracy", legend="lower right")
    ax.grid(alpha=0.3, which="minor")
    return figure
