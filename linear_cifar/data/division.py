"""Training examples that are taken to validate and test, of each class as large a share."""

from collections.abc import Mapping

import numpy as np

from linear_cifar.data.errors import DataError


def divide(
    labels: Mapping[str, np.ndarray], shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Takes examples from the training ones for the splits that have none.

    Args:
      labels: by split, "train" among them, integers from 0 on, [n].
      shares: of what is left of the training examples, by split, in the order of taking them.
      seed: of numpy's PCG64.

    Returns:
      The rows of the training examples, ascending, that each split without labels takes, and those
      that are left to "train".
    """
    generator = np.random.default_rng(seed)
    left = np.arange(len(labels["train"]))
    rows = {}
    for split, share in shares.items():
        if split not in labels:
            places = _stratified(generator, labels["train"][left], share)
            rows[split] = left[places]
            left = np.delete(left, places)
    return rows | {"train": left}


def check_left(where: str, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raises `DataError` where a class has no example among the labels that are left to train."""
    without = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if without.size:
        raise DataError(
            f"{where} class {class_names[without[0]]} has no example left to train: take smaller "
            "fractions to validate and test"
        )


def _stratified(generator: np.random.Generator, labels: np.ndarray, share: float) -> np.ndarray:
    """Places of a share of the labels, ascending; of each class as large a share, to one."""
    counts = np.bincount(labels)
    exact = share * counts
    n_taken = np.floor(exact).astype(int)
    # As many as are lacking to the share of all, from the classes that were cut most.
    n_lacking = round(exact.sum()) - n_taken.sum()
    n_taken[np.argsort(n_taken - exact, kind="stable")[:n_lacking]] += 1
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[place_in_class < np.repeat(n_taken, counts)])
