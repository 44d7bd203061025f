"""Data as training uses it: inputs as they are stored, and what standardises them."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_IMAGE_SHAPE = (3, 32, 32)
N_FULL_VALIDATION = 1000
DATASET_NAMES = ("auto", "cifar10", "synthetic")
SPLITS = ("assignment", "full")


class DataError(Exception):
    """Data that is missing, damaged or not of the form it should have; one line says which."""


class UnavailableError(DataError):
    """Data that is neither in the data folder nor to be downloaded."""


class Split(NamedTuple):
    """Examples with their labels."""

    inputs: np.ndarray | jax.Array  # [n, d], as stored: uint8 pixels, or floating features
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


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test examples, and what is known of where they come from."""

    name: str  # "cifar10", "synthetic", or a user's own name
    train: Split
    validation: Split
    test: Split
    standardiser: Standardiser  # of the training inputs
    class_names: tuple[str, ...]  # K of them
    image_shape: tuple[int, int, int] | None = None  # (channels, rows, columns); None: not images
    official: bool = False  # the files have the published checksums
    notice: str = ""  # what the user has to be told about the data, one line; "" for nothing

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
        """The checksum of all inputs and labels, in hexadecimal; it tells data apart."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in split:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def fit_standardiser(inputs: np.ndarray, chunk: int = 256) -> Standardiser:
    """Mean and standard deviation (divisor n) of each feature, accumulated in float64.

    Chunks are merged by the update of Chan, Golub and LeVeque (1979), which keeps one float64 chunk
    in memory and does not cancel where the mean is large against the deviation.

    Args:
      inputs: examples [n, d], of any real dtype.
      chunk: rows at a time.

    Returns:
      A `Standardiser` with float64 [d] statistics; a constant feature has scale 1.
    """
    mean = np.zeros(inputs.shape[1])
    squares = np.zeros(inputs.shape[1])
    for start in range(0, len(inputs), chunk):
        block = inputs[start : start + chunk].astype(np.float64)
        block_mean = block.mean(axis=0)
        block -= block_mean
        done = start + len(block)
        delta = block_mean - mean
        squares += np.einsum("nd,nd->d", block, block) + delta**2 * (start * len(block) / done)
        mean += delta * (len(block) / done)
    scale = np.sqrt(squares / len(inputs))
    return Standardiser(mean, np.where(scale > 0, scale, 1.0))


def with_validation(dataset: Dataset) -> Dataset:
    """The dataset with its validation examples among the training ones, to refit a chosen model.

    The standardiser is that of all of them. The validation split stays, but is no longer held out.
    """
    both = (dataset.train, dataset.validation)
    train = Split(*(np.concatenate(arrays) for arrays in zip(*both, strict=True)))
    return replace(dataset, train=train, standardiser=fit_standardiser(np.asarray(train.inputs)))


def load_dataset(
    name: str = "auto",
    data_dir: str | Path | None = None,
    split: str = "assignment",
    progress=False,
) -> Dataset:
    """Loads a dataset by name.

    Args:
      name: "cifar10", from the data folder or else by download; "synthetic", drawn from a seed; or
        "auto", CIFAR-10 if it can be had and else the synthetic images, with a notice of that.
      data_dir: folder that holds or will hold CIFAR-10's files; None for the user's cache folder.
      split: "assignment" (data_batch_1 trains, data_batch_2 validates) or "full" (49,000 images
        of all five batches train, their last 1,000 validate); test_batch tests in both.
      progress: show a download's progress bar on stderr.

    Returns:
      The `Dataset`, its inputs uint8 [n, 3072] in channel, row, column order.

    Raises:
      DataError: CIFAR-10 is damaged, or ("cifar10" only) can't be had.
      ValueError: an unknown name or split.
    """
    # The reader of the archive and the generator are needed by one name each.
    from linear_cifar import cifar10, synthetic

    if name not in DATASET_NAMES or split not in SPLITS:
        raise ValueError(f"no dataset {name!r} with split {split!r}: {DATASET_NAMES}, {SPLITS}")
    names = (*cifar10.TRAIN_BATCHES[: 2 if split == "assignment" else 5], cifar10.TEST_BATCH)
    notice = ""
    if name != "synthetic":
        try:
            batches, official, notice = cifar10.load_batches(names, data_dir, progress)
            return _assemble("cifar10", batches, split, official, notice)
        except UnavailableError as error:
            if name == "cifar10":
                raise
            notice = f"SYNTHETIC DATA, not CIFAR-10: {error}"
    return _assemble("synthetic", [synthetic.batch(n) for n in names], split, False, notice)


def _assemble(name, batches, split, official, notice) -> Dataset:
    *parts, test = (Split(inputs, labels) for inputs, labels in batches)
    if split == "assignment":
        train, validation = parts
    else:
        inputs, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        cut = len(labels) - N_FULL_VALIDATION
        train, validation = Split(inputs[:cut], labels[:cut]), Split(inputs[cut:], labels[cut:])
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        standardiser=fit_standardiser(np.asarray(train.inputs)),
        class_names=CIFAR10_CLASSES,
        image_shape=CIFAR10_IMAGE_SHAPE,
        official=official,
        notice=notice,
    )
