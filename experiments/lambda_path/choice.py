"""The choice of λ on examples that were not fitted to."""

from typing import NamedTuple

from experiments.lambda_path.solving import Path
from linear_cifar.search import best, one_standard_error


class Choice(NamedTuple):
    """Places in the path."""

    best: int
    one_standard_error: int  # the largest λ within one standard error of the best
    chosen: int  # one of both
    by: str  # what it rests on


def choose(path: Path, select: str, within_error: bool) -> Choice:
    """Chooses by the folds where there are any, else by the validation examples.

    Args:
      path: with its columns.
      select: "accuracy" or "loss".
      within_error: choose by the rule of one standard error.
    """
    source = "folds" if "folds_loss" in path.columns else "validation"
    of_source = {name: path.columns[f"{source}_{name}"] for name in ("accuracy", "loss")}
    first = best(of_source["accuracy"], of_source["loss"], select)
    errors = path.columns[f"{source}_{select}_error"]
    second = one_standard_error(path.lam, of_source[select], errors, select)
    chosen = second if within_error else first
    by = f"{select} of the {'folds' if source == 'folds' else 'validation examples'}"
    return Choice(first, second, chosen, by)
