"""Tables of configurations to train, and the choice of the best by validation."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from linear_cifar.settings import SettingsError, numbers


def grid(**axes: Sequence) -> dict[str, np.ndarray]:
    """Every combination of the values of some columns, the last one varying fastest.

    Args:
      **axes: values by column, for example of fields of `Hyperparameters`; `np.geomspace` gives
        values at equal ratios.

    Returns:
      The columns, numpy arrays [C].

    Examples:
      >>> grid(learning_rate=[0.1, 0.2], lam=[0.0, 1.0])["lam"].tolist()
      [0.0, 1.0, 0.0, 1.0]
    """
    columns = zip(*itertools.product(*axes.values()), strict=True)
    return {name: np.array(column) for name, column in zip(axes, columns, strict=True)}


def draw(seed: int, n: int, **axes: Any) -> dict[str, np.ndarray]:
    """Random combinations, as in random search.

    Args:
      seed: of the draws.
      n: configurations C to draw.
      **axes: by column a frozen distribution of `scipy.stats`, `loguniform(1e-5, 1)` for example,
        or a sequence of values that are equally likely.

    Returns:
      The columns, numpy arrays [C]; that of an axis doesn't depend on the other axes' values.

    Examples:
      >>> from scipy.stats import loguniform
      >>> table = draw(0, 5, lam=loguniform(1e-3, 1), batch_size=[50, 100])
      >>> table["lam"].shape, bool((table["lam"] >= 1e-3).all())
      ((5,), True)
    """
    columns = {}
    for generator, (name, axis) in zip(
        np.random.default_rng(seed).spawn(len(axes)), axes.items(), strict=True
    ):
        if hasattr(axis, "rvs"):
            columns[name] = axis.rvs(size=n, random_state=generator)
        else:
            columns[name] = np.array(axis)[generator.integers(len(axis), size=n)]
    return columns


def ranking(
    accuracy: np.ndarray, loss: np.ndarray | None = None, by: str = "accuracy"
) -> np.ndarray:
    """The configurations in order, the best first, by their figures on validation data.

    Args:
      accuracy: [C]; NaN for a configuration that diverged, which comes last.
      loss: [C], in nats; None where it is not known.
      by: "accuracy", of equal ones the lower loss; or "loss", of equal ones the higher accuracy.
        What is equal in both stays in the order of the table.

    Returns:
      Indices [C].

    Raises:
      SettingsError: the figures are not [C], or `by` is neither.
    """
    _check_by(by)
    if loss is None:
        loss = np.zeros(np.shape(numbers("accuracy", accuracy)))
    accuracy, losses = _figures(accuracy=accuracy, loss=loss)
    diverged = ~(np.isfinite(accuracy) & np.isfinite(losses))
    keys = {"accuracy": -accuracy, "loss": losses}
    first = keys.pop(by)
    (second,) = keys.values()
    return np.lexsort((second, first, diverged))


def best(accuracy: np.ndarray, loss: np.ndarray | None = None, by: str = "accuracy") -> int:
    """The first of the `ranking`.

    Raises:
      SettingsError: as `ranking`; or no configuration has finite figures: all diverged, or there
        is no validation data.
    """
    order = ranking(accuracy, loss, by)
    if not len(order):
        raise SettingsError("there is no configuration to choose")
    first = int(order[0])
    if not (np.isfinite(accuracy[first]) and (loss is None or np.isfinite(loss[first]))):
        raise SettingsError(
            "no configuration has finite figures: all diverged, or there is no validation data"
        )
    return first


def one_standard_error(
    lam: np.ndarray, mean: np.ndarray, error: np.ndarray, by: str = "accuracy"
) -> int:
    """The most regularised configuration that is as good as the best one, within its error.

    That is the largest λ whose mean is no further from the best one's than the standard error of
    that (L. Breiman et al., Classification and Regression Trees, 1984; glmnet's `lambda.1se`).

    Args:
      lam: λ, [C].
      mean: [C], of folds or of examples; accuracy, or loss in nats.
      error: its standard error, [C].
      by: what `mean` is, "accuracy" or "loss".

    Returns:
      The index.

    Raises:
      SettingsError: no mean is finite, or what is given has another form.

    Examples:
      >>> accuracy, error = np.array([0.80, 0.79, 0.5]), np.full(3, 0.02)
      >>> one_standard_error(np.array([0.1, 1.0, 10.0]), accuracy, error)
      1
    """
    _check_by(by)
    lam, mean, error = _figures(lam=lam, mean=mean, error=error)
    worse = mean * (-1 if by == "accuracy" else 1)
    if not np.isfinite(worse).any():
        raise SettingsError("no configuration has finite figures")
    first = int(np.nanargmin(worse))
    near = worse <= worse[first] + np.nan_to_num(error[first])
    return int(np.argmax(np.where(near, lam, -np.inf)))


def _figures(**of_configurations: Any) -> list[np.ndarray]:
    """Numbers of configurations as arrays [C], float64."""
    arrays = [numbers(name, of).astype(float) for name, of in of_configurations.items()]
    if arrays[0].ndim != 1 or len({array.shape for array in arrays}) > 1:
        names, shapes = (
            f"{', '.join(map(str, words[:-1]))} and {words[-1]}"
            for words in (list(of_configurations), [array.shape for array in arrays])
        )
        raise SettingsError(f"{names} have to be [C]: they are {shapes}")
    return arrays


def _check_by(by: Any) -> None:
    if not isinstance(by, str) or by not in ("accuracy", "loss"):
        raise SettingsError(f"by is {by!r}: it has to be accuracy or loss")
