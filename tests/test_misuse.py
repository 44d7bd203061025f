"""Bad arguments to the library: our own error in one line that names the argument."""

import re

import jax
import numpy as np
import pytest

import linear_cifar as lc
from linear_cifar import metrics
from linear_cifar.data import few_shot, stratified_folds, stratified_subset
from linear_cifar.optimum import certain_predictions

KEY = jax.random.key(0)
X, Y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
PARAMS = lc.Params(np.zeros((2, 3)), np.zeros(2))
LARGER = lc.Params(np.zeros((2, 4)), np.zeros(2))
SOFTMAX = lc.LOSSES["softmax"]
MY_LOSS = SOFTMAX._replace(name="mine")


def trained(**setting):
    return lambda data: lc.train(KEY, lc.Hyperparameters(**setting), data)


def solved(lam=(0.1,), **settings):
    return lambda data: lc.solve(lam, data, **settings)


def loaded(**settings):
    return lambda _: lc.load_features("", **settings)


def arrays(inputs=X, labels=Y, **more):
    return lambda _: lc.dataset_from_arrays((inputs, labels), **more)


def replaced(value):
    return np.where(np.arange(120).reshape(40, 3) == 11, value, X)  # row 3, column 2


# The name of the argument in the message, and a call that is refused.
REFUSALS = {
    "counts of text": ("counts", lambda _: metrics.row_shares("a")),
    "a vector of counts": ("counts", lambda _: metrics.balanced_accuracy([1, 2])),
    "labels as a column": ("labels", lambda _: metrics.confusion_matrix(Y[:, None], Y, 2)),
    "bins beyond memory": ("n_bins", lambda _: metrics.reliability(np.eye(2), [0, 1], 2**40)),
    "no loss": ("loss", lambda _: metrics.fit_temperature(np.eye(2), [0, 1], None)),
    "text for a penalty": ("lam", lambda _: lc.lam_to("a", 10, 2)),
    "no data": ("dataset", lambda _: lc.train(KEY, lc.Hyperparameters(), None)),
    "a bad row of a table": ("lam", lambda data: lc.sweep(KEY, {"lam": [0.1, -1.0]}, data)),
    "a truth value for a penalty": ("lam", solved([True])),
    "a pair for a dataset": ("dataset", lambda _: lc.cross_validate(KEY, [0.1], (X, Y))),
    "an array for a loss": (
        "loss", lambda _: lc.Classifier(PARAMS, lc.Standardiser(*np.ones((2, 3))), ("a", "b"), X),
    ),
    "a loss that no file can hold": (
        "loss", lambda d: lc.Classifier(PARAMS, d.standardiser, "ab", MY_LOSS).save("model.npz"),
    ),
    "a penalty of 0": (
        "lam", lambda d: certain_predictions(PARAMS, 0.1, 0.0, d, d.train, SOFTMAX),
    ),
    "a negative distance": (
        "distance", lambda d: certain_predictions(PARAMS, -1.0, 0.1, d, d.train, SOFTMAX),
    ),
    "parameters of another shape": (
        "params", lambda d: certain_predictions(LARGER, 0.1, 0.1, d, d.train, SOFTMAX),
    ),
    "a class beyond memory": ("per_class", lambda _: few_shot(KEY, [0, 2**40], 1)),
    "a class without examples": ("per_class", lambda _: few_shot(KEY, [0, 0, 2], 1)),
    "no shots": ("per_class", lambda _: few_shot(KEY, [0, 1], 0)),
    "fewer than the classes": ("n", lambda _: stratified_subset(KEY, [0, 1, 2], 2)),
    "more than there are": ("n", lambda _: stratified_subset(KEY, [0, 1, 2], 4)),
    "half an example": ("n", lambda _: stratified_subset(KEY, [0, 1, 2, 2], 3.5)),
    "no labels": ("labels", lambda _: stratified_subset(KEY, [], 1)),
    "one fold": ("n_folds", lambda _: stratified_folds(KEY, [0, 1], 1)),
    "more folds than examples": ("n_folds", lambda _: stratified_folds(KEY, [0, 1], 3)),
    "folds of a matrix": ("labels", lambda _: stratified_folds(KEY, np.zeros((4, 2), int), 2)),
    "a negative label": ("labels", lambda _: stratified_folds(KEY, [-1, 0], 2)),
    "text for a key": ("key", lambda _: few_shot("no key", [0, 1], 1)),
    "an unknown dataset": ("name", lambda _: lc.load_dataset("imagenet")),
    "an unknown split": ("split", lambda _: lc.load_dataset("synthetic", split="half")),
    **{
        f"{name} {value!r}": (name, loaded(**{name: value}))
        for name, value in {
            "validation_fraction": 1.0, "test_fraction": -0.1, "memory_gb": 0, "seed": 0.5,
            "standardise": "maybe", "normalise_rows": 1,
        }.items()
    },
    **{
        f"{name} {value!r}": (name, trained(**{name: value}))
        for name, value in (
            ("lam", -0.1), ("lam", np.nan), ("lam", 1e300),  # infinite in float32
            ("learning_rate", 0.0), ("learning_rate", np.inf), ("learning_rate", 1e-50),  # 0
            ("decay_every", 0), ("decay_every", 2**40), ("decay_factor", 0.5), ("momentum", 1.0),
            ("b1", 1 - 1e-9), ("eps", np.inf),  # b1 is 1 in float32
        )
    },
    **{
        f"{name} {value!r}": (name, solved(**{name: value}))
        for name in ("tolerance", "max_passes", "memory_bytes")
        for value in ("a", None, 0)
    },
    **{
        f"{label} for {name}": (name, solved(**{name: values}))
        for name in ("lam", "weights")
        for label, values in {
            "complex": np.ones(40) * 1j, "masked": np.ma.array(np.ones(40), mask=Y),
            "a generator": (i for i in range(40)), "beyond every float": [10**400],
        }.items()
    },
    **{
        f"a key {key!r}": ("key", lambda data, key=key: lc.cross_validate(key, [0.1], data))
        for key in (0, None, np.zeros(3))
    },
}  # fmt: skip
BAD_DATA = {
    "a vector": ("train inputs", arrays(X[:, 0])),
    "no examples": ("train", arrays(X[:0], Y[:0])),
    "ragged": ("train inputs", arrays([[1, 2], [3]], [0, 1])),
    "masked": ("train inputs", arrays(np.ma.masked_less(X, 0))),
    "complex": ("train inputs", arrays(X * 1j)),
    "objects": ("train inputs", arrays(X.astype(object))),
    "wide integers": ("train inputs", arrays((X * 1e12).astype(np.int64))),
    "NaN": ("train inputs .*row 3, column 2", arrays(replaced(np.nan))),
    "beyond float32": ("train inputs .*row 3, column 2", arrays(replaced(1e39))),
    "a large offset": ("train inputs, column 0", arrays(X + 1e9)),
    "a deviation of 1": ("train inputs, column 0", arrays([[17 * 10**8], [17 * 10**8 + 2]], Y[:2])),
    "one label short": ("train labels", arrays(X, Y[:-1])),
    "columns of labels": ("train labels", arrays(X, Y[:, None])),
    "broken labels": ("train labels .*row 0", arrays(X, Y + 0.5)),
    "labels from 1": ("train labels: row 1", arrays(X, Y + 1, class_names=list("ab"))),
    "labels from 1, unnamed": ("train labels: row 1", arrays(X, Y + 1)),
    "a number left out": ("train labels: row 1", arrays(X, Y * 2)),
    "a label of 2**32": ("train labels: row 0", arrays(X, Y + 2**32, class_names=list("ab"))),
    "one class": ("class_names", arrays(X, Y * 0, class_names=["a"])),
    "a name twice": ("class_names", arrays(class_names=list("aa"))),
    "half a letter": ("class_names", arrays(class_names=["a", "\ud800"])),
    "other features": ("test inputs", arrays(test=(X[:, :2], Y))),
    "an unseen class": ("validation labels", arrays(validation=(X, Y + 1))),
    "inputs alone": ("train", lambda _: lc.dataset_from_arrays(X)),
    "an empty split": ("test", arrays(test=[])),
    "another image": ("image_shape", arrays(image_shape=(3, 2, 2))),
    "traced": ("test inputs", lambda _: jax.jit(lambda x: arrays(test=(x, Y))(_).train.inputs)(X)),
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return lc.dataset_from_arrays((X, Y))


@pytest.mark.parametrize("mistake", [*REFUSALS, *BAD_DATA])
def test_a_mistake_is_our_own_error_in_one_line_that_names_the_argument(data, mistake):
    argument, call = (REFUSALS | BAD_DATA)[mistake]
    with pytest.raises(lc.DataError if mistake in BAD_DATA else lc.InputError) as caught:
        call(data)
    assert re.search(rf"\b{argument}\b", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_examples_of_one_class_are_solved_without_a_warning():
    data = lc.dataset_from_arrays((X, np.zeros(40, int)), class_names=("a", "b"))
    assert lc.solve([0.1], data).cost < 1e-12
