"""Figures: the numbers that they show, and the axes that they draw into."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from linear_cifar import History, Params, plots
from linear_cifar.metrics import class_report, reliability

NAN, ONE = np.nan, np.ones(1)
NO_BINS = reliability(np.zeros((0, 2)), np.zeros(0, int))
# Each figure with the least that it can show: no run, example or finite number, or one λ.
LEAST = {
    plots.plot_grid: (np.array([[NAN]]), [0.1], [0.0], (0.0, 1.0)),
    plots.plot_confusion: (np.zeros((2, 2), int), ["a", "b"]),
    plots.plot_per_class: (class_report(np.zeros((2, 2))), ["a", "b"]),
    plots.plot_history: (History(*[NAN * ONE] * 6),),
    plots.plot_weights: (Params(np.full((2, 12), NAN), ONE), ["a", "b"], (3, 2, 2)),
    plots.plot_path: (ONE, {"a": plots.Curve(ONE, ONE, ONE)}, {}, {}),
    plots.plot_reliability: (NO_BINS, NO_BINS),
}


@pytest.mark.parametrize("plot", LEAST)
def test_the_least_data_make_a_figure_with_its_title(plot):
    figure = plot(*LEAST[plot], "$^$ λ")
    figure.draw_without_rendering()
    assert figure.get_suptitle().startswith("$^$ λ")


def texts(ax):  # at positions, and at the ticks of both axes
    ticks = [[label.get_text() for label in axis.get_ticklabels()] for axis in (ax.xaxis, ax.yaxis)]
    return {text.get_position(): text.get_text() for text in ax.texts}, *ticks


def test_a_heat_map_shows_every_number_in_the_axes_that_it_gets():
    untouched, ax = Figure().subplots(1, 2)
    accuracy = np.array([[0.1, 0.2, NAN], [0.3, 0.35, 0.4]])
    plots.plot_grid(accuracy, [0.001, 0.01], [0, 0.1, 0.5], (0.1, 0.4), "title", ax=ax)
    np.testing.assert_array_equal(ax.images[0].get_array().filled(NAN), accuracy)
    cells, columns, rows = texts(ax)
    assert cells.pop((2, 0)) == "diverged"
    assert all(float(text) == accuracy[row, column] for (column, row), text in cells.items())
    assert (ax.get_xlabel(), columns) == ("λ", ["0", "0.1", "0.5"])
    assert (ax.get_ylabel(), rows) == ("learning rate", ["0.001", "0.01"])
    assert not untouched.has_data()


def test_a_confusion_matrix_shows_per_cent_of_the_true_class():
    ax, *_ = plots.plot_confusion(np.array([[3, 1], [0, 0]]), ["a", "b"], "title").axes
    assert texts(ax) == ({(0, 0): "75.0", (1, 0): "25.0"}, ["a", "b"], ["a (4)", "b (0)"])
    assert ax.images[0].get_array().filled(NAN)[0].tolist() == [0.75, 0.25]


def test_classes_are_in_order_of_accuracy_with_their_intervals():
    report = class_report([[4, 0, 0], [1, 3, 0], [0, 0, 0]])
    ax, *_ = plots.plot_per_class(report, ["a", "b", "empty"], "title").axes
    assert texts(ax)[2] == ["b", "a"]
    assert [bar.get_width() for bar in ax.patches] == [0.75, 1.0]
    ends = [segment[:, 0] for segment in ax.collections[-1].get_segments()]
    np.testing.assert_allclose(ends, np.transpose([report.low, report.high])[[1, 0]])


def test_a_history_has_the_mean_of_its_seeds_with_a_band_and_the_learning_rate():
    mean = np.arange(18.0).reshape(6, 1, 3)
    history = History(*np.concatenate([mean - 1, mean + 1], axis=1))
    *axes, rates = plots.plot_history(history, "title", np.array([1, 1, 0.1])).axes
    for ax, name in zip(axes, ("loss", "cost", "accuracy"), strict=True):
        assert ax.get_ylabel().startswith(name)
        for i, split in enumerate(("train", "validation")):
            low, high = getattr(history, f"{split}_{name}")
            assert ax.lines[i].get_label().startswith(split)
            assert ax.lines[i].get_ydata().tolist() == (low + 1).tolist()
            edges = ax.collections[i].get_paths()[0].vertices[:, 1]
            assert (edges.min(), edges.max()) == (low.min(), high.max())
    assert rates.lines[0].get_xydata().tolist() == [[1, 1], [2, 1]]


def test_weight_images_share_a_scale_about_grey_and_keep_channels_rows_and_columns():
    weights = np.zeros((10, 3, 32, 32))
    weights[0], weights[1, 0, 2:, :30] = 0.5, -1.0  # red, all but two rows above, two columns right
    params, expected = Params(weights.reshape(10, -1), np.zeros(10)), np.full((10, 32, 32, 3), 0.5)
    axes = plots.plot_weights(params, list("abcdefghij"), (3, 32, 32), "title").axes
    expected[0], expected[1, 2:, :30, 0] = 0.75, 0
    assert np.array_equal([ax.images[0].get_array() for ax in axes], expected)
    assert [ax.get_title() for ax in axes] == list("abcdefghij")


def test_reliability_has_a_point_for_each_bin_with_examples():
    measured = reliability([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0], n_bins=4)
    above, below = plots.plot_reliability(measured, NO_BINS, "title").axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [[0.6, 1], [0.85, 0.5]])
    np.testing.assert_allclose(below.patches[0].get_data().values, [0, 0, 1 / 3, 2 / 3])


def test_a_path_shows_its_curves_with_bands_and_marks_the_chosen_lambda():
    lam = np.geomspace(0.01, 1, 3)
    accuracy, loss = (plots.Curve(y, y - 0.1, y + 0.2) for y in (lam, 2 + lam))
    axes = plots.plot_path(lam, {"validation": accuracy}, {"test": loss}, {"best": 0.1}, "t").axes
    for ax, curve in zip(axes, (accuracy, loss), strict=True):
        assert ax.lines[0].get_xydata().tolist() == np.stack([lam, curve.mean], axis=1).tolist()
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (curve.low.min(), curve.high.max())
        assert list(ax.lines[1].get_xdata()) == [0.1, 0.1]
