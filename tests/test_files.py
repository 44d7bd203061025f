"""Files of features and labels: formats, names, splits, and data that can't be trained on."""

import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from linear_cifar.data import SPLITS, DataError, LazyRows, load_features, load_inputs
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
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.asarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


def named(splits):
    return {f"{n}_{s}": a for s, pair in splits.items() for n, a in zip("Xy", pair, strict=True)}


# Writes one split into a folder.
LAYOUTS = {
    ".npy": lambda f, split, x, y: save(f, **{f"{split}_features": x, f"{split}_labels": y}),
    ".csv": lambda folder, split, x, y: save(folder / f"{split}.csv", **columns(x, y)),
    "folders": lambda folder, split, x, y: save(folder / split, data=x, target=y),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_recognised_by_their_names(tmp_path, layout):
    splits = {word: examples(20 + len(word), float) for word in ("training", "val", "test")}
    for split, pair in splits.items():
        LAYOUTS[layout](tmp_path, split, *pair)
    data = load_features(tmp_path)
    for actual, (inputs, labels) in zip(by_split(data).values(), splits.values(), strict=True):
        assert_same(actual.inputs, inputs)
        assert_same(actual.labels, labels.astype(np.int32))


def save_pair(folder, inputs, labels):
    return save(folder, a_features=inputs, a_labels=labels) / "a_features.npy"


FORMATS = {
    "npy": save_pair,
    "fortran": lambda folder, x, y: save_pair(folder, np.asfortranarray(x), y),
    "npz": lambda folder, x, y: save(folder / "a.npz", features=x, labels=y),
    "safetensors": lambda folder, x, y: save(folder / "a.safetensors", inputs=x, label=y),
    "parquet": lambda folder, x, y: save(folder / "a.parquet", **columns(x, y)),
    "csv": lambda folder, x, y: save(folder / "a.csv", **columns(x, y)),
}
DTYPES = ("int16", "float16", "uint8", "bfloat16", "float32", "float64")


@pytest.mark.parametrize(("form", "dtype"), list(zip(FORMATS, DTYPES, strict=True)))
def test_inputs_are_bit_for_bit_the_stored_ones(tmp_path, form, dtype):
    inputs, labels = examples(dtype=jnp.dtype(dtype))
    data = all_training(FORMATS[form](tmp_path, inputs, labels))
    assert_same(data.train.inputs, inputs)
    assert data.train.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("form", ["npy", "fortran", "safetensors"])
@pytest.mark.parametrize("normalise_rows", [False, True])
def test_inputs_that_stay_in_their_file_equal_those_in_memory(tmp_path, form, normalise_rows):
    dtype = jnp.bfloat16 if form == "safetensors" else np.dtype(">f2")
    path = FORMATS[form](tmp_path, *examples(3000, dtype))
    near = load_features(path, normalise_rows=normalise_rows)
    far = load_features(path, normalise_rows=normalise_rows, memory_gb=1e-9)
    for split, (inputs, labels) in by_split(near).items():
        rows = by_split(far)[split].inputs
        assert isinstance(rows, LazyRows)
        assert_same(rows.in_memory(), inputs)
        assert_same(rows[3:50], inputs[3:50])
        assert_same(by_split(far)[split].labels, labels)
    assert_close(far.standardiser.scale, near.train.inputs.astype(np.float64).std(axis=0))
    assert far.sha256 == near.sha256
    lengths = np.linalg.norm(near.train.inputs.astype(np.float64), axis=1)
    assert np.allclose(lengths, 1) == normalise_rows


def test_the_largest_splits_stay_in_their_file_first(tmp_path):
    splits = {"train": examples(100), "validation": examples(10), "test": examples(20)}
    path, memory = save(tmp_path, **named(splits)), 30 * D * (4 + 4)
    for n_bytes, expected in ((memory, [True, False, False]), (memory - 1, [True, False, True])):
        data = load_features(path, memory_gb=n_bytes / 1e9)
        assert [isinstance(s.inputs, LazyRows) for s in by_split(data).values()] == expected
        assert "stay in their file" in data.notice


@pytest.mark.parametrize("form", ["npz", "parquet", "csv"])
def test_formats_that_are_read_at_once_have_to_fit_into_memory(tmp_path, form):
    with pytest.raises(DataError, match=f"a.{form}.*memory"):
        all_training(FORMATS[form](tmp_path, X, Y), memory_gb=1e-9)


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
    data = by_split(load_features(numbered_file, seed=seed, **fractions))
    rows = {split: part.inputs[:, 0].astype(int) for split, part in data.items()}
    for split, part in data.items():
        assert np.array_equal(np.array([5, 7, 9])[part.labels], LABELS_OF_ROWS[rows[split]])
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(271))
    rest = np.bincount(LABELS_OF_ROWS)[[5, 7, 9]]
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        counts = np.bincount(data[split].labels, minlength=3)
        assert counts.sum() == round(fraction * rest.sum())
        assert (abs(counts - fraction * rest) < 1.5).all()
        rest = rest - counts


