"""Bad arguments to the library: one line of our own error that names them, never a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar import (
    Classifier,
    Hyperparameters,
    InputError,
    Params,
    Standardiser,
    TrainConfig,
    best,
    cross_validate,
    dataset_from_arrays,
    lam_to,
    predict,
    solve,
    sweep,
    train,
)
from linear_cifar.data import few_shot, stratified_folds
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import (
    balanced_accuracy,
    class_report,
    confusion_matrix,
    evaluate_examples,
    fit_temperature,
    paired_difference,
    reliability,
    row_shares,
    scaled_probabilities,
    summarise,
)
from linear_cifar.optimum import certain_predictions
from linear_cifar.selection import one_standard_error, ranking

KEY = jax.random.key(0)
INPUTS, LABELS = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
PARAMS = Params(np.zeros((2, 3)), np.zeros(2))
NOT_NUMBERS = {
    "text": "a",
    "texts": ["0.1"],
    "complex": np.ones(40) * 1j,
    "masked": np.ma.array(np.ones(40), mask=LABELS),
    "a generator": (i for i in range(40)),
    "beyond every float": [10**400],
}


@pytest.fixture(scope="module")
def data():
    return dataset_from_arrays((INPUTS, LABELS))


MISTAKES = {
    "ragged counts": lambda _: class_report([[1], [1, 2]]),
    "counts of text": lambda _: row_shares("a"),
    "a vector of counts": lambda _: balanced_accuracy([1, 2]),
    "scores for labels": lambda _: confusion_matrix([0.5, 0.5], [0, 1], 2),
    "bins beyond memory": lambda _: reliability(np.full((2, 2), 0.5), [0, 1], 2**40),
    "half a bin": lambda _: reliability(np.full((2, 2), 0.5), [0, 1], 1.5),
    "a number for logits": lambda _: scaled_probabilities(1.0),
    "no loss": lambda _: fit_temperature(np.eye(2), [0, 1], None),
    "a class beyond memory": lambda _: few_shot(KEY, [0, 2**40], 1),
    "folds of a matrix": lambda _: stratified_folds(KEY, np.zeros((4, 2), int), 2),
    "text for values": lambda _: summarise("a"),
    "complex pairs": lambda _: paired_difference([1j, 2], [1, 2]),
    "pairs of unequal lengths": lambda _: paired_difference(np.ones(3), np.ones(1)),
    "figures of unequal lengths": lambda _: ranking(np.ones(3), np.ones(2)),
    "no configuration": lambda _: best(np.array([])),
    "text for figures": lambda _: one_standard_error(["a"], [1.0], [1.0]),
    "text for a penalty": lambda _: lam_to("a", 10, 2),
    "no data": lambda _: train(KEY, Hyperparameters(), None),
    "an unknown loss": lambda data: train(KEY, Hyperparameters(), data, TrainConfig(loss="hinge")),
    "half an epoch": lambda data: train(KEY, Hyperparameters(), data, TrainConfig(n_epochs=1.5)),
    "an unknown column": lambda data: sweep(KEY, {"lamda": [0.1]}, data),
    "columns of unequal lengths": lambda data: sweep(
        KEY, {"lam": [0.1], "learning_rate": [0.1, 0.2]}, data
    ),
    "a table without rows": lambda data: sweep(KEY, {"lam": []}, data),
    "an axis too many": lambda data: train(KEY, Hyperparameters(np.zeros(2)), data),
    "half a pass": lambda data: solve([0.1], data, max_passes=20.7),
    "a small dtype": lambda data: solve([0.1], data, dtype="float16"),
    "a dtype of integers": lambda data: solve([0.1], data, dtype=jnp.int32),
    "a truth value for a penalty": lambda data: solve([True], data),
    "half a letter": lambda _: dataset_from_arrays((INPUTS, LABELS), class_names=["a", "\ud800"]),
    "an empty split": lambda _: dataset_from_arrays((INPUTS, LABELS), test=[]),
    "an array for a loss": lambda _: Classifier(
        Params(np.eye(2), np.zeros(2)), Standardiser(*np.ones((2, 2))), ("a", "b"), INPUTS
    ),
    "a penalty of 0": lambda data: certain_predictions(
        PARAMS, 0.1, 0.0, data, data.train, LOSSES["softmax"]
    ),
    "a negative distance": lambda data: certain_predictions(
        PARAMS, -1.0, 0.1, data, data.train, LOSSES["softmax"]
    ),
    "a pair in place of a dataset": lambda data: cross_validate(KEY, [0.1], (INPUTS, LABELS)),
    "labels as a column": lambda data: confusion_matrix(LABELS[:, None], LABELS, 2),
    "a loss that no file can hold": lambda data: Classifier(
        PARAMS, data.standardiser, "ab", LOSSES["softmax"]._replace(name="mine")
    ).save("model.npz"),
    "parameters of another shape": lambda data: certain_predictions(
        Params(np.zeros((2, 4)), np.zeros(2)), 0.1, 0.1, data, data.train, LOSSES["softmax"]
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_our_own_error_in_one_line(data, mistake):
    with pytest.raises(InputError) as caught:
        mistake(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_an_argument_that_is_no_number_is_named(data, values):
    for name, call in (
        ("lam", lambda: solve(values, data)),
        ("lam", lambda: cross_validate(KEY, values, data)),
        ("weights", lambda: solve([0.1], data, weights=values)),
    ):
        with pytest.raises(InputError, match=f"^{name} "):
            call()


@pytest.mark.parametrize("value", ["a", 1j, None, 0, np.nan])
@pytest.mark.parametrize("name", ["tolerance", "max_passes", "memory_bytes"])
def test_a_keyword_that_is_no_number_or_out_of_its_range_is_named(data, name, value):
    with pytest.raises(InputError, match=f"^{name} "):
        solve([0.1], data, **{name: value})


@pytest.mark.parametrize("key", [0, np.uint32(3), None, "a", np.zeros(3)])
def test_a_value_that_is_no_key_is_named(data, key):
    with pytest.raises(InputError, match=r"^key is .*PRNG key"):
        cross_validate(key, [0.1], data)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lam", -0.1),
        ("lam", np.nan),
        ("lam", 1e300),  # infinite in float32
        ("learning_rate", 0.0),
        ("learning_rate", np.inf),
        ("learning_rate", 1e-50),  # 0 in float32
        ("decay_every", 0),
        ("decay_every", 2**40),
        ("decay_factor", 0.5),
        ("momentum", 1.0),
        ("b1", 1 - 1e-9),  # 1 in float32
        ("eps", np.inf),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(data, setting, value):
    usual = getattr(Hyperparameters(), setting)
    with pytest.raises(InputError, match=f"^{setting} is"):
        train(KEY, Hyperparameters(**{setting: value}), data)
    with pytest.raises(InputError, match=f"^{setting} is"):
        sweep(KEY, {setting: [usual, value]}, data)


def test_examples_of_one_class_are_solved_without_a_warning():
    data = dataset_from_arrays((INPUTS, np.zeros(40, int)), class_names=("a", "b"))
    assert solve([0.1], data).cost < 1e-12


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_has_no_probability(data, label):
    split = data.train._replace(labels=np.full(40, label))
    examples = evaluate_examples(PARAMS, split, data.standardiser)
    assert np.isnan(examples.probability).all()
    assert np.isnan(examples.correct).all()


def test_logits_that_are_not_finite_have_no_class(data):
    broken = Params(np.array([[np.nan, 0, 0], [0, 0, 0]]), PARAMS.bias)
    assert predict(broken, INPUTS).tolist() == [-1] * 40
    examples = evaluate_examples(broken, data.train, data.standardiser)
    assert examples.predicted.tolist() == [-1] * 40
    assert not confusion_matrix(data.train.labels, examples.predicted, 2).any()
    assert np.isnan(examples.correct).all()
