"""Everything that the project reads, as functions of bytes, with honest files to begin with.

A reader gives its input to the project's own loader. It returns where that was read or refused as
documented, and raises where something else happened, or where what was read can't be.

Checksums of .npz members are not compared, since no random change would get past them, and .tar is
packed here for the same reason. Those of checkpoints are: they are the point.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib
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

from experiments.common import resumable, seals, store
from linear_cifar.data import DataError, cifar10, load_features, load_inputs
from linear_cifar.data.types import Standardiser
from linear_cifar.losses import LOSSES
from linear_cifar.model import Params
from linear_cifar.models import Model, read_model, write_model
from linear_cifar.records import RESULT, RecordError, read_result
from tests.campaign import parts

Reader = Callable[[bytes], None]
ROWS, COLUMNS = 10, 12  # of a batch of images
BATCHES = ("data_batch_1", "test_batch")
N, D = 12, 3
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 2
FIT = Params(X[:2].astype(float), np.zeros(2)), Standardiser(X[2].astype(float), np.ones(D))
MODELS = (
    Model(*FIT, ("cat", "dog"), LOSSES["softmax"], lam=0.1),
    Model(*FIT, ("a", "b"), LOSSES["multi_bce"], lam=0.0, normalise_rows=True, temperature=2.5),
)
UNDIVIDED = {"validation_fraction": 0.0, "test_fraction": 0.0}
OF = seals.fingerprint("what a table is of")


class Loader(NamedTuple):
    """What reads one kind of file."""

    honest: Callable[[], list[bytes]]
    reader: Callable[[Path], contextlib.AbstractContextManager[Reader]]  # in an empty folder


@contextlib.contextmanager
def refused(*errors: type[Exception]) -> Iterator[None]:
    """Lets an error of the project pass, if it is one line."""
    try:
        yield
    except errors as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error), f"more than one line: {error}"


def thorough(content: bytes) -> bool:
    """Whether to look at all that came of an input, which takes longer: of one in eight."""
    return zlib.crc32(content) % 8 == 0


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Batches of a few images, with limits as far from them as the official ones'."""
    sizes = {"BATCH_ROWS": ROWS, "BATCH_COLUMNS": COLUMNS, "MOST_BYTES": 4000, "MOST_STEPS": 400}
    with mock.patch.multiple(cifar10, **sizes):
        yield


def batches() -> list[bytes]:
    images = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
    content = {b"labels": list(range(ROWS)), b"data": images}
    as_array = {b"labels": np.arange(ROWS), b"data": np.asfortranarray(images)}
    return [pickle.dumps(c, protocol=p) for c in (content, as_array) for p in (2, 3, 4, 5)]