def test_held_out_examples_are_drawn_at_random_from_the_seed(numbered_file):
    data, other = load_features(numbered_file, seed=3), load_features(numbered_file, seed=4)
    assert load_features(numbered_file, seed=3).sha256 == data.sha256 != other.sha256
    assert abs(data.test.inputs[:, 0].mean() - 135) < 40  # not the first rows nor the last ones
    for words in ("a.npz", "22 validation", "54 test", "271", "seed 3"):
        assert words in data.notice


@pytest.mark.parametrize(("present", "missing"), [("validation", "test"), ("test", "validation")])
def test_a_missing_split_is_drawn_from_the_training_examples_alone(tmp_path, present, missing):
    splits = {"train": numbered(0, np.arange(50) % 2), present: numbered(100, np.arange(9) % 2)}
    path = save(tmp_path / "a.npz", **named(splits))
    data = by_split(load_features(path, validation_fraction=0.2))
    assert_same(data[present].inputs, splits[present][0])
    assert len(data[missing].inputs) == 10
    rows = np.concatenate([data[split].inputs[:, 0] for split in ("train", missing)])
    assert sorted(rows) == list(range(50))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([-7, 10**12, 3], ("-7", "3", "1000000000000")),
        ([2.0, 1.0, 2.0], ("1", "2")),
        ([b"dog", "ä".encode(), b"cat"], ("cat", "dog", "ä")),
    ],
)
def test_classes_are_the_distinct_training_labels_in_order(tmp_path, labels, names):
    labels = np.array(labels)[Y]
    data = all_training(save(tmp_path / "a.npz", x=X, y=labels))
    assert data.class_names == names
    assert np.array_equal(np.unique(labels)[data.train.labels], labels)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_has_text_labels_and_columns_of_several_types(tmp_path, ending):
    words = np.array(["b", "a", "c"])[np.arange(N) % 3]
    kind = pa.array(words) if ending == ".csv" else pa.array(words).dictionary_encode()
    integers, halves = np.arange(N), np.arange(N) / 2
    path = save(tmp_path / f"a{ending}", kind=kind, a=integers, b=halves, c=halves > 3)
    data = all_training(path, labels_name="kind")
    assert data.feature_names == ("a", "b", "c")
    assert np.array(data.class_names)[data.train.labels].tolist() == words.tolist()
    assert_same(data.train.inputs, np.stack([integers, halves, halves > 3], axis=1))


def test_a_tables_columns_have_to_be_those_of_training(tmp_path):
    save(tmp_path / "train.csv", a=X[:, 0], b=X[:, 1], kind=Y)
    path = save(tmp_path / "test.csv", b=X[:, 1], a=X[:, 0], kind=Y)
    with pytest.raises(DataError, match=r"test\.csv: column 0 .*'b'.*'a'"):
        load_features(tmp_path, labels_name="kind")
    with pytest.raises(DataError, match="column 2"):
        load_inputs(path, None, "kind", ("b", "a", "c"))


def test_arrays_and_columns_can_be_named(tmp_path):
    path = save(tmp_path / "a.npz", emb_last_train=2 * X, fine=Y, coarse=Y % 2, x=X)
    data = all_training(path, inputs_name="emb_last", labels_name="fine")
    assert_same(data.train.inputs, 2 * X)
    assert data.n_classes == 3
    path = save(tmp_path, vectors=X, kinds=Y) / "vectors.npy"
    assert_same(all_training(path, inputs_name="vectors", labels_name="kinds").train.inputs, X)
    path = save(tmp_path / "a.parquet", Y=X[:, 0], b=X[:, 1], y=Y)
    assert_same(all_training(path, labels_name="y").train.inputs, X[:, :2])
    assert_same(load_inputs(path, feature_names=("Y", "b"))[:], X[:, :2])


