"""Files of features and labels: formats, names, splits, and data that can't be trained on."""

import contextlib
import os
import pickle
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

from linear_cifar.data import SPLITS, DataError, LazyRows, load_features, load_inputs
from linear_cifar.data.features import memory_bytes
from tests.conftest import assert_close
from tests.loaders import Bomb, save

N, D = 60, 7


def examples(n=N, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (50 + 10 * rng.normal(size=(n, D))).astype(dtype), rng.permutation(np.arange(n) % 3)


X, Y = examples()


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


def named(splits, inputs_name="{}_features", labels_name="{}_labels"):
    arrays = {}
    for split, (inputs, labels) in splits.items():
        arrays |= {inputs_name.format(split): inputs, labels_name.format(split): labels}
    return arrays


def val(splits):
    """The same splits, with the other word for validation."""
    return {split.replace("validation", "val"): pair for split, pair in splits.items()}


def file_per_split(folder, splits, ending):
    for split, (inputs, labels) in splits.items():
        is_table = ending in (".csv", ".parquet")
        arrays = columns(inputs, labels) if is_table else {"embeddings": inputs, "targets": labels}
        save(folder / f"{split}{ending}", **arrays)
    return folder


LAYOUTS = {
    "prefixes in .npz": lambda folder, s: save(folder / "a.npz", **named(s)),
    "suffixes in .npz": lambda folder, s: save(folder / "a.npz", **named(val(s), "X_{}", "y_{}")),
    "safetensors": lambda folder, s: save(folder / "a.safetensors", **named(s)),
    "folder of .npy": lambda folder, s: save(folder, **named(s)),
    "folder of .npz": lambda folder, s: file_per_split(folder, s, ".npz"),
    "folder of folders": lambda folder, s: file_per_split(folder, s, ""),
    "folder of .parquet": lambda folder, s: file_per_split(folder, val(s), ".parquet"),
    "folder of .csv": lambda folder, s: file_per_split(folder, s, ".csv"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_recognised_by_their_names(tmp_path, layout):
    splits = {split: examples(20 + i, float, seed=i) for i, split in enumerate(SPLITS)}
    data = load_features(LAYOUTS[layout](tmp_path, splits))
    for split, (inputs, labels) in splits.items():
        assert_same(by_split(data)[split].inputs, inputs)
        assert_same(by_split(data)[split].labels, labels.astype(np.int32))
    assert "held out" not in data.notice


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
STORED_DTYPES = [
    *((form, dtype) for form in FORMATS if form != "csv" for dtype in ("uint8", "float16", "<f4")),
    *(("safetensors", "bfloat16"), ("csv", "float64"), ("npy", "int16"), ("parquet", "float64")),
]


@pytest.mark.parametrize(("form", "dtype"), STORED_DTYPES)
def test_inputs_are_bit_for_bit_the_stored_ones(tmp_path, form, dtype):
    inputs, labels = examples(dtype=jnp.dtype(dtype))
    data = all_training(FORMATS[form](tmp_path, inputs, labels))
    assert_same(data.train.inputs, inputs)
    assert data.train.labels.tolist() == labels.tolist()
    assert [len(split.labels) for split in by_split(data).values()] == [N, 0, 0]


@pytest.mark.parametrize("form", IN_BLOCKS)
@pytest.mark.parametrize("normalise_rows", [False, True])
def test_inputs_that_stay_in_their_file_equal_those_in_memory(tmp_path, form, normalise_rows):
    dtype = jnp.bfloat16 if form == "safetensors" else np.dtype(">f2")
    path = FORMATS[form](tmp_path, *examples(3000, dtype))
    near = load_features(path, normalise_rows=normalise_rows)
    far = load_features(path, normalise_rows=normalise_rows, memory_gb=1e-9)
    for split, (inputs, labels) in by_split(near).items():
        rows = by_split(far)[split].inputs
        assert isinstance(inputs, np.ndarray)
        assert isinstance(rows, LazyRows)
        assert_same(rows.in_memory(), inputs)
        assert_same(rows[3:50], inputs[3:50])
        assert_same(by_split(far)[split].labels, labels)
    assert_close(far.standardiser.scale, near.train.inputs.astype(np.float64).std(axis=0))
    assert far.sha256 == near.sha256
    if normalise_rows:
        lengths = np.linalg.norm(near.train.inputs.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_the_largest_splits_stay_in_their_file_first(tmp_path):
    splits = {"train": examples(100), "validation": examples(10), "test": examples(20)}
    path, row_bytes = save(tmp_path, **named(splits)), D * (4 + 4)
    for memory, expected in (
        (30 * row_bytes, [True, False, False]),
        (30 * row_bytes - 1, [True, False, True]),
    ):
        data = load_features(path, memory_gb=memory / 1e9)
        assert [isinstance(s.inputs, LazyRows) for s in by_split(data).values()] == expected
        assert "stay in their file" in data.notice


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in IN_BLOCKS])
def test_formats_that_are_read_at_once_have_to_fit_into_memory(tmp_path, form):
    path = FORMATS[form](tmp_path, X, Y)
    with pytest.raises(DataError, match=f"{path.name}.*memory"):
        all_training(path, memory_gb=1e-9)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("form", FORMATS)
def test_reading_leaves_no_file_open_or_mapped(tmp_path, form):
    block = load_inputs(FORMATS[form](tmp_path, X, Y))[3:9]
    assert block.shape == (6, D)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert not [link for link in links if link.is_relative_to(tmp_path)]


def test_memory_respects_the_container_s_limit(tmp_path):
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_bytes(tmp_path) == host
    (tmp_path / "memory").mkdir()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        for text, expected in (("1000000\n", 10**6), (f"{2 * host}\n", host), ("max\n", host)):
            (tmp_path / name).write_text(text)
            assert memory_bytes(tmp_path) == expected


def numbered(first, labels):
    """Examples that hold their own number, from the first one on, beside another feature."""
    numbers = np.arange(first, first + len(labels), dtype=np.float32)
    return np.stack([numbers, numbers % 7], axis=1), labels


LABELS_OF_ROWS = np.random.default_rng(0).permutation(np.repeat([5, 7, 9], [200, 60, 11]))


@pytest.fixture(scope="module")
def numbered_file(tmp_path_factory):
    inputs, labels = numbered(0, LABELS_OF_ROWS)
    return save(tmp_path_factory.mktemp("numbered") / "a.npz", x=inputs, y=labels)


@given(st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 3))
def test_held_out_examples_have_their_labels_and_the_same_share_of_each_class(
    numbered_file, test_fraction, validation_fraction, seed
):
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    data = load_features(numbered_file, seed=seed, **fractions)
    rows = {split: part.inputs[:, 0].astype(int) for split, part in by_split(data).items()}
    for split, part in by_split(data).items():
        assert np.array_equal(np.array([5, 7, 9])[part.labels], LABELS_OF_ROWS[rows[split]])
        assert (np.diff(rows[split]) > 0).all()
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(271))
    rest = np.bincount(LABELS_OF_ROWS)[[5, 7, 9]]
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        counts = np.bincount(by_split(data)[split].labels, minlength=3)
        assert counts.sum() == round(fraction * rest.sum())
        assert (abs(counts - fraction * rest) < 1.5).all()
        rest = rest - counts


