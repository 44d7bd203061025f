"""The flags that experiments share, each with its unit, default and range.

They are defined when a command starts and not when its module is imported, so that experiments can
import each other and tests import all of them.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from linear_cifar.datasets import DATASET_NAMES, SPLITS
from linear_cifar.losses import LOSSES

FLAGS = flags.FLAGS


def define(*names: str, **defaults: Any) -> None:
    """Defines the flags of data and output, and the training flags that an experiment reads.

    Args:
      *names: training flags, of `_TRAINING`, with their usual defaults.
      **defaults: further ones, with the experiment's own defaults.
    """
    flags.DEFINE_enum(
        "dataset",
        "auto",
        DATASET_NAMES,
        "cifar10: CIFAR-10, from --data_dir or else by download; synthetic: images drawn from a "
        "seed; auto: CIFAR-10 if it can be had, else synthetic.",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder with cifar-10-batches-py or cifar-10-python.tar.gz, or to download into (default: "
        "$LINEAR_CIFAR_DATA, else the user's cache folder).",
    )
    flags.DEFINE_string("output_dir", None, "Folder to write (default: a new one under runs/).")
    flags.DEFINE_bool("overwrite", False, "Replace the run that --output_dir holds.")
    flags.DEFINE_integer(
        "seed", 0, "Seed of the initial parameters and of the order.", 0, 2**32 - 1
    )
    for name in names:
        if name not in defaults:
            _TRAINING[name]()
    for name, default in defaults.items():
        _TRAINING[name](default)
    for name in ("dataset", "data_dir", "output_dir", "overwrite", "seed", *names, *defaults):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])  # for --helpshort


def _float(name: str, default: float, help_text: str, admits: Callable[[float], bool]) -> None:
    flags.DEFINE_float(name, default, help_text)
    flags.register_validator(
        name,
        lambda value: math.isfinite(value) and admits(value),
        f"{help_text} It has to be finite.",
    )


def _lam(default: float = 0.0) -> None:
    _float("lam", default, "λ of the penalty λ‖W‖²; at least 0.", lambda value: value >= 0)


def _learning_rate(default: float = 0.001) -> None:
    _float("learning_rate", default, "η of gradient descent; above 0.", lambda value: value > 0)


def _decay_factor(default: float = 1.0) -> None:
    text = "What η is divided by at each decay; at least 1, which is no decay."
    _float("decay_factor", default, text, lambda value: value >= 1)


def _batch_size(default: int = 100) -> None:
    flags.DEFINE_integer("batch_size", default, "Examples a step; at least 1.", 1)


def _n_epochs(default: int = 40) -> None:
    flags.DEFINE_integer("n_epochs", default, "Passes over the training examples; at least 1.", 1)


def _decay_every(default: int = 10) -> None:
    flags.DEFINE_integer(
        "decay_every", default, "Epochs from one decay to the next; at least 1.", 1
    )


def _loss(default: str = "softmax") -> None:
    text = (
        "softmax: softmax cross-entropy; multi_bce: the mean over classes of binary cross-entropy."
    )
    flags.DEFINE_enum("loss", default, list(LOSSES), text)


def _shuffle(default: bool = False) -> None:
    text = "Take the examples in a new order each epoch, not always as stored."
    flags.DEFINE_bool("shuffle", default, text)


def _n_seeds(default: int = 1) -> None:
    text = "Seeds to train at once, from --seed on; more than one gives means with their spread."
    flags.DEFINE_integer("n_seeds", default, text, 1)


def _split(default: str = "assignment") -> None:
    text = (
        "assignment: data_batch_1 trains and data_batch_2 validates; full: 49,000 images of all "
        "five batches train and 1,000 validate."
    )
    flags.DEFINE_enum("split", default, SPLITS, text)


RUN = (
    "lam", "learning_rate", "batch_size", "n_epochs", "loss", "decay_factor", "decay_every",
    "shuffle", "n_seeds",
)  # fmt: skip
_TRAINING: dict[str, Callable[..., None]] = {
    "lam": _lam,
    "learning_rate": _learning_rate,
    "batch_size": _batch_size,
    "n_epochs": _n_epochs,
    "loss": _loss,
    "decay_factor": _decay_factor,
    "decay_every": _decay_every,
    "shuffle": _shuffle,
    "n_seeds": _n_seeds,
    "split": _split,
}
