"""Tables of configurations to train, and the choice of the best by validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import check_choice, real_numbers
from linear_cifar.errors import InputError


def grid(**axes: Sequence) -> dict[str, np.ndarray]:
    """Every combination of the values of some columns, arrays [C], the last one varying fastest.

    The values of a column are numbers, text, or objects such as losses; `np.geomspace` gives
    numbers at equal ratios.

    Examples:
      >>> grid(learning_rate=[0.1, 0.2], lam=[0.0, 1.0])["lam"].tolist()
      [0.0, 1.0, 0.0, 1.0]
    """
    columns = np.meshgrid(*map(_column, axes.values()), indexing="ij")
    return {name: column.ravel() for name, column in zip(axes, columns, strict=True)}


def random_grid(seed: int, n: int, **axes: Any) -> dict[str, np.ndarray]:
    """Draws n random combinations, as in random search; the columns as `grid` returns them.

    A column's values are a frozen distribution of `scipy.stats`, for example `loguniform(1e-5, 1)`,
    or a sequence of values that are equally likely. Its draws don't depend on the other columns.
    """
    columns = {}
    generators = np.random.default_rng(seed).spawn(len(axes))
    for generator, (name, axis) in zip(generators, axes.items(), strict=True):
        if hasattr(axis, "rvs"):
            columns[name] = axis.rvs(size=n, random_state=generator)
        else:
            columns[name] = _column(axis)[generator.integers(len(axis), size=n)]
    return columns


def ranking(accuracy: ArrayLike, loss: ArrayLike | None = None, by: str = "accuracy") -> np.ndarray:
    """The indices [C] of the configurations, the best first, by validation accuracy and loss.

    Args:
      accuracy: [C]; NaN for a configuration that diverged. Those come last.
      loss: [C], in nats; None if it is unknown.
      by: "accuracy": the higher one first, ties by the lower loss; or "loss": the lower one first,
        ties by the higher accuracy. Configurations equal in both keep their order.
    """
    loss = np.zeros(np.shape(accuracy)) if loss is None else loss
    accuracies, losses = _numbers(by, accuracy=accuracy, loss=loss)
    keys = (losses, -accuracies) if by == "accuracy" else (-accuracies, losses)
    diverged = ~(np.isfinite(accuracies) & np.isfinite(losses))
    return np.lexsort((*keys, diverged))


def best(accuracy: ArrayLike, loss: ArrayLike | None = None, by: str = "accuracy") -> int:
    """The first of the `ranking`; `InputError` if all diverged or there is no validation data."""
    order = ranking(accuracy, loss, by)
    if not np.any(np.isfinite(accuracy) & np.isfinite(0 if loss is None else loss)):
        raise InputError("all configurations diverged, or there is no validation data to rank them")
    return int(order[0])


def one_standard_error(
    lam: ArrayLike, mean: ArrayLike, error: ArrayLike, by: str = "accuracy"
) -> int:
    """The index of the largest λ whose mean is within one standard error of the best mean.

    Args:
      lam: λ, [C].
      mean: the mean accuracy, or the mean loss in nats, over folds or examples, [C].
      error: the standard error of the mean, [C]; NaN counts as 0.
      by: which one `mean` is, "accuracy" or "loss".

    References:
      L. Breiman et al., Classification and Regression Trees, 1984; `lambda.1se` in glmnet.
    """
    lams, means, errors = _numbers(by, lam=lam, mean=mean, error=error)
    scores = means if by == "accuracy" else -means
    first = best(scores)
    near = scores >= scores[first] - np.nan_to_num(errors[first])
    return int(np.argmax(np.where(near, lams, -np.inf)))


def _column(values: Sequence) -> np.ndarray:
    """Values as an array [C]."""
    if any(isinstance(value, tuple) or callable(value) for value in values):
        return np.fromiter(values, object, len(values))  # np.array would tear a Loss apart
    return np.array(values)


def _numbers(by: str, **columns: ArrayLike) -> list[np.ndarray]:
    """The columns as float64 arrays of one shape, [C]; checks them and `by`."""
    check_choice("by", by, ("accuracy", "loss"))
    arrays = [real_numbers(name, values).astype(float) for name, values in columns.items()]
    if any(array.shape != (arrays[0].size,) for array in arrays):
        raise InputError(f"{', '.join(columns)} all have to be [C], of one length")
    return arrays
