"""Datasets, blocks of rows and stratified draws, against NumPy and scikit-learn."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from sklearn.preprocessing import StandardScaler

from linear_cifar.data import (
    STANDARDISE,
    DataError,
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
from tests.conftest import assert_close

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
WORDS = np.array(["dog", "cat", "elk"])[Y]


def lazy(array):
    """The rows of an array as if they were in a file."""
    return LazyRows(lambda start, stop: array[start:stop].copy(), array.shape, array.dtype)


@pytest.mark.parametrize("n", [1, 256, 700])
def test_the_standardiser_matches_scikit_learn(n):
    inputs = RNG.integers(0, 256, (n, 5), dtype=np.uint8)
    fitted, expected = fit_standardiser(inputs), StandardScaler().fit(inputs.astype(float))
    assert_close(fitted.mean, expected.mean_)
    assert_close(fitted.scale, expected.scale_)


def test_the_deviation_is_accurate_beside_a_mean_that_is_a_hundred_million_times_larger():
    inputs = 1e8 + RNG.normal(size=(1000, 2))
    assert_close(fit_standardiser(inputs).scale, inputs.std(axis=0), factor=1e4)


@pytest.mark.parametrize("value", [0.1, 7.0])
def test_a_constant_feature_becomes_zero(value):
    inputs = np.where(np.arange(4) == 1, value, X.astype(np.float64))
    standardised = fit_standardiser(inputs)(jnp.asarray(inputs), jnp.float64)
    assert abs(standardised[:, 1]).max() < 1e-12
    assert_close(standardised[:, 0].std(), 1.0)


def test_a_deviation_too_small_for_float32_gives_no_nan():
    inputs = X * np.where(np.arange(4) == 1, 8e-51, 1.0)
    data = dataset_from_arrays((inputs, Y))
    for dtype in (jnp.float32, jnp.float64):
        assert np.isfinite(data.standardiser(jnp.asarray(inputs), dtype)).all()


def test_every_split_is_standardised_with_the_training_statistics():
    data = dataset_from_arrays((X, Y), (2 * X + 1, Y), (X[:9] - 5, Y[:9]))
    scaler = StandardScaler().fit(X.astype(np.float64))
    for split, inputs in ((data.validation, 2 * X + 1), (data.test, X[:9] - 5)):
        standardised = data.standardiser(jnp.asarray(split.inputs), jnp.float64)
        assert_close(standardised, scaler.transform(inputs.astype(np.float64)))


@pytest.mark.parametrize("standardise", STANDARDISE)
def test_standardise_selects_parts_of_the_standardiser_also_after_a_refit(standardise):
    wide = X.astype(np.float64)
    data = dataset_from_arrays((wide[:40], Y[:40]), (wide[40:], Y[40:]), standardise=standardise)
    for dataset, inputs in ((data, wide[:40]), (with_validation(data), wide)):
        mean, scale = dataset.standardiser
        assert_close(mean, 0 * mean if standardise == "none" else inputs.mean(axis=0))
        assert_close(scale, inputs.std(axis=0) if standardise == "scale" else np.ones(4))


def test_the_checksum_depends_on_inputs_labels_and_standardise():
    variants = [dataset_from_arrays((X, Y), standardise=s) for s in STANDARDISE]
    variants += [dataset_from_arrays((X, Y[::-1])), dataset_from_arrays((-X, Y))]
    assert len({data.sha256 for data in variants}) == 5
    assert dataset_from_arrays((X.copy(), Y.copy())).sha256 == variants[0].sha256


@pytest.mark.parametrize("names", [None, ("elk", "dog", "cat")])
def test_a_class_id_is_the_place_of_its_label_among_the_class_names(names):
    data = dataset_from_arrays(
        (X, WORDS), (X[:7], WORDS[7:14]), (X, WORDS[::-1]), class_names=names
    )
    assert data.class_names == (names or ("cat", "dog", "elk"))
    splits, words = (data.train, data.validation, data.test), (WORDS, WORDS[7:14], WORDS[::-1])
    for split, expected in zip(splits, words, strict=True):
        assert np.array_equal(np.array(data.class_names)[split.labels], expected)
        assert split.labels.dtype == np.int32


def test_a_refit_keeps_the_dtype_that_all_splits_have():
    narrow = X.astype(jnp.bfloat16), Y
    assert with_validation(dataset_from_arrays(narrow, narrow)).train.inputs.dtype == jnp.bfloat16


def test_a_dataset_goes_through_jit_and_vmap():
    datasets = [dataset_from_arrays((k * X + k, Y)) for k in (1, 2, 3)]

    def trace(data):
        assert data.n_classes == 3  # static
        return data.standardiser(data.train.inputs) * data.train.labels[:, None]

    expected = StandardScaler().fit_transform(X) * Y[:, None]
    assert_close(jax.jit(trace)(datasets[0]), expected)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *datasets)
    assert_close(jax.vmap(trace)(stacked), np.stack([expected] * 3), factor=10)


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
        assert data.test is splits[2]
        assert_close(data.standardiser.mean, expected.astype(np.float64).mean(axis=0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_normalised_rows_have_length_1_at_any_scale(dtype):
    rows = RNG.normal(size=(20, 1280)).astype(dtype)
    if dtype != np.float16:
        rows[3:5] *= np.array([[1e30], [1e-30]], dtype)  # the squares are beyond float32
    rows[5] = 0
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    result = normalised_rows(rows)
    assert result.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert_close(result, wide / np.where(lengths == 0, 1, lengths))


LARGE = RNG.integers(0, 256, (40, 2**19), dtype=np.uint8)  # 20 MB, more than a block


@given(st.slices(40).filter(lambda part: part.step in (None, 1)), st.sets(st.integers(0, 39)))
def test_rows_in_a_file_equal_the_array(part, numbers):
    indices = np.array(sorted(numbers), int)
    rows = lazy(LARGE[:, :2])
    for actual, expected in (
        (rows[part], LARGE[part, :2]),
        (rows[indices], LARGE[indices, :2]),
        (rows.take(indices).in_memory(), LARGE[indices, :2]),
        (rows.take(indices)[1:3], LARGE[indices, :2][1:3]),
    ):
        assert actual.dtype == np.uint8
        assert np.array_equal(actual, expected)


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
        pairs = list(blocks(inputs, n_rows))
        assert np.array_equal(np.concatenate([block for _, block in pairs]), array)
        assert all(np.array_equal(array[part], block) for part, block in pairs)
        assert max(len(block) for _, block in pairs) <= (n_rows or n)


def test_rows_in_a_file_are_never_silently_an_array():
    with pytest.raises(DataError, match="on disk"):
        np.asarray(lazy(X))
    with pytest.raises(IndexError, match="step"):
        lazy(X)[::2]


KEYS = jax.random.split(jax.random.key(0), 100)
# 50 labels of 5 classes, so that draws compile once.
LABELS = st.lists(st.integers(0, 4), min_size=45, max_size=45).map(
    lambda labels: np.array([*labels, *range(5)])
)
RARE = np.array([0, 1, 2, 3] + [4] * 46)  # four classes with one example


def exact_shares(counts, n):
    """Shares of n examples in proportion to the classes' counts, but at least 1 each."""
    rare = np.zeros(len(counts), bool)
    while True:
        rest, size = int(n - rare.sum()), int(counts[~rare].sum())
        shares = [
            Fraction(1) if is_rare else Fraction(rest * int(count), size)
            for count, is_rare in zip(counts, rare, strict=True)
        ]
        if min(shares) >= 1:
            return shares
        rare |= [share < 1 for share in shares]


