"""The data that a command is asked for, and what is said of them."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common.flags import READING
from linear_cifar.data import DataError, Dataset, load_dataset, load_features
from linear_cifar.errors import InputError

FLAGS = flags.FLAGS


def load_data(split: str = "assignment", needed: Sequence[str] = ()) -> Dataset:
    """Loads what --features or --dataset names, and tells the user what there is to tell of it.

    Args:
      split: of the named data sets; features have their own.
      needed: splits that have to have examples.

    Raises:
      DataError: the data can't be used, or lack a split that is needed.
      InputError: flags are given that don't go together.
    """
    if "features" in FLAGS and FLAGS.features is not None:
        dataset = _features()
    else:
        _refuse(tuple(READING), "is read with --features only")
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # `_tell` says it
            dataset = load_dataset(
                FLAGS.dataset, FLAGS.data_dir, split, progress=sys.stderr.isatty()
            )
    _tell(dataset)
    for name in needed:
        if not len(getattr(dataset, name).labels):
            raise DataError(f"{dataset.name} has no {name} examples, which this command needs")
    return dataset


def _features() -> Dataset:
    _refuse(("dataset", "data_dir", "split"), "can't go with --features, which is all the data")
    settings: dict[str, Any] = {name: FLAGS[name].value for name in READING}
    if "n_folds" in FLAGS and FLAGS.n_folds and not FLAGS["validation_fraction"].present:
        settings["validation_fraction"] = 0.0  # the folds validate
    return load_features(FLAGS.features, **settings, seed=FLAGS.seed)


def _refuse(names: Sequence[str], why: str) -> None:
    for name in names:
        if name in FLAGS and FLAGS[name].present:
            raise InputError(f"--{name} {why}")


def _tell(dataset: Dataset) -> None:
    if dataset.image_shape is not None and dataset.name == "synthetic" and dataset.notice:
        line = "!" * 78
        print(f"{line}\n{dataset.notice}\n{line}", file=sys.stderr)
    elif dataset.notice:
        print(f"note: {dataset.notice}", file=sys.stderr)


def data_title(dataset: Dataset) -> str:
    """The data's name for tables and figures, with a word on copies that are not the official."""
    if dataset.image_shape is None:  # features of the user's own, whatever their name
        return dataset.name
    if dataset.name == "synthetic":
        return "SYNTHETIC images"
    return f"{dataset.name} ({'official files' if dataset.official else 'not the official files'})"