def test_held_out_examples_are_drawn_at_random_from_the_seed(numbered_file):
    data, other = load_features(numbered_file, seed=3), load_features(numbered_file, seed=4)
    assert load_features(numbered_file, seed=3).sha256 == data.sha256 != other.sha256
    assert [len(split.labels) for split in by_split(data).values()] == [195, 22, 54]
    assert abs(data.test.inputs[:, 0].mean() - 135) < 40  # not the first rows nor the last ones
    for words in ("a.npz", "22 validation", "54 test", "271", "seed 3"):
        assert words in data.notice


@pytest.mark.parametrize("present", ["validation", "test"])
def test_a_missing_split_is_drawn_from_the_training_examples_alone(tmp_path, present):
    labels = np.arange(50) % 2
    splits = {"train": numbered(0, labels), present: numbered(100, labels[:9])}
    data = by_split(load_features(save(tmp_path, **named(splits)), validation_fraction=0.2))
    missing = "test" if present == "validation" else "validation"
    assert_same(data[present].inputs, splits[present][0])
    drawn = data[missing].inputs[:, 0]
    assert len(drawn) == 10
    assert drawn.max() < 50
    assert not set(drawn) & set(data["train"].inputs[:, 0])


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
    labels = np.array(labels)[Y]
    data = all_training(save(tmp_path / "a.npz", x=X, y=labels))
    assert data.class_names == names
    order = {name: place for place, name in enumerate(sorted(set(labels.tolist())))}
    assert data.train.labels.tolist() == [order[label] for label in labels.tolist()]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_has_text_labels_and_columns_of_several_types(tmp_path, ending):
    words = np.array(["b", "a", "c"])[np.arange(N) % 3]
    integers, halves = np.arange(N), np.arange(N) / 2
    path = save(tmp_path / f"a{ending}", kind=words, a=integers, b=halves, c=halves > 3)
    data = all_training(path, labels_name="kind")
    assert data.feature_names == ("a", "b", "c")
    assert np.array(data.class_names)[data.train.labels].tolist() == words.tolist()
    assert_same(data.train.inputs, np.stack([integers, halves, halves > 3], axis=1))
    if ending == ".parquet":  # text as categories
        words_in_codes = pa.array(words).dictionary_encode()
        data = all_training(save(tmp_path / "b.parquet", y=words_in_codes, a=Y.astype(np.int16)))
        assert np.array(data.class_names)[data.train.labels].tolist() == words.tolist()
        assert data.train.inputs.dtype == np.int16