@given(LABELS, st.integers(5, 50))
@example(RARE, 5)
@example(RARE, 7)
def test_a_stratified_subset_rounds_each_class_s_share_by_largest_remainders(labels, n):
    rows = stratified_subset(KEYS[0], labels, n)
    assert len(rows) == n
    assert (np.diff(rows) > 0).all()
    shares = exact_shares(np.bincount(labels), n)
    excess = np.bincount(labels[rows]) - [int(share) for share in shares]
    remainders = np.array([share % 1 for share in shares])
    assert set(excess) <= {0, 1}
    assert remainders[excess == 1].min(initial=1) >= remainders[excess == 0].max(initial=0)


def test_a_subset_breaks_ties_between_classes_at_random():
    draws = [stratified_subset(key, np.arange(50) % 5, 6) % 5 for key in KEYS]
    assert {int(np.bincount(classes).argmax()) for classes in draws} == set(range(5))


def test_few_shot_draws_have_exact_counts_and_are_nested():
    labels = np.random.default_rng(0).permutation(np.arange(50) % 5)
    rows = few_shot(KEYS[0], labels, 4)
    assert (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [4] * 5
    assert set(few_shot(KEYS[0], labels, 1)) < set(few_shot(KEYS[0], labels, 3)) < set(rows)
    assert few_shot(KEYS[0], labels, 10).tolist() == list(range(50))


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: few_shot(key, np.arange(50) % 5, 2),
        lambda key: stratified_subset(key, np.arange(50) % 5, 10),
        lambda key: np.flatnonzero(stratified_folds(key, np.arange(50) % 5, 5) == 0),
    ],
    ids=["few_shot", "subset", "a fold"],
)
def test_every_example_is_drawn_with_the_same_probability(draw):
    frequency = np.bincount(np.concatenate([draw(key) for key in KEYS]), minlength=50)
    assert abs(frequency - 20).max() <= 16  # four deviations of a binomial draw at 1/5


@given(LABELS, st.integers(2, 50))
def test_folds_and_the_classes_in_them_have_sizes_equal_to_within_one(labels, n_folds):
    folds = stratified_folds(KEYS[0], labels, n_folds)
    assert folds.shape == labels.shape
    for group in (folds, *(folds[labels == k] for k in range(5))):
        assert np.ptp(np.bincount(group, minlength=n_folds)) <= 1
    assert folds.min() == 0
    assert folds.max() == n_folds - 1