def test_inputs_to_predict_can_be_one_split_or_the_only_array(tmp_path):
    path = save(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=2 * X)
    with pytest.raises(DataError, match=r"'x_train', 'x_test'.*inputs_name"):
        load_inputs(path)
    assert_same(load_inputs(path, "x_test")[:], 2 * X)
    assert_same(load_inputs(save(tmp_path, bar=X) / "bar.npy")[:], X)


def npz(**arrays):
    return lambda folder: save(folder / "a.npz", **{"x": X, "y": Y} | arrays)


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content) and folder / name


def replaced(rows, columns, value):
    inputs = X.copy()
    inputs[rows, columns] = value
    return lambda folder: save_pair(folder, inputs, Y)


def indexed(folder):
    pd.DataFrame({"a": Y, "y": Y}, pd.Index(Y, name="row")).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


RARE = np.where(np.arange(N) == 3, 8, Y)
# What is written, further arguments, and the words of the message that say where the fault is.
BAD = {
    "missing": (lambda f: f / "no.npz", {}, r"no\.npz does not exist"),
    "another ending": (written("a.pt", b"a"), {}, r"a\.pt"),
    "words in a csv": (written("a.csv", b"a,y\n1,2\nz,3\n"), {}, "column a"),
    "a gap in a csv": (written("a.csv", b"a,y\n1,2\n,3\n"), {}, "column a: row 1"),
    "an index in csv": (written("a.csv", b",a,y\n0,1,2\n1,2,3\n"), {}, "column ''.* index"),
    "an index in parquet": (indexed, {}, "'row': it is an index"),
    "inputs of a table": (written("a.csv", b"a,y\n1,2\n"), {"inputs_name": "a"}, r"a\.csv"),
    "no usual names": (lambda f: save(f / "a.npz", s=X, t=Y), {}, "no train inputs .*'s', 't'"),
    "no test labels": (npz(x_test=X), {}, "no test labels"),
    "ambiguous inputs": (npz(features=X), {}, "any of 'x', 'features'"),
    "no labels beside": (lambda f: save(f, x=X) / "x.npy", {}, "no labels beside .*'labels.npy'"),
    "objects as labels": (lambda f: npz(y=np.full(N, Bomb(f / "bomb")))(f), {}, r"a\.npz"),
    "objects": (lambda f: save(f, x=np.full((N, 1), Bomb(f / "bomb")), y=Y) / "x.npy", {}, "x.npy"),
    "no examples": (npz(x=X[:0], y=Y[:0]), {}, "array x: inputs"),
    "NaN": (replaced(13, 2, np.nan), {}, "row 13, column 2"),
    "equal rows": (npz(x=0 * X + 3), {}, "array x: inputs are equal"),
    "a row of zeros": (replaced(9, slice(None), 0), {"normalise_rows": True}, "row 9"),
    "one label short": (npz(y=Y[1:]), {}, r"array y: labels .*\[60\]"),
    "one class": (npz(y=0 * Y + 4), {}, "array y: labels have one class"),
    "an unseen class": (npz(x_test=X, y_test=RARE), {}, "y_test: .*row 3 has 8"),
    "other features": (npz(x_test=X[:, 1:], y_test=Y), {}, "array x_test: inputs have 6 features"),
    "a class used up": (npz(y=RARE), {"test_fraction": 0.9}, "class 8"),
}


@pytest.mark.parametrize(("write", "settings", "message"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_trained_on_are_named_in_one_line(tmp_path, write, settings, message):
    path = write(tmp_path)
    for memory_gb in (None, 1e-9) if path.suffix == ".npy" else (None,):  # in blocks, too
        with pytest.raises(DataError, match=message) as caught:
            load_features(path, memory_gb=memory_gb, **settings)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "bomb").exists()


def test_a_table_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(DataError, match=r"linear_cifar\[tables\]"):
        load_features(written("a.csv", b"a,y\n1,2\n")(tmp_path))
