"""A `Dataset`: splits as they are stored, and the standardiser of the training inputs."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.checks import check_choice, is_text
from linear_cifar.data.blocks import LazyRows, blocks, concatenate
from linear_cifar.errors import DataError, InputError

SPLITS = ("train", "validation", "test")
STANDARDISE = ("scale", "centre", "none")
INPUT_DTYPES = (
    "uint8", "int8", "uint16", "int16", "int32", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
_CONSTANT = 1e-12  # deviation over mean below which float64 can't tell values from equal ones
_MAX_OFFSET = 1e5  # mean over deviation at which float32 leaves two digits of the deviation
_FLOAT32 = np.finfo(np.float32)


class Split(NamedTuple):
    """Examples with their labels."""

    inputs: np.ndarray | jax.Array | LazyRows  # [n, d], as stored: uint8 pixels or float features
    # [n] int32 class ids; or [n, T] int8 labels of T binary targets: 1, 0, or −1 if unknown.
    labels: np.ndarray | jax.Array


class Standardiser(NamedTuple):
    """The map x -> (x − mean) / scale of each feature, with the training set's statistics."""

    mean: np.ndarray | jax.Array  # [d], float64, in the unit of the inputs
    scale: np.ndarray | jax.Array  # [d], float64: the standard deviation, or 1 where that is 0

    def __call__(self, inputs: Any, dtype: Any = jnp.float32) -> jax.Array:
        """Standardises stored inputs [..., d] into `dtype`."""
        leading = tuple(range(inputs.ndim - 1))
        mean, scale = (jnp.expand_dims(jnp.asarray(s, dtype), leading) for s in self)
        return (inputs.astype(dtype) - mean) / scale

    def restricted_to(self, standardise: str) -> "Standardiser":
        """The same map ("scale"), without the division ("centre"), or the identity ("none")."""
        mean = np.zeros_like(self.mean) if standardise == "none" else np.asarray(self.mean)
        scale = np.asarray(self.scale) if standardise == "scale" else np.ones_like(self.scale)
        return Standardiser(mean, scale)