def test_a_table_s_columns_have_to_be_those_of_training(tmp_path):
    arrays = {"a": X[:, 0], "b": X[:, 1], "kind": Y}
    save(tmp_path / "train.csv", **arrays)
    save(tmp_path / "test.csv", **{name: arrays[name] for name in ("b", "a", "kind")})
    for load in (
        lambda: load_features(tmp_path, labels_name="kind"),
        lambda: load_inputs(tmp_path / "test.csv", None, "kind", ("a", "b")),
    ):
        with pytest.raises(DataError, match=r"test\.csv: column 0 .*'b'.*'a'"):
            load()
    with pytest.raises(DataError, match="column 2"):
        load_inputs(tmp_path / "train.csv", None, "kind", ("a", "b", "c"))
    inputs = load_inputs(tmp_path / "test.csv", None, "kind")[:]
    np.testing.assert_allclose(inputs, X[:, [1, 0]], rtol=1e-6)


def test_names_of_features_tell_which_column_is_the_labels(tmp_path):
    path = save(tmp_path / "a.parquet", Y=X[:, 0], b=X[:, 1], y=Y)
    assert_same(all_training(path, labels_name="y").train.inputs, X[:, :2])
    assert_same(load_inputs(path, labels_name="y")[:], X[:, :2])
    assert_same(load_inputs(path, feature_names=("Y", "b"))[:], X[:, :2])


def test_arrays_can_be_named(tmp_path):
    path = save(tmp_path / "a.npz", emb_last_train=2 * X, fine=Y, coarse=Y % 2, x=X)
    data = all_training(path, inputs_name="emb_last", labels_name="fine")
    assert_same(data.train.inputs, 2 * X)
    assert data.n_classes == 3
    save(tmp_path, vectors=X, kinds=Y)
    for path in (tmp_path, tmp_path / "vectors.npy"):
        assert_same(all_training(path, inputs_name="vectors", labels_name="kinds").train.inputs, X)


def test_inputs_to_predict_can_be_one_split_or_the_only_array(tmp_path):
    path = save(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=2 * X)
    with pytest.raises(DataError, match=r"'x_train', 'x_test'.*inputs_name"):
        load_inputs(path)
    assert_same(load_inputs(path, "x_test")[:], 2 * X)
    assert_same(load_inputs(save(tmp_path / "b.safetensors", foo=X))[:], X)
    assert_same(load_inputs(save(tmp_path, bar=X) / "bar.npy")[:], X)


