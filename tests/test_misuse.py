"""What the library is given by mistake: an error of ours that names it, and never a number."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.calibration import fit_temperature, reliability, scaled_probabilities
from linear_cifar.data import DataError, dataset_from_arrays
from linear_cifar.data.types import Standardiser
from linear_cifar.engine.training import train
from linear_cifar.evaluation import ground_truth_probabilities
from linear_cifar.losses import LOSSES, SOFTMAX_CROSS_ENTROPY as SOFTMAX
from linear_cifar.model import Params
from linear_cifar.models import Model
from linear_cifar.optimizers import Hyperparameters, check_hyperparameters
from linear_cifar.optimum.folds import cross_validate, stratified_folds
from linear_cifar.optimum.prediction import bias_distance, certain
from linear_cifar.optimum.solver import solve
from linear_cifar.penalties import elsewhere
from linear_cifar.quality import balanced_accuracy, class_quality, confusion_counts, row_shares
from linear_cifar.search import best, one_standard_error, ranking
from linear_cifar.settings import SettingsError
from linear_cifar.statistics import paired_difference, summarise
from linear_cifar.subsets import few_shot

INPUTS, LABELS = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
PARAMS = Params(np.zeros((2, 3)), np.zeros(2))
NO_NUMBERS = {
    "text": "a",
    "texts": ["0.1"],
    "complex": np.ones(40) * 1j,
    "ragged": [[1], [1, 2]],
    "masked": np.ma.array(np.ones(40), mask=LABELS),
    "a generator": (i for i in range(40)),
    "beyond every float": [10**400],
}
each_no_number = pytest.mark.parametrize("values", NO_NUMBERS.values(), ids=NO_NUMBERS)


@pytest.fixture(scope="module")
def data():
    return dataset_from_arrays((INPUTS, LABELS))


MISTAKES = {
    "ragged counts": lambda _: class_quality([[1], [1, 2]]),
    "counts of text": lambda _: row_shares("a"),
    "a vector of counts": lambda _: balanced_accuracy([1, 2]),
    "ragged scores": lambda _: confusion_counts([[1], [1, 2]], [0, 1]),
    "bins beyond memory": lambda _: reliability(np.full((2, 2), 0.5), [0, 1], 2**40),
    "half a bin": lambda _: reliability(np.full((2, 2), 0.5), [0, 1], 1.5),
    "a number for logits": lambda _: scaled_probabilities(1.0),
    "no loss": lambda _: fit_temperature(np.eye(2), [0, 1], None),
    "a class beyond memory": lambda _: few_shot(jax.random.key(0), [0, 2**40], 1),
    "folds of a matrix": lambda _: stratified_folds(jax.random.key(0), np.zeros((4, 2), int), 2),
    "text for values": lambda _: summarise("a"),
    "complex pairs": lambda _: paired_difference([1j, 2], [1, 2]),
    "a list for a name": lambda _: ranking(np.ones(2), by=[]),
    "text for figures": lambda _: one_standard_error(["a"], [1.0], [1.0]),
    "text for a penalty": lambda _: elsewhere("a", 10, 2),
    "no start": lambda data: solve([0.1], data, start=True),
    "no data": lambda _: train(jax.random.key(0), Hyperparameters(), None),
    "no data to fold": lambda _: cross_validate(jax.random.key(0), [0.1], None),
    "a key for a rate": lambda data: train(
        jax.random.key(0), Hyperparameters(learning_rate=jax.random.key(0)), data
    ),
    "an array for a setting": lambda data: solve([0.1], data, tolerance=INPUTS),
    "text for names": lambda _: dataset_from_arrays((INPUTS, LABELS), class_names="ab"),
    "numbers for names": lambda _: dataset_from_arrays((INPUTS, LABELS), class_names=[0, 1]),
    "half a letter": lambda _: dataset_from_arrays((INPUTS, LABELS), class_names=["a", "\ud800"]),
    "text for a shape": lambda _: dataset_from_arrays((INPUTS, LABELS), image_shape="113"),
    "an empty split": lambda _: dataset_from_arrays((INPUTS, LABELS), test=[]),
    "a ragged model": lambda _: Model(
        Params([[1], [1, 2]], np.zeros(2)), Standardiser(*np.ones((2, 2))), ("a", "b"), SOFTMAX, 0.1
    ),
    "an array for a loss": lambda _: Model(
        Params(np.eye(2), np.zeros(2)), Standardiser(*np.ones((2, 2))), ("a", "b"), INPUTS, 0.1
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_an_error_of_ours_in_one_line(data, mistake):
    with pytest.raises((SettingsError, DataError)) as caught:
        mistake(data)
    assert "\n" not in str(caught.value)


@each_no_number
def test_what_is_no_number_is_named(data, values):
    with pytest.raises(SettingsError, match=r"^lam is .*: it has to be real numbers$"):
        solve(values, data)
    with pytest.raises(SettingsError, match=r"^lam is"):
        cross_validate(jax.random.key(0), values, data)
    with pytest.raises(SettingsError, match=r"^weights is .*: it has to be real numbers$"):
        solve([0.1], data, weights=values)
    with pytest.raises(SettingsError, match=r"^learning_rate is .*: it has to be real numbers$"):
        check_hyperparameters(Hyperparameters(learning_rate=values))


def test_a_truth_value_is_no_penalty(data):
    with pytest.raises(SettingsError, match="lam is list: it has to be real numbers"):
        solve([True], data)


@pytest.mark.parametrize("value", ["a", 1j, np.array([1e-3, 1e-3]), None, 10**400])
@pytest.mark.parametrize("name", ["tolerance", "max_passes", "memory_bytes", "dtype", "mesh"])
def test_a_keyword_of_another_type_is_named(data, name, value):
    if name == "mesh" and value is None:
        return
    with pytest.raises(SettingsError, match=f"^{name} "):
        solve([0.1], data, **{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_passes": 20.7}, "max_passes is 20.7: it has to be an integer"),
        ({"dtype": "float16"}, "one of bfloat16, float32, float64"),
        ({"dtype": jnp.int32}, "one of bfloat16, float32, float64"),
    ],
)
def test_a_setting_that_cannot_be_solved_with_is_named(data, settings, message):
    with pytest.raises(SettingsError, match=message):
        solve([0.1], data, **settings)


@pytest.mark.parametrize(
    ("params", "distance", "lam", "message"),
    [
        (PARAMS, 0.1, 0.0, "lam is 0.0: it has to be above 0"),
        (PARAMS, 0.1, np.nan, "lam is nan"),
        (PARAMS, -1.0, 0.1, "distance is -1.0: it has to be at least 0"),
        (PARAMS, np.nan, 0.1, "distance is nan"),
        (Params(np.zeros((2, 4)), np.zeros(2)), 0.1, 0.1, r"params have to be \[2, 3\]"),
        (Params(np.zeros((1, 2, 3)), np.zeros((1, 2))), 0.1, 0.1, "params have to be"),
    ],
)
def test_no_prediction_is_certain_by_what_cannot_be(data, params, distance, lam, message):
    loss = LOSSES["softmax"]
    with pytest.raises(SettingsError, match=message):
        bias_distance(params, distance, lam, data, loss)
    with pytest.raises(SettingsError, match=message):
        certain(params, distance, lam, data, data.train, loss)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_standardiser_that_divides_by_nothing_is_refused(data, scale):
    with pytest.raises(DataError, match=r"the standardiser's .* have|has to be"):
        replace(data, standardiser=Standardiser(np.zeros(3), np.full(3, scale)))


def test_examples_of_one_class_are_solved_without_a_warning():
    data = dataset_from_arrays((INPUTS, np.zeros(40, int)), class_names=("a", "b"))
    assert solve([0.1], data).cost < 1e-12


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_has_no_probability(data, label):
    split = data.train._replace(labels=np.full(40, label))
    probability, correct = ground_truth_probabilities(PARAMS, split, data.standardiser)
    assert np.isnan(probability).all()
    assert not np.any(correct)


def test_pairs_and_figures_of_unequal_lengths_are_named():
    with pytest.raises(ValueError, match=r"a and b have to be \[n\] both"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"a and b have to be \[n\] both"):
        paired_difference(np.ones(3), np.ones(1))  # which numpy would spread
    with pytest.raises(ValueError, match=r"accuracy and loss have to be \[C\]"):
        ranking(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="by is 'x'"):
        ranking(np.ones(3), by="x")
    with pytest.raises(ValueError, match="there is no configuration"):
        best(np.array([]))


@pytest.mark.parametrize("key", [0, np.uint32(3), None, "a", np.zeros(3)])
def test_what_is_no_key_is_named(data, key):
    with pytest.raises(SettingsError, match=r"key is .*: it has to be a PRNG key"):
        cross_validate(key, [0.1], data)
