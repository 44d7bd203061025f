"""What a fit is given, as the solver takes it."""

from typing import NamedTuple

import numpy as np

from linear_cifar.data.types import Dataset, Split, Standardiser
from linear_cifar.model import Params

# A program is compiled for each shape, which takes seconds, and small fits take milliseconds. Up to
# this many numbers the examples are filled up to one of few shapes, powers of two from these on.
_SMALL, _LEAST_SHAPE = 2**16, (512, 32)


class Examples(NamedTuple):
    """What a fit is given, checked; small data are filled up by `filled`."""

    inputs: np.ndarray  # [n, d], float64 or float32
    labels: np.ndarray  # [n], int32 from 0 to K − 1
    weights: np.ndarray  # [n], at least 0, float64; without those of classes
    n_given: int  # the examples that were given, which come first


def filled(examples: Examples) -> Examples:
    """Small data in one of few shapes: more examples of weight 0, and more features of value 0.

    Neither changes the optimum. The further examples are the given ones, so that the solver's
    preconditioner stays about the same.
    """
    inputs, labels, weights, n = examples
    if inputs.size > _SMALL:
        return examples
    n_rows, n_columns = (
        max(least, 1 << (size - 1).bit_length())
        for least, size in zip(_LEAST_SHAPE, inputs.shape, strict=True)
    )
    rows = np.arange(n_rows) % n
    return Examples(
        np.pad(inputs[rows], ((0, 0), (0, n_columns - inputs.shape[1]))),
        labels[rows],
        np.pad(weights, (0, n_rows - n)),
        n,
    )


def centred(examples: Examples, weights: np.ndarray, n_classes: int) -> Dataset:
    """A data set whose features are about their mean, with the weights [n].

    Only the bias depends on the origin, for it isn't penalised; about the mean the solver gets
    there soonest. Scales do change the penalty, and stay.
    """
    inputs, labels, *_ = examples
    mean = np.einsum("n,nd->d", weights / weights.sum(), inputs, dtype=np.float64)
    none = Split(inputs[:0], labels[:0])
    return Dataset(
        name="arrays",
        train=Split(inputs, labels),
        validation=none,
        test=none,
        standardiser=Standardiser(mean, np.ones_like(mean)),
        class_names=tuple(map(str, range(n_classes))),
    )


def centred_params(params: Params, dataset: Dataset) -> Params:
    """Parameters [K, d] and [K] as those of one run, [1, K, d] and [1, K], of the data set."""
    mean, (weights, bias) = dataset.standardiser.mean, params
    weights = np.pad(weights, ((0, 0), (0, len(mean) - weights.shape[1])))
    return Params(weights[None], (bias + weights @ mean)[None])
