import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from sklearn.preprocessing import StandardScaler

from linear_cifar.data import (
    DataError,
    Split,
    dataset_from_arrays,
    download,
    fit_standardiser,
    load_dataset,
    synthetic as generator,
)
from linear_cifar.engine.training import train
from linear_cifar.optimizers import Hyperparameters


@pytest.mark.parametrize("n", [1, 255, 256, 700])
def test_standardiser_is_scikit_learn_s(n):
    inputs = np.random.default_rng(0).integers(0, 256, (n, 5), dtype=np.uint8)
    fitted, expected = fit_standardiser(inputs), StandardScaler().fit(inputs.astype(float))
    assert_close(fitted.mean, expected.mean_)
    assert_close(fitted.scale, expected.scale_)


def test_statistics_do_not_cancel_where_the_mean_is_large():
    inputs = 1e8 + np.random.default_rng(0).normal(size=(1000, 2))
    assert_close(fit_standardiser(inputs).scale, inputs.std(axis=0), factor=1e4)


def test_a_constant_feature_becomes_zero_and_not_nan():
    inputs = np.full((10, 3), 7, np.uint8)
    inputs[:, 1] = np.arange(10)
    standardised = fit_standardiser(inputs)(jnp.asarray(inputs))
    assert standardised.dtype == jnp.float32
    assert not standardised[:, [0, 2]].any()
    assert_close(standardised[:, 1].std(), 1.0)


def test_validation_and_test_use_the_training_statistics(synthetic):
    stored = synthetic.train.inputs.astype(float)
    expected = (synthetic.validation.inputs[:50] - stored.mean(axis=0)) / stored.std(axis=0)
    actual = synthetic.standardiser(jnp.asarray(synthetic.validation.inputs[:50]), jnp.float64)
    assert_close(actual, expected, factor=10)


def test_splits_are_those_of_the_report(synthetic):
    one, two = (generator.batch(f"data_batch_{i}") for i in (1, 2))
    assert np.array_equal(synthetic.train.inputs, one[0])
    assert np.array_equal(synthetic.validation.labels, two[1])
    full = load_dataset("synthetic", split="full")
    assert [len(s.labels) for s in (full.train, full.validation, full.test)] == [49000, 1000, 10000]
    assert np.array_equal(full.train.inputs[:10000], one[0])
    assert np.array_equal(full.validation.inputs, generator.batch("data_batch_5")[0][-1000:])
    assert np.array_equal(full.test.inputs, synthetic.test.inputs)


def test_synthetic_images_are_the_same_bits_everywhere():
    images, labels = generator.batch("data_batch_1")
    assert images.shape == (10000, 3072)
    assert images.dtype == np.uint8
    assert np.bincount(labels, minlength=10).min() > 900
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "5da9b5a57a4fee6b9d5423691f442912e97c1ff29c29e58d466c30b99907763d"
    assert not np.array_equal(images, generator.batch("data_batch_2")[0])
    assert not np.array_equal(images, generator.batch("data_batch_1", seed=1)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_a_linear_classifier_is_right_on_a_third_to_a_half_of_synthetic_images(synthetic):
    both = Hyperparameters(np.array([0.0, 0.1]), 0.001)
    _, history = train(jax.random.key(0), both, synthetic, n_epochs=40)
    for epoch in (20, 40):
        accuracy = history.validation_accuracy[:, epoch]
        assert ((accuracy > 0.30) & (accuracy < 0.50)).all()


def test_auto_without_data_is_synthetic_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MIRRORS", ("https://127.0.0.1:1/cifar-10-python.tar.gz",))
    dataset = load_dataset("auto", tmp_path)
    assert dataset.name == "synthetic"
    assert not dataset.official
    assert "SYNTHETIC" in dataset.notice
    assert "127.0.0.1" in dataset.notice
    with pytest.raises(DataError, match=r"no CIFAR-10 in .* by hand"):
        load_dataset("cifar10", tmp_path)


def test_auto_reports_damaged_data_and_does_not_pass_over_it(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"damaged")
    with pytest.raises(DataError, match="data_batch_1 is not a readable batch"):
        load_dataset("auto", tmp_path)


def arrays(n=6, d=4, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(dtype), np.arange(n) % 3


def test_a_dataset_of_arrays_is_what_scikit_learn_would_standardise():
    inputs, labels = arrays(50)
    data = dataset_from_arrays((inputs, labels), (inputs[:9], labels[:9]), name="mine")
    assert (data.name, data.n_features, data.n_classes) == ("mine", 4, 3)
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.dtype == np.int32
    assert len(data.test.labels) == 0
    expected = StandardScaler().fit_transform(inputs)
    assert_close(data.standardiser(jnp.asarray(inputs)), expected)
    params, history = train(jax.random.key(0), Hyperparameters(0.0, 0.1), data, batch_size=50)
    assert params.weights.shape == (3, 4)
    assert history.train_cost[-1] < history.train_cost[0]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "bfloat16", "float64"])
def test_inputs_stay_as_they_are_stored_and_train(dtype):
    inputs, labels = arrays(20)
    stored = (10 * abs(inputs)).astype(jnp.dtype(dtype))
    data = dataset_from_arrays((stored, labels))
    assert data.train.inputs.dtype == dtype
    assert len(data.sha256) == 64
    _, history = train(jax.random.key(0), Hyperparameters(0.0, 0.1), data, batch_size=7)
    assert history.train_cost[-1] < history.train_cost[0]


