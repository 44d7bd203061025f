import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from sklearn.preprocessing import StandardScaler

from linear_cifar import download, synthetic as generator
from linear_cifar.datasets import DataError, fit_standardiser, load_dataset
from linear_cifar.training import Hyperparameters, train


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


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_a_linear_classifier_is_right_on_a_third_to_a_half_of_synthetic_images(synthetic, lam):
    _, history = train(jax.random.key(0), Hyperparameters(lam, 0.001), synthetic, n_epochs=40)
    assert 0.30 < history.validation_accuracy[-1] < 0.50
    assert 0.30 < history.validation_accuracy[20] < 0.50


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


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="imagenet"):
        load_dataset("imagenet")
    with pytest.raises(ValueError, match="half"):
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
