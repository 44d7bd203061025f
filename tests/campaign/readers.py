"""Every kind of file that the project reads, damaged: read as it is meant, or refused in one line.

The checksums in .npz archives are not compared, because no random change would get past them.
"""

import contextlib
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ml_dtypes import bfloat16
from safetensors.numpy import save

from linear_cifar import Classifier, DataError, Dataset, InputError, Params, Split, load_features
from linear_cifar.data import Standardiser, cifar10

Random = np.random.Generator
Reader = Callable[[bytes], None]
ROWS, COLUMNS = 10, 12  # of a batch
BATCHES = ("data_batch_1", "test_batch")
N, D = 12, 3
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 2
FIT = Params(np.eye(2, 3), np.zeros(2)), Standardiser(np.arange(3.0), np.ones(3))
MODELS = (
    Classifier(*FIT, ("cat", "dog"), lam=0.1),
    Classifier(*FIT, ("a", "b"), "multi_bce", normalise_rows=True, temperature=2.5),
)


class Loader(NamedTuple):
    """One kind of file."""

    intact: Callable[[Path], list[bytes]]  # examples, for which it may use an empty folder
    reader: Callable[[Path], contextlib.AbstractContextManager[Reader]]  # in an empty folder


@contextlib.contextmanager
def one_line(*errors: type[Exception]) -> Iterator[None]:
    """Lets an error of the project pass, if it is one line."""
    try:
        yield
    except errors as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error), f"more than one line: {error}"


def without_checksums() -> contextlib.AbstractContextManager:
    """Zip archives whose checksums are not compared."""
    return mock.patch.object(zipfile.ZipExtFile, "_update_crc", return_value=None)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    """What is written into a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


# CIFAR-10's batches and archives.


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Batches of a few images."""
    sizes = {"BATCH_ROWS": ROWS, "BATCH_COLUMNS": COLUMNS, "MAX_BYTES": 4000}
    with mock.patch.multiple(cifar10, **sizes):
        yield


def batches(_: Path | None = None) -> list[bytes]:
    images = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
    content = {b"labels": list(range(ROWS)), b"data": images}
    as_array = {b"labels": np.arange(ROWS), b"data": np.asfortranarray(images)}
    return [pickle.dumps(c, protocol=p) for c in (content, as_array) for p in (2, 3, 4, 5)]


def check_batch(batch: Split) -> None:
    images, labels = batch
    assert (images.shape, images.dtype) == ((ROWS, COLUMNS), np.uint8)
    assert (labels.shape, labels.dtype) == ((ROWS,), np.int32)
    assert 0 <= labels.min() <= labels.max() <= 9


@contextlib.contextmanager
def batch_reader(_: Path) -> Iterator[Reader]:
    def read(content: bytes) -> None:
        with one_line(DataError):
            check_batch(cifar10.parse_batch(content, "file"))

    with small_batches():
        yield read


