"""Datasets, blocks of rows and stratified draws, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from sklearn.preprocessing import StandardScaler

from linear_cifar.data import (
    SPLITS,
    STANDARDISE,
    Dataset,
    LazyRows,
    Split,
    blocks,
    dataset_from_arrays,
    few_shot,
    fit_standardiser,
    normalised_rows,
    stratified_folds,
    stratified_subset,
    with_validation,
)
from tests.conftest import assert_close, lazy

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
WORDS = np.array(["dog", "cat", "elk"])[Y]


@pytest.mark.parametrize("n", [1, 700])
def test_the_standardiser_matches_scikit_learn(n):
    inputs = RNG.integers(0, 256, (n, 5), dtype=np.uint8)
    fitted, expected = fit_standardiser(inputs), StandardScaler().fit(inputs.astype(float))
    assert_close(fitted.mean, expected.mean_)
    assert_close(fitted.scale, expected.scale_)


def test_the_deviation_is_accurate_beside_a_mean_that_is_a_hundred_million_times_larger():
    inputs = 1e8 + RNG.normal(size=(1000, 2))
    assert_close(fit_standardiser(inputs).scale, inputs.std(axis=0), factor=1e4)


@pytest.mark.parametrize("column", [np.full(60, 0.1), 1e-50 * X[:, 0]], ids=["constant", "tiny"])
def test_a_feature_without_a_deviation_that_float32_can_hold_becomes_zero(column):
    inputs = np.stack([X[:, 0], column], axis=1)
    standardised = fit_standardiser(inputs)(jnp.asarray(inputs))
    assert abs(standardised[:, 1]).max() < 1e-12
    assert_close(standardised[:, 0].std(), 1.0)


@pytest.mark.parametrize("standardise", STANDARDISE)
def test_every_split_has_the_training_statistics_that_standardise_selects(standardise):
    scaler = StandardScaler(with_mean=standardise != "none", with_std=standardise == "scale")
    data = dataset_from_arrays((X, Y), (2 * X + 1, Y), (X[:9], Y[:9]), standardise=standardise)
    refitted = np.concatenate([X, 2 * X + 1])
    for dataset, training in ((data, X), (with_validation(data), refitted)):
        scaler.fit(training.astype(float))
        for split in SPLITS:
            inputs = getattr(dataset, split).inputs
            standardised = dataset.standardiser(jnp.asarray(inputs), jnp.float64)
            assert_close(standardised, scaler.transform(inputs.astype(float)))


def test_the_checksum_depends_on_inputs_labels_and_standardise():
    variants = [dataset_from_arrays((X, Y), standardise=s) for s in STANDARDISE]
    variants += [dataset_from_arrays((X, Y[::-1])), dataset_from_arrays((-X, Y))]
    assert len({data.sha256 for data in variants}) == 5
    assert dataset_from_arrays((X.copy(), Y.copy())).sha256 == variants[0].sha256


@pytest.mark.parametrize("names", [None, ("elk", "dog", "cat")])
def test_a_class_id_is_the_place_of_its_label_among_the_class_names(names):
    words = WORDS, WORDS[7:14], WORDS[::-1]
    data = dataset_from_arrays(*((X[: len(w)], w) for w in words), class_names=names)
    assert data.class_names == (names or ("cat", "dog", "elk"))
    for split, expected in zip(SPLITS, words, strict=True):
        labels = getattr(data, split).labels
        assert np.array_equal(np.array(data.class_names)[labels], expected)


def test_a_dataset_goes_through_jit_and_vmap():
    def trace(data):
        assert data.n_classes == 3  # static
        return data.standardiser(data.train.inputs) * data.train.labels[:, None]

    datasets = [dataset_from_arrays((k * X + k, Y)) for k in (1, 2)]
    expected = StandardScaler().fit_transform(X) * Y[:, None]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *datasets)
    assert_close(jax.jit(jax.vmap(trace))(stacked), np.stack([expected] * 2), factor=10)


def test_a_refit_joins_splits_in_files_and_of_different_dtypes():
    halves, rounded = X.astype(np.float16), X.astype(jnp.bfloat16)
    expected = np.concatenate([halves.astype(np.float32), rounded.astype(np.float32)])
    for place in (np.asarray, lazy):
        splits = Split(place(halves), Y), Split(place(rounded), Y[::-1]), Split(X, Y)
        data = with_validation(Dataset(*splits, fit_standardiser(X), ("a", "b", "c")))
        assert data.train.inputs.dtype == np.float32
        assert np.array_equal(data.train.inputs[:], expected)
        assert np.array_equal(data.train.inputs[50:70], expected[50:70])
        assert np.array_equal(data.train.labels, np.concatenate([Y, Y[::-1]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalised_rows_have_length_1_at_any_scale(dtype):
    rows = RNG.normal(size=(20, 1280)).astype(dtype)
    rows[3:5] *= np.array([[1e30], [1e-30]], dtype)  # the squares are beyond float32
    rows[5] = 0
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert normalised_rows(rows).dtype == dtype
    assert_close(normalised_rows(rows), rows / np.where(lengths == 0, 1, lengths), dtype)


LARGE = RNG.integers(0, 256, (40, 2**19), dtype=np.uint8)  # 20 MB, more than a block


@given(st.slices(40).filter(lambda part: part.step in (None, 1)), st.sets(st.integers(0, 39)))
def test_rows_in_a_file_equal_the_array(part, numbers):
    indices, array = np.array(sorted(numbers), int), LARGE[:, :2]
    rows = lazy(array)
    assert np.array_equal(rows[part], array[part])
    assert np.array_equal(rows[indices], array[indices])
    assert np.array_equal(rows.take(indices)[1:3], array[indices][1:3])


def test_rows_of_several_blocks_equal_the_array_and_are_read_a_block_at_a_time():
    sizes = []

    def read(start, stop):
        sizes.append(stop - start)
        return LARGE[start:stop]

    rows, indices = LazyRows(read, LARGE.shape, np.uint8), np.array([0, 3, 31, 32, 39])
    assert np.array_equal(rows.in_memory(), LARGE)
    assert np.array_equal(rows[indices], LARGE[indices])
    assert max(sizes) * LARGE.shape[1] <= 2**24


@given(st.integers(1, 50), st.none() | st.integers(1, 60))
def test_blocks_are_all_rows_in_order(n, n_rows):
    array = np.arange(3.0 * n).reshape(n, 3)
    for inputs in (array, lazy(array)):
        places, parts = zip(*blocks(inputs, n_rows), strict=True)
        assert np.array_equal(np.concatenate(parts), array)
        assert np.array_equal(np.concatenate([array[place] for place in places]), array)
        assert max(map(len, parts)) <= (n_rows or n)


KEYS = jax.random.split(jax.random.key(0), 100)
# 50 labels of 5 classes, so that draws compile once.
LABELS = st.lists(st.integers(0, 4), min_size=45, max_size=45).map(
    lambda labels: np.array([*labels, *range(5)])
)


@given(LABELS, st.integers(5, 50))
@example(np.array([0, 1, 2, 3] + [4] * 46), 7)  # four classes with one example
def test_a_stratified_subset_has_the_share_of_each_class_and_an_example_of_each(labels, n):
    rows = stratified_subset(KEYS[0], labels, n)
    assert (np.diff(rows) > 0).all()
    counts, shares = np.bincount(labels[rows]), n / 50 * np.bincount(labels)
    assert counts.sum() == n
    assert counts.min() >= 1
    assert shares.min() < 1 or abs(counts - shares).max() < 1


def test_few_shot_draws_have_exact_counts_and_are_nested():
    labels = np.random.default_rng(0).permutation(np.arange(50) % 5)
    rows = few_shot(KEYS[0], labels, 4)
    assert np.bincount(labels[rows]).tolist() == [4] * 5
    assert set(few_shot(KEYS[0], labels, 1)) < set(few_shot(KEYS[0], labels, 3)) < set(rows)
    assert few_shot(KEYS[0], labels, 10).tolist() == list(range(50))


def test_every_example_is_drawn_with_the_same_probability():
    labels = np.arange(50) % 5
    shots = [few_shot(key, labels, 2) for key in KEYS]
    subsets = [stratified_subset(key, labels, 10) for key in KEYS]
    folds = [np.flatnonzero(stratified_folds(key, labels, 5) == 0) for key in KEYS]
    for draws in (shots, subsets, folds):
        frequency = np.bincount(np.concatenate(draws), minlength=50)
        assert abs(frequency - 20).max() <= 16  # four deviations of a binomial draw at 1/5


@given(LABELS, st.integers(2, 50))
def test_folds_and_the_classes_in_them_have_sizes_equal_to_within_one(labels, n_folds):
    folds = stratified_folds(KEYS[0], labels, n_folds)
    assert folds.shape == labels.shape
    for group in (folds, *(folds[labels == k] for k in range(5))):
        assert np.ptp(np.bincount(group, minlength=n_folds)) <= 1
    assert folds.max() == n_folds - 1
