"""Reliability and temperature scaling, against the paper's definitions, NumPy and SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES
from linear_cifar.metrics import fit_temperature, reliability, scaled_probabilities
from tests.conftest import assert_close
from tests.oracle import losses_and_gradient

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_size = pytest.mark.parametrize("n_classes", [2, 7, 300])


def examples(n_classes, n=3000):
    """Logits, and labels drawn by their softmax: calibrated at T = 1."""
    rng = np.random.default_rng(n_classes)
    logits = 2 * rng.normal(size=(n, n_classes))
    labels = (special.softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, np.minimum(labels, n_classes - 1)


def expected_calibration_error(probabilities, labels, n_bins):
    """Example by example, as in the paper: bin m is ((m − 1)/M, m/M]."""
    bins = {}
    for p, label in zip(probabilities, labels, strict=True):
        m = max(math.ceil(max(p) * n_bins), 1)
        bins.setdefault(m, []).append((max(p), float(np.argmax(p) == label)))
    gaps = [len(pairs) * abs(np.subtract(*np.mean(pairs, axis=0))) for pairs in bins.values()]
    return sum(gaps) / len(labels)


@each_size
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_the_calibration_error_matches_the_paper(n_classes, n_bins):
    logits, labels = examples(n_classes, 500)
    probabilities = scaled_probabilities(logits, 0.5)
    measured = reliability(jnp.asarray(probabilities), jnp.asarray(labels), n_bins)
    assert_close(measured.error, expected_calibration_error(probabilities, labels, n_bins))
    assert measured.n.sum() == 500
    filled = measured.n > 0
    assert np.array_equal(np.isfinite(measured.accuracy), filled)
    assert (measured.confidence[filled] <= measured.edges[1:][filled]).all()


def test_a_bin_includes_its_upper_end_and_the_first_one_also_0():
    probabilities = np.array([[0.0, 0.0], [0.5, 0.5], [0.25, 0.1], [1.0, 0.0]])
    assert reliability(probabilities, np.zeros(4, int), 4).n.tolist() == [2, 1, 0, 1]


def test_a_planted_temperature_is_recovered_and_calibrates_with_or_without_x64():
    logits, labels = examples(10, 20_000)
    temperature = fit_temperature(3 * logits, labels)
    assert temperature == pytest.approx(3, rel=0.03)
    assert reliability(scaled_probabilities(3 * logits), labels).error > 0.1
    probabilities = scaled_probabilities(3 * logits, temperature)
    assert reliability(probabilities, labels).error < 0.015
    with jax.enable_x64(False):
        assert fit_temperature(3 * logits, labels) == temperature
        assert np.array_equal(scaled_probabilities(3 * logits, temperature), probabilities)


def test_a_nan_probability_or_no_examples_give_nan_and_empty_bins():
    probabilities = np.array([[0.5, 0.5], [np.nan, 0.5]])
    for n in (0, 2):
        measured = reliability(probabilities[:n], np.zeros(n, int))
        assert np.isnan([measured.error, *measured.accuracy]).all()
        assert measured.n.sum() == 0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p, y: reliability(p + 0.6, y), "probabilities"),
        (lambda p, y: reliability(p, y, 0), "n_bins is 0"),
        (lambda p, y: reliability(p, y + 2), "labels"),
        (lambda p, y: scaled_probabilities(p, 0), "temperature is 0"),
        (lambda p, y: scaled_probabilities(p[0]), "logits"),
        (lambda p, y: fit_temperature(p[:0], y[:0]), "no examples"),
        (lambda p, y: fit_temperature(p * np.nan, y), "logit that isn't finite"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, match):
    with pytest.raises(InputError, match=match):
        call(np.full((4, 2), 0.5), np.zeros(4, int))


@each_loss
@each_size
def test_the_temperature_minimises_the_loss_by_scipy_too(loss, n_classes):
    logits, labels = examples(n_classes, 400)

    def mean_loss(inverse):
        return losses_and_gradient(inverse * logits, labels, loss.name)[0].mean()

    inverse = optimize.minimize_scalar(mean_loss, bounds=(0, 2)).x
    assert fit_temperature(logits, labels, loss) == pytest.approx(1 / inverse, rel=1e-3)


@each_loss
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_temperature_follows_the_scale_of_the_logits(loss, scale):
    logits, labels = examples(3)
    logits -= 1 if loss.name == "multi_bce" else 0  # so that σ isn't far too large
    unit = fit_temperature(logits, labels, loss)
    assert_close(fit_temperature(scale * logits, labels, loss) / scale, unit, factor=1e2)


@each_loss
@pytest.mark.parametrize("n_classes", [2, 100])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_separable_or_useless_logits_have_no_best_temperature(loss, n_classes, scale):
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, 300)
    signs = 2 * np.eye(n_classes)[labels] - 1
    with pytest.raises(InputError, match=r"to 0.*separate"):
        fit_temperature(scale * 10 * signs, labels, loss)
    with pytest.raises(InputError, match="to infinity"):
        fit_temperature(-scale * signs, labels, loss)
    with pytest.raises(InputError, match="to infinity"):
        fit_temperature(np.zeros((300, n_classes)), labels, loss)


@each_loss
def test_probabilities_are_float64_and_nan_in_rows_without_finite_logits(loss):
    logits = np.array([[1, 2, 3], [np.inf, 0, 0], [1e4, -1e4, 0]], np.float32)
    probabilities = scaled_probabilities(jnp.asarray(logits), 2.0, loss)
    link = special.softmax if loss.exclusive else lambda s, axis: special.expit(s)
    assert_close(probabilities[[0, 2]], link(logits[[0, 2]].astype(float) / 2, axis=1))
    assert np.isnan(probabilities[1]).all()
    assert probabilities.dtype == np.float64
