"""Readers of CIFAR-10's batches and archives."""

import contextlib
import gzip
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from linear_cifar.data import DataError, Split, cifar10
from tests.campaign.reading import Loader, Reader, refused

ROWS, COLUMNS = 10, 12  # of a batch
BATCHES = ("data_batch_1", "test_batch")


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Batches of a few images, with limits as far from them as the official ones'."""
    sizes = {"BATCH_ROWS": ROWS, "BATCH_COLUMNS": COLUMNS, "MAX_BYTES": 4000}
    with mock.patch.multiple(cifar10, **sizes):
        yield


def batches() -> list[bytes]:
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
    return found


@contextlib.contextmanager
def archive_reader(folder: Path) -> Iterator[Reader]:
    """Of .tar.gz as it is, and of .tar, which it compresses."""
    path = folder / "cifar-10-python.tar.gz"

    def read(content: bytes) -> None:
        whole = content if content.startswith(b"\x1f\x8b") else gzip.compress(content, 0)
        path.write_bytes(whole)
        with refused(DataError):
            for batch in cifar10.load_batches(path, BATCHES)[0]:
                check_batch(batch)

    with small_batches():
        yield read


LOADERS = {
    "batch": Loader(batches, batch_reader),
    "archive": Loader(archives, archive_reader),
    "compressed": Loader(lambda: [gzip.compress(archives()[0], mtime=0)], archive_reader),
}
