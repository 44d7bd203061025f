"""Files as data: what is found in them, what stays as it is stored, and what is refused."""

import contextlib
import os
import pickle
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from commands import check_every_file, only_line, run
from conftest import assert_close
from safetensors.numpy import save_file

from linear_cifar import SettingsError, load_features, load_inputs, records, with_validation
from linear_cifar.data import SPLITS, DataError, fit_standardiser, on_disk
from linear_cifar.data.on_disk import OnDisk
from linear_cifar.data.types import STANDARDISE

N, D = 60, 7


def examples(n=N, d=D, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (50 + 10 * rng.normal(size=(n, d))).astype(dtype), rng.permutation(np.arange(n) % 3)


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def save_safetensors(path, **arrays):
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    return path


def save_npy(folder, **arrays):
    folder.mkdir(exist_ok=True, parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def table(inputs, labels, name="label"):
    columns = {f"f{i}": inputs[:, i] for i in range(inputs.shape[1])}
    return pa.table(columns | {name: labels})


def save_table(path, inputs, labels, name="label"):
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table(inputs, labels, name), path)
    else:
        pyarrow.parquet.write_table(table(inputs, labels, name), path)
    return path


def whole(path, **more):
    """Everything trains."""
    return load_features(path, **{"validation_fraction": 0, "test_fraction": 0, **more})


def parts(dataset):
    return {name: getattr(dataset, name) for name in SPLITS}


def same(actual, expected):
    """Bit for bit, and of the same dtype."""
    assert actual.dtype == expected.dtype
    assert np.asarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


# Each layout writes the examples of the splits that it is given.
def pair_of_npy(folder, splits):
    inputs, labels = splits["train"]
    save_npy(folder, mnist_features=inputs, mnist_labels=labels)
    return folder / "mnist_features.npy"


def arrays_of(splits, inputs="features", labels="labels"):
    return {
        f"{split}_{name}": array
        for split, pair in splits.items()
        for name, array in zip((inputs, labels), pair, strict=True)
    }


def folder_of_archives(folder, splits, save, ending):
    for split, (inputs, labels) in splits.items():
        save(folder / f"{split}{ending}", x=inputs, y=labels)
    return folder


def folder_of_folders(folder, splits):
    for split, (inputs, labels) in splits.items():
        save_npy(folder / split, embeddings=inputs, targets=labels)
    return folder


def folder_of_tables(folder, splits, ending):
    for split, (inputs, labels) in splits.items():
        save_table(folder / f"{split}{ending}", inputs, labels)
    return folder


def suffixed(splits):
    short = {"train": "train", "validation": "val", "test": "test"}
    return {
        f"{role}_{short[split]}": array
        for split, pair in splits.items()
        for role, array in zip("Xy", pair, strict=True)
    }


LAYOUTS = {
    "npz": lambda folder, s: save_npz(folder / "a.npz", **arrays_of(s)),
    "npz, suffixes": lambda folder, s: save_npz(folder / "a.npz", **suffixed(s)),
    "safetensors": lambda folder, s: save_safetensors(folder / "a.safetensors", **arrays_of(s)),
    "folder of npy": lambda folder, s: save_npy(folder, **arrays_of(s)),
    "folder of npy, suffixes": lambda folder, s: save_npy(folder, **suffixed(s)),
    "folder of npz": lambda folder, s: folder_of_archives(folder, s, save_npz, ".npz"),
    "folder of safetensors": lambda folder, s: folder_of_archives(
        folder, s, save_safetensors, ".safetensors"
    ),
    "folder of folders": folder_of_folders,
    "folder of parquet": lambda folder, s: folder_of_tables(folder, s, ".parquet"),
    "folder of csv": lambda folder, s: folder_of_tables(folder, s, ".csv"),
}
SINGLE = {
    "npz": lambda f, x, y: save_npz(f / "a.npz", features=x, labels=y),
    "compressed npz": lambda f, x, y: np.savez_compressed(f / "a.npz", x=x, y=y) or f / "a.npz",
    "npy": lambda f, x, y: pair_of_npy(f, {"train": (x, y)}),
    "safetensors": lambda f, x, y: save_safetensors(f / "a.safetensors", inputs=x, label=y),
    "parquet": lambda f, x, y: save_table(f / "a.parquet", x, y),
    "csv": lambda f, x, y: save_table(f / "a.csv", x, y, "Class"),
}
NARROW = ("uint8", "int16", "float16", "float32", "float64")
KEPT = [
    *((name, dtype) for name in ("npz", "compressed npz", "npy") for dtype in NARROW),
    *(("safetensors", dtype) for dtype in (*NARROW, "bfloat16")),
    *(("parquet", dtype) for dtype in NARROW),
    ("csv", "float64"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_splits_of_a_layout_are_found_in_their_places(tmp_path, layout):
    splits = {split: examples(20 + i, seed=i, dtype=float) for i, split in enumerate(SPLITS)}
    data = load_features(LAYOUTS[layout](tmp_path, splits))
    for split, (inputs, labels) in splits.items():
        same(parts(data)[split].inputs, inputs)
        same(parts(data)[split].labels, labels.astype(np.int32))
    assert data.class_names == ("0", "1", "2")
    assert "seed" not in data.notice


@pytest.mark.parametrize(("form", "dtype"), KEPT)
def test_inputs_are_what_was_stored_bit_for_bit(tmp_path, form, dtype):
    inputs, labels = examples(dtype=jnp.dtype(dtype))
    data = whole(SINGLE[form](tmp_path, inputs, labels))
    same(data.train.inputs, inputs)
    assert data.train.labels.tolist() == labels.tolist()
    assert [len(s.labels) for s in parts(data).values()] == [N, 0, 0]


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors"])
@pytest.mark.parametrize("normalise_rows", [False, True])
def test_on_disk_is_the_same_as_in_memory(tmp_path, monkeypatch, form, normalise_rows):
    monkeypatch.setattr(on_disk, "BLOCK_BYTES", 100)  # seven rows or so
    dtype = jnp.bfloat16 if form == "safetensors" else np.float16
    path = SINGLE[form](tmp_path, *examples(700, dtype=dtype))
    near = load_features(path, normalise_rows=normalise_rows)
    far = load_features(path, normalise_rows=normalise_rows, memory_gb=1e-9)
    for split, kept in parts(near).items():
        rows = parts(far)[split].inputs
        assert isinstance(kept.inputs, np.ndarray)
        assert isinstance(rows, OnDisk)
        assert rows.shape == kept.inputs.shape
        for block in (slice(0, 1), slice(3, 50), slice(20, None), slice(5, 5)):
            same(rows[block], kept.inputs[block])
        same(rows.in_memory(), kept.inputs)
        same(parts(far)[split].labels, kept.labels)
    for mine, theirs in zip(far.standardiser, near.standardiser, strict=True):
        same(mine, theirs)
    assert far.sha256 == near.sha256
    assert "on disk" in far.notice
    assert "on disk" not in near.notice
    for mine, theirs in zip(*(with_validation(d).standardiser for d in (far, near)), strict=True):
        same(mine, theirs)
    assert with_validation(far).sha256 == with_validation(near).sha256


def test_the_largest_splits_stay_on_disk_first(tmp_path):
    splits = {"train": examples(100), "validation": examples(10), "test": examples(20)}
    path = save_npy(tmp_path, **arrays_of(splits))
    data = load_features(path, memory_gb=30 * D * 8 / 1e9)
    assert [isinstance(s.inputs, OnDisk) for s in parts(data).values()] == [True, False, False]
    data = load_features(path, memory_gb=(30 * D * 8 - 1) / 1e9)
    assert [isinstance(s.inputs, OnDisk) for s in parts(data).values()] == [True, False, True]


def test_inputs_on_disk_are_not_taken_for_an_array(tmp_path):
    data = whole(SINGLE["npy"](tmp_path, *examples()), memory_gb=1e-9)
    with pytest.raises(DataError, match="are left on disk"):
        np.asarray(data.train.inputs)
    with pytest.raises(IndexError, match="step 1"):
        data.train.inputs[::2]


def test_reading_blocks_leaves_no_file_mapped_or_open(tmp_path):
    for form in ("npz", "npy", "safetensors"):
        data = whole(SINGLE[form](tmp_path, *examples()), memory_gb=1e-9)
        data.train.inputs[3:9]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()
        links = [p.resolve() for p in Path("/proc/self/fd").iterdir()]
        assert not [p for p in links if p.is_relative_to(tmp_path)]


@pytest.mark.parametrize("standardise", ["scale", "centre", "none"])
def test_standardise_says_what_is_left_of_the_standardiser(tmp_path, standardise):
    inputs, labels = examples(dtype=np.float64)
    data = load_features(SINGLE["npz"](tmp_path, inputs, labels), standardise=standardise)
    for dataset in (data, with_validation(data)):
        stored = dataset.train.inputs
        mean, scale = dataset.standardiser
        assert_close(mean, 0 * mean if standardise == "none" else stored.mean(axis=0))
        assert_close(scale, stored.std(axis=0) if standardise == "scale" else np.ones(D))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_normalised_rows_have_norm_1(tmp_path, dtype):
    inputs, labels = examples(dtype=dtype)
    if dtype == "float32":
        inputs[3] = 1e30  # whose squares are beyond float32
    rows = whole(SINGLE["npz"](tmp_path, inputs, labels), normalise_rows=True).train.inputs
    assert rows.dtype == (np.float64 if dtype == "float64" else np.float32)
    wide = inputs.astype(np.float64)
    assert_close(rows, wide / np.linalg.norm(wide, axis=1, keepdims=True))


def test_fractions_are_stratified_ascending_and_of_the_seed(tmp_path):
    labels = np.repeat([5, 7, 9], [200, 60, 11])
    inputs = np.arange(len(labels), dtype=np.float32)[:, None] + np.zeros((1, D), np.float32)
    path = SINGLE["npz"](tmp_path, inputs, np.random.default_rng(0).permutation(labels))
    data = load_features(path, seed=3)
    rows = {name: part.inputs[:, 0].astype(int) for name, part in parts(data).items()}
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(len(labels)))
    assert all((np.diff(of_split) > 0).all() for of_split in rows.values())
    assert [len(of_split) for of_split in rows.values()] == [195, 22, 54]
    assert np.bincount(data.test.labels).tolist() == [40, 12, 2]
    assert np.bincount(data.validation.labels).tolist() == [16, 5, 1]
    assert data.class_names == ("5", "7", "9")
    assert load_features(path, seed=3).sha256 == data.sha256
    assert load_features(path, seed=4).sha256 != data.sha256
    assert "of its 271 training examples 22 validate and 54 test" in data.notice
    assert "seed 3" in data.notice
    assert "\n" not in data.notice


def test_given_splits_are_not_taken_from_training(tmp_path):
    splits = {"train": examples(50), "test": examples(9, seed=1)}
    data = load_features(save_npy(tmp_path, **arrays_of(splits)), validation_fraction=0.2)
    assert [len(s.labels) for s in parts(data).values()] == [40, 10, 9]
    assert "of its 50 training examples 10 validate (" in data.notice


LABELS = {
    "any integers": ([-7, 10**12, 3], ("-7", "3", "1000000000000")),
    "bool": ([True, False, True], ("0", "1")),
    "uint8": (np.array([3, 1, 200], np.uint8), ("1", "3", "200")),
    "whole floats": ([2.0, 1.0, 2.0], ("1", "2")),
    "text": (["dog", "cat", "ärger"], ("cat", "dog", "ärger")),
    "bytes": ([b"dog", "ä".encode(), b"cat"], ("cat", "dog", "ä")),
    "big-endian": (np.array([3, 1, 200], ">i4"), ("1", "3", "200")),
}


@pytest.mark.parametrize(("labels", "names"), LABELS.values(), ids=LABELS)
def test_labels_become_places_among_the_sorted_distinct_ones(tmp_path, labels, names):
    labels = np.array(labels)[np.arange(N) % 3]
    data = whole(save_npz(tmp_path / "a.npz", x=examples()[0], y=labels))
    assert data.class_names == names
    text = np.char.decode(labels) if labels.dtype.kind == "S" else labels
    assert np.array_equal(data.train.labels, np.unique(text, return_inverse=True)[1])
    assert data.train.labels.dtype == np.int32


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_s_labels_may_be_text_and_its_columns_of_several_types(tmp_path, ending):
    whole_numbers, halves = np.arange(N), np.arange(N) / 2
    words = np.array(["b", "a", "c"])[np.arange(N) % 3]
    columns = {"kind": words, "a": whole_numbers, "b": halves}
    path = tmp_path / f"a{ending}"
    write = pyarrow.csv.write_csv if ending == ".csv" else pyarrow.parquet.write_table
    write(pa.table(columns), path)
    data = whole(path, labels_name="kind")
    assert data.class_names == ("a", "b", "c")
    same(data.train.inputs, np.stack([whole_numbers, halves], axis=1))


def test_a_table_s_columns_are_those_of_training_by_name(tmp_path):
    """Taken by their place they would give accuracies of chance."""
    inputs, labels = examples()[0][:, :2], np.arange(N) % 3
    columns = {"a": inputs[:, 0], "b": inputs[:, 1], "kind": labels}
    for name, order in (("train", "ab"), ("test", "ba"), ("further", "ba")):
        of = {column: columns[column] for column in (*order, "kind")}
        pyarrow.csv.write_csv(pa.table(of), tmp_path / f"{name}.csv")
    found = "column 0 of the features is 'b', and that of the training examples 'a'"
    with pytest.raises(DataError, match=found):
        load_features(tmp_path, labels_name="kind")
    (tmp_path / "test.csv").unlink()
    data = load_features(tmp_path / "train.csv", labels_name="kind")
    assert data.feature_names == ("a", "b")
    further = (tmp_path / "further.csv", None, "kind")
    with pytest.raises(DataError, match=found):
        load_inputs(*further, data.feature_names)
    np.testing.assert_allclose(load_inputs(*further)[:], inputs[:, ::-1], rtol=1e-6)


def test_features_that_are_called_as_labels_are(tmp_path):
    """Where the names of training are known, they say what is no label."""
    inputs, labels = examples()[0][:, :2], np.arange(N) % 3
    table = pa.table({"Y": inputs[:, 0], "b": inputs[:, 1], "y": labels})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    data = load_features(tmp_path / "a.parquet", labels_name="y")
    assert data.feature_names == ("Y", "b")
    same(load_inputs(tmp_path / "a.parquet", labels_name="y")[:], inputs)
    same(load_inputs(tmp_path / "a.parquet", feature_names=("Y", "b"))[:], inputs)
    pyarrow.parquet.write_table(table.drop_columns("y"), tmp_path / "b.parquet")
    same(load_inputs(tmp_path / "b.parquet", feature_names=("Y", "b"))[:], inputs)
    with pytest.raises(DataError, match="1 columns of features, and 2 of the training"):
        load_inputs(tmp_path / "b.parquet", feature_names=("b", "c"), labels_name="Y")


def test_an_index_by_a_name_is_no_feature(tmp_path):
    said = b'{"index_columns": ["row"], "columns": []}'
    table = pa.table({"a": np.arange(N), "row": np.arange(N), "y": np.arange(N) % 3})
    table = table.replace_schema_metadata({b"pandas": said})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'row': it is an index and no feature"):
        load_features(tmp_path / "a.parquet")


def test_inputs_to_predict_may_be_those_of_a_split(tmp_path):
    inputs, labels = examples()
    path = save_npz(tmp_path / "a.npz", x_train=inputs, y_train=labels, x_test=2 * inputs)
    with pytest.raises(DataError, match="could be any of 'x_train', 'x_test': give inputs_name"):
        load_inputs(path)
    same(load_inputs(path, "x_test")[:], 2 * inputs)


def test_a_table_takes_no_more_memory_than_it_has_rows_whatever_it_claims(tmp_path):
    inputs, labels = examples(12, 3)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pa.table({"y": labels, **dict(zip("abc", inputs.T, strict=True))}), path
    )
    honest, pool = path.read_bytes(), pa.default_memory_pool()
    size = int.from_bytes(honest[-8:-4], "little")
    start, footer = honest[: -size - 8], honest[-size - 8 : -8]
    twelve, many = b"\x16\x18", b"\x16\x80\x80\x80\x20"  # a field of 64 bits, zigzag: 12, 2²⁵
    pieces = footer.split(twelve)
    assert len(pieces) > 4  # the file's rows, the row group's, and each column's values
    before = pool.max_memory()
    for i in range(1, len(pieces)):
        claims = twelve.join(pieces[:i]) + many + twelve.join(pieces[i:])
        path.write_bytes(start + claims + len(claims).to_bytes(4, "little") + b"PAR1")
        with contextlib.suppress(DataError):
            load_features(path)
    assert pool.max_memory() < before + 2**25


def test_labels_may_hold_any_nan(tmp_path):
    labels = np.frombuffer(np.array([0x7FF4000000000000] * N, np.uint64).tobytes())
    save_npz(tmp_path / "a.npz", x=examples()[0], y=labels)
    with pytest.raises(DataError, match="that of row 0 is nan"):
        load_features(tmp_path / "a.npz")


def test_a_parquet_column_of_categories_is_text(tmp_path):
    words = pa.array(["b", "a", "c"] * 20).dictionary_encode()
    pyarrow.parquet.write_table(pa.table({"y": words, "a": np.arange(N)}), tmp_path / "a.parquet")
    data = whole(tmp_path / "a.parquet")
    assert data.class_names == ("a", "b", "c")
    same(data.train.inputs, np.arange(N, dtype=np.int32)[:, None])


def test_names_can_be_given(tmp_path):
    inputs, labels = examples()
    path = save_npz(tmp_path / "a.npz", emb_train=inputs, fine=labels, coarse=labels % 2, x=inputs)
    data = whole(path, inputs_name="emb", labels_name="fine")
    assert data.n_classes == 3
    assert "inputs are emb_train, labels fine" in data.notice
    save_npy(tmp_path, vectors=inputs, kinds=labels)
    assert whole(tmp_path / "vectors.npy", labels_name="kinds").n_classes == 3
    assert whole(tmp_path, inputs_name="vectors", labels_name="kinds").n_classes == 3


@pytest.mark.parametrize("memory_gb", [None, 1e-9])
def test_another_byte_order_and_booleans_are_read_as_what_they_hold(tmp_path, memory_gb):
    inputs, labels = examples()
    for stored, expected in (
        (inputs.astype(">f4"), inputs),
        (inputs > 50, (inputs > 50).astype(np.uint8)),
        (inputs.astype(np.int64), inputs.astype(np.int32)),
    ):
        data = whole(SINGLE["npz"](tmp_path, stored, labels), memory_gb=memory_gb)
        same(data.train.inputs[:], expected)


def test_fortran_order_is_read_in_memory_and_refused_on_disk(tmp_path):
    inputs, labels = examples()
    path = SINGLE["npy"](tmp_path, np.asfortranarray(inputs), labels)
    same(whole(path).train.inputs, inputs)
    with pytest.raises(DataError, match=r"Fortran order: save them as \.npy in C order"):
        whole(path, memory_gb=1e-9)


@pytest.mark.parametrize("form", ["compressed npz", "csv", "parquet"])
def test_what_cannot_be_read_in_blocks_has_to_fit_into_memory(tmp_path, form):
    path = SINGLE[form](tmp_path, *examples())
    with pytest.raises(DataError, match=r"don't fit into 1e-09 GB of memory.*: save them as \.npy"):
        whole(path, memory_gb=1e-9)


def test_a_constant_feature_has_scale_1(tmp_path):
    inputs, labels = examples()
    inputs[:, 2] = 4
    assert whole(SINGLE["npz"](tmp_path, inputs, labels)).standardiser.scale[2] == 1


def test_statistics_do_not_depend_on_the_size_of_blocks(monkeypatch):
    inputs, _ = examples(1000)
    expected = fit_standardiser(inputs)
    monkeypatch.setattr(on_disk, "BLOCK_BYTES", 300 * D * 4)
    same(fit_standardiser(inputs).scale, expected.scale)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def bad_npz(folder, **arrays):
    inputs, labels = examples()
    return save_npz(folder / "a.npz", **({"x": inputs, "y": labels} | arrays))


def changed(place, value, dtype=np.float32):
    inputs, _ = examples(dtype=dtype)
    inputs[place] = value
    return inputs


def bomb(folder):
    array = np.empty((N, 1), object)
    array[:] = [[Bomb(folder / "bomb")] for _ in range(N)]
    np.savez(folder / "a.npz", x=array, y=np.arange(N))
    return folder / "a.npz"


def pickled(folder):
    save_npy(folder, x_labels=np.arange(N) % 3)
    (folder / "x_features.npy").write_bytes(pickle.dumps(Bomb(folder / "bomb")))
    return folder / "x_features.npy"


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:-n_bytes])
    return path


