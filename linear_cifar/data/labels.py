"""Labels of files, integers or text, as numbers from 0 to K − 1."""

import sys
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from linear_cifar.data.errors import DataError
from linear_cifar.data.files import Stored

_SURROGATE = 0xD800 >> 11  # of a letter's number, which half a pair has


def number_classes(
    labels: Mapping[str, Stored],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads labels, and numbers the classes: the distinct training labels, in their order.

    Args:
      labels: by split, "train" among them, each [n], n ≥ 1.

    Returns:
      The numbers by split, int32 [n], and the names of the K classes.

    Raises:
      DataError: labels are neither integers nor text, there is one class only, or a label that no
        training example has.
    """
    values = {split: _read(stored) for split, stored in labels.items()}
    classes = np.unique(values["train"])
    if len(classes) < 2:
        raise DataError(f"{labels['train'].where} labels have one class only, {classes[0]!s}")
    codes = {
        split: _codes(labels[split].where, of_split, classes) for split, of_split in values.items()
    }
    return codes, tuple(map(str, classes.tolist()))


def _read(stored: Stored) -> np.ndarray:
    """Labels as they are stored: int64, or text."""
    values = stored.read(0, stored.shape[0])
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{stored.where} labels are bytes that are not UTF-8") from error
    if values.dtype.kind == "U":
        letters = np.ascontiguousarray(values).view(np.uint32)
        if (letters > sys.maxunicode).any() or ((letters >> 11) == _SURROGATE).any():
            raise DataError(f"{stored.where} labels have letters that are not Unicode")
        return values
    if jnp.issubdtype(values.dtype, jnp.floating):
        _check_whole(stored.where, values)
    elif values.dtype.kind not in "biu":
        raise DataError(
            f"{stored.where} labels are {values.dtype}: they have to be integers or text"
        )
    return values.astype(np.int64)


def _check_whole(where: str, values: np.ndarray) -> None:
    numbers = values.astype(np.float64)
    # Above 2⁵³, neighbouring integers are one number. NaN is not below it.
    with np.errstate(invalid="ignore"):  # there are NaN of a kind that is an error in arithmetic
        broken = np.flatnonzero(~(np.abs(numbers) < 2**53) | (numbers != np.round(numbers)))
    if broken.size:
        row = broken[0]
        raise DataError(
            f"{where} labels have to be integers or text: that of row {row} is {values[row]}"
        )


def _codes(where: str, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The places of labels among the classes, int32."""
    if labels.dtype.kind != classes.dtype.kind:  # numbers against text
        unknown = np.arange(len(labels))
    else:
        codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        unknown = np.flatnonzero(classes[codes] != labels)
    if unknown.size:
        row = unknown[0]
        raise DataError(
            f"{where} labels have {labels[row]!s} in row {row}, a class without training examples"
        )
    return codes.astype(np.int32)
