"""The classifier: its predictions and its files."""

import io
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import special

from linear_cifar import (
    LOSSES,
    SOFTMAX_CROSS_ENTROPY,
    Classifier,
    DataError,
    InputError,
    Params,
    Standardiser,
)
from linear_cifar.data import LazyRows
from tests.conftest import assert_close

RNG = np.random.default_rng(0)
NAMES = ("cat", "dög", "a longer name")
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_format = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
DETAILS = ("class_names", "feature_names", "loss", "lam", "normalise_rows", "temperature")


def classifier(dtype=np.float64, **changes):
    rng = np.random.default_rng(3)
    fields = {
        # Not contiguous: columns first, and every second entry.
        "params": Params(
            np.asfortranarray(rng.normal(size=(3, 5)).astype(dtype)), rng.normal(size=6)[::2]
        ),
        "standardiser": Standardiser(rng.normal(size=5), rng.uniform(0.5, 2, 5)),
        "class_names": NAMES,
        "feature_names": ("ä", *"bcde"),
        "lam": 1 / 3,
        "normalise_rows": True,
        "temperature": math.pi,
    }
    return Classifier(**(fields | changes))


def assert_same(actual, expected):
    for name in DETAILS:
        assert getattr(actual, name) == getattr(expected, name)
    for name in ("params", "standardiser"):
        for a, b in zip(getattr(actual, name), getattr(expected, name), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


@each_loss
@pytest.mark.parametrize("normalise", [False, True])
def test_it_takes_examples_as_they_are_stored(loss, normalise):
    fitted = classifier(loss=loss, normalise_rows=normalise)
    stored = RNG.uniform(0, 6, (9, 5)).astype(np.float16)
    stored[4] = 0
    rows = stored.astype(float)
    if normalise:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    mean, scale = fitted.standardiser
    expected = (rows - mean) / scale @ fitted.params.weights.T + fitted.params.bias
    link = special.softmax if loss is SOFTMAX_CROSS_ENTROPY else lambda s, axis: special.expit(s)
    lazy = LazyRows(lambda start, stop: stored[start:stop].copy(), stored.shape, stored.dtype)
    for inputs in (stored, jnp.asarray(stored), stored.tolist(), lazy):
        assert_close(fitted.logits(inputs), expected)
        assert fitted.predict(inputs).tolist() == [NAMES[k] for k in expected.argmax(axis=1)]
        assert_close(fitted.predict_proba(inputs), link(expected / math.pi, axis=1))
    narrow = fitted.logits(stored, np.float32)
    assert narrow.dtype == np.float32
    assert_close(narrow, expected)
    assert fitted.predict_proba(stored[:0]).shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, 1e308])
def test_a_row_without_finite_logits_is_named(value):
    fitted = classifier(normalise_rows=False)
    inputs = np.zeros((450_000, 5))  # more than one block
    inputs[440_000, 2] = value
    with pytest.raises(InputError, match="row 440000"):
        fitted.logits(inputs, np.float32)


@pytest.mark.parametrize("inputs", [np.zeros((9, 4)), np.zeros(5), np.full((2, 5), "a")])
def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(InputError, match="inputs"):
        classifier().predict(inputs)


@each_format
@each_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_is_read_back_bit_for_bit(tmp_path, suffix, loss, dtype):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"an earlier file, to replace")
    saved = classifier(dtype, loss=loss)
    saved.save(path)
    assert_same(Classifier.load(path), saved)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def write_by_hand(path, **changes):
    """A file in the documented format, without `save`; a value of None leaves its entry out."""
    good = classifier()
    members = good.params._asdict() | good.standardiser._asdict()
    members |= {name: np.array(getattr(good, name)) for name in DETAILS}
    members |= {"loss": np.array("softmax")} | changes
    members = {name: value for name, value in members.items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **members)
    else:
        details = {name: members.pop(name).tolist() for name in DETAILS if name in members}
        safetensors.numpy.save_file(members, path, {"linear_cifar": json.dumps(details)})


@each_format
def test_files_of_earlier_versions_are_read(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    for changes in ({}, {"feature_names": None}):
        write_by_hand(path, **changes)
        assert_same(Classifier.load(path), classifier(**dict.fromkeys(changes, ())))


FAULTS = {
    "weights": np.full((3, 5), np.nan),
    "bias": np.zeros(4),
    "mean": np.zeros(4),
    "scale": np.zeros(5),
    "class_names": np.array(["a", "b"]),
    "feature_names": np.array(["a"]),
    "loss": np.array("hinge"),
    "lam": np.array(np.nan),
    "normalise_rows": np.array(2),
    "temperature": np.array(-1.0),
}


@each_format
@pytest.mark.parametrize("name", FAULTS)
def test_a_file_with_a_wrong_or_missing_entry_is_a_line_that_names_it(tmp_path, suffix, name):
    path = tmp_path / f"m{suffix}"
    for value in (FAULTS[name], *([None] if name != "feature_names" else [])):
        write_by_hand(path, **{name: value})
        with pytest.raises(DataError, match=f"{path}.*{name}"):
            Classifier.load(path)


class Trap:
    """Unpickling it would make the folder `trap` in the working directory."""

    def __reduce__(self):
        return (os.mkdir, ("trap",))


@pytest.mark.parametrize("name", ["weights", "class_names", "loss"])
def test_nothing_in_a_file_is_executed(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_by_hand(tmp_path / "m.npz", **{name: np.array([Trap()], object)})
    with pytest.raises(DataError, match=r"m\.npz"):
        Classifier.load(tmp_path / "m.npz")
    assert not (tmp_path / "trap").exists()


@each_format
def test_a_truncated_file_is_an_error_and_a_changed_bit_is_never_a_traceback(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    classifier().save(path)
    content = path.read_bytes()
    for length in RNG.integers(len(content), size=50):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=path.name):
            Classifier.load(path)
    for i in RNG.integers(len(content), size=50):
        damaged = bytearray(content)
        damaged[i] ^= 1 << RNG.integers(8)
        path.write_bytes(damaged)
        try:
            Classifier.load(path)
        except DataError as error:
            assert "\n" not in str(error)


@each_format
def test_files_that_hold_no_classifier_and_unusable_paths_are_a_line(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    single_array = io.BytesIO()
    np.save(single_array, np.zeros(3))
    with pytest.raises(DataError, match=path.name):
        Classifier.load(path)
    for content in (b"", b"\0" * 64, b"[" * 5000, single_array.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            Classifier.load(path)
    for nowhere in (tmp_path / "none" / path.name, path / path.name, tmp_path / "m.pkl"):
        with pytest.raises(InputError, match=str(nowhere)):
            classifier().save(nowhere)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@each_format
def test_a_write_that_fails_leaves_the_earlier_file_alone(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"m{suffix}"
    classifier().save(path)
    content = path.read_bytes()

    def full_disk(self, data):
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left"):
        classifier(temperature=2.0).save(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
