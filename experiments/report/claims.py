"""What the report says in words: each statement as a measured quantity, and a verdict."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from linear_cifar import LOSSES, Dataset, Params, best
from linear_cifar.metrics import Interval, evaluate_examples, paired_difference

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, CONTRADICTED, NOISE = "supported", "contradicted", "within noise"
NOT_TESTED = "one seed: not tested"
BY_SEED, BY_IMAGE = "seed", "test image"  # the pairs of an interval
ANY_KEY = "grid:another η or λ"  # the best cell with another η or λ than 0.001 and 0.1


class Claim(NamedTuple):
    """A statement: `measure` of run a, minus the same of run b, lies between low and high."""

    quote: str  # of the report
    quantity: str
    measure: str  # a column of `measure`
    a: str
    b: str | None  # None for 0
    low: float = -math.inf
    high: float = math.inf


SMOOTHER = (
    "We notice that when regularization increases the learned weights are “smoother”, as if "
    "anti-aliasing was applied to the pictures."
)
GENERAL = "As expected, generalization is better overall …"
UNDERFIT = (
    "… but when λ is too high (1.0 for example), there is a slight underfitting, thus reducing the "
    "accuracy on test data."
)
DIVERGES = (
    "We also notice that when the learning rate is too high (η = 0.1), the gradient descent "
    "doesn't converge and the accuracy is much worse than usual."
)
STOP = (
    "However, we notice that we could have stop around the twentieth epoch and we would have got "
    "approximately the same losses, so we could save some time here."
)
MORE_DATA = "The accuracy has increased by approximately 1% …"
BATCHES = (
    "We notice that increasing n_batches or decreasing it too much doesn't really improve "
    "performance …"
)
BEST = (
    "… and that the best values for η and λ are the ones we had already found, namely 0.001 and "
    "0.1."
)
DECAY = "It's slightly better than the original performance."
STACK = (
    "It seems like the individual improvements do not stack up to give a significant improvement."
)
LOWER = "The accuracy is a bit lower than for the cross-entropy + softmax case …"
OVERFIT = "… but there seems to be less overfitting even without regularization."
SKEWED = (
    "We notice that the histograms for the softmax + cross-entropy training are slightly more "
    "skewed towards lower probabilities …"
)
TAILS = "… with noticeably thinner tails …"

_ROUGH = "total variation of the weight images over their size"
_LAM_1, _LAM_01 = "(λ = 1) − (λ = 0.1)", "(λ = 0.1) − (λ = 0)"
_ETA = "(η = 0.1) − (η = 0.001)"
_LOSSES = ("multi_bce", "lam_0")
CELL = "grid:{}_0.001_0.1"
CLAIMS = [
    Claim(SMOOTHER, f"{_ROUGH}, {_LAM_01}", "roughness", "lam_0.1", "lam_0", high=0),
    Claim(SMOOTHER, f"{_ROUGH}, {_LAM_1}", "roughness", "lam_1", "lam_0.1", high=0),
    Claim(GENERAL, f"training − validation accuracy, {_LAM_01}",
          "overfitting", "lam_0.1", "lam_0", high=0),
    Claim(GENERAL, f"test accuracy, {_LAM_01}", "test_accuracy", "lam_0.1", "lam_0", low=0),
    Claim(UNDERFIT, f"training accuracy, {_LAM_1}", "train_accuracy", "lam_1", "lam_0.1", high=0),
    Claim(UNDERFIT, f"test accuracy, {_LAM_1}", "test_accuracy", "lam_1", "lam_0.1", high=0),
    Claim(DIVERGES, f"log₁₀ of the training loss's standard deviation over the last ten epochs, "
          f"{_ETA}", "log_noise", "eta_0.1", "lam_0", low=0),
    Claim(DIVERGES, f"test accuracy, {_ETA}; “much worse” is 0.05",
          "test_accuracy", "eta_0.1", "lam_0", high=-0.05),
    Claim(STOP, "validation loss in nats with all the data, last epoch − the middle one; “the "
          "same” is within 0.01", "late_loss", "full_data", None, -0.01, 0.01),
    Claim(STOP, "validation accuracy with all the data, last epoch − the middle one; “the same” "
          "is within 0.005", "late_accuracy", "full_data", None, -0.005, 0.005),
    Claim(MORE_DATA, "test accuracy, (49,000 images) − (10,000 images); “1%” is 0.005 to 0.015",
          "test_accuracy", "full_data", "lam_0.1", 0.005, 0.015),
    *(Claim(BATCHES, f"validation accuracy after 20 epochs, (batches of {n}) − (batches of 50)",
            "validation_accuracy", CELL.format(n), CELL.format(50), high=0) for n in (10, 500)),
    Claim(BEST, "validation accuracy after 20 epochs, 50_0.001_0.1 − the best cell with another η "
          "or λ", "validation_accuracy", CELL.format(50), ANY_KEY, low=0),
    Claim(DECAY, "test accuracy, (step decay) − (constant η = 0.001)",
          "test_accuracy", "step_decay", "lam_0.1", low=0),
    Claim(STACK, "test accuracy, (step decay on all the data) − (all the data alone); no gain is "
          "less than 0.005", "test_accuracy", "step_decay_full", "full_data", high=0.005),
    Claim(LOWER, "test accuracy, binary − softmax, λ = 0", "test_accuracy", *_LOSSES, high=0),
    Claim(OVERFIT, "training − validation accuracy, binary − softmax, λ = 0",
          "overfitting", *_LOSSES, high=0),
    Claim(SKEWED, "median probability of the true class, softmax − binary",
          "median_probability", *_LOSSES[::-1], high=0),
    Claim(TAILS, "share of test images whose true class has more than 0.8, softmax − binary",
          "above_0.8", *_LOSSES[::-1], high=0),
    Claim(TAILS, "standard deviation of the probability of the true class, softmax − binary",
          "sd_probability", *_LOSSES[::-1], high=0),
]  # fmt: skip


def verdict(interval: Interval, low: float, high: float) -> str:
    """Supported if the interval lies within low to high, contradicted if it lies outside."""
    if interval.n == 1:
        return NOT_TESTED
    if low <= interval.low and interval.high <= high:
        return SUPPORTED
    return CONTRADICTED if interval.high < low or interval.low > high else NOISE


def judge(
    runs: "pd.DataFrame", correct: Mapping[str, np.ndarray], claims: list[Claim] | None = None
) -> "pd.DataFrame":
    """Measures the claims: a row each.

    Args:
      runs: a row per run and seed, with "name" and the measures that the claims compare.
      correct: by run, whether each test image is classified correctly [S, n]. With one seed, test
        accuracies are paired by image; all else is paired by seed.
      claims: by default the report's.
    """
    import pandas as pd

    rows = []
    for claim in CLAIMS if claims is None else claims:
        quantity, b = claim.quantity, claim.b
        if b == ANY_KEY:
            b = _rival(runs)
            quantity = f"{quantity} ({b.removeprefix('grid:')})"
        pair = [runs.loc[runs.name == name, claim.measure].to_numpy(float) for name in (claim.a, b)]
        paired_by = BY_SEED
        if len(pair[0]) == 1 and claim.measure == "test_accuracy" and b:
            pair, paired_by = [correct[name][0] for name in (claim.a, b)], BY_IMAGE
        interval = paired_difference(pair[0], pair[1] if b else np.zeros(len(pair[0])))
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

    Args:
      runs: a row per run and seed, with the accuracies.
      arrays: by run its parameters and history, each with a leading axis of seeds.
      data: by split.

    Returns:
      The table with further columns, NaN for runs without `arrays`; and by run, whether each test
      image is classified correctly, [S, n].
    """
    runs = runs.assign(overfitting=runs.train_accuracy - runs.validation_accuracy)
    correct = {}
    for name, run in arrays.items():
        rows = runs.name == name
        split, loss = runs.loc[rows, ["split", "loss"]].iloc[0]
        examples = test_examples(Params(run["weights"], run["bias"]), data[split], loss)
        correct[name] = np.asarray(examples.correct == 1)
        measures = _of_probabilities(np.asarray(examples.probability)) | _of_history(run)
        image_shape = data[split].image_shape
        assert image_shape is not None
        measures["roughness"] = roughness(run["weights"], image_shape)
        for column, values in measures.items():
            runs.loc[rows, column] = np.asarray(values, float)
    return runs, correct


def test_examples(params: Params, dataset: Dataset, loss: str) -> Any:
    """`evaluate_examples` of each test image, by models [S, K, d] and [S, K]."""
    evaluate: Callable = partial(evaluate_examples, loss=LOSSES[loss])
    return jax.vmap(evaluate, in_axes=(0, None, None))(params, dataset.test, dataset.standardiser)


def _of_probabilities(probability: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "median_probability": np.median(probability, axis=1),
        "above_0.8": np.mean(probability > 0.8, axis=1),
        "sd_probability": probability.std(axis=1),
    }


def _of_history(run: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    loss, accuracy = run["validation_loss"], run["validation_accuracy"]
    middle = loss.shape[1] // 2
    return {
        "log_noise": np.log10(run["train_loss"][:, -10:].std(axis=1)),
        "late_loss": loss[:, -1] - loss[:, middle],
        "late_accuracy": accuracy[:, -1] - accuracy[:, middle],
    }


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
