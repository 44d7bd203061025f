"""What the report says in words: each statement as a measured quantity, and a verdict."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common import grids
from experiments.common.histograms import true_class_probabilities
from experiments.common.results import Result
from experiments.common.settings import Settings
from linear_cifar.data import Dataset
from linear_cifar.metrics import Interval, paired_difference
from linear_cifar.model import Params
from linear_cifar.selection import best as index_of_best
from linear_cifar.training import History

SUPPORTED, CONTRADICTED, NOISE = "supported", "contradicted", "within noise"
BY_SEED, BY_IMAGE, ONE_SEED = "seed", "test image", "one seed, no interval"  # what is paired


class Finished(NamedTuple):
    """A run of the plan, read back from disk; arrays have a leading axis of seeds."""

    settings: Settings
    result: dict[str, Any]
    history: History  # [S, epochs + 1]
    params: Params  # [S, K, d], [S, K]
    test_accuracy: np.ndarray  # [S]


class Claim(NamedTuple):
    """A statement of the report, measured."""

    statement: str
    quantity: str
    interval: Interval
    low: float  # the statement says that the quantity lies between low and high
    high: float
    how: str  # where the interval comes from

    @property
    def verdict(self) -> str:
        """Supported or contradicted where the whole interval says so, else within noise."""
        estimate, low, high, _ = self.interval
        if math.isnan(estimate):
            return NOISE
        if math.isnan(low):
            low = high = estimate
        if self.low <= low and high <= self.high:
            return SUPPORTED
        return CONTRADICTED if high < self.low or low > self.high else NOISE


def judge(
    runs: dict[str, Finished], grid: dict[str, Result], datasets: dict[str, Dataset]
) -> list[Claim]:
    """Measures every claim.

    Args:
      runs: the plan's runs by name.
      grid: the grid's results by key.
      datasets: by split.
    """
    return [
        *_regularisation(runs, datasets["assignment"]),
        *_convergence(runs, datasets["assignment"]),
        *_improvements(runs, grid, datasets),
        *_losses(runs, datasets["assignment"]),
    ]


def roughness(weights: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """How rough weight images are: their total variation over their size.

    Σ (|∂W/∂row| + |∂W/∂column|) / (2 Σ |W − mean|), with differences of neighbouring pixels and the
    mean of each class and channel. Independent noise gives about √2, a smooth image little. A
    factor on W changes nothing, so small weights don't count as smooth.

    Args:
      weights: [S, K, d].
      image_shape: (channels, rows, columns), whose product is d.

    Returns:
      [S], in the dtype of the weights.
    """
    images = weights.reshape(*weights.shape[:2], *image_shape)
    axes = (1, 2, 3, 4)
    variation = sum(np.abs(np.diff(images, axis=axis)).mean(axis=axes) for axis in (-2, -1))
    size = np.abs(images - images.mean(axis=(-2, -1), keepdims=True)).mean(axis=axes)
    return variation / (2 * size)


def _regularisation(runs: dict[str, Finished], data: Dataset) -> list[Claim]:
    none, some, much = (runs[name] for name in ("lam_0", "lam_0.1", "lam_1"))
    shape = data.image_shape
    assert shape is not None

    def rough(run: Finished) -> np.ndarray:
        return roughness(run.params.weights, shape)

    smoother = "Weights get smoother as λ grows"
    underfits = "λ = 1 underfits slightly"
    general = "Generalisation is better with regularisation"
    variation = "total variation of the weight images over their size"
    return [
        _compare(smoother, f"{variation}, λ = 0.1 − λ = 0", rough, some, none, high=0),
        _compare(smoother, f"{variation}, λ = 1 − λ = 0.1", rough, much, some, high=0),
        _compare(underfits, "training accuracy, λ = 1 − λ = 0.1",
                 lambda r: r.history.train_accuracy[:, -1], much, some, high=0),
        _accuracy(underfits, "test accuracy, λ = 1 − λ = 0.1", much, some, data, high=0),
        _compare(general, "training − validation accuracy, λ = 0.1 − λ = 0",
                 _gap, some, none, high=0),
        _accuracy(general, "test accuracy, λ = 0.1 − λ = 0", some, none, data, low=0),
    ]  # fmt: skip


def _convergence(runs: dict[str, Finished], data: Dataset) -> list[Claim]:
    def noise(run: Finished) -> np.ndarray:
        tail = run.history.train_loss[:, -10:]
        return np.log10(tail.std(axis=1))

    fast, slow, full = (runs[name] for name in ("eta_0.1", "lam_0", "full_data"))
    middle = full.history.validation_loss.shape[1] // 2
    diverges = "With η = 0.1 gradient descent does not converge"
    stop = "With all the data, training could have stopped near epoch 20"
    return [
        _compare(diverges, "log₁₀ of the deviation of the training loss over the last ten epochs, "
                 "η = 0.1 − η = 0.001", noise, fast, slow, low=0),
        _accuracy(diverges + ", and accuracy is much worse", "test accuracy, η = 0.1 − η = 0.001",
                  fast, slow, data, high=-0.05),
        _single(stop, "validation loss in nats, last epoch − the middle one; about the same is "
                "within 0.01", full.history.validation_loss[:, -1]
                - full.history.validation_loss[:, middle], -0.01, 0.01),
        _single(stop, "validation accuracy, last epoch − the middle one; about the same is "
                "within 0.005", full.history.validation_accuracy[:, -1]
                - full.history.validation_accuracy[:, middle], -0.005, 0.005),
    ]  # fmt: skip


def _improvements(runs, grid, datasets) -> list[Claim]:
    data = datasets["assignment"]
    base, full, decay, both = (
        runs[name] for name in ("lam_0.1", "full_data", "step_decay", "step_decay_full")
    )
    batches = "Larger or smaller batches don't help"
    best = "The best η and λ are 0.001 and 0.1"
    cell = grid["50_0.001_0.1"]
    rest = [row for key, row in grid.items() if not key.endswith("_0.001_0.1")]
    rival = rest[index_of_best(np.array([row.mean("validation_accuracy") for row in rest]))]
    rival_name = grids.key(rival.settings)
    return [
        _accuracy("All the data adds about one point", "test accuracy, 49,000 − 10,000 images; "
                  "about one point is 0.005 to 0.015", full, base, data, low=0.005, high=0.015),
        *(_cells(batches, f"validation accuracy after 20 epochs, batches of {n} − of 50",
                 grid[f"{n}_0.001_0.1"], cell, high=0) for n in (10, 500)),
        _cells(best, f"validation accuracy after 20 epochs, 50_0.001_0.1 − the best cell with "
               f"another η or λ ({rival_name})", cell, rival, low=0),
        _accuracy("Step decay helps slightly", "test accuracy, step decay − constant η = 0.001",
                  decay, base, data, low=0),
        _accuracy("The improvements don't stack", "test accuracy, step decay on all the data − all "
                  "the data alone; no gain is less than 0.005", both, full, data, high=0.005),
    ]  # fmt: skip


def _losses(runs: dict[str, Finished], data: Dataset) -> list[Claim]:
    binary, softmax = runs["multi_bce"], runs["lam_0"]

    def over_images(statistic: Callable[[np.ndarray], Any]) -> Callable[[Finished], np.ndarray]:
        def value(run: Finished) -> np.ndarray:
            seeds = (Params(*arrays) for arrays in zip(*run.params, strict=True))
            p = (true_class_probabilities(one, run.settings.loss, data)[0] for one in seeds)
            return np.array([statistic(values) for values in p])

        return value

    lower = "Binary cross-entropy is a bit less accurate than softmax"
    skew = "Softmax's probabilities of the true class are skewed to lower values"
    tails = "Softmax's histogram has thinner tails"
    return [
        _accuracy(lower, "test accuracy, binary − softmax, λ = 0", binary, softmax, data, high=0),
        _compare("Binary cross-entropy overfits less", "training − validation accuracy, binary − "
                 "softmax, λ = 0", _gap, binary, softmax, high=0),
        _compare(skew, "median probability of the true class, softmax − binary",
                 over_images(np.median), softmax, binary, high=0),
        _compare(tails, "share of test images whose true class has more than 0.8, softmax − binary",
                 over_images(lambda p: np.mean(p > 0.8)), softmax, binary, high=0),
        _compare(tails, "standard deviation of the probability of the true class, softmax − binary",
                 over_images(np.std), softmax, binary, high=0),
    ]  # fmt: skip


def _gap(run: Finished) -> Any:
    return run.history.train_accuracy[:, -1] - run.history.validation_accuracy[:, -1]


def _single(statement, quantity, values, low=-math.inf, high=math.inf) -> Claim:
    values = np.asarray(values, float)
    interval = paired_difference(values, np.zeros(len(values)))
    return Claim(statement, quantity, interval, low, high, _how(len(values)))


def _how(n_seeds: int) -> str:
    return BY_SEED if n_seeds > 1 else ONE_SEED


def _compare(statement, quantity, measure, a: Finished, b: Finished, **region) -> Claim:
    """A claim on the difference of a quantity between two runs, by seed."""
    return _single(statement, quantity, measure(a) - measure(b), **region)


def _cells(statement, quantity, a: Result, b: Result, **region) -> Claim:
    """A claim on the difference of validation accuracy between two cells of a grid, by seed."""
    name = "validation_accuracy"
    return _single(statement, quantity, a.by_seed[name] - b.by_seed[name], **region)


def _accuracy(
    statement, quantity, a: Finished, b: Finished, data: Dataset, low=-math.inf, high=math.inf
) -> Claim:
    """A claim on a difference of test accuracies: by seed, or of one seed by test image."""
    if len(a.test_accuracy) > 1:
        return _single(statement, quantity, a.test_accuracy - b.test_accuracy, low, high)
    right = [
        true_class_probabilities(jax.tree.map(lambda v: v[0], run.params), run.settings.loss, data)[
            1
        ]
        for run in (a, b)
    ]
    return Claim(statement, quantity, paired_difference(*right), low, high, BY_IMAGE)
