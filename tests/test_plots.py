"""Figures: the numbers that they show, and the axes that they draw into."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from linear_cifar import History, Params, plots
from linear_cifar.metrics import class_report, reliability

NAN = np.nan
ONE = np.ones(1)
CURVE = plots.Curve(ONE, ONE, ONE)
BINS = reliability([[0.9, 0.1]], [0], n_bins=2)
NO_BINS = reliability(np.zeros((0, 2)), np.zeros(0, int))
# Each figure with the least that it can show: one epoch, class, λ, run or example, or none.
ONE_PANEL = [
    (plots.plot_grid, (np.array([[0.5]]), [0.1], [0.0], (0.5, 0.5))),
    (plots.plot_confusion, (np.array([[3]]), ["a"])),
    (plots.plot_per_class, (class_report([[3]]), ["a"])),
]
LEAST = [
    *ONE_PANEL,
    (plots.plot_history, (History(*[ONE] * 6),)),
    (plots.plot_weights, (Params(np.ones((1, 12)), ONE), ["a"], (3, 2, 2))),
    (plots.plot_path, (ONE, {"a": CURVE}, {"a": CURVE}, {})),
    (plots.plot_reliability, (BINS, BINS)),
    (plots.plot_grid, (np.array([[NAN]]), [0.1], [0.0], (0.0, 1.0))),
    (plots.plot_confusion, (np.zeros((2, 2), int), ["a", "b"])),
    (plots.plot_per_class, (class_report(np.zeros((2, 2))), ["a", "b"])),
    (plots.plot_history, (History(*[NAN * ONE] * 6),)),
    (plots.plot_weights, (Params(np.full((2, 12), NAN), ONE), ["a", "b"], (3, 2, 2))),
    (plots.plot_reliability, (NO_BINS, NO_BINS)),
]


@pytest.mark.parametrize(("plot", "arguments"), LEAST)
def test_the_least_data_make_a_figure_with_its_title(plot, arguments):
    figure = plot(*arguments, "$^$ λ")
    figure.draw_without_rendering()
    assert figure.get_suptitle().startswith("$^$ λ")


@pytest.mark.parametrize(("plot", "arguments"), ONE_PANEL)
def test_a_figure_of_one_panel_draws_into_the_axes_that_it_gets(plot, arguments):
    figure = Figure()
    untouched, ax = figure.subplots(1, 2)
    assert plot(*arguments, "title", ax=ax) is figure
    assert ax.get_title() == "title"
    assert ax.has_data()
    assert not untouched.has_data()


def texts(ax):
    return {text.get_position(): text.get_text() for text in ax.texts}


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_heat_map_shows_every_number_and_names_diverged_runs():
    accuracy = np.array([[0.1, 0.2, NAN], [0.3, 0.35, 0.4]])
    ax, *_ = plots.plot_grid(accuracy, [0.001, 0.01], [0, 0.1, 0.5], (0.1, 0.4), "title").axes
    np.testing.assert_array_equal(ax.images[0].get_array().filled(NAN), accuracy)
    assert ax.images[0].get_clim() == (0.1, 0.4)
    cells = texts(ax)
    assert cells[2, 0] == "diverged"
    assert all(float(cells[c, r]) == a for (r, c), a in np.ndenumerate(accuracy) if a > 0)
    assert (ax.get_xlabel(), tick_labels(ax.xaxis)) == ("λ", ["0", "0.1", "0.5"])
    assert (ax.get_ylabel(), tick_labels(ax.yaxis)) == ("learning rate", ["0.001", "0.01"])


def test_a_confusion_matrix_shows_per_cent_of_the_true_class():
    ax, *_ = plots.plot_confusion(np.array([[3, 1], [0, 0]]), ["a", "b"], "title").axes
    assert texts(ax) == {(0, 0): "75.0", (1, 0): "25.0"}
    assert ax.images[0].get_array().filled(NAN)[0].tolist() == [0.75, 0.25]
    assert (ax.get_xlabel(), tick_labels(ax.xaxis)) == ("predicted class", ["a", "b"])
    assert tick_labels(ax.yaxis) == ["a (4)", "b (0)"]


def test_classes_are_in_order_of_accuracy_with_their_intervals():
    report = class_report([[4, 0, 0], [1, 3, 0], [0, 0, 0]])
    ax, *_ = plots.plot_per_class(report, ["a", "b", "empty"], "title").axes
    assert tick_labels(ax.yaxis) == ["b", "a"]
    assert [bar.get_width() for bar in ax.patches] == [0.75, 1.0]
    ends = [segment[:, 0] for segment in ax.collections[-1].get_segments()]
    np.testing.assert_allclose(ends, np.transpose([report.low, report.high])[[1, 0]])


def test_only_the_best_and_worst_of_many_classes_are_drawn():
    counts = np.diag(np.arange(1, 101)) + np.diag(np.full(99, 10), 1)
    ax, *_ = plots.plot_per_class(class_report(counts), list(map(str, range(100))), "title").axes
    assert tick_labels(ax.yaxis) == [str(k) for k in (*range(15), *range(85, 100))]
    assert "70" in ax.texts[0].get_text()


def test_a_history_has_a_curve_for_each_of_its_fields():
    history = History(*np.arange(18.0).reshape(6, 3))
    axes = plots.plot_history(history, "title").axes
    for ax, name in zip(axes, ("loss", "cost", "accuracy"), strict=True):
        for line, split in zip(ax.lines, ("train", "validation"), strict=True):
            assert line.get_label().startswith(split)
            expected = [[epoch, y] for epoch, y in enumerate(getattr(history, f"{split}_{name}"))]
            assert line.get_xydata().tolist() == expected
        assert ax.get_xlabel() == "epoch"
        assert ax.get_ylabel().startswith(name)


def test_seeds_are_drawn_as_their_mean_with_a_band_and_the_learning_rate_has_an_axis():
    history = History(*[np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])] * 6)
    axes = plots.plot_history(history, "title", np.array([1, 1, 0.1])).axes
    assert axes[0].lines[0].get_ydata().tolist() == [2, 3, 4]
    band = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1, 5)
    assert axes[-1].get_ylabel() == "learning rate"
    assert axes[-1].lines[0].get_xydata().tolist() == [[1, 1], [2, 1]]


def test_weight_images_share_a_scale_about_grey_and_keep_channels_rows_and_columns():
    weights = np.zeros((10, 3, 32, 32))
    weights[0], weights[1, 0, 2:, :30] = 0.5, -1.0  # red, all but two rows above, two columns right
    params = Params(weights.reshape(10, -1), np.zeros(10))
    axes = plots.plot_weights(params, list("abcdefghij"), (3, 32, 32), "title").axes
    images = [ax.images[0].get_array() for ax in axes]
    expected = np.full((32, 32, 3), 0.5)
    expected[2:, :30, 0] = 0
    assert (images[0] == 0.75).all()
    assert np.array_equal(images[1], expected)
    assert (images[2] == 0.5).all()
    assert [ax.get_title() for ax in axes] == list("abcdefghij")


def test_reliability_has_a_point_for_each_bin_with_examples():
    measured = reliability([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0], n_bins=4)
    above, below = plots.plot_reliability(measured, BINS, "title").axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [[0.6, 1], [0.85, 0.5]])
    np.testing.assert_allclose(below.patches[0].get_data().values, [0, 0, 1 / 3, 2 / 3])


def test_a_path_shows_its_curves_and_marks_the_chosen_lambda_on_a_logarithmic_axis():
    lam = np.geomspace(0.01, 1, 3)
    accuracy, loss = (plots.Curve(y, y - 0.1, y + 0.2) for y in (lam, 2 + lam))
    axes = plots.plot_path(lam, {"validation": accuracy}, {"test": loss}, {"best": 0.1}, "t").axes
    for ax, curve in zip(axes, (accuracy, loss), strict=True):
        assert ax.get_xscale() == "log"
        assert ax.lines[0].get_xydata().tolist() == np.stack([lam, curve.mean], axis=1).tolist()
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (curve.low.min(), curve.high.max())
        assert list(ax.lines[1].get_xdata()) == [0.1, 0.1]
    assert [ax.get_ylabel() for ax in axes] == ["accuracy", "loss (nats)"]
