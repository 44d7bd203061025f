"""Every kind of file that the library reads: undamaged files, and a reader that checks its data."""

import gzip
import io
import pickle
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from linear_cifar import Classifier, InputError, Params, Standardiser, load_features
from linear_cifar.data import cifar10


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def python_2_pickle(images, labels):
    """A batch as Python 2 pickles it, like the official files: strings are bytes, NumPy is 1."""
    rows, columns = (b"M" + n.to_bytes(2, "little") for n in images.shape)
    fortran = b"\x88" if images.flags.f_contiguous else b"\x89"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    pixels = b"T" + images.size.to_bytes(4, "little") + images.tobytes("A")
    state = b"(K\x01" + rows + columns + b"\x86" + dtype + fortran + pixels + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x06labels" + numbers + b"U\x04data" + array + state + b"u."


def archive(contents):
    """CIFAR-10's archive with some batches, before it is compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def save(path, **arrays):
    """Writes arrays into one file by its ending, or into a folder of .npy files; returns it."""
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    elif path.suffix == ".npz":
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


def written(name, write):
    """The bytes that `write` writes to a file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def saved(name, **arrays):
    return written(name, lambda path: save(path, **arrays))


IMAGES = np.arange(120, dtype=np.uint8).reshape(10, 12)
BATCHES = (
    python_2_pickle(IMAGES, range(10)),
    pickle.dumps({b"labels": np.arange(10), b"data": np.asfortranarray(IMAGES)}, 4),
)
NAMES = ("data_batch_1", "test_batch")
TAR = archive(dict(zip(NAMES, BATCHES, strict=True)))
# More than the 4096 bytes that zipfile reads ahead, because it compares checksums at the end.
X = np.random.default_rng(0).normal(size=(120, 13)).astype(np.float32)
Y = np.arange(120) % 2
TABLE = {"a": X[:12, 0], "b": X[:12, 1], "label": Y[:12]}
FITTED = Params(np.eye(2, 3), np.zeros(2)), Standardiser(np.arange(3.0), np.ones(3))
MODEL = Classifier(*FITTED, ("cat", "dog"), "multi_bce", 0.1, True, 2.5)
FILES = {  # undamaged
    "batch": BATCHES,
    "tar": (TAR,),
    "tar.gz": (gzip.compress(TAR, 1),),
    "x.npy": tuple(saved("x.npy", x=x) for x in (X, np.asfortranarray(X), X > 0)),
    "y.npy": tuple(saved("y.npy", y=y) for y in (Y, *map(Y.astype, (float, str, "S")))),
    "a.npz": (saved("a.npz", x=X, y=Y), saved("a.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)),
    "a.safetensors": tuple(saved("a.safetensors", x=x, y=Y) for x in (X, X.astype(bfloat16))),
    "a.csv": (saved("a.csv", **TABLE), b"a,b,label\n" + b"0.5,1,x\n2,-1e3,y\n" * 6),
    "a.parquet": (saved("a.parquet", **TABLE),),
    "m.npz": (written("m.npz", MODEL.save),),
    "m.safetensors": (written("m.safetensors", MODEL.save),),
}


def read_batches(name, folder, content):
    path = folder / (NAMES[0] if name == "batch" else cifar10.ARCHIVE)
    path.write_bytes(gzip.compress(content, 1) if name == "tar" else content)
    source, names = (folder, NAMES[:1]) if name == "batch" else (path, NAMES)
    with mock.patch.multiple(cifar10, BATCH_ROWS=10, BATCH_COLUMNS=12, MAX_BYTES=4000):
        batches, _ = cifar10.load_batches(source, names)
    for images, labels in batches:
        assert (images.shape, images.dtype, labels.shape) == ((10, 12), np.uint8, (10,))
        assert set(labels.tolist()) <= set(range(10))
    return [(images.tobytes(), labels.tobytes()) for images, labels in batches]


def read_features(name, folder, content):
    """Reads a file of features into memory and in blocks, which have to give the same."""
    (folder / "x.npy").write_bytes(FILES["x.npy"][0])
    (folder / "y.npy").write_bytes(FILES["y.npy"][0])
    (folder / name).write_bytes(content)
    path, read = folder / ("x.npy" if name == "y.npy" else name), []
    for memory_gb in (None, 1e-12) if path.suffix in (".npy", ".safetensors") else (None,):
        dataset = load_features(path, memory_gb=memory_gb)
        data = [dataset.class_names]
        for split in (dataset.train, dataset.validation, dataset.test):
            inputs = split.inputs[:]
            assert np.isfinite(inputs.astype(np.float32)).all()
            assert split.labels.shape == inputs.shape[:1]
            assert set(split.labels.tolist()) <= set(range(dataset.n_classes))
            data += [inputs.dtype, inputs.shape, inputs.tobytes(), split.labels.tobytes()]
        assert np.isfinite(dataset.standardiser.mean).all()
        assert (dataset.standardiser.scale > 0).all()
        read.append(data)
    assert read[-1] == read[0]
    return read[0]


def read_model(name, folder, content):
    (folder / name).write_bytes(content)
    model = Classifier.load(folder / name)
    origin = np.zeros((1, len(model.standardiser.mean)))
    (logits,), (predicted,) = model.logits(origin), model.predict(origin)
    assert predicted == model.class_names[logits.argmax()]
    details = (model.class_names, model.loss, model.lam, model.temperature, model.normalise_rows)
    return [*details, *(array.tobytes() for array in (*model.params, *model.standardiser))]


READERS = dict.fromkeys(("batch", "tar", "tar.gz"), read_batches)
READERS |= dict.fromkeys(("m.npz", "m.safetensors"), read_model)


def read(name, folder, content):
    """Writes a file into a folder, and reads it; asserts that the data can be used."""
    return READERS.get(name, read_features)(name, folder, content)


@cache
def undamaged(folder, name):
    return [read(name, folder, content) for content in FILES[name]]


def check_read_or_refused(folder, name, content):
    """A file, perhaps damaged, is read, or refused in one line that names it."""
    try:
        data = read(name, folder, content)
    except InputError as error:
        assert "\n" not in str(error), f"more than one line: {error}"
        assert str(folder) in str(error) or "logits" in str(error), f"it doesn't say where: {error}"
    else:  # .npz and .gz have checksums
        assert data in undamaged(folder, name) or not name.endswith("z")
