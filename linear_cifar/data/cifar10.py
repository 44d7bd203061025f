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
import pickletools
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from linear_cifar.data.download import ARCHIVE, FOLDER, download
from linear_cifar.data.errors import DataError
from linear_cifar.errors import reason

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
# Above what a batch can be, whose images are 30.7 MB and whose pickle has some 70,000 steps.
MOST_BYTES, MOST_STEPS = 40_000_000, 400_000


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
        known = hashlib.md5(content, usedforsecurity=False).hexdigest() == BATCH_MD5[name]
        official &= known
        batches[name] = parse_batch(content, path, known)
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
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise DataError(f"{path} cannot be read: it is no file")
            with path.open("rb") as file:
                yield name, str(path), _bounded(file, str(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _bounded(file: IO[bytes], path: str) -> bytes:
    """All of a file, if that is not more than a batch can be."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} is not a batch: it has more than {MOST_BYTES:,} bytes")
    return content


class _Bounded(io.RawIOBase):
    """What is unpacked of an archive, up to what six batches and their names can be."""

    def __init__(self, whole: gzip.GzipFile) -> None:
        self._whole, self._left = whole, 7 * MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._whole.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise tarfile.ReadError("it unpacks to more than CIFAR-10")
        return content


def _read_archive(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    try:
        with (
            gzip.open(archive) as unpacked,
            _Bounded(unpacked) as whole,
            tarfile.open(fileobj=whole, mode="r|") as tar,
        ):
            for member in tar:
                name = Path(member.name).name
                file = tar.extractfile(member) if name in names else None
                if file is not None:
                    path = f"{archive}:{member.name}"
                    yield name, path, _bounded(file, path)
            while whole.read(2**20):  # up to gzip's own checksum, which tarfile leaves unread
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive} is corrupt ({reason(error)}): delete it to download it again"
        ) from error


class _Dtype:
    """What stands for a numpy dtype in a pickle."""

    def __init__(self, name: Any, *_: Any) -> None:
        name = name.decode("ascii") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?[biuf][1248]", name):
            raise pickle.UnpicklingError(f"it asks for an array of {str(name)[:20]!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """What stands for a numpy array in a pickle; it has no memory but the bytes that are there."""

    array: np.ndarray

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, content = state
        flat = np.frombuffer(content, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if in_columns else "C")


class _BatchUnpickler(pickle.Unpickler):
    """Admits what rebuilds a numpy array, so that no code of the file's choosing can run.

    Not even numpy's: that makes arrays of whatever size is asked for, of memory as it finds it.
    """

    _ADMITTED: ClassVar = {
        # numpy's own reconstruction function, by the module names that it has had.
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module_name: str, global_name: str):
        try:
            return self._ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def _check_steps(content: bytes) -> None:
    """That a pickle's steps are no more than a batch needs, and each within the bytes there are.

    A changed byte can ask for gigabytes, for a place in the memo far away for example.
    """
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if step > MOST_STEPS:
            raise pickle.UnpicklingError(f"it has more than {MOST_STEPS:,} steps")
        if "PUT" in opcode.name and (argument or 0) > MOST_STEPS:
            raise pickle.UnpicklingError(f"it asks for the place {argument} of its memo")


def parse_batch(content: bytes, path: str, known: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Reads one pickled batch, and checks that it is one.

    Args:
      content: the file's bytes.
      path: its name, for errors.
      known: it has its published checksum, so that its steps need no look beforehand.

    Returns:
      Images [10000, 3072] uint8 and labels [10000] int32 in 0 … 9.

    Raises:
      DataError: it can't be unpickled, asks for anything but a numpy array, or has the wrong keys,
        shapes, dtypes or labels.
    """
    try:
        if not known:
            _check_steps(content)
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any of a dozen types
        raise DataError(f"{path} is not a readable batch: {reason(error)}") from error
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise DataError(f"{path} is not a batch: it has no b'data' and b'labels'")
    images, labels = (_plain(batch[key]) for key in (b"data", b"labels"))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise DataError(f"{path}: the images are not an array of uint8")
    if images.shape != (BATCH_ROWS, BATCH_COLUMNS):
        raise DataError(
            f"{path}: images of shape {images.shape}, not {(BATCH_ROWS, BATCH_COLUMNS)}"
        )
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        # Beyond an int64 they are objects, and no integers then.
        labels = np.array(labels)
    if (
        not isinstance(labels, np.ndarray)
        or labels.shape != (BATCH_ROWS,)
        or labels.dtype.kind not in "iu"
    ):
        raise DataError(f"{path}: the labels are not {BATCH_ROWS} integers")
    outside = labels[(labels < 0) | (labels >= len(CLASSES))]
    if len(outside):
        raise DataError(f"{path}: label {outside[0]} is not in 0 … {len(CLASSES) - 1}")
    return np.ascontiguousarray(images), labels.astype(np.int32)


def _plain(value: Any) -> Any:
    return getattr(value, "array", None) if isinstance(value, _Array) else value
