"""Datasets, blocks of rows, and stratified draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from linear_cifar.data import (
    STANDARDISE,
    DataError,
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
from linear_cifar.data.blocks import concatenate
from linear_cifar.data.stratify import held_out
from linear_cifar.errors import InputError
from tests.conftest import assert_close

RNG = np.random.default_rng(0)


def arrays(n=60, d=4, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(dtype), np.arange(n) % 3


def lazy(array):
    """The rows of an array as if they were in a file."""
    return LazyRows(lambda start, stop: array[start:stop].copy(), array.shape, array.dtype)


@pytest.mark.parametrize("n", [1, 255, 256, 700])
def test_the_standardiser_matches_scikit_learn(n):
    inputs = RNG.integers(0, 256, (n, 5), dtype=np.uint8)
    fitted, expected = fit_standardiser(inputs), StandardScaler().fit(inputs.astype(float))
    assert_close(fitted.mean, expected.mean_)
    assert_close(fitted.scale, expected.scale_)


def test_the_deviation_is_accurate_beside_a_mean_that_is_a_hundred_million_times_larger():
    inputs = 1e8 + RNG.normal(size=(1000, 2))
    assert_close(fit_standardiser(inputs).scale, inputs.std(axis=0), factor=1e4)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.0])
def test_a_constant_feature_becomes_zero(value):
    inputs = np.array(arrays(300, dtype=np.float64)[0])
    inputs[:, 1] = value
    standardised = fit_standardiser(inputs)(jnp.asarray(inputs), jnp.float64)
    assert abs(standardised[:, 1]).max() < 1e-12
    assert_close(standardised[:, 0].std(), 1.0)


def test_a_deviation_too_small_for_float32_gives_no_nan():
    inputs, labels = arrays(300, dtype=np.float64)
    inputs[:, 1] *= 8e-51
    data = dataset_from_arrays((inputs, labels))
    for dtype in (jnp.float32, jnp.float64):
        assert np.isfinite(data.standardiser(jnp.asarray(inputs), dtype)).all()


def test_a_dataset_is_standardised_with_the_training_statistics():
    inputs, labels = arrays()
    data = dataset_from_arrays((inputs, labels), (inputs[:9] * 2, labels[:9]), name="mine")
    expected = StandardScaler().fit(inputs).transform(inputs[:9] * 2)
    assert_close(data.standardiser(jnp.asarray(data.validation.inputs)), expected)
    assert (data.name, data.n_features, data.n_classes) == ("mine", 4, 3)
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.dtype == np.int32
    assert len(data.test.labels) == 0


@pytest.mark.parametrize("standardise", STANDARDISE)
def test_standardise_selects_parts_of_the_standardiser_also_after_a_refit(standardise):
    inputs, labels = arrays(dtype=np.float64)
    data = dataset_from_arrays(
        (inputs[:40], labels[:40]), (inputs[40:], labels[40:]), standardise=standardise
    )
    for dataset, stored in ((data, inputs[:40]), (with_validation(data), inputs)):
        mean, scale = dataset.standardiser
        assert_close(mean, 0 * mean if standardise == "none" else stored.mean(axis=0))
        assert_close(scale, stored.std(axis=0) if standardise == "scale" else np.ones(4))


def test_the_checksum_depends_on_inputs_labels_and_standardise():
    inputs, labels = arrays()
    variants = [dataset_from_arrays((inputs, labels), standardise=s) for s in STANDARDISE]
    variants += [
        dataset_from_arrays((inputs, labels[::-1])),
        dataset_from_arrays((-inputs, labels)),
    ]
    assert len({data.sha256 for data in variants}) == 5
    assert dataset_from_arrays((inputs, labels)).sha256 == variants[0].sha256


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "bfloat16", "float64"])
def test_inputs_keep_their_dtype(dtype):
    inputs, labels = arrays()
    stored = (10 * abs(inputs)).astype(jnp.dtype(dtype))
    data = dataset_from_arrays((stored, labels))
    assert data.train.inputs.dtype == dtype
    assert data.train.inputs.tobytes() == stored.tobytes()
    assert len(data.sha256) == 64


def test_text_labels_are_numbered_in_the_order_of_the_class_names():
    inputs, labels = arrays()
    words = np.array(["dog", "cat", "elk"])[labels]
    data = dataset_from_arrays((inputs, words))
    assert data.class_names == ("cat", "dog", "elk")
    assert np.array_equal(np.array(data.class_names)[data.train.labels], words)
    names = ("elk", "dog", "cat")
    data = dataset_from_arrays((inputs, words), class_names=names)
    assert np.array_equal(np.array(names)[data.train.labels], words)


def test_a_dataset_goes_through_jit_and_vmap():
    inputs, labels = arrays()
    datasets = [dataset_from_arrays((k * inputs + k, labels)) for k in (1, 2, 3)]

    def trace(data):
        assert data.n_classes == 3  # static
        standardised = data.standardiser(data.train.inputs)
        return standardised * data.train.labels[:, None]

    expected = StandardScaler().fit_transform(inputs) * labels[:, None]
    assert_close(jax.jit(trace)(datasets[0]), expected)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *datasets)
    assert_close(jax.vmap(trace)(stacked), np.stack([expected] * 3), factor=10)
    shorter = dataclasses.replace(datasets[0], train=Split(inputs[:5], labels[:5]))
    assert jax.jit(trace)(shorter).shape == (5, 4)


def test_a_refit_joins_splits_of_different_dtypes():
    inputs, labels = arrays()
    narrow = dataset_from_arrays(
        (inputs.astype(np.float16), labels), (jnp.asarray(inputs, jnp.bfloat16), labels)
    )
    both = with_validation(narrow).train.inputs
    assert both.dtype == np.float32
    assert np.array_equal(both[60:], np.asarray(jnp.asarray(inputs, jnp.bfloat16), np.float32))


def test_an_image_shape_may_be_a_list():
    inputs, labels = arrays()
    data = dataset_from_arrays((inputs, labels), image_shape=[1, 1, inputs.shape[1]])
    assert hash(data.image_shape) == hash((1, 1, inputs.shape[1]))


def changed(row, column, value):
    inputs, labels = arrays()
    inputs[row, column] = value
    return inputs, labels


X, Y = arrays()
# What is passed, further arguments, and the key words of the message.
BAD_ARRAYS = {
    "a vector": ((X[:, 0], Y), {}, r"train inputs .*\[n, d\]"),
    "no examples": ((X[:0], Y[:0]), {}, "train has no examples"),
    "ragged": (([[1, 2], [3]], [0, 1]), {}, "train inputs .*ragged"),
    "masked": ((np.ma.masked_less(X, 0), Y), {}, "train inputs .*masked"),
    "complex": ((X * 1j, Y), {}, "train inputs are complex64"),
    "objects": ((X.astype(object), Y), {}, "train inputs are object"),
    "wide integers": (((X * 1e12).astype(np.int64), Y), {}, "int64 beyond int32"),
    "NaN": (changed(3, 2, np.nan), {}, "row 3, column 2 is nan"),
    "beyond float32": ((X.astype(np.float64) * 1e39, Y), {}, "finite, in float32 too: row 0"),
    "a large offset": ((X + np.float64(1e9), Y), {}, "column 0: a deviation .* lost in float32"),
    "a deviation of 1": (([[1_700_000_000], [1_700_000_002]], [0, 1]), {}, "lost in float32"),
    "one label short": ((X, Y[:-1]), {}, r"train labels have to be \[60\]"),
    "labels as columns": ((X, Y[:, None]), {}, r"not \(60, 1\)"),
    "broken labels": ((X, Y + 0.5), {}, "train labels .* row 0 has 0.5"),
    "labels from 1": ((X, Y + 1), {"class_names": list("abc")}, "row 2 has 3"),
    "labels from 1, unnamed": ((X, Y + 1), {}, "train labels: row 2 has 3; the classes are 0 … 2"),
    "a number left out": ((X, Y * 2), {}, "row 2 has 4"),
    "a label of 2**32": ((X, Y + 2**32), {"class_names": list("abc")}, "row 0 has 4294967296"),
    "one class": ((X, Y * 0), {"class_names": ["a"]}, "at least two"),
    "a name twice": ((X, Y), {"class_names": list("aba")}, "all different"),
    "other features": ((X, Y), {"test": (X[:, :3], Y)}, "test inputs have 3 features"),
    "an unseen class": ((X, Y), {"validation": (X, Y + 1)}, "validation labels"),
    "inputs alone": (X, {}, "train has to be a pair"),
    "another image": ((X, Y), {"image_shape": (3, 2, 2)}, r"image_shape \(3, 2, 2\)"),
    "traced": ((X, Y), {"test": "traced"}, "test inputs .*traced"),
}


@pytest.mark.parametrize(("train", "more", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_trained_on_are_named_in_one_line(train, more, message):
    def make(inputs):
        test = {"test": (inputs, Y)} if more.get("test") == "traced" else {}
        return dataset_from_arrays(train, **(more | test)).train.inputs

    with pytest.raises(DataError, match=message) as caught:
        jax.jit(make)(X)
    assert "\n" not in str(caught.value)


def test_normalised_rows_have_length_1_at_any_scale():
    inputs = RNG.normal(size=(20, 1280))
    for dtype in (np.float16, np.float32, np.float64):
        rows = inputs.astype(dtype)
        if dtype != np.float16:
            rows[3] *= 1e30  # the squares are beyond float32
            rows[4] *= 1e-30
        result = normalised_rows(rows)
        assert result.dtype == (np.float64 if dtype == np.float64 else np.float32)
        wide = rows.astype(np.float64)
        assert_close(result, wide / np.linalg.norm(wide, axis=1, keepdims=True))
        rounding = 2 * np.finfo(result.dtype).eps
        lengths = np.linalg.norm(result.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=rounding)
    ones = normalised_rows(np.ones((1, 70_000), np.float16))
    np.testing.assert_allclose(ones, 70_000**-0.5, rtol=1e-6)


def test_rows_in_a_file_equal_the_array():
    array = RNG.normal(size=(5000, 900)).astype(np.float32)  # 18 MB, more than a block
    rows, indices = lazy(array), np.flatnonzero(RNG.random(5000) < 0.3)
    part = rows.take(indices)
    for actual, expected in (
        (rows[3:50], array[3:50]),
        (rows[4990:], array[4990:]),
        (rows[5:5], array[5:5]),
        (rows[indices], array[indices]),
        (rows.in_memory(), array),
        (part[7:90], array[indices][7:90]),
        (part.in_memory(), array[indices]),
        (
            concatenate([rows, array, part])[4900:10100],
            np.concatenate([array] * 2 + [array[indices]])[4900:10100],
        ),
    ):
        assert actual.dtype == expected.dtype
        assert np.array_equal(actual, expected)


@pytest.mark.parametrize("n_rows", [None, 1, 7, 100])
def test_blocks_are_all_rows_in_order(n_rows):
    array = RNG.normal(size=(50, 3))
    for inputs in (array, lazy(array)):
        pairs = list(blocks(inputs, n_rows))
        assert np.array_equal(np.concatenate([block for _, block in pairs]), array)
        assert all(np.array_equal(array[part], block) for part, block in pairs)
        assert max(len(block) for _, block in pairs) <= (n_rows or 50)


def test_rows_in_a_file_are_never_silently_an_array():
    rows = lazy(X)
    with pytest.raises(DataError, match="on disk"):
        np.asarray(rows)
    with pytest.raises(IndexError, match="step 1"):
        rows[::2]


@pytest.mark.parametrize("n", [10, 57, 300, 1000])
def test_a_stratified_subset_has_every_class_in_its_share(n):
    labels = RNG.permutation(np.repeat(np.arange(10), [1, 2, 3, 4, 40, 50, 100, 200, 300, 300]))
    rows = stratified_subset(jax.random.key(n), labels, n)
    assert len(rows) == n
    assert (np.diff(rows) > 0).all()
    counts, share = np.bincount(labels[rows], minlength=10), n * np.bincount(labels) / 1000
    assert counts.min() >= 1
    common = share >= 1
    # Rare classes get one example; the others share the rest in proportion.
    rest = (n - np.sum(~common)) * share[common] / share[common].sum()
    assert (np.abs(counts[common] - rest) < 1 + 1e-9).all() or n < 57


def test_few_shot_draws_are_balanced_nested_and_uniform():
    labels, key = RNG.permutation(np.repeat(np.arange(5), 20)), jax.random.key(0)
    rows = few_shot(key, labels, 4)
    assert np.bincount(labels[rows]).tolist() == [4] * 5
    assert set(few_shot(key, labels, 3)) < set(rows)
    draws = [few_shot(jax.random.fold_in(key, i), labels, 5) for i in range(100)]
    frequency = np.bincount(np.concatenate(draws), minlength=100)
    assert abs(frequency - 25).max() < 20  # each row has probability 1/4


@pytest.mark.parametrize("n_folds", [2, 7, 50])
def test_folds_and_the_classes_in_them_have_even_sizes(n_folds):
    labels = np.repeat([0, 1, 2], [23, 17, 10])
    folds = stratified_folds(jax.random.key(1), labels, n_folds)
    for group in (folds, *(folds[labels == k] for k in range(3))):
        assert np.ptp(np.bincount(group, minlength=n_folds)) <= 1
    assert not np.array_equal(folds, stratified_folds(jax.random.key(2), labels, n_folds))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.37, 0.999])
def test_a_held_out_split_has_its_fraction_of_each_class(fraction):
    labels = np.repeat([0, 1, 2, 4], [200, 60, 11, 5])
    rows = held_out(np.random.default_rng(3), labels, fraction)
    assert len(rows) == round(fraction * 276)
    assert (np.diff(rows) > 0).all()
    shares = fraction * np.bincount(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=5) - shares) < 1).all()


def test_draws_that_are_impossible_name_the_argument():
    key, labels = jax.random.key(0), np.array([0, 0, 0, 1, 1, 3])
    for message, draw in {
        "class 2 has only 0": lambda: few_shot(key, labels, 1),
        "class 1 has only 2": lambda: few_shot(key, labels[:-1], 3),
        "per_class is 0": lambda: few_shot(key, labels, 0),
        "is 2: .* from 3 to 6": lambda: stratified_subset(key, labels, 2),
        "is 7: .* from 3 to 6": lambda: stratified_subset(key, labels, 7),
        "n_folds is 1: .* from 2 to 6": lambda: stratified_folds(key, labels, 1),
        "labels": lambda: stratified_folds(key, [-1, 0], 2),
        "key": lambda: few_shot("no key", [0, 1], 1),
    }.items():
        with pytest.raises(InputError, match=message):
            draw()
