"""CIFAR-10's official files: find, verify, read.

References:
  A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
  https://www.cs.toronto.edu/~kriz/cifar.html describes the files.
"""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from linear_cifar.data.download import ARCHIVE, FOLDER, download
from linear_cifar.data.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
IMAGE_SHAPE = (3, 32, 32)  # channels, rows, columns: the order of a row of a batch

BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
TEST_BATCH = "test_batch"
TRAIN_BATCHES = tuple(name for name in BATCH_MD5 if name != TEST_BATCH)
BATCH_ROWS, BATCH_COLUMNS = 10_000, 3072


def default_data_dir() -> Path:
    """`$LINEAR_CIFAR_DATA` if it is set, else the user's cache folder of this project."""
    if folder := os.environ.get("LINEAR_CIFAR_DATA"):
        return Path(folder)
    import pooch

    return Path(pooch.os_cache("linear_cifar"))


def load_batches(
    names: tuple[str, ...], data_dir: str | Path | None = None, progress: bool = False
) -> tuple[list[tuple[np.ndarray, np.ndarray]], bool, str]:
    """Reads batches from the data folder, after a download where it has none.

    Args:
      names: batch names, of `BATCH_MD5`.
      data_dir: a folder that holds `cifar-10-batches-py` or `cifar-10-python.tar.gz`, or either of
        these itself; None for `default_data_dir()`.
      progress: show a download's progress bar on stderr.

    Returns:
      The (images [10000, 3072] uint8, labels [10000] int32) of each batch; whether every one has
      its published checksum; and a line about that for the user ("" when official).

    Raises:
      UnavailableError: there are no files and no mirror gave them.
      DataError: a file is damaged or not what it should be.
    """
    data_dir = Path(data_dir) if data_dir is not None else default_data_dir()
    source = find(data_dir) or download(data_dir, progress=progress)
    read = _read_archive if source.is_file() else _read_folder
    batches, official = {}, True
    for name, path, content in read(source, names):
        official &= hashlib.md5(content, usedforsecurity=False).hexdigest() == BATCH_MD5[name]
        batches[name] = parse_batch(content, path)
    missing = [name for name in names if name not in batches]
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)}: replace it by the official one")
    notice = "" if official else f"{source} is not the official CIFAR-10: checksums differ"
    return [batches[name] for name in names], official, notice


def find(data_dir: Path) -> Path | None:
    """The CIFAR-10 folder or archive that `data_dir` holds or is, if there is one."""
    candidates = (data_dir / FOLDER, data_dir / ARCHIVE, data_dir)
    for path in candidates[:2]:
        if path.exists():
            return path
    if data_dir.is_file() or (data_dir / TRAIN_BATCHES[0]).exists():
        return data_dir
    return None


def _read_folder(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    for name in names:
        path = folder / name
        try:
            yield name, str(path), path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _read_archive(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    try:
        with gzip.open(archive) as whole, tarfile.open(fileobj=whole, mode="r|") as tar:
            for member in tar:
                name = Path(member.name).name
                file = tar.extractfile(member) if name in names else None
                if file is not None:
                    yield name, f"{archive}:{member.name}", file.read()
            whole.read()  # up to gzip's own checksum, which tarfile leaves unread
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive} is corrupt ({error}): delete it to download it again"
        ) from error


class _BatchUnpickler(pickle.Unpickler):
    """Admits what rebuilds a numpy array, so that no code of the file's choosing can run."""

    # numpy's own reconstruction function, by the module names that it has had.
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ADMITTED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str):
        try:
            return self._ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def parse_batch(content: bytes, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one pickled batch, and checks that it is one.

    Args:
      content: the file's bytes.
      path: its name, for errors.

    Returns:
      Images [10000, 3072] uint8 and labels [10000] int32 in 0 … 9.

    Raises:
      DataError: it can't be unpickled, asks for anything but a numpy array, or has the wrong keys,
        shapes, dtypes or labels.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any of a dozen types
        raise DataError(
            f"{path} is not a readable batch: {error or type(error).__name__}"
        ) from error
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise DataError(f"{path} is not a batch: it has no b'data' and b'labels'")
    images = batch[b"data"]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DataError(f"{path}: the images are not an array of uint8")
    if images.shape != (BATCH_ROWS, BATCH_COLUMNS):
        raise DataError(
            f"{path}: images of shape {images.shape}, not {(BATCH_ROWS, BATCH_COLUMNS)}"
        )
    try:
        labels = np.asarray(batch[b"labels"])
    except ValueError as error:
        raise DataError(f"{path}: the labels are not a list of integers") from error
    if labels.shape != (BATCH_ROWS,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: the labels are not {BATCH_ROWS} integers")
    outside = labels[(labels < 0) | (labels >= len(CLASSES))]
    if len(outside):
        raise DataError(f"{path}: label {outside[0]} is not in 0 … {len(CLASSES) - 1}")
    return np.ascontiguousarray(images), labels.astype(np.int32)