def test_booleans_and_small_int64_are_taken_as_what_they_hold():
    inputs, labels = arrays()
    assert dataset_from_arrays((inputs > 0, labels)).train.inputs.dtype == np.uint8
    whole = dataset_from_arrays(((100 * inputs).astype(np.int64), labels)).train.inputs
    assert whole.dtype == np.int32
    assert np.array_equal(whole, (100 * inputs).astype(np.int64))


def changed(place, value):
    inputs, labels = arrays()
    inputs[place] = value
    return inputs, labels


INPUTS, LABELS = arrays()
BAD_ARRAYS = {
    "a vector": ((INPUTS[:, 0], LABELS), {}, r"train inputs have to be an array \[n, d\]"),
    "no features": ((INPUTS[:, :0], LABELS), {}, r"d ≥ 1, not \(6, 0\)"),
    "no examples": ((INPUTS[:0], LABELS[:0]), {"class_names": "ab"}, "training examples"),
    "ragged": (([[1, 2], [3]], [0, 1]), {}, "different lengths"),
    "complex": ((INPUTS * 1j, LABELS), {}, "train inputs are complex64"),
    "text": ((INPUTS.astype(str), LABELS), {}, "train inputs are <U"),
    "objects": ((INPUTS.astype(object), LABELS), {}, "train inputs are object"),
    "masked": ((np.ma.masked_less(INPUTS, 0), LABELS), {}, "masked array"),
    "wide int64": (((INPUTS * 1e12).astype(np.int64), LABELS), {}, "int64 beyond int32"),
    "NaN": (changed((3, 2), np.nan), {}, "row 3, column 2 is nan"),
    "infinite": (changed((5, 0), np.inf), {}, "row 5, column 0 is inf"),
    "one label short": ((INPUTS, LABELS[:-1]), {}, r"train labels have to be an array \[6\]"),
    "labels as columns": ((INPUTS, LABELS[:, None]), {}, r"not \(6, 1\)"),
    "labels as floats": (
        (INPUTS, LABELS * 1.0),
        {},
        "labels are float64: they have",
    ),
    "labels from 1": ((INPUTS, LABELS + 1), {"class_names": "abc"}, "that of row 2 is 3"),
    "labels from 1, without names": ((INPUTS, LABELS + 1), {}, "no 0 but go up to 3: number the"),
    "a label of 10**12": ((INPUTS, LABELS * 10**12), {}, "no 1 but go up to 2000000000000"),
    "labels as text": ((INPUTS, LABELS.astype(str)), {}, "return_inverse=True"),
    "no labels": ((INPUTS, LABELS[:0]), {}, r"an array \[6\], as the inputs, not \(0,\)"),
    "beyond float32": (
        (INPUTS.astype(np.float64) * 1e39, LABELS),
        {},
        "finite, in float32 too: row 0",
    ),
    "masked labels": ((INPUTS, np.ma.masked_equal(LABELS, 2)), {}, "train labels have to be an ar"),
    "a large offset": (
        (INPUTS + np.float64(1e9), LABELS),
        {},
        "column 0: a deviation of .* lost in float32",
    ),
    "a label of -1": ((INPUTS, LABELS - 1), {}, "that of row 0 is -1"),
    "a label of 2**32": ((INPUTS, LABELS + 2**32), {"class_names": "abc"}, "row 0 is 4294967296"),
    "one class": ((INPUTS, 0 * LABELS), {}, "at least two classes, not 1"),
    "a name twice": ((INPUTS, LABELS), {"class_names": "aba"}, "differ from each other"),
    "other features": (
        (INPUTS, LABELS),
        {"test": (INPUTS[:, :3], LABELS)},
        "test inputs have 3 features",
    ),
    "an unseen class": ((INPUTS, LABELS), {"validation": (INPUTS, LABELS + 1)}, "validation lab"),
    "inputs alone": (INPUTS, {}, "train has to be a pair"),
    "another image": ((INPUTS, LABELS), {"image_shape": (3, 2, 2)}, r"\(3, 2, 2\) don't have 4"),
}


@pytest.mark.parametrize(("train", "more", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_what_cannot_be_trained_on_is_named_in_one_line(train, more, message):
    with pytest.raises(DataError, match=message) as caught:
        dataset_from_arrays(train, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [np.arange(400) % 10 + 1, np.arange(400) % 10 - 1])
def test_however_a_dataset_is_made_its_labels_are_checked(small, labels):
    with pytest.raises(DataError, match="train labels have to be from 0 to 9"):
        dataclasses.replace(small, train=Split(small.train.inputs, labels))


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="no dataset 'imagenet': it has to be one of auto, ci"):
        load_dataset("imagenet")
    with pytest.raises(DataError, match="no split 'half'"):
        load_dataset("synthetic", split="half")


def test_real_images_are_read_whole(real):
    assert (real.name, real.n_features, real.n_classes) == ("cifar10", 3072, 10)
    assert real.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    for split in (real.train, real.validation, real.test):
        assert split.inputs.shape == (10000, 3072)
        assert split.inputs.dtype == np.uint8
    assert np.bincount(real.test.labels).tolist() == [1000] * 10
    assert real.official == (not real.notice)
    with pytest.raises(dataclasses.FrozenInstanceError):
        real.name = "other"


def test_a_constant_feature_has_scale_1_whatever_its_rounding():
    for dtype in (np.float32, np.float64):
        inputs, labels = arrays(300, dtype=dtype)
        inputs[:, 0], inputs[:, 1] = 0.1, 1 / 3
        assert dataset_from_arrays((inputs, labels)).standardiser.scale[:2].tolist() == [1, 1]


def test_another_byte_order_is_as_good():
    inputs, labels = arrays()
    assert dataset_from_arrays((inputs.astype(">f4"), labels)).train.inputs.dtype == np.float32
