import math

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from scipy import stats

from linear_cifar import plots
from linear_cifar.evaluation import roughness
from linear_cifar.model import Params
from linear_cifar.statistics import paired_difference, summarise

VALUES = np.random.default_rng(0).normal(0.39, 0.002, 10)


def test_a_summary_is_scipy_s():
    summary = summarise(VALUES)
    low, high = stats.t.interval(0.95, 9, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert_close(summary[:4], [VALUES.mean(), VALUES.std(ddof=1), low, high])
    assert summary.n == 10


def test_one_value_has_no_spread():
    summary = summarise(VALUES[:1])
    assert summary.mean == VALUES[0]
    assert math.isnan(summary.sd)
    assert math.isnan(summary.low)


def test_a_paired_difference_is_the_paired_t_test_s():
    a, b = VALUES, VALUES[::-1] + 0.001
    interval = paired_difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert_close([interval.low, interval.high], [expected.low, expected.high])
    assert interval.low < interval.estimate < interval.high


def test_nan_among_the_values_is_not_passed_over():
    assert math.isnan(summarise([0.1, np.nan, 0.2]).mean)


def test_pairs_of_images_give_the_difference_of_accuracies():
    rng = np.random.default_rng(1)
    a, b = rng.random(5000) < 0.40, rng.random(5000) < 0.38
    interval = paired_difference(a, b)
    assert_close(interval.estimate, a.mean() - b.mean())
    # The normal interval of McNemar's test, from the discordant pairs.
    only_a, only_b = (a & ~b).mean(), (b & ~a).mean()
    error = math.sqrt((only_a + only_b - (only_a - only_b) ** 2) / 5000)
    assert interval.high - interval.estimate == pytest.approx(1.96 * error, rel=1e-3)


def test_roughness_is_high_for_noise_low_for_ramps_and_blind_to_scale():
    noise = np.random.default_rng(0).normal(size=(10, 3, 32, 32))
    ramp = np.broadcast_to(np.linspace(-1, 1, 32), (10, 3, 32, 32))

    def rough(images):
        weights = jnp.asarray(images.reshape(10, -1))
        return float(roughness(Params(weights, jnp.zeros(10)), (3, 32, 32)))

    assert rough(noise) == pytest.approx(math.sqrt(2), rel=0.02)
    assert rough(ramp) < 0.1
    assert rough(7 * noise) == pytest.approx(rough(noise))
    assert rough(ramp + 0.1 * noise) > rough(ramp)


def test_a_heat_map_shows_every_number_and_names_the_diverged():
    accuracy = np.array([[0.1, 0.2, np.nan], [0.3, 0.35, 0.4]])
    figure = plots.plot_grid(accuracy, [0.001, 0.01], [0, 0.1, 0.5], (0.1, 0.4), "title")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.1000", "0.2000", "diverged", "0.3000", "0.3500", "0.4000"]


def test_a_large_heat_map_stays_of_a_size_to_look_at():
    rng = np.random.default_rng(0)
    figure = plots.plot_grid(
        rng.random((25, 40)), np.geomspace(1e-4, 1, 25), np.geomspace(1e-4, 1, 40), (0, 1), "title"
    )
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticklabels()) <= 12
    assert max(figure.get_size_inches()) <= 12


def test_a_sweep_s_curves_leave_out_what_diverged():
    accuracy = np.array([[0.1, 0.2, np.nan], [0.3, 0.35, 0.4]])
    figure = plots.plot_over_lam(
        np.array([0, 0.01, 1]), np.array([0.01, 0.1]), accuracy, 0 * accuracy, "title"
    )
    lines = figure.axes[0].lines
    assert [np.isfinite(line.get_ydata()).sum() for line in lines] == [2, 3]
    assert figure.axes[0].get_xscale() == "symlog"  # for λ = 0
    points = plots.plot_drawn(
        np.array([0.01, 0.1]), np.array([1.0, 2.0]), np.array([0.3, np.nan]), "title"
    )
    assert [len(c.get_offsets()) for c in points.axes[0].collections] == [1, 1]
    chosen = plots.plot_validation_and_test(accuracy[1], accuracy[1], "title")
    assert chosen.axes[0].collections[1].get_offsets().tolist() == [[0.3, 0.3]]


def test_histograms_share_bins_and_axes_and_count_every_image():
    rng = np.random.default_rng(0)
    p, right = [rng.random(300), rng.random(300) / 2], [rng.random(300) < 0.4] * 2
    figure = plots.plot_probabilities(p, right, ["a", "b"], "title")
    left, other = figure.axes
    assert left.get_xlim() == other.get_xlim()
    assert left.get_ylim() == other.get_ylim()
    for axes in figure.axes:
        assert sum(patch.get_height() for patch in axes.patches) == 300
        edges = {round(patch.get_x(), 6) for patch in axes.patches}
        assert edges == {round(0.025 * i, 6) for i in range(40)}


def test_the_learning_rate_is_drawn_where_it_varies():
    history = type("H", (), {})()
    for part in ("train", "validation"):
        for name in ("loss", "cost", "accuracy"):
            setattr(history, f"{part}_{name}", np.ones((3, 5)))
    figure = plots.plot_history(history, "title", np.array([1, 1, 0.1, 0.1, 0.01]))
    assert [axes.get_ylabel() for axes in figure.axes][-1] == "learning rate"
    assert figure.axes[-1].lines[0].get_ydata().tolist() == [1, 1, 0.1, 0.1]
