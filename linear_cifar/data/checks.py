"""The checks that arrays pass on their way into a `Dataset`; every fault is one line."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np

from linear_cifar.data.errors import DataError
from linear_cifar.data.on_disk import blocks
from linear_cifar.settings import is_text

INPUT_DTYPES = (
    "uint8", "int8", "uint16", "int16", "int32", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
_MOST_OFFSET = 1e5  # mean over deviation at which float32 leaves two digits of the deviation
_LARGEST = np.finfo(np.float32).max


def check_inputs(where: str, inputs: Any) -> None:
    """Raises `DataError` unless `inputs` is an array [n, d] of a dtype that is computed with."""
    if isinstance(inputs, np.ma.MaskedArray):
        raise DataError(f"{where} inputs are a masked array: fill or leave out what is masked")
    if not hasattr(inputs, "dtype") or inputs.ndim != 2 or not inputs.shape[1]:
        shape = getattr(inputs, "shape", type(inputs).__name__)
        raise DataError(f"{where} inputs have to be an array [n, d], d ≥ 1, not {shape}")
    if inputs.dtype.name not in INPUT_DTYPES:
        raise DataError(
            f"{where} inputs are {inputs.dtype}: they have to be one of {', '.join(INPUT_DTYPES)}"
        )


def check_width(where: str, inputs: Any, n_features: int) -> None:
    """Raises `DataError` unless inputs have as many features as those that are trained on."""
    if inputs.shape[1] != n_features:
        raise DataError(
            f"{where} inputs have {inputs.shape[1]} features, train inputs {n_features}"
        )


def check_columns(where: str, columns: Sequence[str], expected: Sequence[str]) -> None:
    """Raises `DataError` unless a table has the columns that are trained on; () are unknown."""
    for i, (name, wanted) in enumerate(zip(columns, expected, strict=False)):
        if name != wanted:
            raise DataError(
                f"{where} column {i} of the features is {name!r}, and that of the training "
                f"examples {wanted!r}: they have to be the same, in the same order"
            )
    if columns and expected and len(columns) != len(expected):
        raise DataError(
            f"{where} there are {len(columns)} columns of features, and {len(expected)} of the "
            "training examples"
        )


def check_one_label_each(where: str, labels: Any, n: int) -> None:
    """Raises `DataError` unless `labels` are an array [n]."""
    if isinstance(labels, np.ma.MaskedArray) or getattr(labels, "shape", None) != (n,):
        shape = getattr(labels, "shape", type(labels).__name__)
        raise DataError(f"{where} labels have to be an array [{n}], as the inputs, not {shape}")


def check_labels(where: str, labels: Any, n: int, n_classes: int) -> None:
    """Raises `DataError` unless `labels` are n integers from 0 to K − 1."""
    check_one_label_each(where, labels, n)
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} labels are {labels.dtype}: they have to be integers from 0 on "
            "(np.unique(labels, return_inverse=True) makes them of names)"
        )
    # On the host: an eager comparison on a device would be compiled.
    values = np.asarray(labels)
    outside = np.flatnonzero((values < 0) | (values >= n_classes))
    if outside.size:
        row = outside[0]
        raise DataError(
            f"{where} labels have to be from 0 to {n_classes - 1}: that of row {row} is "
            f"{values[row]}"
        )


def check_finite(where: str, inputs: Any) -> None:
    """Raises `DataError` where an entry is NaN or infinite in float32, with its row and column."""
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        return
    for start, block in blocks(inputs):
        finite = np.abs(block) <= _LARGEST  # NaN isn't
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = block[row, column]
            raise DataError(
                f"{where} inputs have to be finite, in float32 too: row {start + row}, column "
                f"{column} is {value}"
            )


def check_norms(where: str, inputs: Any) -> None:
    """Raises `DataError` where a row is all zeros, so that no norm can divide it."""
    for start, block in blocks(inputs):
        zero = np.flatnonzero(~(block != 0).any(axis=1))
        if zero.size:
            raise DataError(f"{where} inputs can't have norm 1: row {start + zero[0]} is all zeros")


def check_varied(where: str, inputs: Any) -> None:
    """Raises `DataError` where all rows are the same, from which nothing can be learnt."""
    first = inputs[:1]
    if not any((block != first).any() for _, block in blocks(inputs)):
        raise DataError(f"{where} inputs are the same in all {len(inputs)} training examples")


def check_offsets(where: str, mean: np.ndarray, scale: np.ndarray) -> None:
    """Raises `DataError` where a feature varies too little around its mean for float32."""
    lost = np.flatnonzero((np.abs(mean) > _MOST_OFFSET * scale) & (scale != 1))
    if lost.size:
        column = lost[0]
        raise DataError(
            f"{where} inputs, column {column}: a deviation of {scale[column]:.3g} around "
            f"{mean[column]:.3g} is lost in float32: subtract an offset first"
        )


def check_classes(class_names: Any) -> None:
    """Raises `DataError` unless there are at least two classes, each with a name of its own."""
    if not isinstance(class_names, (list, tuple, str)) or not all(map(is_text, class_names)):
        raise DataError("class names have to be strings, in a list or a tuple")
    if len(class_names) < 2:
        raise DataError(f"there have to be at least two classes, not {len(class_names)}")
    if len(set(class_names)) < len(class_names):
        raise DataError("class names have to differ from each other")


def check_image_shape(shape: Any, n_features: int) -> None:
    """Raises `DataError` unless images of a shape have so many entries, or the shape is None."""
    if shape is None:
        return
    if not isinstance(shape, (list, tuple)) or not all(isinstance(n, Integral) for n in shape):
        raise DataError(f"image_shape is {shape!r}: it has to be (channels, rows, columns)")
    if len(shape) != 3 or math.prod(shape) != n_features or min(shape) < 1:
        raise DataError(f"images {shape} don't have {n_features} entries")
