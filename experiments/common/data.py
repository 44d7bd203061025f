"""The data that the flags name."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.common.flags import FEATURES
from linear_cifar import DataError, Dataset, InputError, load_dataset, load_features
from linear_cifar.data import SPLITS

FLAGS = flags.FLAGS


def load_data(
    split: str = "assignment",
    required: Sequence[str] = (),
    features: Any = None,
    with_notice: bool = True,
) -> Dataset:
    """Loads what --features or --dataset names, and prints its notice.

    `split` applies to named data sets; features bring their own. `features` is the path to load if
    the flag names several. `DataError` if a required split has no examples.
    """
    if "features" in FLAGS and FLAGS.features is not None:
        dataset = _load_features(features or FLAGS.features)
    else:
        _refuse(tuple(FEATURES), "needs --features")
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # printed below
            dataset = load_dataset(
                FLAGS.dataset, FLAGS.data_dir, split, progress=sys.stderr.isatty()
            )
    loud = dataset.name == "synthetic" and dataset.image_shape is not None
    if dataset.notice and with_notice:
        bar = "!" * 78
        line = f"{bar}\n{dataset.notice}\n{bar}" if loud else f"note: {dataset.notice}"
        print(line, file=sys.stderr)
    for name in required:
        if not len(getattr(dataset, name).labels):
            raise DataError(f"{dataset.name} has no {name} examples, which this command needs")
    return dataset


def _load_features(path: Any) -> Dataset:
    _refuse(("dataset", "data_dir", "split"), "can't be used with --features")
    settings: dict[str, Any] = {name: FLAGS[name].value for name in FEATURES}
    if "n_folds" in FLAGS and FLAGS.n_folds and not FLAGS["validation_fraction"].present:
        settings["validation_fraction"] = 0.0  # the folds validate
    targets = FLAGS.targets if "targets" in FLAGS else None
    dataset = load_features(path, targets, **settings, seed=FLAGS.seed)
    if dataset.has_targets and "targets" not in FLAGS:
        raise InputError(f"{dataset.name} has a matrix of targets: use experiments.probe")
    return dataset


def _refuse(names: Sequence[str], reason: str) -> None:
    for name in names:
        if name in FLAGS and FLAGS[name].present:
            raise InputError(f"--{name} {reason}")


def data_title(dataset: Dataset) -> str:
    """The data's name for tables and figures, which marks unofficial copies of CIFAR-10."""
    if dataset.image_shape is None:  # the user's own features, whatever their name
        return dataset.name
    if dataset.name == "synthetic":
        return "SYNTHETIC images"
    return f"{dataset.name} ({'official files' if dataset.official else 'not the official files'})"


def describe_sizes(dataset: Dataset) -> str:
    """The numbers of examples, features, and classes or targets as text."""
    sizes = (len(getattr(dataset, name).labels) for name in SPLITS)
    counts = "{} training, {} validation and {} test examples".format(*sizes)
    noun = "targets" if dataset.has_targets else "classes"
    return f"{counts} of {dataset.n_features} features, {dataset.n_classes} {noun}"
