"""The data that a command is asked for, and what is said of them."""

import sys

from absl import flags

from linear_cifar.data import Dataset, load_dataset

FLAGS = flags.FLAGS


def load_data(split: str = "assignment") -> Dataset:
    """Loads what --dataset names, and tells the user what there is to tell of it."""
    dataset = load_dataset(FLAGS.dataset, FLAGS.data_dir, split, progress=sys.stderr.isatty())
    if dataset.name == "synthetic" and dataset.notice:
        line = "!" * 78
        print(f"{line}\n{dataset.notice}\n{line}", file=sys.stderr)
    elif dataset.notice:
        print(f"note: {dataset.notice}", file=sys.stderr)
    return dataset


def data_title(dataset: Dataset) -> str:
    """The data's name for tables and figures, with a word on copies that are not the official."""
    if dataset.name == "synthetic":
        return "SYNTHETIC images"
    return f"{dataset.name} ({'official files' if dataset.official else 'not the official files'})"