@pytest.mark.parametrize("memory_gb", [None, 1e-9])
def test_byte_order_bool_and_wide_integers_are_converted(tmp_path, memory_gb):
    for stored, expected in (
        (X.astype(">f4"), X),
        (X > 50, (X > 50).astype(np.uint8)),
        (X.astype(np.int64), X.astype(np.int32)),
    ):
        data = all_training(save_pair(tmp_path, stored, Y), memory_gb=memory_gb)
        assert_same(data.train.inputs[:], expected)


def npz(**arrays):
    """Writes an .npz file with some arrays replaced or added."""
    return lambda folder: save(folder / "a.npz", **{"x": X, "y": Y} | arrays)


def npy(inputs):
    return lambda folder: save_pair(folder, inputs, Y)


def table(**arrays):
    return lambda folder: save(folder / "a.parquet", **arrays)


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content) and folder / name


def replaced(rows, columns, value):
    inputs = X.copy()
    inputs[rows, columns] = value
    return inputs


def pickled(folder):
    return written("x_features.npy", pickle.dumps(Bomb(folder / "bomb")))(save(folder, x_labels=Y))


def pipe(folder):
    os.mkfifo(folder / "a_features.npy")
    return folder / "a_features.npy"


def indexed(folder):
    index = {b"pandas": b'{"index_columns": ["row"], "columns": []}'}
    arrays = pa.table({"a": Y, "row": np.arange(N), "y": Y}).replace_schema_metadata(index)
    pyarrow.parquet.write_table(arrays, folder / "a.parquet")
    return folder / "a.parquet"


