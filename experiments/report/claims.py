"""What the report says in words: each statement as a measured quantity, and a verdict."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.common.training import evaluate_models
from experiments.report import plan
from linear_cifar import LOSSES, Dataset, Params, best
from linear_cifar.metrics import Interval, paired_test

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, CONTRADICTED, NOISE = "supported", "contradicted", "within noise"
NOT_TESTED = "one seed: not tested"
BY_SEED, BY_IMAGE = "seed", "test image"  # the pairs of an interval
BEST_OTHER_CELL = "best other cell"  # with another η or λ than 0.001 and 0.1


class Claim(NamedTuple):
    """A statement: `measure` of run a, minus the same of run b, lies between low and high."""

    quote: str  # of the report
    quantity: str
    measure: str  # a column of `measure`
    a: str
    b: str | None = None  # None for 0
    low: float = -math.inf
    high: float = math.inf


CLAIMS = [Claim(**claim) for claim in plan.CLAIMS]


def verdict(interval: Interval, low: float, high: float) -> str:
    """Supported if the interval lies within low to high, contradicted if it lies outside."""
    if interval.n == 1:
        return NOT_TESTED
    if low <= interval.low and interval.high <= high:
        return SUPPORTED
    return CONTRADICTED if interval.high < low or interval.low > high else NOISE


def judge(
    runs: "pd.DataFrame", correct: Mapping[str, np.ndarray], claims: list[Claim] = CLAIMS
) -> "pd.DataFrame":
    """Measures the claims, by default the report's: a row each.

    `runs` has a row per run and seed, and `correct` says by run whether each test image is
    classified correctly, [S, n]. With one seed, test accuracies are paired by image; all else is
    paired by seed.
    """
    import pandas as pd

    rows = []
    for claim in claims:
        quantity, b = claim.quantity, claim.b
        if b == BEST_OTHER_CELL:
            b = _rival(runs)
            quantity = f"{quantity} ({b.removeprefix('grid:')})"
        pair = [runs.loc[runs.name == name, claim.measure].to_numpy(float) for name in (claim.a, b)]
        paired_by = BY_SEED
        if len(pair[0]) == 1 and claim.measure == "test_accuracy" and b:
            pair, paired_by = [correct[name][0] for name in (claim.a, b)], BY_IMAGE
        a, other = pair[0], pair[1] if b else np.zeros(len(pair[0]))
        interval = Interval(*paired_test(a, other)[:3], len(a))
        rows.append({
            "quote": claim.quote, "quantity": quantity, **interval._asdict(),
            "claimed_low": claim.low, "claimed_high": claim.high, "paired_by": paired_by,
            "verdict": verdict(interval, claim.low, claim.high),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _rival(runs: "pd.DataFrame") -> str:
    """The grid's best cell with another η or λ than 0.001 and 0.1."""
    cells = runs[(runs.section == "grid") & ~runs.name.str.endswith("_0.001_0.1")]
    means = cells.groupby("name", sort=False).validation_accuracy.mean()
    return means.index[best(means)]


def measure(
    runs: "pd.DataFrame",
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    data: Mapping[str, Dataset],
) -> tuple["pd.DataFrame", dict[str, np.ndarray]]:
    """Adds to the report's runs the measures that only the claims need.

    `arrays` are by run its parameters and history, each with a leading axis of seeds. Returns the
    table with further columns, NaN for runs without `arrays`; and by run, whether each test image
    is classified correctly, [S, n].
    """
    runs = runs.assign(overfitting=runs.train_accuracy - runs.validation_accuracy)
    correct = {}
    for name, run in arrays.items():
        rows = runs.name == name
        split, loss = runs.loc[rows, ["split", "loss"]].iloc[0]
        dataset, params = data[split], Params(run["weights"], run["bias"])
        examples = evaluate_models(params, dataset.test, dataset, LOSSES[loss])
        correct[name], probability = examples.correct == 1, examples.probability
        accuracies, losses = run["validation_accuracy"], run["validation_loss"]
        middle = losses.shape[1] // 2
        assert dataset.image_shape is not None
        measures = {
            "median_probability": np.median(probability, axis=1),
            "above_0.8": np.mean(probability > 0.8, axis=1),
            "sd_probability": probability.std(axis=1),
            "log_noise": np.log10(run["train_loss"][:, -10:].std(axis=1)),
            "late_loss": losses[:, -1] - losses[:, middle],
            "late_accuracy": accuracies[:, -1] - accuracies[:, middle],
            "roughness": roughness(run["weights"], dataset.image_shape),
        }
        for column, values in measures.items():
            runs.loc[rows, column] = np.asarray(values, float)
    return runs, correct


def roughness(weights: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """How rough weight images are: their total variation over their size.

    Σ (|∂W/∂row| + |∂W/∂column|) / (2 Σ |W − mean|), with differences of neighbouring pixels and the
    mean of each class and channel. Independent noise gives about √2, a smooth image little. A
    factor on W changes nothing, so small weights don't count as smooth.
    Weights are [S, K, d], the shape is (channels, rows, columns), and the result [S].
    """
    images = weights.reshape(*weights.shape[:2], *image_shape)
    axes = (1, 2, 3, 4)
    variation = sum(np.abs(np.diff(images, axis=axis)).mean(axis=axes) for axis in (-2, -1))
    size = np.abs(images - images.mean(axis=(-2, -1), keepdims=True)).mean(axis=axes)
    return variation / (2 * size)
