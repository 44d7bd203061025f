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
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from linear_cifar import Classifier, InputError, Params, Standardiser, load_features
from linear_cifar.data import cifar10


class Loader(NamedTuple):
    """A kind of file."""

    files: tuple[bytes, ...]  # undamaged
    # Writes a file into a folder, reads it, asserts that the data can be used, and returns them.
    read: Callable[[Path, bytes], list]
    has_checksum: bool = False  # of everything that is read


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def written(name, write):
    """The bytes of a file of some name that a function writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def python_2_pickle(images, labels, shape=None, kind=b"u1", global_name=b"numpy\ndtype"):
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


def archive(contents):
    """CIFAR-10's archive with some batches, before it is compressed."""

    def pack(path):
        with tarfile.open(path, "w") as tar:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return written("a.tar", pack)


IMAGES = np.arange(120, dtype=np.uint8).reshape(10, 12)
BATCHES = (
    python_2_pickle(IMAGES, list(range(10))),
    pickle.dumps({b"labels": list(range(10)), b"data": IMAGES}, 3),
    pickle.dumps({b"labels": np.arange(10), b"data": np.asfortranarray(IMAGES)}, 4),
)
SMALL = mock.patch.multiple(cifar10, BATCH_ROWS=10, BATCH_COLUMNS=12, MAX_BYTES=4000)
ARCHIVE = archive({"data_batch_1": BATCHES[0], "test_batch": BATCHES[1]}).rstrip(b"\0") + bytes(
    1024
)


def check_batch(images, labels):
    assert (images.shape, images.dtype) == ((10, 12), np.uint8)
    assert (labels.shape, labels.dtype) == ((10,), np.int32)
    assert 0 <= labels.min() <= labels.max() <= 9
    return images.tobytes() + labels.tobytes()


def read_batch(folder, content):
    with SMALL:
        return [check_batch(*cifar10.parse_batch(content, f"{folder}/batch"))]


def read_archive(folder, content):
    (folder / cifar10.ARCHIVE).write_bytes(content)
    with SMALL:
        batches, _ = cifar10.load_batches(folder / cifar10.ARCHIVE, ("data_batch_1", "test_batch"))
    return [check_batch(*batch) for batch in batches]


def save(path, **arrays):
    """Writes arrays into one file by its ending, or into a folder of .npy files; returns it."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(arrays), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pyarrow.table(arrays), path)
    else:
        path.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return path


def saved(name, **arrays):
    return written(name, lambda path: save(path, **arrays))


def npy(array):
    return written("a.npy", lambda path: np.save(path, array))


# More than the 4096 bytes that zipfile reads ahead, because it compares checksums at the end.
X = np.random.default_rng(0).normal(size=(120, 13)).astype(np.float32)
Y = np.arange(120) % 2
TABLE = {"a": X[:12, 0], "b": X[:12, 1], "label": Y[:12]}
FEATURES = {
    "x.npy": tuple(map(npy, (X, np.asfortranarray(X), X > 0))),
    "y.npy": tuple(map(npy, (Y, Y.astype(float), Y.astype(str), Y.astype("S")))),
    "a.npz": (saved("a.npz", x=X, y=Y), saved("a.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)),
    "a.safetensors": tuple(saved("a.safetensors", x=x, y=Y) for x in (X, X.astype(bfloat16))),
    "a.csv": (saved("a.csv", **TABLE), b"a,b,label\n" + b"0.5,1,x\n2,-1e3,y\n" * 6),
    "a.parquet": (saved("a.parquet", **TABLE),),
}


def read_features(name, folder, content):
    """Reads a file of features into memory and in blocks, which have to give the same."""
    (folder / "x.npy").write_bytes(FEATURES["x.npy"][0])
    (folder / "y.npy").write_bytes(FEATURES["y.npy"][0])
    (folder / name).write_bytes(content)
    path = folder / ("x.npy" if name == "y.npy" else name)
    data = check_features(load_features(path))
    if path.suffix in (".npy", ".safetensors"):
        assert check_features(load_features(path, memory_gb=1e-12)) == data
    return data


def check_features(dataset):
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
MODELS = {
    name: (
        written(name, Classifier(*FITTED, ("cat", "dog"), lam=0.1).save),
        written(name, Classifier(*FITTED, "ab", "multi_bce", 0.1, True, 2.5).save),
    )
    for name in ("m.npz", "m.safetensors")
}


def read_model(name, folder, content):
    (folder / name).write_bytes(content)
    model = Classifier.load(folder / name)
    origin = np.zeros((1, len(model.standardiser.mean)))
    (logits,), (predicted,) = model.logits(origin), model.predict(origin)
    assert predicted == model.class_names[logits.argmax()]
    details = (model.class_names, model.loss, model.lam, model.temperature, model.normalise_rows)
    return [*details, *(array.tobytes() for array in (*model.params, *model.standardiser))]


def member(name, file, of, read):
    """One array of an .npz file, damaged before the file is written, so that its checksum fits."""
    with zipfile.ZipFile(io.BytesIO(of)) as zipped:
        members = {info.filename: zipped.read(info) for info in zipped.infolist()}

    def pack(content, path):
        with zipfile.ZipFile(path, "w") as zipped:
            for info, array in (members | {f"{name}.npy": content}).items():
                zipped.writestr(info, array)

    def read_packed(folder, content):
        return read(file, folder, written(file, partial(pack, content)))

    return Loader((members[f"{name}.npy"],), read_packed)


LOADERS = {
    "batch": Loader(BATCHES, read_batch),
    "tar": Loader((ARCHIVE,), lambda folder, tar: read_archive(folder, gzip.compress(tar, 1))),
    "tar.gz": Loader((gzip.compress(ARCHIVE, 1),), read_archive, has_checksum=True),
    **{
        name: Loader(files, partial(read_features, name), has_checksum=name.endswith("z"))
        for name, files in FEATURES.items()
    },
    "x in a.npz": member("x", "a.npz", FEATURES["a.npz"][0], read_features),
    **{
        name: Loader(files, partial(read_model, name), has_checksum=name.endswith("z"))
        for name, files in MODELS.items()
    },
    "names in m.npz": member("class_names", "m.npz", MODELS["m.npz"][0], read_model),
}


@cache
def undamaged(folder, name):
    """The data of a loader's undamaged files."""
    return [LOADERS[name].read(folder, content) for content in LOADERS[name].files]


def check_read_or_refused(folder, name, content):
    """Asserts that a file, perhaps damaged, is read or refused in one line that names it.

    If it has a checksum, it is refused or has the data of an undamaged file.
    """
    try:
        data = LOADERS[name].read(folder, content)
    except InputError as error:
        assert "\n" not in str(error), f"more than one line: {error}"
        assert str(folder) in str(error) or "logits" in str(error), f"it doesn't say where: {error}"
    else:
        assert data in undamaged(folder, name) or not LOADERS[name].has_checksum