RARE = np.where(np.arange(N) == 3, "rare", "often")
# What is written, further arguments, and the words of the message that say where the fault is.
BAD = {
    "missing": (lambda f: f / "no.npz", {}, r"no\.npz does not exist"),
    "another ending": (written("a.pt", b"a"), {}, r"a\.pt"),
    "a pipe": (pipe, {}, r"a_features\.npy"),
    "an empty folder": (lambda f: f, {}, "no train inputs"),
    "words in a csv": (written("a.csv", b"a,y\n1,2\nz,3\n"), {}, "column a"),
    "a gap in a csv": (written("a.csv", b"a,y\n1,2\n,3\n"), {}, "column a: row 1"),
    "an index in parquet": (table(y=Y, a=Y, __index_level_0__=Y), {}, "'__index_level_0__'"),
    "an index by a name": (indexed, {}, "'row': it is an index"),
    "dates as labels": (table(a=Y, y=Y.astype("datetime64[s]")), {}, "column y: .*datetime64"),
    "labels alone": (written("a.csv", b"y\n1\n2\n"), {}, r"d ≥ 1, not \[2, 0\]"),
    "no label column": (written("a.csv", b"a,b\n1,2\n"), {}, "no train labels .*'a', 'b'"),
    "inputs of a table": (written("a.csv", b"a,y\n1,2\n"), {"inputs_name": "a"}, r"a\.csv"),
    "no usual names": (
        lambda f: save(f / "a.npz", foo=X, bar=Y), {}, "no train inputs .*'foo', 'bar'",
    ),
    "no test labels": (npz(x_test=X), {}, "no test labels"),
    "ambiguous inputs": (npz(features=X), {}, "any of 'x', 'features'"),
    "no labels beside": (lambda f: save(f, x=X) / "x.npy", {}, "no labels beside .*'labels.npy'"),
    "a split twice": (
        lambda f: save(save(f, x=X, y=Y) / "train.csv", **columns(X, Y)).parent, {}, "any of .*'x'",
    ),
    "objects": (lambda f: npz(x=np.full((N, 1), Bomb(f / "bomb")))(f), {}, "array x: .* object"),
    "objects as labels": (
        lambda f: npz(y=np.full(N, Bomb(f / "bomb")))(f), {}, r"a\.npz cannot be read",
    ),
    "a pickle": (pickled, {}, r"x_features\.npy"),
    "bfloat16 in npy": (npy(X.astype(jnp.bfloat16)), {}, r"bfloat16.*\.safetensors"),
    "no examples": (npz(x=X[:0], y=Y[:0]), {}, "array x: inputs"),
    "wide integers": (npy((X * 1e12).astype(int)), {}, "inputs are int64"),
    "NaN": (npy(replaced(13, 2, np.nan)), {}, "row 13, column 2"),
    "equal rows": (npz(x=0 * X + 3), {}, "array x: inputs are equal"),
    "a row of zeros": (npy(replaced(9, slice(None), 0)), {"normalise_rows": True}, "row 9"),
    "one label short": (npz(y=Y[1:]), {}, r"array y: labels .*\[60\]"),
    "NaN as a label": (npz(y=np.where(np.arange(N) == 5, np.nan, Y)), {}, "array y: .*row 5"),
    "labels in no UTF-8": (npz(y=np.array([b"\xff", b"a"])[Y % 2]), {}, "a.npz .*utf-8"),
    "one class": (npz(y=0 * Y + 4), {}, "array y: labels have one class"),
    "an unseen class": (
        npz(x_test=X, y_test=np.where(np.arange(N) == 3, 8, Y)), {}, "y_test: .*row 3 has 8",
    ),
    "text against numbers": (npz(x_test=X, y_test=Y.astype(str)), {}, "array y_test: .*row 0"),
    "other features": (npz(x_test=X[:, 1:], y_test=Y), {}, "array x_test: inputs have 6 features"),
    "a class used up": (npz(y=RARE), {"test_fraction": 0.9}, "class rare"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "settings", "message"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_trained_on_are_named_in_one_line(tmp_path, write, settings, message):
    path = write(tmp_path)
    limits = [None, 1e-9] if path.suffix == ".npy" else [None]  # in memory and in blocks
    for memory_gb in limits:
        with pytest.raises(DataError, match=message) as caught:
            load_features(path, memory_gb=memory_gb, **settings)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "bomb").exists()


def test_a_table_takes_only_the_memory_of_its_rows_even_if_it_claims_millions(tmp_path):
    path = save(tmp_path / "a.parquet", y=Y[:12], a=X[:12, 0], b=X[:12, 1])
    honest, pool = path.read_bytes(), pa.default_memory_pool()
    size = int.from_bytes(honest[-8:-4], "little")
    start, footer = honest[: -size - 8], honest[-size - 8 : -8]
    twelve, millions = b"\x16\x18", b"\x16\x80\x80\x80\x20"  # 64-bit fields, zigzag: 12, 2²⁵
    pieces, before = footer.split(twelve), pool.max_memory()
    assert len(pieces) > 4  # rows of the file, of the row group, and of each column
    for i in range(1, len(pieces)):
        claims = twelve.join(pieces[:i]) + millions + twelve.join(pieces[i:])
        path.write_bytes(start + claims + len(claims).to_bytes(4, "little") + b"PAR1")
        with contextlib.suppress(DataError):
            load_features(path)
    assert pool.max_memory() < before + 2**25


def test_a_file_that_shrinks_while_it_is_used_is_an_error(tmp_path):
    path = save_pair(tmp_path, X, Y)
    data = all_training(path, memory_gb=1e-9)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"a_features\.npy"):
        data.train.inputs[:]


def test_a_table_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(DataError, match=r"linear_cifar\[tables\]"):
        load_features(written("a.csv", b"a,y\n1,2\n")(tmp_path))


def test_real_features_are_read():
    folder = os.environ.get("LINEAR_CIFAR_FEATURES")
    if not folder:
        pytest.skip("LINEAR_CIFAR_FEATURES names no folder with features")
    data = load_features(folder, memory_gb=0.1)
    shapes = [split.inputs.shape for split in by_split(data).values()]
    assert shapes == [(45000, 1280), (5000, 1280), (10000, 1280)]
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    assert [isinstance(s.inputs, LazyRows) for s in by_split(data).values()] == [True, False, True]
    stored = np.load(Path(folder) / "test_features.npy", mmap_mode="r")
    assert_same(data.test.inputs[-9:], stored[-9:])