def archives(_: Path | None = None) -> list[bytes]:
    def pack(kind: int, file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name, content in zip(BATCHES, batches(), strict=False):
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    kinds = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [written(partial(pack, kind)).rstrip(b"\0") + bytes(1024) for kind in kinds]


@contextlib.contextmanager
def archive_reader(folder: Path) -> Iterator[Reader]:
    """Reads .tar.gz as it is, and .tar compressed."""
    path = folder / "cifar-10-python.tar.gz"

    def read(content: bytes) -> None:
        compressed = content.startswith(b"\x1f\x8b")
        path.write_bytes(content if compressed else gzip.compress(content, 0))
        with one_line(DataError):
            for batch in cifar10.load_batches(path, BATCHES)[0]:
                check_batch(batch)

    with small_batches():
        yield read


# Features.


def table(write: Callable) -> bytes:
    columns = {f"f{i}": X[:, i] for i in range(D)}
    return written(partial(write, pyarrow.table({**columns, "label": Y})))


def npy(array: np.ndarray) -> bytes:
    return written(lambda file: np.save(file, array))


def npz(**arrays: np.ndarray) -> bytes:
    return written(lambda file: np.savez(file, **arrays))


@contextlib.contextmanager
def features_reader(name: str, beside: str, folder: Path) -> Iterator[Reader]:
    """Reads a file of features, in memory and on disk.

    Args:
      name: of the file.
      beside: the name of an intact file beside it.
      folder: to write into.
    """
    if beside:
        (folder / beside).write_bytes(npy({"x.npy": X, "y.npy": Y}[beside]))
    given = folder / ("x.npy" if beside else name)

    def read(content: bytes) -> None:
        (folder / name).write_bytes(content)
        for settings in ({}, {"memory_gb": 1e-12}):
            with one_line(DataError):
                check_features(load_features(given, **settings))

    with without_checksums():
        yield read


def check_features(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert np.isfinite(np.asarray(split.inputs, np.float32)).all()
        assert split.labels.dtype == np.int32
        assert len(split.labels) == len(split.inputs)
        assert set(split.labels.tolist()) <= set(range(dataset.n_classes))
    assert np.isfinite(dataset.standardiser.mean).all()
    assert (dataset.standardiser.scale > 0).all()


# Models.


def models(kind: str, folder: Path) -> list[bytes]:
    path = folder / f"intact.{kind}"
    contents = []
    for model in MODELS:
        model.save(path)
        contents.append(path.read_bytes())
    return contents


@contextlib.contextmanager
def model_reader(kind: str, folder: Path) -> Iterator[Reader]:
    path = folder / f"model.{kind}"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with one_line(InputError):
            model = Classifier.load(path)
            origin = np.zeros((1, len(model.standardiser.mean)))
            (logits,), (predicted,) = model.logits(origin), model.predict(origin)
            assert predicted == model.class_names[logits.argmax()]

    with without_checksums():
        yield read


LOADERS: dict[str, Loader] = {
    "batch": Loader(batches, batch_reader),
    "archive": Loader(archives, archive_reader),
    "compressed": Loader(lambda _: [gzip.compress(archives()[0], mtime=0)], archive_reader),
    "npy": Loader(
        lambda _: [npy(X), npy(np.asfortranarray(X)), npy(X > 0)],
        partial(features_reader, "x.npy", "y.npy"),
    ),
    "labels": Loader(
        lambda _: [npy(Y), npy(Y.astype(float)), npy(Y.astype(str)), npy(Y.astype("S"))],
        partial(features_reader, "y.npy", "x.npy"),
    ),
    "npz": Loader(
        lambda _: [npz(x=X, y=Y), npz(x_train=X, y_train=Y, x_test=X, y_test=Y)],
        partial(features_reader, "a.npz", ""),
    ),
    "safetensors": Loader(
        lambda _: [save({"x": X, "y": Y}), save({"x": X.astype(bfloat16), "y": Y})],
        partial(features_reader, "a.safetensors", ""),
    ),
    "csv": Loader(
        lambda _: [table(pyarrow.csv.write_csv), b"a,b,label\n" + b"0.5,1,x\n2,-1e3,y\n" * 6],
        partial(features_reader, "a.csv", ""),
    ),
    "parquet": Loader(
        lambda _: [
            table(pyarrow.parquet.write_table),
            table(partial(pyarrow.parquet.write_table, compression="none", use_dictionary=False)),
        ],
        partial(features_reader, "a.parquet", ""),
    ),
    "model_npz": Loader(partial(models, "npz"), partial(model_reader, "npz")),
    "model_safetensors": Loader(
        partial(models, "safetensors"), partial(model_reader, "safetensors")
    ),
}


def mutated(rng: Random, contents: list[bytes]) -> bytes:
    """One of the contents with a few changes."""
    content = bytearray(contents[rng.integers(len(contents))])
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(content) + 1, 2))
        stop = min(stop, start + int(rng.choice([0, 1, 4, 40])))
        new = rng.choice([rng.bytes(stop - start), bytes(stop - start), b"\xff" * (stop - start)])
        content[start:stop] = rng.choice([new, b"", bytes(content[start:stop]) * 2])
    return bytes(content[: rng.integers(len(content))] if rng.random() < 0.1 else content)


def read_mutated(rng: Random, place: Path) -> None:
    """Reads a file of any kind after a few changes."""
    loader = LOADERS[str(rng.choice(list(LOADERS)))]
    with loader.reader(place) as read:
        read(mutated(rng, loader.intact(place)))
