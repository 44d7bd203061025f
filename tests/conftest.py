"""The suite runs in JAX's x64 mode, and any implicit rank promotion is an error."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from linear_cifar.datasets import Dataset, Split, fit_standardiser, load_dataset

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The one table of tolerances: relative, and absolute for quantities of order 1.
TOLERANCE = {np.dtype("float32"): 2e-5, np.dtype("float64"): 1e-12}


def assert_close(actual, expected, dtype=None, factor=1.0):
    """Asserts equality to the rounding of the actual value's dtype, times `factor`."""
    actual = np.asarray(actual)
    tolerance = factor * TOLERANCE[np.dtype(dtype or actual.dtype)]
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="session")
def synthetic() -> Dataset:
    return load_dataset("synthetic")


def reduced(dataset: Dataset) -> Dataset:
    """400 training and 150 further images, standardised on their own."""
    train, validation, test = (
        Split(split.inputs[:n], split.labels[:n])
        for split, n in ((dataset.train, 400), (dataset.validation, 150), (dataset.test, 150))
    )
    return Dataset(
        "small", train, validation, test, fit_standardiser(train.inputs), dataset.class_names,
        dataset.image_shape,
    )  # fmt: skip


@pytest.fixture(scope="session")
def small(synthetic) -> Dataset:
    return reduced(synthetic)


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """The folder of the real images; without `$LINEAR_CIFAR_DATA` the test is skipped."""
    folder = os.environ.get("LINEAR_CIFAR_DATA")
    if not folder:
        pytest.skip("LINEAR_CIFAR_DATA names no folder with CIFAR-10")
    return Path(folder)


@pytest.fixture(scope="session")
def real(real_dir) -> Dataset:
    return load_dataset("cifar10", real_dir)
