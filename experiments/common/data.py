"""The data that the flags name."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common.flags import READING
from linear_cifar import DataError, Dataset, InputError, load_dataset, load_features

FLAGS = flags.FLAGS


def load_data(split: str = "assignment", required: Sequence[str] = ()) -> Dataset:
    """Loads what --features or --dataset names, and prints its notice.

    Args:
      split: of the named data sets; features have their own.
      required: splits that need examples.

    Raises:
      DataError: the data can't be used, or lack a required split.
      InputError: flags that exclude each other.
    """
    if "features" in FLAGS and FLAGS.features is not None:
        dataset = _load_features()
    else:
        _refuse(tuple(READING), "needs --features")
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # printed below
            dataset = load_dataset(
                FLAGS.dataset, FLAGS.data_dir, split, progress=sys.stderr.isatty()
            )
    _print_notice(dataset)
    for name in required:
        if not len(getattr(dataset, name).labels):
            raise DataError(f"{dataset.name} has no {name} examples, which this command needs")
    return dataset


def _load_features() -> Dataset:
    _refuse(("dataset", "data_dir", "split"), "can't be used with --features")
    settings: dict[str, Any] = {name: FLAGS[name].value for name in READING}
    if "n_folds" in FLAGS and FLAGS.n_folds and not FLAGS["validation_fraction"].present:
        settings["validation_fraction"] = 0.0  # the folds validate
    return load_features(FLAGS.features, **settings, seed=FLAGS.seed)


def _refuse(names: Sequence[str], why: str) -> None:
    for name in names:
        if name in FLAGS and FLAGS[name].present:
            raise InputError(f"--{name} {why}")


def _print_notice(dataset: Dataset) -> None:
    if dataset.image_shape is not None and dataset.name == "synthetic" and dataset.notice:
        line = "!" * 78
        print(f"{line}\n{dataset.notice}\n{line}", file=sys.stderr)
    elif dataset.notice:
        print(f"note: {dataset.notice}", file=sys.stderr)


def data_title(dataset: Dataset) -> str:
    """The data's name for tables and figures, which marks unofficial copies of CIFAR-10."""
    if dataset.image_shape is None:  # the user's own features, whatever their name
        return dataset.name
    if dataset.name == "synthetic":
        return "SYNTHETIC images"
    return f"{dataset.name} ({'official files' if dataset.official else 'not the official files'})"
