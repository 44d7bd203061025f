"""A `Dataset` from arrays of one's own, checked where they come in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.data import checks
from linear_cifar.data.errors import DataError
from linear_cifar.data.types import Dataset, Split, fit_standardiser


def dataset_from_arrays(
    train: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    name: str = "arrays",
    class_names: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Dataset:
    """Makes a `Dataset` of arrays, or says in one line what is wrong with them.

    Inputs stay as they are stored and are standardised, with the training set's mean and standard
    deviation, where a batch is used.

    Args:
      train: inputs [n, d], of a dtype of `checks.INPUT_DTYPES`, or of bool or int64 with values
        that fit into these; and labels [n], integers from 0 to K − 1.
      validation: likewise, with any number of examples; None for none, whose figures are NaN.
      test: likewise.
      name: of the data, in records and titles.
      class_names: K names; None for the numbers from 0 to the largest training label, all of
        which have to occur.
      image_shape: (channels, rows, columns) of inputs that are images, whose product is d.

    Returns:
      The `Dataset`; its labels are int32.

    Raises:
      DataError: a shape, dtype, label or value that can't be trained on; the line says which
        array, and where in it.

    Examples:
      >>> inputs, labels = np.eye(4), np.array([0, 1, 1, 0])
      >>> data = dataset_from_arrays((inputs, labels), test=(inputs[:2], labels[:2]))
      >>> data.n_features, data.n_classes, len(data.test.labels)
      (4, 2, 2)
      >>> dataset_from_arrays((inputs, labels + 1), class_names=["cat", "dog"])
      Traceback (most recent call last):
      linear_cifar.data.errors.DataError: train labels have to be from 0 to 1: that of row 1 is 2
    """
    if class_names is not None:
        checks.check_classes(class_names)
    inputs = _as_inputs("train", train)
    checks.check_inputs("train", inputs)
    empty = (inputs[:0], np.zeros(0, np.int32))
    if class_names is None:
        class_names = _numbered(_as_labels("train", train), len(inputs))
    splits = {
        where: _split(where, empty if split is None else split, len(class_names))
        for where, split in (("train", train), ("validation", validation), ("test", test))
    }
    if not len(splits["train"].labels):
        raise DataError("there have to be training examples")
    standardiser = fit_standardiser(splits["train"].inputs)
    checks.check_offsets("train", *map(np.asarray, standardiser))
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        standardiser=standardiser,
        class_names=tuple(class_names),
        image_shape=image_shape,
    )


def _numbered(labels: np.ndarray, n: int) -> list[str]:
    """The numbers from 0 to the largest of the training labels, all of which have to occur."""
    largest = int(labels.max()) if labels.size and labels.dtype.kind in "iu" else 0
    checks.check_labels("train", labels, n, max(largest + 1, 2))
    # Not np.bincount, which would make 10¹² numbers of a label of 10¹².
    found = np.unique(labels)
    missing = np.flatnonzero(found != np.arange(len(found)))
    if missing.size:
        raise DataError(
            f"train labels have no {missing[0]} but go up to {largest}: number the classes from 0 "
            "on (np.unique(labels, return_inverse=True) does), or give class_names"
        )
    return [str(k) for k in range(len(found))]


def _split(where: str, arrays: tuple[ArrayLike, ArrayLike], n_classes: int) -> Split:
    inputs, labels = _as_inputs(where, arrays), _as_labels(where, arrays)
    checks.check_inputs(where, inputs)
    checks.check_labels(where, labels, len(inputs), n_classes)
    checks.check_finite(where, inputs)
    return Split(inputs, labels.astype(np.int32))


def _as_inputs(where: str, arrays: Any) -> np.ndarray:
    """The inputs as an array; bool and int64 in a type that is computed with."""
    if not isinstance(arrays, (tuple, list)) or len(arrays) != 2:
        raise DataError(f"{where} has to be a pair of arrays, inputs and labels")
    return computable(where, _as_array(f"{where} inputs", arrays[0]))


def _as_labels(where: str, arrays: Any) -> np.ndarray:
    return _as_array(f"{where} labels", arrays[1])


def _as_array(what: str, values: Any) -> np.ndarray:
    try:
        return np.asanyarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are not an array: rows of different lengths?") from error


def computable(where: str, inputs: np.ndarray) -> np.ndarray:
    """Inputs in a type that is computed with: bool as uint8, wide integers as int32.

    Raises:
      DataError: an integer is beyond int32.
    """
    inputs = inputs.astype(inputs.dtype.newbyteorder("="), copy=False)
    if inputs.dtype == bool:
        return inputs.astype(np.uint8)
    if inputs.dtype.kind in "iu" and inputs.dtype.name not in checks.INPUT_DTYPES:
        narrow = inputs.astype(np.int32)
        if not np.array_equal(narrow, inputs):
            raise DataError(f"{where} inputs are {inputs.dtype} beyond int32: make them floats")
        return narrow
    return inputs