def garbage(path):
    path.write_bytes(b"\x00garbage\xff" * 50)
    return path


def with_labels(folder, path):
    save_npy(folder, **{path.stem.replace("features", "labels"): examples()[1]})
    return path


def flipped(folder):
    path = bad_npz(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.getinfo("x.npy").header_offset + 400] ^= 1
    path.write_bytes(content)
    return path


def fifo(folder):
    os.mkfifo(folder / "x_features.npy")
    return folder / "x_features.npy"


def text(folder, content):
    (folder / "a.csv").write_text(content)
    return folder / "a.csv"


def parquet(folder, **columns):
    pyarrow.parquet.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def touched(path):
    path.touch()
    return path


X, Y = examples()
# What is written, with what it is loaded, and the line that is told of it.
BAD = {
    "missing": (lambda f: f / "no.npz", {}, r"no\.npz does not exist"),
    "another ending": (lambda f: touched(f / "a.pt"), {}, r"a\.pt has another ending than \.npy,"),
    "a fifo": (fifo, {}, "is neither a file nor a folder"),
    "an empty folder": (lambda f: f, {}, "has no train inputs by a usual name .* no arrays"),
    "a folder called npy": (
        lambda f: save_npy(f / "a_features.npy"),
        {},
        "has no train inputs by a usual name",
    ),
    "a folder of fifos": (lambda f: fifo(f).parent, {}, "it has no arrays"),
    "garbage npz": (
        lambda f: garbage(f / "a.npz"),
        {},
        r"a\.npz cannot be read: File is not a zip",
    ),
    "an empty npz": (lambda f: touched(f / "a.npz"), {}, r"a\.npz cannot be read"),
    "truncated npz": (lambda f: cut(bad_npz(f), 50), {}, r"a\.npz cannot be read"),
    "a flipped bit": (flipped, {}, r"a\.npz cannot be read: Bad CRC-32"),
    "garbage npy": (
        lambda f: with_labels(f, garbage(f / "x_features.npy")),
        {},
        r"x_features\.npy cannot be read: the magic string",
    ),
    "an empty npy": (
        lambda f: with_labels(f, touched(f / "x_features.npy")),
        {},
        r"x_features\.npy cannot be read",
    ),
    "truncated npy": (
        lambda f: cut(pair_of_npy(f, {"train": (X, Y)}), 8),
        {},
        r"mnist_features\.npy: the file is truncated: it lacks values of \[60, 7\] float32",
    ),
    "garbage safetensors": (
        lambda f: garbage(f / "a.safetensors"),
        {},
        r"a\.safetensors cannot be read: Error while deserializing header",
    ),
    "truncated safetensors": (
        lambda f: cut(save_safetensors(f / "a.safetensors", x=X, y=Y), 8),
        {},
        r"a\.safetensors cannot be read: .*incomplete metadata",
    ),
    "garbage parquet": (lambda f: garbage(f / "a.parquet"), {}, r"a\.parquet cannot be read"),
    "garbage csv": (lambda f: garbage(f / "a.csv"), {}, r"a\.csv"),
    "an empty csv": (lambda f: touched(f / "a.csv"), {}, r"a\.csv cannot be read: Empty CSV"),
    "ragged csv": (
        lambda f: text(f, "a,y\n1,2\n1\n"),
        {},
        r"a\.csv cannot be read: CSV parse error",
    ),
    "words in a csv": (
        lambda f: text(f, "a,y\n1,2\nz,3\n"),
        {},
        "column a: features have to be num",
    ),
    "a gap in a csv": (lambda f: text(f, "a,y\n1,2\n,3\n"), {}, "column a: row 1 has no value"),
    "a gap in labels": (lambda f: text(f, "a,y\n1,2\n1,\n"), {}, "column y: row 1 has no value"),
    "an index in a csv": (
        lambda f: text(f, ",a,y\n0,1,2\n1,1,3\n"),
        {},
        "column '': it is an index",
    ),
    "an index in parquet": (
        lambda f: parquet(f, y=[0, 1], a=[1, 2], __index_level_0__=[0, 1]),
        {},
        "column '__index_level_0__': it is an index",
    ),
    "lists in parquet": (
        lambda f: parquet(f, y=[0, 1], a=[[1.0], [2.0]]),
        {},
        r"column a: features have to be numbers, not list<.*double>",
    ),
    "dates as labels": (
        lambda f: parquet(f, a=[0, 1], y=np.array([0, 1], "datetime64[s]")),
        {},
        "column y: labels are datetime64",
    ),
    "labels alone in a csv": (lambda f: text(f, "y\n1\n2\n"), {}, r"d ≥ 1, not \(2, 0\)"),
    "no label column": (
        lambda f: text(f, "a,b\n1,2\n"),
        {},
        r"has no column by a usual name \(labels, .*: it has 'a', 'b'; give labels_name",
    ),
    "no such column": (
        lambda f: text(f, "a,y\n1,2\n"),
        {"labels_name": "z"},
        "no column called 'z'",
    ),
    "two label columns": (lambda f: text(f, "y,label\n1,2\n"), {}, "could be any of 'y', 'label'"),
    "a label column twice": (lambda f: text(f, "y,y,a\n1,2,3\n"), {}, "several of that name"),
    "inputs of a table by name": (
        lambda f: text(f, "a,y\n1,2\n"),
        {"inputs_name": "a"},
        "all columns but the labels': no inputs_name",
    ),
    "no usual names": (
        lambda f: save_npz(f / "a.npz", foo=X, bar=Y),
        {},
        r"no train inputs by a usual name \(features, .*: it has 'foo', 'bar'; give inputs_name",
    ),
    "no such name": (bad_npz, {"inputs_name": "z"}, "no train inputs called 'z': it has 'x', 'y'"),
    "no labels": (lambda f: save_npz(f / "a.npz", x=X), {}, "no train labels by a usual name"),
    "no test labels": (lambda f: bad_npz(f, x_test=X), {}, "has no test labels by a usual name"),
    "no test inputs": (lambda f: bad_npz(f, y_test=Y), {}, "has no test inputs by a usual name"),
    "no training examples": (
        lambda f: save_npz(f / "a.npz", x_test=X, y_test=Y),
        {},
        "has test but no training examples",
    ),
    "ambiguous inputs": (lambda f: bad_npz(f, features=X), {}, "could be any of 'x', 'features'"),
    "ambiguous labels": (lambda f: bad_npz(f, y_train=Y), {}, "could be any of 'y', 'y_train'"),
    "no labels beside": (
        lambda f: save_npy(f, x_features=X) / "x_features.npy",
        {},
        "has no labels beside it, in 'x_labels.npy', .*: give labels_name",
    ),
    "an unknown npy": (lambda f: save_npy(f, foo=X) / "foo.npy", {}, "has no labels beside it"),
    "two labels beside": (
        lambda f: save_npy(f, x_features=X, x_labels=Y, x_y=Y) / "x_features.npy",
        {},
        "could be any of 'x_labels.npy', 'x_y.npy'",
    ),
    "a split twice": (
        lambda f: save_table(save_npy(f, x=X, y=Y) / "train.csv", X, Y).parent,
        {},
        "has train examples both in a table and in arrays",
    ),
    "two tables": (
        lambda f: (
            save_table(save_table(f / "train.csv", X, Y).with_suffix(".parquet"), X, Y).parent
        ),
        {},
        "has train examples in another table too",
    ),
    "objects": (bomb, {}, "a.npz, array x: it holds Python objects, which are not read"),
    "a pickle": (pickled, {}, r"x_features\.npy cannot be read"),
    "bfloat16 in npy": (
        lambda f: bad_npz(f, x=X.astype(jnp.bfloat16)),
        {},
        r"array x: numpy can't tell bfloat16 in its files: save it as \.safetensors",
    ),
    "a vector": (
        lambda f: bad_npz(f, x=X[:, 0]),
        {},
        r"array x: inputs .* \[n, d\], .* not \(60,\)",
    ),
    "a number": (lambda f: bad_npz(f, x=np.float32(3)), {}, r"array x: inputs have .* not \(\)"),
    "images": (lambda f: bad_npz(f, x=X[:, :, None]), {}, r"not \(60, 7, 1\)"),
    "no features": (lambda f: bad_npz(f, x=X[:, :0]), {}, r"d ≥ 1, not \(60, 0\)"),
    "no examples": (
        lambda f: bad_npz(f, x=X[:0], y=Y[:0]),
        {},
        r"inputs \[0, 7\] have no examples",
    ),
    "complex": (lambda f: bad_npz(f, x=X * 1j), {}, "array x: inputs are complex64"),
    "structured": (
        lambda f: bad_npz(f, x=np.zeros((N, D), [("a", "f4")])),
        {},
        "array x: inputs are .*'a'",
    ),
    "dates": (lambda f: bad_npz(f, x=X.astype("datetime64[s]")), {}, "inputs are datetime64"),
    "text": (lambda f: bad_npz(f, x=X.astype(str)), {}, "array x: inputs are <U"),
    "wide integers": (lambda f: bad_npz(f, x=(X * 1e12).astype(int)), {}, "int64 beyond int32"),
    "NaN": (lambda f: bad_npz(f, x=changed((13, 2), np.nan)), {}, "x: .* row 13, column 2 is nan"),
    "infinite": (lambda f: bad_npz(f, x=changed((5, 0), np.inf)), {}, "row 5, column 0 is inf"),
    "NaN in bfloat16": (
        lambda f: save_safetensors(
            f / "a.safetensors", x=changed((5, 1), np.nan, jnp.bfloat16), y=Y
        ),
        {},
        "array x: inputs have to be finite, in float32 too: row 5, column 1 is nan",
    ),
    "all the same": (
        lambda f: bad_npz(f, x=0 * X + 3),
        {},
        "array x: inputs are the same in all 43",
    ),
    "a large offset": (lambda f: bad_npz(f, x=X + np.float64(1e9)), {}, "x: .* is lost in float32"),
    "a row of zeros": (
        lambda f: bad_npz(f, x=changed(9, 0)),
        {"normalise_rows": True},
        "array x: inputs can't have norm 1: row 9 is all zeros",
    ),
    "one label short": (lambda f: bad_npz(f, y=Y[1:]), {}, r"array y: labels .* \[60\], .*\(59,\)"),
    "one-hot labels": (lambda f: bad_npz(f, y=np.eye(3)[Y]), {}, r"array y: .* not \(60, 3\)"),
    "broken labels": (lambda f: bad_npz(f, y=Y + 0.5), {}, r"array y: .* that of row 0 is \d\.5"),
    "NaN as a label": (
        lambda f: bad_npz(f, y=np.where(Y, Y, np.nan)),
        {},
        r"that of row \d+ is nan",
    ),
    "complex labels": (lambda f: bad_npz(f, y=Y * 1j), {}, "array y: labels are complex128"),
    "labels in no UTF-8": (
        lambda f: bad_npz(f, y=np.array([b"\xff", b"a"])[Y % 2]),
        {},
        "bytes that are not UTF-8",
    ),
    "one class": (lambda f: bad_npz(f, y=0 * Y + 4), {}, "array y: labels have one class only, 4"),
    "an unseen class": (
        lambda f: bad_npz(f, x_test=X, y_test=np.where(np.arange(N) == 3, 8, Y)),
        {},
        "array y_test: labels have 8 in row 3, a class without training examples",
    ),
    "text against numbers": (
        lambda f: bad_npz(f, x_test=X, y_test=Y.astype(str)),
        {},
        "array y_test: labels have . in row 0, a class without training examples",
    ),
    "other features": (
        lambda f: bad_npz(f, x_test=X[:, 1:], y_test=Y),
        {},
        "array x_test: inputs have 6 features, train inputs 7",
    ),
    "a class used up": (
        lambda f: bad_npz(f, y=np.where(np.arange(N) == 3, "rare", "often")),
        {"test_fraction": 0.9},
        "array y: class rare has no example left to train",
    ),
    "a vector after a matrix": (
        lambda f: save_npz(f / "a.npz", x_test=X, y_test=Y, x_train=X[:, 0], y_train=Y),
        {},
        r"array x_train: inputs have to be an array \[n, d\]",
    ),
    "a compressed vector": (
        lambda f: SINGLE["compressed npz"](f, X[:, 0], Y),
        {},
        r"array x: inputs have to be an array \[n, d\]",
    ),
}


