"""The figures of sweeps show the numbers that they are made of."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy import special

from experiments.common.sweep_figures import figures
from experiments.loss_comparison import probability_histograms
from linear_cifar import Params
from tests.commands import few
from tests.test_runs import standardised

NAN = np.nan


def drawn(lam, rate, validation, n_panels=1):
    """The figures of a sweep with these columns; NaN means diverged."""
    lam, rate, validation = np.broadcast_arrays(lam, rate, np.array(validation, float))
    axes = {"lam": lam, "learning_rate": rate, "batch_size": np.arange(len(lam)) % n_panels}
    results = pd.DataFrame({**axes, "validation_accuracy": validation})
    results = results.assign(test_accuracy=validation - 0.05, diverged=np.isnan(validation))
    order = np.argsort(-validation, kind="stable")  # NaN comes last
    varied = [name for name in axes if results[name].nunique() > 1]
    return figures(results.iloc[order].reset_index(drop=True), varied, 2, "$^$ λ")


@pytest.mark.parametrize(
    ("lam", "validation"), [([0.1], [0.5]), ([0.1], [NAN]), ([0, 1], [NAN, NAN])]
)
def test_the_least_data_make_figures_with_titles(lam, validation):
    for figure in drawn(lam, 0.1, validation).values():
        assert "$^$ λ" in figure.get_suptitle()
        figure.savefig(io.BytesIO(), dpi=20)


def test_a_grid_has_a_curve_per_rate_with_a_gap_where_a_run_diverged():
    made = drawn([0, 0.01, 1] * 2, [0.1] * 3 + [0.01] * 3, [0.1, 0.2, NAN, 0.3, 0.35, 0.4])
    ax = made["accuracy_over_lam"].axes[0]
    heights = [line.get_ydata() for line in ax.lines[:2]]
    np.testing.assert_allclose(heights, [[0.3, 0.35, 0.4], [0.1, 0.2, NAN]])
    assert ax.get_xscale() == "symlog"  # because λ = 0 is among them
    cells = made["heat_map"].axes[0].images[0].get_array()
    np.testing.assert_allclose(cells.filled(NAN), [[0.3, 0.35, 0.4], [0.1, 0.2, NAN]])


def test_drawn_configurations_are_points_and_diverged_ones_crosses():
    points, crosses = (
        drawn([0.01, 1, 0.1], [0.01, 0.1, 0.05], [0.3, NAN, 0.2])["drawn"].axes[0].collections
    )
    assert points.get_offsets().tolist() == [[0.01, 0.01], [0.1, 0.05]]
    assert points.get_array().tolist() == [0.3, 0.2]
    assert crosses.get_offsets().tolist() == [[1.0, 0.1]]


def test_every_batch_size_has_a_panel_unless_they_are_too_many():
    lam, rate = np.tile([0.01, 0.1, 1, 10], 30), np.repeat([0.1, 0.01], 60)
    assert 2 <= len(drawn(lam, rate, lam / 100, n_panels=2)) <= 15
    assert len(drawn(lam, rate, lam / 100, n_panels=119)) <= 15


def test_histograms_count_every_test_image_by_the_probability_of_its_class():
    draws = np.random.default_rng(0)
    params = Params(draws.normal(size=(10, 3072)).astype(np.float32) / 50, np.zeros(10, np.float32))
    figure, _ = probability_histograms({"softmax": params}, few(), "one run")
    inputs, labels = standardised("test")
    scores = inputs @ params.weights.T.astype(float)
    of_class = special.softmax(scores, axis=1)[np.arange(400), labels]
    right = scores.argmax(axis=1) == labels
    heights = np.reshape([bar.get_height() for bar in figure.axes[0].patches], (2, 40))
    for bars, rows in zip(heights, (right, ~right), strict=True):
        counts, _ = np.histogram(of_class[rows], 40, (0, 1))
        assert np.abs(bars - counts).sum() <= 2  # one image at the edge of a bin
