"""The figures of sweeps show the numbers that they are made of."""

import numpy as np
import pandas as pd

from experiments.common.sweep_figures import figures

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