@pytest.mark.parametrize(("write", "how", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_trained_on_is_named_in_one_line(tmp_path, write, how, message):
    path = write(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_features(path, **how)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("name", ["NaN", "a row of zeros", "wide integers"])
def test_on_disk_is_checked_as_in_memory(tmp_path, name):
    write, how, message = BAD[name]
    with pytest.raises(DataError, match=message):
        load_features(write(tmp_path), memory_gb=1e-9, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0: it has to be at least 0 and b"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"memory_gb": 0}, "memory_gb is 0: it has to be above 0"),
        (
            {"standardise": "maybe"},
            "standardise is 'maybe': it has to be one of none, centre, scale",
        ),
    ],
)
def test_a_setting_out_of_its_range_is_refused(tmp_path, how, message):
    with pytest.raises(SettingsError, match=message):
        load_features(bad_npz(tmp_path), **how)


def test_tables_say_what_they_need(tmp_path, monkeypatch):
    path = SINGLE["csv"](tmp_path, *examples())
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(DataError, match=r"needs pyarrow, .*: pip install 'linear_cifar\[tables\]'"):
        whole(path)


def test_a_file_that_shrinks_while_it_is_used_is_told_of(tmp_path):
    path = SINGLE["npy"](tmp_path, *examples())
    data = whole(path, memory_gb=1e-9)
    cut(path, 400)
    with pytest.raises(DataError, match=r"mnist_features\.npy cannot be read"):
        data.train.inputs[:]


@pytest.fixture(scope="session")
def features_dir():
    """The folder of real features; without `$LINEAR_CIFAR_FEATURES` the test is skipped."""
    folder = os.environ.get("LINEAR_CIFAR_FEATURES")
    if not folder:
        pytest.skip("LINEAR_CIFAR_FEATURES names no folder with features")
    return Path(folder)


def test_real_features_are_read_whole(features_dir):
    data = load_features(features_dir, memory_gb=0.1)
    stored = [part.inputs.shape for part in parts(data).values()]
    assert stored == [(45000, 1280), (5000, 1280), (10000, 1280)]
    assert data.train.inputs.dtype == np.float16
    assert data.n_classes == 10
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    assert [isinstance(s.inputs, OnDisk) for s in parts(data).values()] == [True, False, True]
    both = with_validation(data).train.inputs
    columns = [block[:, 0] for _, block in on_disk.blocks(both)]
    raw = np.load(features_dir / "train_features.npy", mmap_mode="r")[:, 0]
    assert np.array_equal(np.sort(np.concatenate(columns)), np.sort(raw))


@pytest.fixture
def words(tmp_path):
    """A command's flags for features that it can be trained on, and where it writes."""
    inputs, labels = examples(200)
    inputs[np.arange(200), labels] += 40
    path = save_npz(tmp_path / "mine.npz", x=inputs, y=np.array(["a", "b", "c"])[labels])
    return f"--features={path}", f"--output_dir={tmp_path / 'run'}"


COMMANDS = {
    "baseline": ("--n_epochs=2", "--normalise_rows"),
    "step_decay": ("--n_epochs=2", "--standardise=centre"),
    "loss_comparison": ("--n_epochs=2", "--batch_size=20"),
    "grid_search": ("--n_epochs=1", "--batch_size=20", "--lam=0", "--seed=3"),
    "sweep": ("--n_epochs=1", "--lam=0,1", "--learning_rate=0.01", "--refit"),
    "lambda_path": ("--lam=0.1,1", "--n_folds=2"),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "command",
    [c if c == "baseline" else pytest.param(c, marks=pytest.mark.slow) for c in COMMANDS],
)
def test_a_command_takes_features_and_says_what_it_took_for_what(tmp_path, words, command):
    done = run(f"experiments.{command}", *words, *COMMANDS[command])
    assert done.returncode == 0, done.stderr
    n = "none" if command == "lambda_path" else 16  # folds validate
    assert (
        f"note: mine.npz: inputs are x, labels y; of its 200 training examples {n} validate and 4"
        in (done.stderr)
    )
    assert "mine.npz" in done.stdout
    result = records.read_result(tmp_path / "run")
    assert result["dataset"]["name"] == "mine.npz"
    n = 0 if command == "lambda_path" else 16
    assert result["dataset"]["sizes"] == {"train": 160 - n, "validation": n, "test": 40}
    assert "split" not in result
    assert not list(tmp_path.rglob("weights*.png"))
    check_every_file(tmp_path / "run")


@pytest.mark.usefixtures("undrawn")
def test_without_validation_and_test_examples_a_run_says_nothing_of_them(tmp_path, words):
    none = ("--validation_fraction=0", "--test_fraction=0")
    done = run("experiments.baseline", *words, *none, "--n_epochs=2")
    assert done.returncode == 0, done.stderr
    told = done.stdout.split("written to")[0]
    for word in ("nan", "validation", "test", "diverged"):
        assert word not in told
    assert "nan" not in done.stderr
    result = records.read_result(tmp_path / "run")
    assert not result["diverged"]
    assert "validation_accuracy" not in result
    assert result["test_accuracy_by_class"] is None


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("baseline", ["--dataset=cifar10"], "--dataset can't go with --features"),
        ("baseline", ["--data_dir=here"], "--data_dir can't go with --features"),
        ("sweep", ["--split=full"], "--split can't go with --features"),
        ("sweep", ["--validation_fraction=0"], "mine.npz has no validation examples, which this"),
        ("lambda_path", ["--test_fraction=0"], "mine.npz has no test examples, which this"),
        ("baseline", ["--memory_gb=1e-9", "--shuffle"], "shuffle needs the inputs in memory"),
        ("baseline", ["--inputs_name=z"], "has no train inputs called 'z': it has 'x', 'y'"),
    ],
)
def test_what_does_not_go_with_features_is_one_line(words, command, more, message):
    assert message in only_line(run(f"experiments.{command}", *words, *more))


def test_how_features_are_read_is_refused_without_them(tmp_path):
    done = run("experiments.baseline", "--standardise=none", f"--output_dir={tmp_path / 'run'}")
    assert only_line(done) == "error: --standardise is read with --features only"


@pytest.mark.parametrize("command", ["full_data", "report", "gradient_check", "benchmark"])
def test_a_command_of_cifar10_alone_takes_no_features(words, command):
    done = run(f"experiments.{command}", *words)
    assert done.returncode == 1
    assert "Unknown command line flag 'features'" in done.stderr


@pytest.mark.parametrize("flag", ["--test_fraction=1", "--memory_gb=0", "--standardise=maybe"])
def test_a_flag_out_of_its_range_is_refused_by_name(words, flag):
    done = run("experiments.baseline", *words, flag)
    assert done.returncode == 1
    assert flag.split("=")[0] in done.stderr


def test_data_standardised_otherwise_are_other_data(tmp_path):
    path = SINGLE["npz"](tmp_path, *examples())
    checksums = {load_features(path, standardise=how).sha256 for how in STANDARDISE}
    assert len(checksums) == 3
