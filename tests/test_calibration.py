"""Reliability and temperature scaling, against the paper's definitions, NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

from linear_cifar import InputError
from linear_cifar.metrics import fit_temperature, reliability, scaled_probabilities
from tests import oracle
from tests.conftest import assert_close, each_loss
from tests.test_metrics import examples


@pytest.mark.parametrize(("n_classes", "n_bins"), [(2, 1), (7, 15), (300, 10)])
def test_the_bins_and_the_calibration_error_match_the_paper(n_classes, n_bins):
    """Bin m is ((m − 1)/M, m/M]; the first one has 0 too."""
    logits, labels = examples(n_classes, 500)
    p = special.softmax(2 * logits, axis=1)
    table = pd.DataFrame({"confidence": p.max(axis=1), "right": p.argmax(axis=1) == labels})
    bins = table.groupby(np.ceil(table.confidence * n_bins).astype(int) - 1)
    n, mean = bins.size(), bins.mean()
    measured = reliability(jnp.asarray(p), jnp.asarray(labels), n_bins)
    assert_close(measured.error, (n * abs(mean.confidence - mean.right)).sum() / 500)
    assert_close(measured.edges, np.linspace(0, 1, n_bins + 1))
    assert measured.n.tolist() == [n.get(m, 0) for m in range(n_bins)]
    assert_close(measured.confidence, mean.confidence.reindex(range(n_bins)))
    assert_close(measured.accuracy, mean.right.reindex(range(n_bins)))
    probabilities = np.array([[0.0, 0.0], [0.5, 0.5], [0.25, 0.1], [1.0, 0.0]])
    assert reliability(probabilities, np.zeros(4, int), 4).n.tolist() == [2, 1, 0, 1]


def test_a_planted_temperature_is_recovered_and_calibrates_without_x64_too():
    logits, labels = examples(10, 20_000)
    with jax.enable_x64(False):
        temperature = fit_temperature(3 * logits, labels)
        probabilities = scaled_probabilities(3 * logits, temperature)
    assert temperature == pytest.approx(3, rel=0.03)
    assert reliability(scaled_probabilities(3 * logits), labels).error > 0.1
    assert reliability(probabilities, labels).error < 0.015


@each_loss
@pytest.mark.parametrize(("n_classes", "scale"), [(2, 1e-6), (7, 1), (300, 1e4)])
def test_the_temperature_matches_scipys_minimiser_of_the_loss(loss, n_classes, scale):
    logits, labels = examples(n_classes, 500)
    logits -= 1 if loss.name == "multi_bce" else 0  # so that σ isn't far too large

    def mean_loss(log_t):
        return oracle.losses_and_gradient(logits / np.exp(log_t), labels, loss.name)[0].mean()

    best = np.exp(optimize.minimize_scalar(mean_loss, (-1, 1), tol=1e-12).x)
    assert fit_temperature(scale * logits, labels, loss) == pytest.approx(scale * best, rel=1e-5)


@each_loss
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_separable_or_useless_logits_have_no_best_temperature(loss, scale):
    labels = np.random.default_rng(0).integers(0, 7, 500)
    signs = 2 * np.eye(7)[labels] - 1
    with pytest.raises(InputError, match=r"to 0.*separate"):
        fit_temperature(scale * 10 * signs, labels, loss)
    for useless in (-scale * signs, np.zeros((500, 7))):
        with pytest.raises(InputError, match="to infinity"):
            fit_temperature(useless, labels, loss)


@each_loss
def test_probabilities_are_float64_and_nan_in_rows_without_finite_logits(loss):
    logits = np.array([[1, 2, 3], [np.inf, 0, 0], [1e4, -1e4, 0]], np.float32)
    probabilities = scaled_probabilities(jnp.asarray(logits), 2.0, loss)
    assert_close(probabilities[[0, 2]], oracle.LINKS[loss.name](logits[[0, 2]].astype(float) / 2))
    assert np.isnan(probabilities[1]).all()
    assert probabilities.dtype == np.float64


def test_a_nan_probability_or_no_examples_give_nan_and_empty_bins():
    for probabilities in (np.zeros((0, 2)), np.array([[0.5, 0.5], [np.nan, 0.5]])):
        measured = reliability(probabilities, np.zeros(len(probabilities), int))
        assert np.isnan([measured.error, *measured.accuracy, *measured.confidence]).all()
        assert measured.n.sum() == 0


def test_no_examples_nan_logits_and_values_out_of_range_are_refused():
    for logits in (np.zeros((0, 2)), np.full((4, 2), np.nan)):
        with pytest.raises(InputError, match="no temperature"):
            fit_temperature(logits, np.zeros(len(logits), int))
    with pytest.raises(InputError, match="temperature is 0"):
        scaled_probabilities(np.zeros((4, 2)), 0)
    with pytest.raises(InputError, match="probabilities"):
        reliability(np.full((4, 2), 1.1), np.zeros(4, int))