def check_batch(batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = batch
    assert (images.shape, images.dtype) == ((ROWS, COLUMNS), np.uint8)
    assert (labels.shape, labels.dtype) == ((ROWS,), np.int32)
    assert 0 <= labels.min() <= labels.max() <= 9


@contextlib.contextmanager
def batch_reader(_: Path) -> Iterator[Reader]:
    def read(content: bytes) -> None:
        with refused(DataError):
            check_batch(cifar10.parse_batch(content, "file"))

    with small_batches():
        yield read


def archives() -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for name, content in zip(BATCHES, batches(), strict=False):
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        found.append(buffer.getvalue().rstrip(b"\0") + bytes(1024))
    return [*found, gzip.compress(found[0])]


@contextlib.contextmanager
def archive_reader(folder: Path) -> Iterator[Reader]:
    """Of .tar.gz as it is, and of .tar, which it compresses."""
    path = folder / "cifar-10-python.tar.gz"

    def read(content: bytes) -> None:
        whole = content if content.startswith(b"\x1f\x8b") else gzip.compress(content, 0)
        path.write_bytes(whole)
        with refused(DataError):
            for batch in cifar10.load_batches(BATCHES, path)[0]:
                check_batch(batch)

    with small_batches():
        yield read


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


def unsummed(kind: str) -> contextlib.AbstractContextManager:
    """The checksums of .zip archives are not compared."""
    if kind != "npz":
        return contextlib.nullcontext()
    return mock.patch.object(zipfile.ZipExtFile, "_update_crc", _uncompared)


def _uncompared(*_) -> None:
    """In place of what compares a checksum at the end."""


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


def check_features(found) -> None:
    for split in (found.train, found.validation, found.test):
        assert np.isfinite(np.asarray(split.inputs, np.float32)).all()
        assert split.labels.dtype == np.int32
        assert len(split.labels) == len(split.inputs)
        assert set(split.labels.tolist()) <= set(range(found.n_classes))
    assert np.isfinite(found.standardiser.mean).all()
    assert (found.standardiser.scale > 0).all()


def models(kind: str) -> list[bytes]:
    with parts.folder() as place:
        path = Path(place) / f"model.{kind}"
        found = []
        for model in MODELS:
            write_model(path, model)
            found.append(path.read_bytes())
        return found


@contextlib.contextmanager
def model_reader(kind: str, folder: Path) -> Iterator[Reader]:
    path, again = folder / f"model.{kind}", folder / f"again.{kind}"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with refused(RecordError):
            model = read_model(path)
            if not thorough(content):
                return
            write_model(again, model)
            same = read_model(again)
            for a, b in zip((*model.params, *model.standardiser), same.params, strict=False):
                assert np.array_equal(a, b)
            assert (same.class_names, same.lam) == (model.class_names, model.lam)
            probabilities = model.probabilities(np.zeros((1, len(model.standardiser.mean))))
            assert ((probabilities >= 0) & (probabilities <= 1)).all()

    with unsummed(kind):
        yield read


def chunks() -> list[bytes]:
    with parts.folder() as place:
        store.write(Path(place), [0, 1], of=OF, weights=X[:2], cost=X[:2, 0])
        (path,) = Path(place).iterdir()
        return [path.read_bytes()]


@contextlib.contextmanager
def chunk_reader(folder: Path) -> Iterator[Reader]:
    """Of a part of a table, of which nothing but what was written may be read."""
    (honest,) = chunks()
    path = folder / "000000-000001.npz"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = list(store.read(folder, OF))
        assert bool(found) == (content == honest)
        with refused(RecordError):
            assert store.read_row(folder, 1)["cost"] == X[1, 0]
            assert content == honest

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield read


def jsons() -> list[bytes]:
    values = [
        {"lam": [0.1, 1.0], "loss": "softmax", "machine": {"n_devices": 1, "versions": {}}},
        {"of": OF, "files": {"result.json": OF}},
        {"best": {"lam": 0.1, "name": "λ\u0000"}, "seconds": None, "deep": [[[[1e308]]], -0, True]},
    ]
    return [json.dumps(value).encode() for value in values]


@contextlib.contextmanager
def json_reader(folder: Path) -> Iterator[Reader]:
    """Of what a record, a seal and a folder that was begun have."""
    held = resumable.Held(folder, "a sweep")
    machine = {"n_devices": 1, "versions": {}}

    def read(content: bytes) -> None:
        for name in (RESULT, seals.SEAL, resumable.BEGUN):
            (folder / name).write_bytes(content)
        with refused(RecordError):
            read_result(folder)
        assert seals.unfit(folder, "another fingerprint")
        before = held._begun()
        assert before is None or isinstance(before, dict)
        with refused(RecordError):
            held._go_on(before or {}, {"loss": "softmax"}, machine)

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield read


LOADERS = {
    "batch": Loader(batches, batch_reader),
    "archive": Loader(archives, archive_reader),
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
    "model_npz": Loader(partial(models, "npz"), partial(model_reader, "npz")),
    "model_safetensors": Loader(
        partial(models, "safetensors"), partial(model_reader, "safetensors")
    ),
    "chunk": Loader(chunks, chunk_reader),
    "json": Loader(jsons, json_reader),
}
