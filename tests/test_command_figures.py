"""Figures show the numbers that they are made of."""

import numpy as np
import pandas as pd
from scipy import stats

from experiments.common.sweep_figures import figures
from experiments.probe.learning import plot_curve

NAN = np.nan


def drawn(lam, rate, validation):
    """The figures of a sweep with these columns; NaN means diverged."""
    table = pd.DataFrame({"lam": lam, "learning_rate": rate, "validation_accuracy": validation})
    table = table.assign(diverged=table.validation_accuracy.isna())
    table = table.sort_values("validation_accuracy", ascending=False, ignore_index=True)
    varied = [name for name in ("lam", "learning_rate") if table[name].nunique() > 1]
    return figures(table, varied, 2, "$^$ λ")


def test_a_sweep_of_diverged_runs_has_a_figure():
    (figure,) = drawn([0, 1], 0.1, [NAN, NAN]).values()
    assert "$^$ λ" in figure.get_suptitle()
    figure.draw_without_rendering()


def test_a_grid_has_a_curve_per_rate_with_a_gap_where_a_run_diverged():
    made = drawn([0, 0.01, 1] * 2, [0.1] * 3 + [0.01] * 3, [0.1, 0.2, NAN, 0.3, 0.35, 0.4])
    expected = [[0.3, 0.35, 0.4], [0.1, 0.2, NAN]]
    ax = made["accuracy_over_lam"].axes[0]
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[:2]], expected)
    cells = made["heat_map"].axes[0].images[0].get_array()
    np.testing.assert_allclose(cells.filled(NAN), expected)


def test_drawn_configurations_are_points_and_diverged_ones_crosses():
    made = drawn([0.01, 1, 0.1], [0.01, 0.1, 0.05], [0.3, NAN, 0.2])
    points, crosses = made["drawn"].axes[0].collections
    assert points.get_offsets().tolist() == [[0.01, 0.01], [0.1, 0.05]]
    assert points.get_array().tolist() == [0.3, 0.2]
    assert crosses.get_offsets().tolist() == [[1.0, 0.1]]


def test_a_learning_curve_has_its_draws_and_the_interval_of_their_mean_between_0_and_1():
    draws = {10: (0.1, 0.5), 100: (0.8, 0.82)}
    curve = pd.DataFrame({"n": [10, 10, 100, 100], "test_accuracy": sum(draws.values(), ())})
    (ax,) = plot_curve(curve, "title").axes
    mean, points = ax.lines
    assert points.get_xydata().tolist() == curve.to_numpy().tolist()
    np.testing.assert_allclose(mean.get_xydata(), [[10, 0.3], [100, 0.81]])
    low, high = stats.t.interval(0.95, 1, 0.81, stats.sem(draws[100]))
    band = ax.collections[0].get_paths()[0].vertices
    for n, ends in ((10, (0, 1)), (100, (low, high))):
        of_size = band[band[:, 0] == n, 1]
        np.testing.assert_allclose((of_size.min(), of_size.max()), ends)
