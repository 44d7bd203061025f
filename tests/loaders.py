"""Every kind of file that the library reads: undamaged files, and a reader that checks its data."""

import gzip
import io
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import safetensors.numpy
from ml_dtypes import bfloat16

from linear_cifar import Classifier, Dataset, InputError, Params, load_features
from linear_cifar.data import Standardiser, cifar10

ROWS, COLUMNS = 10, 12  # of a small batch
SMALL_BATCHES = {"BATCH_ROWS": ROWS, "BATCH_COLUMNS": COLUMNS, "MAX_BYTES": 4000}
# More than the 4096 bytes that zipfile reads ahead, because it compares checksums at the end.
N, D = 120, 13
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 2


class Loader(NamedTuple):
    """A kind of file."""

    files: tuple[bytes, ...]  # undamaged
    # Writes a file into a folder, reads it, asserts that the data can be used, and returns them.
    read: Callable[[Path, bytes], Any]
    has_checksum: bool = False  # of everything that is read


def content_of(write: Callable[[Any], object]) -> bytes:
    """What a function writes into a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def python_2_pickle(
    images: np.ndarray,
    labels: list[int],
    shape: tuple[int, int] | None = None,
    kind: bytes = b"u1",
    global_name: bytes = b"numpy\ndtype",
) -> bytes:
    """A batch as Python 2 pickles it, like the official files: strings are bytes, NumPy is 1."""
    rows, columns = (b"M" + n.to_bytes(2, "little") for n in shape or images.shape)
    fortran = b"\x88" if images.flags.f_contiguous else b"\x89"
    pixels = images.tobytes("A")
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"c" + global_name + b"\nU\x02" + kind + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + rows + columns + b"\x86" + dtype + fortran
    state += b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x06labels" + numbers + b"U\x04data" + array + state + b"u."


IMAGES = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
BATCHES = (
    python_2_pickle(IMAGES, list(range(ROWS))),
    pickle.dumps({b"labels": list(range(ROWS)), b"data": IMAGES}, 3),
    pickle.dumps({b"labels": np.arange(ROWS), b"data": np.asfortranarray(IMAGES)}, 4),
)
BATCH_NAMES = ("data_batch_1", "test_batch")


def archive(contents: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    def pack(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return content_of(pack)


def compressed(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


ARCHIVES = tuple(
    archive(dict(zip(BATCH_NAMES, BATCHES, strict=False)), kind).rstrip(b"\0") + bytes(1024)
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
)


def check_batch(images: np.ndarray, labels: np.ndarray) -> tuple[bytes, bytes]:
    assert (images.shape, images.dtype) == ((ROWS, COLUMNS), np.uint8)
    assert (labels.shape, labels.dtype) == ((ROWS,), np.int32)
    assert 0 <= labels.min() <= labels.max() <= 9
    return images.tobytes(), labels.tobytes()


def read_batch(_: Path, content: bytes) -> tuple[bytes, bytes]:
    with mock.patch.multiple(cifar10, **SMALL_BATCHES):
        return check_batch(*cifar10.parse_batch(content, "file"))


def read_archive(folder: Path, content: bytes) -> list:
    path = folder / cifar10.ARCHIVE
    path.write_bytes(content)
    with mock.patch.multiple(cifar10, **SMALL_BATCHES):
        batches, official = cifar10.load_batches(path, BATCH_NAMES)
    assert not official
    return [check_batch(*batch) for batch in batches]


def npy(array: np.ndarray) -> bytes:
    return content_of(lambda file: np.save(file, array))


def npz(members: dict[str, bytes]) -> bytes:
    """An archive of .npy files, whose checksums are right whatever is in them."""

    def pack(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w") as zipped:
            for name, content in members.items():
                zipped.writestr(zipfile.ZipInfo(f"{name}.npy"), content)

    return content_of(pack)


def table(write: Callable, **settings: Any) -> bytes:
    columns = {f"f{i}": X[:12, i] for i in range(3)} | {"label": Y[:12]}
    return content_of(lambda file: write(pyarrow.table(columns), file, **settings))


def read_features(name: str, folder: Path, content: bytes) -> list:
    """Reads a file of features into memory and in blocks, which have to give the same."""
    (folder / "x.npy").write_bytes(npy(X))
    (folder / "y.npy").write_bytes(npy(Y))
    (folder / name).write_bytes(content)
    path = folder / ("x.npy" if name == "y.npy" else name)
    data = check_features(load_features(path))
    if path.suffix in (".npy", ".safetensors"):
        assert check_features(load_features(path, memory_gb=1e-12)) == data
    return data


def check_features(dataset: Dataset) -> list:
    data = [dataset.class_names]
    for split in (dataset.train, dataset.validation, dataset.test):
        inputs = split.inputs[:]
        assert np.isfinite(inputs.astype(np.float32)).all()
        assert split.labels.dtype == np.int32
        assert split.labels.shape == inputs.shape[:1]
        assert set(split.labels.tolist()) <= set(range(dataset.n_classes))
        data += [inputs.dtype, inputs.shape, inputs.tobytes(), split.labels.tobytes()]
    assert np.isfinite(dataset.standardiser.mean).all()
    assert (dataset.standardiser.scale > 0).all()
    return data


FITTED = Params(np.eye(2, 3), np.zeros(2)), Standardiser(np.arange(3.0), np.ones(3))
MODELS = (
    Classifier(*FITTED, ("cat", "dog"), lam=0.1),
    Classifier(*FITTED, ("a", "b"), "multi_bce", normalise_rows=True, temperature=2.5),
)


def saved(model: Classifier, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def read_model(name: str, folder: Path, content: bytes) -> list:
    (folder / name).write_bytes(content)
    model = Classifier.load(folder / name)
    origin = np.zeros((1, len(model.standardiser.mean)))
    (logits,), (predicted,) = model.logits(origin), model.predict(origin)
    assert predicted == model.class_names[logits.argmax()]
    arrays = (*model.params, *model.standardiser)
    details = (model.class_names, model.loss, model.lam, model.temperature, model.normalise_rows)
    return [array.tobytes() for array in arrays] + list(details)


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        return {name.removesuffix(".npy"): zipped.read(name) for name in zipped.namelist()}


def member(name: str, of: bytes, read: Callable[[Path, bytes], Any]) -> Loader:
    """One array of an .npz file, damaged before the file is written, so that its checksum fits."""
    others = members(of)
    return Loader(
        (others[name],), lambda folder, content: read(folder, npz(others | {name: content}))
    )


NPZ = npz({"x": npy(X), "y": npy(Y)})
SPLITS = npz(
    {
        f"{role}_{split}": npy(array)
        for role, array in (("x", X), ("y", Y))
        for split in ("train", "test")
    }
)
FEATURES = {
    "x.npy": (npy(X), npy(np.asfortranarray(X)), npy(X > 0)),
    "y.npy": (npy(Y), npy(Y.astype(float)), npy(Y.astype(str)), npy(Y.astype("S"))),
    "a.safetensors": tuple(
        safetensors.numpy.save({"x": inputs, "y": Y}) for inputs in (X, X.astype(bfloat16))
    ),
    "a.csv": (table(pyarrow.csv.write_csv), b"a,b,label\n" + b"0.5,1,x\n2,-1e3,y\n" * 6),
    "a.parquet": (
        table(pyarrow.parquet.write_table),
        table(pyarrow.parquet.write_table, compression="none", use_dictionary=False),
    ),
}
LOADERS = {
    "batch": Loader(BATCHES, read_batch),
    "tar": Loader(ARCHIVES, lambda folder, content: read_archive(folder, compressed(content))),
    "tar.gz": Loader(tuple(map(compressed, ARCHIVES)), read_archive, has_checksum=True),
    **{name: Loader(files, partial(read_features, name)) for name, files in FEATURES.items()},
    "a.npz": Loader((NPZ, SPLITS), partial(read_features, "a.npz"), has_checksum=True),
    "x in a.npz": member("x", NPZ, partial(read_features, "a.npz")),
    "m.npz": Loader(
        tuple(saved(model, "m.npz") for model in MODELS),
        partial(read_model, "m.npz"),
        has_checksum=True,
    ),
    "weights in m.npz": member("weights", saved(MODELS[0], "m.npz"), partial(read_model, "m.npz")),
    "names in m.npz": member(
        "class_names", saved(MODELS[0], "m.npz"), partial(read_model, "m.npz")
    ),
    "m.safetensors": Loader(
        tuple(saved(model, "m.safetensors") for model in MODELS),
        partial(read_model, "m.safetensors"),
    ),
}


@cache
def undamaged(folder: Path, name: str) -> list:
    """The data of a loader's undamaged files."""
    return [LOADERS[name].read(folder, content) for content in LOADERS[name].files]


def check_read_or_refused(folder: Path, name: str, content: bytes) -> None:
    """Asserts that a file, perhaps damaged, is read or refused in one line.

    If it has a checksum, it is refused or has the data of an undamaged file.
    """
    try:
        data = LOADERS[name].read(folder, content)
    except InputError as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error), f"more than one line: {error}"
    else:
        assert data in undamaged(folder, name) or not LOADERS[name].has_checksum
