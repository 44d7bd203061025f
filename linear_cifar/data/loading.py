"""Datasets by name."""

from pathlib import Path

import numpy as np

from linear_cifar.data import cifar10, synthetic
from linear_cifar.data.errors import DataError, UnavailableError
from linear_cifar.data.types import Dataset, Split, fit_standardiser

DATASET_NAMES = ("auto", "cifar10", "synthetic")
DIVISIONS = ("assignment", "full")
N_FULL_VALIDATION = 1000


def load_dataset(
    name: str = "auto",
    data_dir: str | Path | None = None,
    split: str = "assignment",
    progress: bool = False,
) -> Dataset:
    """Loads a dataset by name.

    Args:
      name: "cifar10", from the data folder or else by download; "synthetic", drawn from a seed; or
        "auto", CIFAR-10 if it can be had and else the synthetic images, with a notice of that.
      data_dir: folder that holds or will hold CIFAR-10's files; None for
        `$LINEAR_CIFAR_DATA`, else the user's cache folder.
      split: "assignment" (data_batch_1 trains, data_batch_2 validates) or "full" (49,000 images
        of all five batches train, their last 1,000 validate); test_batch tests in both.
      progress: show a download's progress bar on stderr.

    Returns:
      The `Dataset`, its inputs uint8 [n, 3072] in channel, row, column order.

    Raises:
      DataError: an unknown name or split, or CIFAR-10 is damaged, or ("cifar10" only) can't be had.
    """
    for what, given, known in (("dataset", name, DATASET_NAMES), ("split", split, DIVISIONS)):
        if given not in known:
            raise DataError(f"no {what} {given!r}: it has to be one of {', '.join(known)}")
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
        standardiser=fit_standardiser(train.inputs),
        class_names=cifar10.CLASSES,
        image_shape=cifar10.IMAGE_SHAPE,
        official=official,
        notice=notice,
    )
