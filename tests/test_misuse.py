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


def solved(**settings):
    return lambda data: lc.solve(dataset=data, **({"lam": [0.1]} | settings))


def loaded(**settings):
    return lambda _: lc.load_features("", **settings)


def certain(params=PARAMS, distance=0.1, lam=0.1):
    return lambda data: certain_predictions(params, distance, lam, data, data.train, SOFTMAX)


def arrays(inputs=X, labels=Y, **more):
    return lambda _: lc.dataset_from_arrays((inputs, labels), **more)


def replaced(value):
    return np.where(np.arange(120).reshape(40, 3) == 11, value, X)  # row 3, column 2


# A setting with a bad value, and who refuses it.
SETTINGS = (
    (loaded, "validation_fraction", 1.0), (loaded, "test_fraction", -0.1), (loaded, "memory_gb", 0),
    (loaded, "seed", 0.5), (loaded, "standardise", "maybe"), (loaded, "normalise_rows", 1),
    (trained, "lam", -0.1), (trained, "lam", np.nan), (trained, "learning_rate", 0.0),
    (trained, "lam", 1e300), (trained, "learning_rate", 1e-50),  # infinite and 0 in float32
    (trained, "decay_every", 2**40), (trained, "decay_factor", 0.5), (trained, "momentum", 1.0),
    (trained, "eps", np.inf), (trained, "b1", 1 - 1e-9),  # 1 in float32
    (solved, "tolerance", "a"), (solved, "max_passes", None), (solved, "memory_bytes", 0),
    (solved, "lam", [True]), (solved, "lam", [10**400]), (solved, "lam", (i for i in range(40))),
    (solved, "weights", np.ones(40) * 1j), (solved, "weights", np.ma.array(np.ones(40), mask=Y)),
)  # fmt: skip
# The name of the argument in the message, and a call that is refused.
REFUSALS = {
    **{f"{n} {str(value)[:9]}": (n, make(**{n: value})) for make, n, value in SETTINGS},
    "a vector of counts": ("counts", lambda _: metrics.balanced_accuracy([1, 2])),
    "labels as a column": ("labels", lambda _: metrics.confusion_matrix(Y[:, None], Y, 2)),
    "bins beyond memory": ("n_bins", lambda _: metrics.reliability(np.eye(2), [0, 1], 2**40)),
    "no loss": ("loss", lambda _: metrics.fit_temperature(np.eye(2), [0, 1], None)),
    "text for a penalty": ("lam", lambda _: lc.lam_to("a", 10, 2)),
    "no data": ("dataset", lambda _: lc.train(KEY, lc.Hyperparameters(), None)),
    "a bad row of a table": ("lam", lambda data: lc.sweep(KEY, {"lam": [0.1, -1.0]}, data)),
    "a pair for a dataset": ("dataset", lambda _: lc.cross_validate(KEY, [0.1], (X, Y))),
    "a number for a key": ("key", lambda data: lc.cross_validate(0, [0.1], data)),
    "floats for a key": ("key", lambda data: lc.cross_validate(np.zeros(3), [0.1], data)),
    "a loss that no file can hold": (
        "loss", lambda d: lc.Classifier(PARAMS, d.standardiser, "ab", MY_LOSS).save("model.npz"),
    ),
    "a penalty of 0": ("lam", certain(lam=0.0)),
    "a negative distance": ("distance", certain(distance=-1.0)),
    "parameters of another shape": ("params", certain(LARGER)),
    "a class beyond memory": ("per_class", lambda _: few_shot(KEY, [0, 2**40], 1)),
    "a class without examples": ("per_class", lambda _: few_shot(KEY, [0, 0, 2], 1)),
    "fewer than the classes": ("n", lambda _: stratified_subset(KEY, [0, 1, 2], 2)),
    "more than there are": ("n", lambda _: stratified_subset(KEY, [0, 1, 2], 4)),
    "no labels": ("labels", lambda _: stratified_subset(KEY, [], 1)),
    "more folds than examples": ("n_folds", lambda _: stratified_folds(KEY, [0, 1], 3)),
    "one and a half folds": ("n_folds", lambda _: stratified_folds(KEY, [0, 1, 1], 2.5)),
    "one and a half examples": ("per_class", lambda _: few_shot(KEY, [0, 0, 1, 1], 1.5)),
    "folds of no labels": ("labels", lambda _: stratified_folds(KEY, np.zeros(0, int), 2)),
    "one and a half classes": ("k", lambda _: metrics.top_k_accuracy(np.eye(3), [0, 1, 2], 1.5)),
    "a negative label": ("labels", lambda _: stratified_folds(KEY, [-1, 0], 2)),
    "an unknown dataset": ("name", lambda _: lc.load_dataset("imagenet")),
    "an unknown split": ("split", lambda _: lc.load_dataset("synthetic", split="half")),
}  # fmt: skip
BAD_DATA = {
    "a vector": ("train inputs", arrays(X[:, 0])),
    "no examples": ("train", arrays(X[:0], Y[:0])),
    "ragged": ("train inputs", arrays([[1, 2], [3]], [0, 1])),
    "masked": ("train inputs", arrays(np.ma.masked_less(X, 0))),
    "complex": ("train inputs", arrays(X * 1j)),
    "wide integers": ("train inputs", arrays((X * 1e12).astype(np.int64))),
    "NaN": ("train inputs .*row 3, column 2", arrays(replaced(np.nan))),
    "beyond float32": ("train inputs .*row 3, column 2", arrays(replaced(1e39))),
    "a large offset": ("train inputs, column 0", arrays(X + 1e9)),
    "one label short": ("train labels", arrays(X, Y[:-1])),
    "dates as labels": ("train labels", arrays(X, Y.astype("M8[s]"))),
    "broken labels": ("train labels .*row 0", arrays(X, Y + 0.5)),
    "labels from 1": ("train labels: row 1", arrays(X, Y + 1, class_names=list("ab"))),
    "a number left out": ("train labels: row 1", arrays(X, Y * 2)),
    "a label of 2**32": ("train labels: row 0", arrays(X, Y + 2**32, class_names=list("ab"))),
    "one class": ("class_names", arrays(X, Y * 0, class_names=["a"])),
    "a name twice": ("class_names", arrays(class_names=list("aa"))),
    "half a letter": ("class_names", arrays(class_names=["a", "\ud800"])),
    "other features": ("test inputs", arrays(test=(X[:, :2], Y))),
    "an unseen class": ("validation labels", arrays(validation=(X, Y + 1))),
    "inputs alone": ("train", lambda _: lc.dataset_from_arrays(X)),
    "another image": ("image_shape", arrays(image_shape=(3, 2, 2))),
    "traced": ("test inputs", lambda _: jax.jit(lambda x: arrays(test=(x, Y))(_).train.inputs)(X)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", [*REFUSALS, *BAD_DATA])
def test_a_mistake_is_our_own_error_in_one_line_that_names_the_argument(mistake):
    argument, call = (REFUSALS | BAD_DATA)[mistake]
    with pytest.raises(lc.DataError if mistake in BAD_DATA else lc.InputError) as caught:
        call(lc.dataset_from_arrays((X, Y)))
    assert re.search(rf"\b{argument}\b", str(caught.value))
    assert "\n" not in str(caught.value)