_static = partial(field, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, and where they come from.

    A pytree: its splits and standardiser are leaves, so it goes through `jit` and `vmap`; the rest
    is static. The constructor checks nothing, because JAX calls it with traced arrays.
    """

    train: Split
    validation: Split  # may have no examples; its metrics are NaN then
    test: Split  # likewise
    standardiser: Standardiser  # of the training inputs
    class_names: tuple[str, ...] = _static()  # K names of classes, or T names of targets
    name: str = _static(default="arrays")  # "cifar10", "synthetic", or a user's own
    image_shape: tuple[int, int, int] | None = _static(default=None)  # (channels, rows, columns)
    official: bool = _static(default=False)  # whether the files have the published checksums
    notice: str = _static(default="")  # what the user has to know about the data, in one line
    standardise: str = _static(default="scale")  # one of `STANDARDISE`
    normalise_rows: bool = _static(default=False)  # whether each row was divided by its L2 norm
    feature_names: tuple[str, ...] = _static(default=())  # d names of a table's columns, or none

    @property
    def n_features(self) -> int:
        """The number of features d."""
        return self.train.inputs.shape[1]

    @property
    def n_classes(self) -> int:
        """The number of classes K, or of targets T."""
        return len(self.class_names)

    @property
    def has_targets(self) -> bool:
        """Whether the labels are a matrix of binary targets instead of class ids."""
        return np.ndim(self.train.labels) == 2

    @property
    def sha256(self) -> str:
        """The checksum of all inputs and labels, and of a non-default `standardise`, in hex."""
        digest = hashlib.sha256(b"" if self.standardise == "scale" else self.standardise.encode())
        for split in (self.train, self.validation, self.test):
            for _, block in blocks(split.inputs):
                # As bytes, because NumPy's buffers don't know bfloat16.
                digest.update(np.ascontiguousarray(block).view(np.uint8).data)
            digest.update(np.ascontiguousarray(split.labels).view(np.uint8).data)
        return digest.hexdigest()


def dataset_from_arrays(
    train: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    name: str = "arrays",
    class_names: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    standardise: str = "scale",
) -> Dataset:
    """Makes a `Dataset` from arrays; `DataError` if it can't be trained on.

    Inputs stay as they are stored; each batch is standardised where it is used.

    Args:
      train: inputs [n, d], of a dtype in `INPUT_DTYPES`, or bool or wider integers with values that
        fit an int32; and labels [n], class ids from 0 to K − 1 or text. Or labels [n, T] of T
        binary targets: 1, 0, or −1 or NaN if unknown.
      validation: likewise, with any number of examples; None for none, which gives NaN metrics.
      test: likewise.
      name: of the data, in records and titles.
      class_names: K names; None: the distinct training labels, which are text or all of 0 … K − 1.
        For targets T names; None: their numbers.
      image_shape: (channels, rows, columns) of inputs that are images, whose product is d.
      standardise: "scale": mean 0 and deviation 1 of each feature; "centre": mean 0; "none".

    Examples:
      >>> data = dataset_from_arrays((np.eye(4), ["cat", "dog", "dog", "cat"]))
      >>> data.class_names, data.train.labels.tolist(), len(data.test.labels)
      (('cat', 'dog'), [0, 1, 1, 0], 0)
    """
    splits = {}
    for split, pair in {"train": train, "validation": validation, "test": test}.items():
        if pair is not None:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise DataError(f"{split} has to be a pair of arrays, inputs and labels")
            splits[split] = Split(as_inputs(split, pair[0]), as_labels(split, pair[1]))
            check_one_label_each(split, splits[split].labels, len(splits[split].inputs), (1, 2))
            check_finite(split, splits[split].inputs)
    labels = np.asarray(splits["train"].labels)
    if not len(labels):
        raise DataError("train has no examples")
    for split, (_, other) in splits.items():
        if other.shape[1:] != labels.shape[1:]:
            shapes = f"{list(other.shape)}, and train's {list(labels.shape)}"
            raise DataError(f"{split} labels are {shapes}: all splits need the same targets")
    if class_names is None:
        if labels.ndim == 2:
            classes = np.arange(labels.shape[1])
        elif labels.dtype.kind == "U":
            classes = np.unique(labels)
        else:  # if the labels skip a number, the largest one is reported as unknown
            classes = np.arange(max(2, len(np.unique(labels))))
        class_names = [str(name) for name in classes.tolist()]
    if labels.ndim == 1:
        splits = {
            s: Split(x, class_ids(s, np.asarray(y), class_names)) for s, (x, y) in splits.items()
        }
    return make_dataset(splits, class_names, standardise, name=name, image_shape=image_shape)


def make_dataset(
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    standardise: str = "scale",
    sources: Mapping[str, str] | None = None,
    **metadata: Any,
) -> Dataset:
    """Makes a `Dataset` of checked arrays; `sources` are the names of splits in messages."""
    check_choice("standardise", standardise, STANDARDISE)
    train, sources = splits["train"], sources or {split: split for split in splits}
    d = train.inputs.shape[1]
    for split, (inputs, _) in splits.items():
        if (n := inputs.shape[1]) != d:
            raise DataError(f"{sources[split]} inputs have {n} features, train inputs {d}")
    labels: Any = train.labels
    n_names, least = len(class_names), 2 if labels.ndim == 1 else 1
    if not all(map(is_text, class_names)) or len(set(class_names)) < max(least, n_names):
        raise DataError(f"class_names have to be at least {least} strings, all different")
    if labels.shape[1:] not in ((), (n_names,)):
        raise DataError(f"there are {n_names} class_names for {labels.shape[1]} targets")
    if metadata.get("image_shape") is not None:
        metadata["image_shape"] = shape = tuple(map(int, metadata["image_shape"]))
        if len(shape) != 3 or math.prod(shape) != d:
            raise DataError(f"image_shape {shape}: images of that shape don't have {d} values")
    standardiser = fit_standardiser(train.inputs, sources["train"])
    empty = Split(np.zeros((0, d), train.inputs.dtype), labels[:0])
    validation, test = (splits.get(split, empty) for split in ("validation", "test"))
    metadata |= {"class_names": tuple(class_names), "standardise": standardise}
    return Dataset(train, validation, test, standardiser.restricted_to(standardise), **metadata)


def check_dataset(dataset: Any, with_targets: bool = True) -> None:
    """Raises `InputError` unless it is a `Dataset`, and without `with_targets` one of classes."""
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset is a {type(dataset).__name__}: dataset_from_arrays makes one")
    if dataset.has_targets and not with_targets:
        raise InputError(
            f"dataset has {dataset.n_classes} targets, and this function needs classes"
        )


def fit_standardiser(inputs: Any, source: str = "") -> Standardiser:
    """Mean and standard deviation (divisor n) of each feature of inputs [n, d], in float64.

    The scale is 1 if a deviation is 0, only the rounding of its mean, or too small for float32. If
    `source` is given, a deviation that float32 loses beside its mean is a `DataError`. Blocks are
    merged as in Chan, Golub and LeVeque (1979), without cancellation at large means.
    """
    mean, squares = np.zeros((2, inputs.shape[1]))
    for part, rows in blocks(inputs, n_rows=256):
        block = np.asarray(rows).astype(np.float64)
        block_mean = block.mean(axis=0)
        block -= block_mean
        delta = block_mean - mean
        weight = len(block) / part.stop
        squares += np.einsum("nd,nd->d", block, block) + delta**2 * (part.start * weight)
        mean += delta * weight
    deviation = np.sqrt(squares / len(inputs))
    varies = (deviation > _CONSTANT * np.abs(mean)) & (deviation >= _FLOAT32.tiny)
    lost = np.flatnonzero(varies & (np.abs(mean) > _MAX_OFFSET * deviation))
    if source and lost.size:
        i = lost[0]
        problem = f"a deviation of {deviation[i]:.3g} around {mean[i]:.3g} is lost in float32"
        raise DataError(f"{source} inputs, column {i}: {problem}: subtract an offset")
    return Standardiser(mean, np.where(varies, deviation, 1.0))


def with_validation(dataset: Dataset) -> Dataset:
    """Adds the validation examples to the training ones, and fits the standardiser to all."""
    inputs = concatenate([dataset.train.inputs, dataset.validation.inputs])
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    standardiser = fit_standardiser(inputs).restricted_to(dataset.standardise)
    return replace(dataset, train=Split(inputs, labels), standardiser=standardiser)


def take_rows(split: Split, rows: np.ndarray) -> Split:
    """Some of the examples, by their ascending numbers; inputs in a file stay there."""
    inputs = split.inputs
    part = inputs.take(rows) if isinstance(inputs, LazyRows) else inputs[rows]
    return Split(part, split.labels[rows])


def normalised_rows(inputs: np.ndarray) -> np.ndarray:
    """Rows [n, d] divided by their lengths ‖x‖, in float32 or float64; a row of zeros stays."""
    rows = inputs.astype(np.float64 if inputs.dtype == np.float64 else np.float32)
    # Divided by the largest entry first, so that squares of large or small ones stay in range.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest == 0, 1, largest)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)


def as_inputs(source: str, values: Any) -> np.ndarray:
    """Inputs as an array [n, d] of a dtype in `INPUT_DTYPES`."""
    array = _as_array(f"{source} inputs", values)
    dtype = input_dtype(source, array.shape, array.dtype)
    converted = array.astype(dtype, copy=False)
    if dtype == np.int32 and not np.array_equal(converted, array):
        raise DataError(f"{source} inputs are {array.dtype} beyond int32: make them floats")
    return converted


def input_dtype(source: str, shape: tuple[int, ...], dtype: np.dtype) -> np.dtype:
    """The dtype in `INPUT_DTYPES` for inputs [n, d]: uint8 for bool, int32 for wide integers."""
    if len(shape) != 2 or not shape[1]:
        raise DataError(f"{source} inputs have to be [n, d], d ≥ 1, not {list(shape)}")
    name = dtype.newbyteorder("=").name
    if name in INPUT_DTYPES:
        return np.dtype(name)
    if dtype.kind not in "biu":
        names = ", ".join(INPUT_DTYPES)
        raise DataError(f"{source} inputs are {dtype}, not {names} (bfloat16: .safetensors)")
    return np.dtype(np.uint8 if dtype.kind == "b" else np.int32)


def check_finite(source: str, inputs: Any) -> None:
    """Raises `DataError` if an entry is NaN or infinite in float32, with its row and column."""
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        return
    for part, block in blocks(inputs, n_rows=4096):
        finite = np.abs(np.asarray(block)) <= _FLOAT32.max  # NaN isn't
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            place = f"row {part.start + row}, column {column} is {block[row, column]}"
            raise DataError(f"{source} inputs have to be finite, in float32 too: {place}")


def as_labels(source: str, values: Any) -> np.ndarray:
    """Labels [n] as integers, which may be whole floats, or text; or targets [n, T] as int8."""
    labels = _as_array(f"{source} labels", values)
    if labels.ndim == 2:
        return as_targets(source, labels)
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8")
    if jnp.issubdtype(labels.dtype, jnp.floating):
        numbers = labels.astype(np.float64)
        # From 2⁵³ on, neighbouring integers are the same float. NaN fails the comparison.
        valid = (np.abs(numbers) < 2**53) & (numbers == np.round(numbers))
        if not valid.all():
            row, value = np.argmin(valid), numbers.flat[np.argmin(valid)]
            raise DataError(f"{source} labels have to be integers or text: row {row} has {value}")
        return numbers.astype(np.int64)
    if labels.dtype.kind not in "biuU":
        raise DataError(f"{source} labels are {labels.dtype}: they have to be integers or text")
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def as_targets(source: str, values: np.ndarray) -> np.ndarray:
    """Targets [n, T] as int8: 1, 0, or −1 if unknown, which floats may give as NaN."""
    if values.dtype.kind not in "biuf" or not values.shape[1]:
        shape = f"{values.dtype} {list(values.shape)}"
        raise DataError(f"{source} targets are {shape}: they have to be numbers [n, T], T ≥ 1")
    numbers = np.where(np.isnan(values), -1, values) if values.dtype.kind == "f" else values
    valid = (numbers == 0) | (numbers == 1) | (numbers == -1)
    if not valid.all():
        row, column = np.argwhere(~valid)[0]
        value = f"row {row} of target {column} has {values[row, column]}"
        raise DataError(f"{source} targets have to be 0, 1, or −1 if unknown: {value}")
    return numbers.astype(np.int8)


def check_one_label_each(source: str, labels: Any, n: int, axes: Sequence[int] = (1,)) -> None:
    """Raises `DataError` unless labels are [n, ...], with one of the allowed numbers of axes."""
    if len(labels.shape) not in axes or labels.shape[0] != n:
        shape = list(labels.shape)
        wanted = f"[{n}, T]" if 2 in axes and len(shape) == 2 else f"[{n}]"
        raise DataError(f"{source} labels have to be {wanted} like the inputs, not {shape}")


def class_ids(source: str, labels: np.ndarray, classes: ArrayLike) -> np.ndarray:
    """The place of each label [n] among the classes [K], int32; numbers are places among text."""
    classes = np.asarray(classes)
    if classes.dtype.kind == "U" and labels.dtype.kind != "U":
        classes = np.arange(len(classes))
    order = np.argsort(classes)
    ids = order[np.minimum(np.searchsorted(classes, labels, sorter=order), len(classes) - 1)]
    unknown = np.flatnonzero(classes[ids] != labels)
    if unknown.size:
        row, names = unknown[0], f"{classes[0]} … {classes[-1]}"
        raise DataError(f"{source} labels: row {row} has {labels[row]}; the classes are {names}")
    return ids.astype(np.int32)


def _as_array(source: str, values: Any) -> np.ndarray:
    with suppress(TypeError, ValueError):  # traced values, ragged rows
        if not isinstance(values, np.ma.MaskedArray):  # its hidden values would be used
            return np.asarray(values)
    raise DataError(f"{source} have to be an array that isn't traced, masked or ragged")
