"""The classifier: its predictions and its files."""

import dataclasses
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linear_cifar import LOSSES, Classifier, DataError, InputError, Params, Standardiser
from tests import folders
from tests.conftest import assert_close, each_loss, lazy
from tests.loaders import Bomb
from tests.oracle import LINKS

NAMES = ("cat", "dög", "a longer name")
each_format = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
DETAILS = ("class_names", "feature_names", "loss", "lam", "normalise_rows", "temperature")


def classifier(dtype=np.float64, **changes):
    rng = np.random.default_rng(3)
    params = Params(rng.normal(size=(5, 3)).astype(dtype).T, rng.normal(size=6)[::2])
    standardiser = Standardiser(rng.normal(size=5), rng.uniform(0.5, 2, 5))
    fitted = Classifier(params, standardiser, NAMES, "softmax", 1 / 3, True, math.pi, "äbcde")
    return dataclasses.replace(fitted, **changes)


def contents(fitted):
    arrays = [(a.dtype, a.shape, a.tobytes()) for a in (*fitted.params, *fitted.standardiser)]
    return arrays, [getattr(fitted, name) for name in DETAILS]


@each_loss
@pytest.mark.parametrize("normalise", [False, True])
def test_predictions_match_numpy_on_examples_as_they_are_stored(loss, normalise):
    fitted = classifier(loss=loss, normalise_rows=normalise)
    stored = np.random.default_rng(0).uniform(0, 6, (9, 5)).astype(np.float16)
    stored[4] = 0
    lengths = np.linalg.norm(stored.astype(float), axis=1, keepdims=True) if normalise else 1
    rows, (mean, scale) = stored / np.maximum(lengths, 1e-300), fitted.standardiser
    expected = (rows - mean) / scale @ fitted.params.weights.T + fitted.params.bias
    for inputs in (stored, jnp.asarray(stored), stored.tolist(), lazy(stored)):
        assert_close(fitted.logits(inputs), expected)
        assert fitted.predict(inputs).tolist() == [NAMES[k] for k in expected.argmax(axis=1)]
        assert_close(fitted.predict_proba(inputs), LINKS[loss.name](expected / math.pi))
    narrow = fitted.logits(stored, np.float32)
    assert narrow.dtype == np.float32
    assert_close(narrow, expected)
    assert fitted.predict_proba(stored[:0]).shape == (0, 3)


def test_a_row_without_finite_logits_is_named():
    inputs = np.zeros((450_000, 5))  # more than one block
    inputs[440_000, 2] = 1e308
    with pytest.raises(InputError, match="row 440000"):
        classifier(normalise_rows=False).logits(inputs, np.float32)


def test_inputs_that_do_not_fit_are_refused():
    for inputs in (np.zeros((9, 4)), np.zeros(5), np.full((2, 5), "a")):
        with pytest.raises(InputError, match="inputs"):
            classifier().predict(inputs)


@each_format
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_is_read_back_bit_for_bit(tmp_path, suffix, dtype):
    path = tmp_path / f"model{suffix}"
    for loss in LOSSES:  # the second replaces the first
        saved = classifier(dtype, loss=loss)
        saved.save(path)
        assert contents(Classifier.load(path)) == contents(saved)
    assert list(tmp_path.iterdir()) == [path]


def write_by_hand(path, **changes):
    """A file in the documented format, without `save`; a value of None leaves its entry out."""
    good = classifier()
    members = good.params._asdict() | good.standardiser._asdict()
    members |= {name: getattr(good, name) for name in DETAILS} | {"loss": "softmax"} | changes
    members = {name: value for name, value in members.items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **members)
    else:
        details = {name: members.pop(name) for name in DETAILS if name in members}
        safetensors.numpy.save_file(members, path, {"linear_cifar": json.dumps(details)})


@each_format
def test_files_of_earlier_versions_are_read(tmp_path, suffix):
    write_by_hand(tmp_path / f"m{suffix}", feature_names=None)
    loaded = Classifier.load(tmp_path / f"m{suffix}")
    assert contents(loaded) == contents(classifier(feature_names=()))


FAULTS = {
    **{"weights": np.full((3, 5), np.nan), "bias": np.zeros(4), "mean": np.zeros(4)},
    **{"scale": np.zeros(5), "class_names": ["a", "b"], "feature_names": ["a"], "loss": "hinge"},
    **{"lam": np.nan, "normalise_rows": 2, "temperature": -1.0},
}


@each_format
@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_or_missing_entry_of_a_file_is_refused_by_name(tmp_path, suffix, name):
    path = tmp_path / f"m{suffix}"
    for value in (FAULTS[name], *([None] if name != "feature_names" else [])):
        write_by_hand(path, **{name: value})
        with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{name}"):
            Classifier.load(path)


def test_nothing_in_a_file_is_executed(tmp_path):
    for name in ("weights", "class_names"):
        write_by_hand(tmp_path / "m.npz", **{name: np.array([Bomb(tmp_path / "trap")], object)})
        with pytest.raises(DataError, match=r"m\.npz"):
            Classifier.load(tmp_path / "m.npz")
    assert not (tmp_path / "trap").exists()


def test_a_path_that_cannot_be_used_is_named(tmp_path):
    for nowhere in (tmp_path / "none" / "m.npz", tmp_path / "m.pkl"):
        with pytest.raises(DataError, match=re.escape(str(nowhere))):
            Classifier.load(nowhere)
        with pytest.raises(InputError, match=re.escape(str(nowhere))):
            classifier().save(nowhere)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "m.npz"
    classifier().save(path)
    content = path.read_bytes()
    with folders.files_of_at_most(100), pytest.raises(InputError, match=re.escape(str(path))):
        classifier(temperature=2.0).save(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
