"""Readers of features: arrays and tables."""

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ml_dtypes import bfloat16
from safetensors.numpy import save

from linear_cifar.data import DataError, Dataset, load_features, load_inputs
from tests.campaign.reading import Loader, Reader, refused, thorough, unsummed

N, D = 12, 3
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 2
UNDIVIDED = {"validation_fraction": 0.0, "test_fraction": 0.0}


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def compressed_npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=X, y=Y)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def table(write: Callable) -> bytes:
    columns = {f"f{i}": X[:, i] for i in range(D)}
    file = io.BytesIO()
    write(pyarrow.table({**columns, "label": Y}), file)
    return file.getvalue()


def csvs() -> list[bytes]:
    texts = [f"{a:.3f},{b:.3f},{label}" for (a, b), label in zip(X[:, :2], "xy" * 6, strict=True)]
    return [table(pyarrow.csv.write_csv), "\n".join(["a,b,label", *texts]).encode()]


@contextlib.contextmanager
def features_reader(kind: str, folder: Path, name: str = "", beside: str = "") -> Iterator[Reader]:
    """Of a file of features, in memory and left on disk.

    Args:
      kind: its ending.
      folder: to write it into.
      name: of the file.
      beside: the name of the honest file that stands beside it, and goes to the loader.
    """
    path = folder / (name or f"a.{kind}")
    if beside:
        (folder / beside).write_bytes(npy({"x.npy": X, "y.npy": Y}[beside]))
    given = folder / "x.npy" if beside else path

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = None
        with refused(DataError):
            found = load_features(given, **({} if thorough(content) else UNDIVIDED))
        if found:
            check_features(found)
        if found and thorough(content):
            with refused(DataError):
                assert load_features(given, memory_gb=1e-12).sha256 == found.sha256
        elif not beside:
            with refused(DataError):
                inputs = load_inputs(path)
                assert inputs[:3].shape[1:] == inputs.shape[1:]

    with unsummed(kind):
        yield read


def check_features(found: Dataset) -> None:
    for split in (found.train, found.validation, found.test):
        assert np.isfinite(np.asarray(split.inputs, np.float32)).all()
        assert split.labels.dtype == np.int32
        assert len(split.labels) == len(split.inputs)
        assert set(split.labels.tolist()) <= set(range(found.n_classes))
    assert np.isfinite(found.standardiser.mean).all()
    assert (found.standardiser.scale > 0).all()


LOADERS = {
    "npy": Loader(
        lambda: [npy(X), npy(np.asfortranarray(X)), npy(X > 0)],
        partial(features_reader, "npy", name="x.npy", beside="y.npy"),
    ),
    "labels": Loader(
        lambda: [npy(Y), npy(Y.astype(float)), npy(Y.astype(str)), npy(Y.astype("S"))],
        partial(features_reader, "npy", name="y.npy", beside="x.npy"),
    ),
    "npz": Loader(
        lambda: [npz(x=X, y=Y), npz(x_train=X, y_train=Y, x_test=X, y_test=Y), compressed_npz()],
        partial(features_reader, "npz"),
    ),
    "safetensors": Loader(
        lambda: [save({"x": X, "y": Y}), save({"x": X.astype(bfloat16), "y": Y})],
        partial(features_reader, "safetensors"),
    ),
    "csv": Loader(csvs, partial(features_reader, "csv")),
    "parquet": Loader(
        lambda: [
            table(pyarrow.parquet.write_table),
            table(partial(pyarrow.parquet.write_table, compression="none", use_dictionary=False)),
        ],
        partial(features_reader, "parquet"),
    ),
}
