"""The suite runs in JAX's x64 mode, and any implicit rank promotion is an error.

Most of its time would go into compiling programs that run for milliseconds, so XLA's optimisations
are off, and its older code generator is on, which takes half as long. The fixture `optimised`
switches optimisations on for tests that train for long.
"""

import contextlib
import dataclasses
import importlib
import io
import os
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest
from hypothesis import settings
from matplotlib.figure import Figure

from linear_cifar import LOSSES
from linear_cifar.data import Dataset, LazyRows, Split, dataset_from_arrays, load_dataset

# XLA reads these flags at its first program, and ends the process if it lacks one.
FAST_TO_COMPILE = "--xla_cpu_parallel_codegen_split_count=1"
if jaxlib.version.__version_info__ < (0, 11):
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FAST_TO_COMPILE)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_compilation_cache", False)  # which commands keep for the user

# `--hypothesis-profile=thorough` searches for hours.
settings.register_profile("ci", max_examples=20, derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=50_000, deadline=None)
settings.load_profile("ci")

# Programs that tests start, which aren't tests.
collect_ignore = ["programs"]

# Both spellings, because the lower-case one wins where it is set.
NO_NETWORK = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:1")
NO_NETWORK |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")  # of JAX's coordinator, too
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def pytest_collection_modifyitems(items):
    """Marks the tests on real data."""
    for item in items:
        if {"real_dir", "real_features"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")


def pytest_terminal_summary(terminalreporter, config):
    """Says the order of the tests, and how many passed on real data, which .ci/run compares."""
    passed = terminalreporter.getreports("passed")
    n_real = sum("real" in report.keywords for report in passed if report.when == "call")
    terminalreporter.write_line(f"passed on real data: {n_real}")
    if seed := config.getoption("randomly_seed", None):
        terminalreporter.write_line(f"order of the tests: --randomly-seed={seed}")


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


def reduced(dataset: Dataset, n_features: int = 192) -> Dataset:
    """400 training and 150 further images, of their middle features, standardised on their own."""
    middle = slice((dataset.n_features - n_features) // 2, (dataset.n_features + n_features) // 2)
    train, validation, test = (
        Split(split.inputs[:n, middle], split.labels[:n])
        for split, n in ((dataset.train, 400), (dataset.validation, 150), (dataset.test, 150))
    )
    return dataset_from_arrays(
        train, validation, test, name="small", class_names=dataset.class_names
    )


@pytest.fixture(scope="session")
def small(synthetic) -> Dataset:
    return reduced(synthetic)


def lazy(array):
    """The rows of an array as if they were in a file."""
    return LazyRows(lambda start, stop: array[start:stop].copy(), array.shape, array.dtype)


def on_disk(data, monkeypatch, n_rows=100):
    """The data set with its inputs in a file that is read a few rows at a time."""
    inputs = np.asarray(data.train.inputs)
    n_bytes = n_rows * inputs[0].nbytes
    monkeypatch.setattr(importlib.import_module("linear_cifar.data.blocks"), "BLOCK_BYTES", n_bytes)
    return dataclasses.replace(data, train=Split(lazy(inputs), data.train.labels))


@pytest.fixture
def offline(monkeypatch):
    """Every download fails at once."""
    for variable, value in NO_NETWORK.items():
        monkeypatch.setenv(variable, value)


@pytest.fixture
def optimised():
    """XLA's optimisations, for programs that run for long."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def _folder_in(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """The folder of the real images; without `$LINEAR_CIFAR_DATA` the test is skipped."""
    return _folder_in("LINEAR_CIFAR_DATA")


@pytest.fixture(scope="session")
def real_features() -> Path:
    """The folder of real features; without `$LINEAR_CIFAR_FEATURES` the test is skipped."""
    return _folder_in("LINEAR_CIFAR_FEATURES")


@pytest.fixture(scope="session")
def real(real_dir) -> Dataset:
    return load_dataset("cifar10", real_dir)


@contextlib.contextmanager
def undrawn_figures():
    """Figures are made, but all saved as one pixel: drawing them takes longer than all else."""
    drawn, pixel = Figure.savefig, io.BytesIO()
    drawn(Figure(figsize=(1, 1)), pixel, dpi=1)
    Figure.savefig = lambda _, path, **__: Path(path).write_bytes(pixel.getvalue())
    try:
        yield
    finally:
        Figure.savefig = drawn


@pytest.fixture
def undrawn():
    with undrawn_figures():
        yield
