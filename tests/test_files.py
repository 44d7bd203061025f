"""Files of features and labels: formats, names, splits, and data that can't be trained on."""

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
from safetensors.numpy import save_file

from linear_cifar.data import SPLITS, DataError, LazyRows, blocks, load_features, load_inputs
from linear_cifar.data.features import memory_bytes
from linear_cifar.errors import InputError

N, D = 60, 7


def examples(n=N, d=D, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (50 + 10 * rng.normal(size=(n, d))).astype(dtype), rng.permutation(np.arange(n) % 3)


def save(path, **arrays):
    """Writes arrays into one file by its ending, or into a folder of .npy files; returns it."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table(arrays), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table(arrays), path)
    else:
        path.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return path


def columns(inputs, labels):
    return {f"f{i}": column for i, column in enumerate(inputs.T)} | {"label": labels}


def all_training(path, **settings):
    return load_features(path, **{"validation_fraction": 0, "test_fraction": 0} | settings)


def by_split(dataset):
    return {split: getattr(dataset, split) for split in SPLITS}


def assert_same(actual, expected):
    """Bit for bit, and of the same dtype."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.asarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


def prefixed(splits, names=("{}_features", "{}_labels")):
    return {
        name.format(split): array
        for split, pair in splits.items()
        for name, array in zip(names, pair, strict=True)
    }


def suffixed(splits):
    return prefixed(
        {split.replace("validation", "val"): pair for split, pair in splits.items()},
        ("X_{}", "y_{}"),
    )


def file_per_split(folder, splits, ending):
    for split, (inputs, labels) in splits.items():
        table = ending in (".csv", ".parquet")
        arrays = columns(inputs, labels) if table else {"embeddings": inputs, "targets": labels}
        save(folder / f"{split}{ending}", **arrays)
    return folder


LAYOUTS = {
    "prefixes in .npz": lambda folder, s: save(folder / "a.npz", **prefixed(s)),
    "suffixes in .npz": lambda folder, s: save(folder / "a.npz", **suffixed(s)),
    "safetensors": lambda folder, s: save(folder / "a.safetensors", **prefixed(s)),
    "folder of .npy": lambda folder, s: save(folder, **prefixed(s)),
    "folder of .npz": lambda folder, s: file_per_split(folder, s, ".npz"),
    "folder of folders": lambda folder, s: file_per_split(folder, s, ""),
    "folder of .parquet": lambda folder, s: file_per_split(folder, s, ".parquet"),
    "folder of .csv": lambda folder, s: file_per_split(folder, s, ".csv"),
}


def save_pair(folder, inputs, labels):
    return save(folder, a_features=inputs, a_labels=labels) / "a_features.npy"


FORMATS = {
    "npy": save_pair,
    "fortran": lambda folder, x, y: save_pair(folder, np.asfortranarray(x), y),
    "npz": lambda folder, x, y: save(folder / "a.npz", features=x, labels=y),
    "compressed": lambda f, x, y: np.savez_compressed(f / "a.npz", x=x, y=y) or f / "a.npz",
    "safetensors": lambda folder, x, y: save(folder / "a.safetensors", inputs=x, label=y),
    "parquet": lambda folder, x, y: save(folder / "a.parquet", **columns(x, y)),
    "csv": lambda folder, x, y: save(folder / "a.csv", **columns(x, y)),
}
IN_BLOCKS = ("npy", "fortran", "safetensors")
NARROW = ("uint8", "int16", "float16", "float32", "float64")
KEPT_DTYPES = [
    *((form, dtype) for form in FORMATS if form != "csv" for dtype in NARROW),
    ("safetensors", "bfloat16"),
    ("csv", "float64"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_recognised_by_their_names(tmp_path, layout):
    splits = {split: examples(20 + i, seed=i, dtype=float) for i, split in enumerate(SPLITS)}
    data = load_features(LAYOUTS[layout](tmp_path, splits))
    for split, (inputs, labels) in splits.items():
        assert_same(by_split(data)[split].inputs, inputs)
        assert_same(by_split(data)[split].labels, labels.astype(np.int32))
    assert "held out" not in data.notice


@pytest.mark.parametrize(("form", "dtype"), KEPT_DTYPES)
def test_inputs_are_bit_for_bit_the_stored_ones(tmp_path, form, dtype):
    inputs, labels = examples(dtype=jnp.dtype(dtype))
    data = all_training(FORMATS[form](tmp_path, inputs, labels))
    assert_same(data.train.inputs, inputs)
    assert data.train.labels.tolist() == labels.tolist()
    assert [len(split.labels) for split in by_split(data).values()] == [N, 0, 0]


@pytest.mark.parametrize("form", IN_BLOCKS)
@pytest.mark.parametrize("normalise_rows", [False, True])
def test_inputs_left_in_their_file_equal_those_in_memory(tmp_path, form, normalise_rows):
    dtype = jnp.bfloat16 if form == "safetensors" else np.dtype(">f2")
    path = FORMATS[form](tmp_path, *examples(3000, dtype=dtype))
    near = load_features(path, normalise_rows=normalise_rows)
    far = load_features(path, normalise_rows=normalise_rows, memory_gb=1e-9)
    for split, (inputs, labels) in by_split(near).items():
        rows = by_split(far)[split].inputs
        assert isinstance(inputs, np.ndarray)
        assert isinstance(rows, LazyRows)
        assert_same(rows.in_memory(), inputs)
        assert_same(rows[3:50], inputs[3:50])
        assert_same(by_split(far)[split].labels, labels)
    assert_same(far.standardiser.scale, near.standardiser.scale)
    assert far.sha256 == near.sha256
    assert "stay in their file" in far.notice
    assert "stay in their file" not in near.notice
    if normalise_rows:
        lengths = np.linalg.norm(near.train.inputs.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_the_largest_splits_stay_in_their_file_first(tmp_path):
    splits = {"train": examples(100), "validation": examples(10), "test": examples(20)}
    path, row_bytes = save(tmp_path, **prefixed(splits)), D * (4 + 4)
    for memory, expected in (
        (100 * row_bytes, [True, False, False]),
        (30 * row_bytes, [True, False, False]),
        (30 * row_bytes - 1, [True, False, True]),
    ):
        data = load_features(path, memory_gb=memory / 1e9)
        assert [isinstance(s.inputs, LazyRows) for s in by_split(data).values()] == expected


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in IN_BLOCKS])
def test_formats_that_are_read_whole_have_to_fit_into_memory(tmp_path, form):
    path = FORMATS[form](tmp_path, *examples())
    with pytest.raises(DataError, match=r"1e-09 GB of memory.*\.npy"):
        all_training(path, memory_gb=1e-9)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("form", FORMATS)
def test_reading_leaves_no_file_open_or_mapped(tmp_path, form):
    block = load_inputs(FORMATS[form](tmp_path, *examples()))[3:9]
    assert block.shape == (6, D)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert not [link for link in links if link.is_relative_to(tmp_path)]


def test_memory_respects_the_container_s_limit(tmp_path):
    host = memory_bytes(tmp_path)
    assert host == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory").mkdir()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        for text, expected in (("1000000\n", 10**6), (f"{2 * host}\n", host), ("max\n", host)):
            (tmp_path / name).write_text(text)
            assert memory_bytes(tmp_path) == expected


def test_held_out_examples_are_stratified_and_drawn_from_the_seed(tmp_path):
    labels = np.random.default_rng(0).permutation(np.repeat([5, 7, 9], [200, 60, 11]))
    inputs = np.arange(271, dtype=np.float32)[:, None] + np.zeros((1, D), np.float32)
    path = save(tmp_path / "a.npz", x=inputs, y=labels)
    data = load_features(path, seed=3)
    rows = {split: part.inputs[:, 0].astype(int) for split, part in by_split(data).items()}
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(271))
    assert all((np.diff(ascending) > 0).all() for ascending in rows.values())
    assert [len(ascending) for ascending in rows.values()] == [195, 22, 54]
    assert np.bincount(data.test.labels).tolist() == [40, 12, 2]
    assert data.class_names == ("5", "7", "9")
    assert load_features(path, seed=3).sha256 == data.sha256
    assert load_features(path, seed=4).sha256 != data.sha256
    for words in ("a.npz", "22 validation", "54 test", "271", "seed 3"):
        assert words in data.notice
    assert "\n" not in data.notice


def test_only_missing_splits_are_drawn(tmp_path):
    splits = {"train": examples(50), "test": examples(9, seed=1)}
    data = load_features(save(tmp_path, **prefixed(splits)), validation_fraction=0.2)
    assert [len(split.labels) for split in by_split(data).values()] == [40, 10, 9]
    assert_same(data.test.inputs, splits["test"][0])


LABELS = {
    "any integers": ([-7, 10**12, 3], ("-7", "3", "1000000000000")),
    "bool": ([True, False, True], ("0", "1")),
    "uint64": (np.array([3, 2**63 + 5, 200], np.uint64), ("3", "200", str(2**63 + 5))),
    "whole floats": ([2.0, 1.0, 2.0], ("1", "2")),
    "bytes": ([b"dog", "ä".encode(), b"cat"], ("cat", "dog", "ä")),
    "big-endian": (np.array([3, 1, 200], ">i4"), ("1", "3", "200")),
}


@pytest.mark.parametrize(("labels", "names"), LABELS.values(), ids=LABELS)
def test_classes_are_the_distinct_training_labels_in_order(tmp_path, labels, names):
    labels = np.array(labels)[np.arange(N) % 3]
    data = all_training(save(tmp_path / "a.npz", x=examples()[0], y=labels))
    assert data.class_names == names
    text = np.char.decode(labels) if labels.dtype.kind == "S" else labels
    assert np.array_equal(data.train.labels, np.unique(text, return_inverse=True)[1])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_has_text_labels_and_columns_of_several_types(tmp_path, ending):
    words = np.array(["b", "a", "c"])[np.arange(N) % 3]
    integers, halves = np.arange(N), np.arange(N) / 2
    path = save(tmp_path / f"a{ending}", kind=words, a=integers, b=halves, c=halves > 3)
    data = all_training(path, labels_name="kind")
    assert data.class_names == ("a", "b", "c")
    assert data.feature_names == ("a", "b", "c")
    assert_same(data.train.inputs, np.stack([integers, halves, halves > 3], axis=1))
    categories = pa.array(words).dictionary_encode()
    data = all_training(save(tmp_path / "b.parquet", y=categories, a=integers.astype(np.int16)))
    assert data.class_names == ("a", "b", "c")
    assert data.train.inputs.dtype == np.int16


def test_a_table_s_columns_have_to_be_those_of_training(tmp_path):
    a, b = examples()[0].T[:2]
    arrays = {"a": a, "b": b, "kind": np.arange(N) % 3}
    save(tmp_path / "train.csv", **arrays)
    swapped = {name: arrays[name] for name in ("b", "a", "kind")}
    save(tmp_path / "test.csv", **swapped)
    with pytest.raises(DataError, match=r"test\.csv: column 0 .*'b'.*'a'"):
        load_features(tmp_path, labels_name="kind")
    with pytest.raises(DataError, match=r"test\.csv: column 0"):
        load_inputs(tmp_path / "test.csv", None, "kind", ("a", "b"))
    with pytest.raises(DataError, match="column 2"):
        load_inputs(tmp_path / "train.csv", None, "kind", ("a", "b", "c"))
    inputs = load_inputs(tmp_path / "test.csv", None, "kind")[:]
    np.testing.assert_allclose(inputs, np.stack([b, a], axis=1), rtol=1e-6)


def test_names_of_features_tell_which_column_is_the_labels(tmp_path):
    a, b = examples()[0].T[:2]
    path = save(tmp_path / "a.parquet", Y=a, b=b, y=np.arange(N) % 3)
    expected = np.stack([a, b], axis=1)
    assert_same(
        load_features(path, labels_name="y", test_fraction=0, validation_fraction=0).train.inputs,
        expected,
    )
    assert_same(load_inputs(path, labels_name="y")[:], expected)
    assert_same(load_inputs(path, feature_names=("Y", "b"))[:], expected)
    path = save(tmp_path / "b.parquet", Y=a, b=b)
    assert_same(load_inputs(path, feature_names=("Y", "b"))[:], expected)


def test_arrays_can_be_named(tmp_path):
    inputs, labels = examples()
    path = save(tmp_path / "a.npz", emb_train=inputs, fine=labels, coarse=labels % 2, x=inputs)
    data = all_training(path, inputs_name="emb", labels_name="fine")
    assert data.n_classes == 3
    assert "emb_train" in data.notice
    save(tmp_path, vectors=inputs, kinds=labels)
    assert all_training(tmp_path / "vectors.npy", labels_name="kinds").n_classes == 3
    assert all_training(tmp_path, inputs_name="vectors", labels_name="kinds").n_classes == 3


def test_inputs_to_predict_can_be_one_split_or_the_only_array(tmp_path):
    inputs, labels = examples()
    path = save(tmp_path / "a.npz", x_train=inputs, y_train=labels, x_test=2 * inputs)
    with pytest.raises(DataError, match=r"'x_train', 'x_test'.*inputs_name"):
        load_inputs(path)
    assert_same(load_inputs(path, "x_test")[:], 2 * inputs)
    assert_same(load_inputs(save(tmp_path / "b.safetensors", foo=inputs))[:], inputs)
    assert_same(load_inputs(save(tmp_path, bar=inputs) / "bar.npy")[:], inputs)
    with pytest.raises(DataError, match="no file that ends in"):
        load_inputs(tmp_path)


@pytest.mark.parametrize("memory_gb", [None, 1e-9])
def test_byte_order_bool_and_wide_integers_are_converted(tmp_path, memory_gb):
    inputs, labels = examples()
    for stored, expected in (
        (inputs.astype(">f4"), inputs),
        (inputs > 50, (inputs > 50).astype(np.uint8)),
        (inputs.astype(np.int64), inputs.astype(np.int32)),
    ):
        data = all_training(save_pair(tmp_path, stored, labels), memory_gb=memory_gb)
        assert_same(data.train.inputs[:], expected)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


X, Y = examples()


def npz(**arrays):
    """Writes an .npz file with some arrays replaced or added."""
    return lambda folder: save(folder / "a.npz", **{"x": X, "y": Y} | arrays)


def npy(**arrays):
    return lambda folder: save_pair(folder, *({"x": X, "y": Y} | arrays).values())


def table(**columns):
    return lambda folder: save(folder / "a.parquet", **columns)


def csv(text):
    return lambda folder: written(folder / "a.csv", text.encode())


def written(path, content):
    path.write_bytes(content)
    return path


def cut(path, n_bytes=8):
    return written(path, path.read_bytes()[:-n_bytes])


def garbage(name):
    return lambda folder: written(save(folder, a_labels=Y) / name, b"\x00garbage\xff" * 50)


def changed(row, column, value):
    inputs, _ = examples()
    inputs[row, column] = value
    return inputs


def flipped(folder):
    path = npz()(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.getinfo("x.npy").header_offset + 400] ^= 1
    return written(path, content)


def with_bomb(folder):
    array = np.full((N, 1), Bomb(folder / "bomb"), object)
    return save(folder / "a.npz", x=array, y=Y)


def pickled(folder):
    content = pickle.dumps(Bomb(folder / "bomb"))
    return written(save(folder, a_labels=Y) / "a_features.npy", content)


def fifo(folder):
    os.mkfifo(folder / "a_features.npy")
    return folder / "a_features.npy"


INDEX = {b"pandas": b'{"index_columns": ["row"], "columns": []}'}


def pandas_index(folder):
    columns = pa.table({"a": Y, "row": np.arange(N), "y": Y}).replace_schema_metadata(INDEX)
    pyarrow.parquet.write_table(columns, folder / "a.parquet")
    return folder / "a.parquet"


# What is written, further arguments, and the key words of the message.
BAD = {
    "missing": (lambda f: f / "no.npz", {}, r"no\.npz does not exist"),
    "another ending": (lambda f: written(f / "a.pt", b""), {}, r"a\.pt is no file .*\.npy"),
    "a pipe": (fifo, {}, "no file that ends in"),
    "an empty folder": (lambda f: f, {}, "no train inputs .* no arrays"),
    "garbage npz": (garbage("a.npz"), {}, r"a\.npz cannot be read"),
    "truncated npz": (lambda f: cut(npz()(f)), {}, r"a\.npz cannot be read"),
    "a flipped bit": (flipped, {}, r"a\.npz cannot be read: Bad CRC-32"),
    "garbage npy": (garbage("a_features.npy"), {}, r"a_features\.npy cannot be read"),
    "truncated npy": (lambda f: cut(npy()(f)), {}, r"a_features\.npy cannot be read"),
    "garbage safetensors": (garbage("a.safetensors"), {}, r"a\.safetensors cannot be read"),
    "truncated safetensors": (
        lambda f: cut(save(f / "a.safetensors", x=X, y=Y)), {}, r"a\.safetensors cannot be read",
    ),
    "garbage parquet": (garbage("a.parquet"), {}, r"a\.parquet cannot be read"),
    "truncated parquet": (lambda f: cut(table(a=X[:, 0], y=Y)(f)), {}, r"a\.parquet cannot be"),
    "an empty csv": (csv(""), {}, r"a\.csv cannot be read"),
    "ragged csv": (csv("a,y\n1,2\n1\n"), {}, r"a\.csv cannot be read"),
    "words in a csv": (csv("a,y\n1,2\nz,3\n"), {}, "column a: features have to be numbers"),
    "a gap in a csv": (csv("a,y\n1,2\n,3\n"), {}, "column a: row 1 has no value"),
    "a gap in labels": (csv("a,y\n1,2\n1,\n"), {}, "column y: row 1 has no value"),
    "an index in parquet": (table(y=Y, a=Y, __index_level_0__=Y), {}, "'__index_level_0__'"),
    "an index by a name": (pandas_index, {}, "'row': it is an index"),
    "lists in parquet": (table(y=[0, 1], a=[[1.0], [2.0]]), {}, "column a: .* not list"),
    "dates as labels": (table(a=Y, y=Y.astype("datetime64[s]")), {}, "column y: .*datetime64"),
    "labels alone": (csv("y\n1\n2\n"), {}, r"d ≥ 1, not \[2, 0\]"),
    "no label column": (csv("a,b\n1,2\n"), {}, "no train labels .*'a', 'b'.* labels_name"),
    "two label columns": (csv("y,label\n1,2\n"), {}, "could be any of 'y', 'label'"),
    "inputs of a table": (csv("a,y\n1,2\n"), {"inputs_name": "a"}, "all columns but the labels"),
    "no usual names": (
        lambda f: save(f / "a.npz", foo=X, bar=Y), {}, "no train inputs .*'foo', 'bar'",
    ),
    "no such name": (npz(), {"inputs_name": "z"}, "no train inputs called 'z'"),
    "no labels": (lambda f: save(f / "a.npz", x=X), {}, "no train labels"),
    "no test labels": (npz(x_test=X), {}, "no test labels"),
    "no test inputs": (npz(y_test=Y), {}, "no test inputs"),
    "no training examples": (lambda f: save(f / "a.npz", x_test=X, y_test=Y), {}, "no train inp"),
    "ambiguous inputs": (npz(features=X), {}, "could be any of 'x', 'features'"),
    "ambiguous labels": (npz(y_train=Y), {}, "could be any of 'y', 'y_train'"),
    "no labels beside": (lambda f: save(f, x=X) / "x.npy", {}, "no labels beside .*'labels.npy'"),
    "two labels beside": (
        lambda f: save(f, x_features=X, x_y=Y, x_class=Y) / "x_features.npy", {}, "any of 'x_class",
    ),
    "a split twice": (
        lambda f: save(save(f, x=X, y=Y) / "train.csv", **columns(X, Y)).parent, {}, "any of .*'x'",
    ),
    "objects": (with_bomb, {}, "array x: inputs are object"),
    "a pickle": (pickled, {}, r"a_features\.npy cannot be read"),
    "bfloat16 in npy": (npy(x=X.astype(jnp.bfloat16)), {}, r"bfloat16.*\.safetensors"),
    "a vector": (npz(x=X[:, 0]), {}, r"array x: inputs .*\[n, d\].* not \[60\]"),
    "no examples": (npz(x=X[:0], y=Y[:0]), {}, r"inputs \[0, 7\] have no examples"),
    "text": (npz(x=X.astype(str)), {}, "array x: inputs are <U"),
    "wide integers": (npy(x=(X * 1e12).astype(int)), {}, "int64 beyond int32"),
    "NaN": (npy(x=changed(13, 2, np.nan)), {}, "row 13, column 2 is nan"),
    "equal rows": (npz(x=0 * X + 3), {}, "array x: inputs are equal"),
    "a large offset": (npz(x=X + np.float64(1e9)), {}, "x: .* is lost in float32"),
    "a row of zeros": (npy(x=changed(9, slice(None), 0)), {"normalise_rows": True}, "row 9 .*zero"),
    "one label short": (npz(y=Y[1:]), {}, r"array y: labels .*\[60\].*59"),
    "broken labels": (npz(y=Y + 0.5), {}, r"array y: .* row 0 has \d\.5"),
    "NaN as a label": (npz(y=np.where(Y, Y, np.nan)), {}, r"row \d+ has nan"),
    "labels in no UTF-8": (npz(y=np.array([b"\xff", b"a"])[Y % 2]), {}, "cannot be read: .*utf-8"),
    "one class": (npz(y=0 * Y + 4), {}, "array y: labels have one class only, 4"),
    "an unseen class": (
        npz(x_test=X, y_test=np.where(np.arange(N) == 3, 8, Y)), {}, "y_test: .*row 3 has 8",
    ),
    "text against numbers": (npz(x_test=X, y_test=Y.astype(str)), {}, "array y_test: .*row 0 has"),
    "other features": (npz(x_test=X[:, 1:], y_test=Y), {}, "array x_test: inputs have 6 features"),
    "a class used up": (
        npz(y=np.where(np.arange(N) == 3, "rare", "often")), {"test_fraction": 0.9}, "class rare",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "settings", "message"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_trained_on_are_named_in_one_line(tmp_path, write, settings, message):
    with pytest.raises(DataError, match=message) as caught:
        load_features(write(tmp_path), **settings)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("name", ["NaN", "a row of zeros", "wide integers"])
def test_inputs_in_their_file_are_checked_like_those_in_memory(tmp_path, name):
    write, settings, message = BAD[name]
    with pytest.raises(DataError, match=message):
        load_features(write(tmp_path), memory_gb=1e-9, **settings)


def test_a_table_takes_only_the_memory_of_its_rows_whatever_it_claims(tmp_path):
    path = save(tmp_path / "a.parquet", y=Y[:12], a=X[:12, 0], b=X[:12, 1])
    honest, pool = path.read_bytes(), pa.default_memory_pool()
    size = int.from_bytes(honest[-8:-4], "little")
    start, footer = honest[: -size - 8], honest[-size - 8 : -8]
    twelve, millions = b"\x16\x18", b"\x16\x80\x80\x80\x20"  # 64-bit fields, zigzag: 12, 2²⁵
    pieces, before = footer.split(twelve), pool.max_memory()
    assert len(pieces) > 4  # rows of the file, of the row group, and of each column
    for i in range(1, len(pieces)):
        claims = twelve.join(pieces[:i]) + millions + twelve.join(pieces[i:])
        written(path, start + claims + len(claims).to_bytes(4, "little") + b"PAR1")
        with contextlib.suppress(DataError):
            load_features(path)
    assert pool.max_memory() < before + 2**25


def test_a_file_that_shrinks_while_it_is_used_is_an_error(tmp_path):
    path = npy()(tmp_path)
    data = all_training(path, memory_gb=1e-9)
    cut(path, 400)
    with pytest.raises(DataError, match=r"a_features\.npy cannot be read"):
        data.train.inputs[:]


def test_a_table_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(DataError, match=r"pyarrow.*linear_cifar\[tables\]"):
        load_features(csv("a,y\n1,2\n")(tmp_path))


def test_a_setting_out_of_its_range_is_named(tmp_path):
    for name, value in {
        "validation_fraction": 1.0, "test_fraction": -0.1, "memory_gb": 0, "standardise": "maybe",
        "normalise_rows": 1, "seed": 0.5,
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{name} is {value!r}"):
            load_features(npz()(tmp_path), **{name: value})


def test_real_features_are_read(monkeypatch):
    folder = os.environ.get("LINEAR_CIFAR_FEATURES")
    if not folder:
        pytest.skip("LINEAR_CIFAR_FEATURES names no folder with features")
    data = load_features(folder, memory_gb=0.1)
    shapes = [split.inputs.shape for split in by_split(data).values()]
    assert shapes == [(45000, 1280), (5000, 1280), (10000, 1280)]
    assert data.train.inputs.dtype == np.float16
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    assert [isinstance(s.inputs, LazyRows) for s in by_split(data).values()] == [True, False, True]
    stored = np.load(Path(folder) / "test_features.npy", mmap_mode="r")
    for part, block in blocks(data.test.inputs):
        assert_same(block, stored[part])
