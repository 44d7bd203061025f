"""Figures that belong to single commands: the numbers that they show."""

import io

import numpy as np
import pytest

from experiments.common.histograms import plot_probabilities
from experiments.common.paths import Path, plot_passes
from experiments.lambda_path.figures import StoppedRun, plot_costs, plot_weights_over_lam
from experiments.probe.figures import plot_learning_curve
from experiments.sweep.figures import plot_drawn, plot_over_lam, plot_validation_and_test
from linear_cifar.plots import Curve

NAN = np.nan
ONE = np.ones(1)
# Each figure with the least that it can show, then without anything finite.
CASES = [
    (plot_passes, Path(ONE, ONE, {"passes": ONE}, {}, {})),
    (plot_costs, ONE, ONE, ONE, [StoppedRun("a", 1.0, 2.0, 1.0)]),
    (plot_weights_over_lam, np.ones((1, 1, 12)), [1.0], ["a"], (3, 2, 2)),
    (plot_over_lam, ONE, ONE, ONE[None], ONE[None]),
    (plot_over_lam, ONE, ONE, NAN * ONE[None], NAN * ONE[None]),
    (plot_drawn, ONE, ONE, ONE),
    (plot_drawn, ONE, ONE, NAN * ONE),
    (plot_validation_and_test, ONE, ONE),
    (plot_learning_curve, ONE, Curve(ONE, ONE, ONE), ONE[None]),
    (plot_probabilities, [ONE], [ONE > 0], ["a"]),
    (plot_validation_and_test, NAN * ONE, NAN * ONE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_the_least_data_make_a_figure_with_its_title(case):
    plot, *arguments = case
    figure = plot(*arguments, "$^$ λ")
    assert figure.get_suptitle() == "$^$ λ"
    figure.savefig(io.BytesIO(), dpi=20)


def test_diverged_runs_leave_gaps_in_curves_and_are_crosses_among_points():
    accuracy = np.array([[0.1, 0.2, NAN], [0.3, 0.35, 0.4]])
    lam, rates = np.array([0, 0.01, 1]), np.array([0.01, 0.1])
    ax = plot_over_lam(lam, rates, accuracy, 0 * accuracy, "title").axes[0]
    assert [np.isfinite(line.get_ydata()).sum() for line in ax.lines] == [2, 3]
    assert ax.get_xscale() == "symlog"  # because λ = 0 is among them
    points = plot_drawn(lam[1:], rates, np.array([0.3, NAN]), "title").axes[0]
    offsets = [marks.get_offsets().tolist() for marks in points.collections]
    assert offsets == [[[0.01, 0.01]], [[1.0, 0.1]]]


def test_costs_show_the_relative_excess_of_stopped_runs():
    lam = np.geomspace(0.01, 1, 3)
    figure = plot_costs(lam, 2 + lam, 1e-3 * lam, [StoppedRun("run", 0.1, 3.0, 2.0)], "title")
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[0.1, 0.5]]


def test_passes_show_their_mean():
    path = Path(np.array([0.1, 1.0]), np.arange(2), {"passes": np.array([10, 20])}, {}, {})
    passes, mean = plot_passes(path, "title").axes[0].lines
    assert passes.get_xydata().tolist() == [[0.1, 10], [1, 20]]
    assert list(mean.get_ydata()) == [15, 15]


def test_histograms_count_every_example_in_the_same_bins():
    probabilities, correct = np.linspace(0, 1, 300), np.arange(300) % 3 == 0
    figure = plot_probabilities(
        [probabilities, probabilities / 2], [correct, correct], ["a", "b"], "title"
    )
    for ax in figure.axes:
        heights = np.reshape([bar.get_height() for bar in ax.patches], (2, 40))
        assert heights.sum(axis=1).tolist() == [100, 200]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_the_interval_of_a_learning_curve_stays_between_0_and_1():
    curve = Curve(np.array([0.2, 0.9]), np.array([-0.1, 0.7]), np.array([0.5, 1.1]))
    draws = np.array([[0.1, NAN], [0.8, 1.0]])
    ax = plot_learning_curve(np.array([10, 100]), curve, draws, "title").axes[0]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0, 1)
    assert ax.get_xscale() == "log"
