"""Data as training uses it: inputs as they are stored, and what standardises them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.data import checks
from linear_cifar.data.errors import DataError
from linear_cifar.data.on_disk import OnDisk, blocks, concatenated
from linear_cifar.settings import SettingsError

SPLITS = ("train", "validation", "test")
STANDARDISE = ("none", "centre", "scale")
# A deviation of this share of the mean is what float64 makes of equal values, and no variation.
_CONSTANT = 1e-12


class Split(NamedTuple):
    """Examples with their labels."""

    # [n, d], as stored: uint8 pixels, or floating features; maybe too many for memory
    inputs: np.ndarray | jax.Array | OnDisk
    labels: np.ndarray | jax.Array  # [n], int32


class Standardiser(NamedTuple):
    """The map x -> (x − mean) / scale, feature by feature, with the training set's statistics."""

    mean: np.ndarray | jax.Array  # [d], float64, in the inputs' unit
    scale: np.ndarray | jax.Array  # [d], float64: the standard deviation, or 1 where that is 0

    def __call__(self, inputs: jax.Array, dtype=jnp.float32) -> jax.Array:
        """Standardises stored inputs [..., d] into `dtype`."""
        lead = tuple(range(inputs.ndim - 1))
        mean, scale = (jnp.expand_dims(jnp.asarray(s, dtype), lead) for s in self)
        return (inputs.astype(dtype) - mean) / scale

    def limited_to(self, standardise: str) -> "Standardiser":
        """What it leaves of itself: "scale": all; "centre": the mean; "none": neither."""
        mean, scale = map(np.asarray, self)
        return Standardiser(
            np.zeros_like(mean) if standardise == "none" else mean,
            scale if standardise == "scale" else np.ones_like(scale),
        )


def normalised_rows(inputs: np.ndarray) -> np.ndarray:
    """Floating rows [n, d] over their lengths ‖x‖; a row of zeros stays.

    Examples:
      >>> normalised_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
      [[0.6, 0.8], [0.0, 0.0]]
    """
    # Divided by the largest entry first, lest squares of large or small ones leave the range.
    largest = np.abs(inputs).max(axis=1, keepdims=True)
    rows = inputs / np.where(largest == 0, 1, largest)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, and what is known of where they come from.

    `dataset_from_arrays` makes one of arrays. However it is made, shapes, dtypes, labels and
    classes are checked here.

    Raises:
      DataError: an array is not of the form that it should have; one line says which.
    """

    name: str  # "cifar10", "synthetic", or a user's own name
    train: Split
    validation: Split  # without examples where there are none; its figures are NaN then
    test: Split  # likewise
    standardiser: Standardiser  # of the training inputs
    class_names: tuple[str, ...]  # K of them
    image_shape: tuple[int, int, int] | None = None  # (channels, rows, columns); None: not images
    official: bool = False  # the files have the published checksums
    notice: str = ""  # what the user has to be told about the data, one line; "" for nothing
    standardise: str = "scale"  # of `STANDARDISE`: what the standardiser was limited to
    normalise_rows: bool = False  # whether every row was divided by its L2 norm when it was read
    feature_names: tuple[str, ...] = ()  # those of a table's columns, d of them; () for none

    def __post_init__(self) -> None:
        checks.check_classes(self.class_names)
        for where in SPLITS:
            inputs, labels = getattr(self, where)
            checks.check_inputs(where, inputs)
            checks.check_labels(where, labels, len(inputs), self.n_classes)
            checks.check_width(where, inputs, self.n_features)
        if not len(self.train.labels):
            raise DataError("there have to be training examples")
        if any(np.shape(statistic) != (self.n_features,) for statistic in self.standardiser):
            raise DataError(f"the standardiser's arrays have to be [{self.n_features}]")
        if not all(np.isfinite(statistic).all() for statistic in self.standardiser):
            raise DataError("the standardiser's mean and scale have to be finite")
        if not (np.asarray(self.standardiser.scale) > 0).all():
            raise DataError("the standardiser's scale has to be above 0")
        checks.check_image_shape(self.image_shape, self.n_features)
        if len(self.feature_names) not in (0, self.n_features):
            raise DataError(
                f"there are {len(self.feature_names)} names of {self.n_features} features"
            )

    @property
    def n_features(self) -> int:
        """The number of features d."""
        return self.train.inputs.shape[1]

    @property
    def n_classes(self) -> int:
        """The number of classes K."""
        return len(self.class_names)

    @cached_property
    def sha256(self) -> str:
        """The checksum of all inputs and labels, in hexadecimal; it tells data apart.

        Of what is standardised in another way than usual it is another one.
        """
        digest = hashlib.sha256(b"" if self.standardise == "scale" else self.standardise.encode())
        for split in (self.train, self.validation, self.test):
            for _, block in blocks(split.inputs):
                # As bytes, for numpy's buffers don't know bfloat16.
                digest.update(np.ascontiguousarray(block).view(np.uint8).data)
            digest.update(np.ascontiguousarray(split.labels).view(np.uint8).data)
        return digest.hexdigest()


def check_dataset(dataset: Any) -> None:
    """Raises `SettingsError` where it isn't a `Dataset`."""
    if not isinstance(dataset, Dataset):
        raise SettingsError(f"dataset is a {type(dataset).__name__}: dataset_from_arrays makes one")


def fit_standardiser(inputs: np.ndarray | jax.Array | OnDisk, chunk: int = 256) -> Standardiser:
    """Mean and standard deviation (divisor n) of each feature, accumulated in float64.

    Chunks are merged by the update of Chan, Golub and LeVeque (1979), which keeps one float64 chunk
    in memory and does not cancel where the mean is large against the deviation.

    Args:
      inputs: examples [n, d], of any real dtype, in memory or on disk.
      chunk: rows at a time.

    Returns:
      A `Standardiser` with float64 [d] statistics; a constant feature has scale 1, and as constant
      counts what varies by less than the rounding of its mean.
    """
    mean = np.zeros(inputs.shape[1])
    squares = np.zeros(inputs.shape[1])
    for start, rows in _chunks(inputs, chunk):
        block = rows.astype(np.float64)
        block_mean = block.mean(axis=0)
        block -= block_mean
        done = start + len(block)
        delta = block_mean - mean
        squares += np.einsum("nd,nd->d", block, block) + delta**2 * (start * len(block) / done)
        mean += delta * (len(block) / done)
    scale = np.sqrt(squares / len(inputs))
    return Standardiser(mean, np.where(scale > _CONSTANT * np.abs(mean), scale, 1.0))


def _chunks(inputs: np.ndarray | jax.Array | OnDisk, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows by the chunk, the same chunks in memory and on disk."""
    for first, block in blocks(inputs, size):
        for start in range(0, len(block), size):
            yield first + start, block[start : start + size]


def with_validation(dataset: Dataset) -> Dataset:
    """The dataset with its validation examples among the training ones, to refit a chosen model.

    The standardiser is that of all of them. The validation split stays, but is no longer held out.
    """
    check_dataset(dataset)
    both = (dataset.train, dataset.validation)
    train = Split(
        concatenated([split.inputs for split in both]),
        np.concatenate([split.labels for split in both]),
    )
    standardiser = fit_standardiser(train.inputs).limited_to(dataset.standardise)
    return replace(dataset, train=train, standardiser=standardiser)
