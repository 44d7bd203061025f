"""Figures: the numbers that they show, and the axes that they draw into."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from linear_cifar import plots
from linear_cifar.metrics import class_report, reliability
from linear_cifar.model import Params
from linear_cifar.training import History

NAN = np.nan
ONE = np.ones(1)
CURVE = plots.Curve(ONE, ONE, ONE)
BINS = reliability([[0.9, 0.1]], [0], n_bins=2)
# Each figure with the least that it can show: one epoch, class, λ, run or example.
ONE_PANEL = {
    plots.plot_grid: (np.array([[0.5]]), [0.1], [0.0], (0.5, 0.5)),
    plots.plot_confusion: (np.array([[3]]), ["a"]),
    plots.plot_per_class: (class_report([[3]]), ["a"]),
}
SEVERAL_PANELS = {
    plots.plot_history: (History(*[ONE] * 6),),
    plots.plot_weights: (Params(np.ones((1, 12)), ONE), ["a"], (3, 2, 2)),
    plots.plot_path: (ONE, {"a": CURVE}, {"a": CURVE}, {}),
    plots.plot_reliability: (BINS, BINS),
}
# The same without anything finite to show.
EMPTY = {
    plots.plot_grid: (np.array([[NAN]]), [0.1], [0.0], (0.0, 1.0)),
    plots.plot_confusion: (np.zeros((2, 2), int), ["a", "b"]),
    plots.plot_per_class: (class_report(np.zeros((2, 2))), ["a", "b"]),
    plots.plot_history: (History(*[NAN * ONE] * 6),),
    plots.plot_weights: (Params(np.full((2, 12), NAN), ONE), ["a", "b"], (3, 2, 2)),
    plots.plot_reliability: (reliability(np.zeros((0, 2)), np.zeros(0, int)),) * 2,
}


@pytest.mark.parametrize("cases", [ONE_PANEL, SEVERAL_PANELS, EMPTY], ids=["one", "some", "empty"])
def test_the_least_data_make_a_figure_with_its_title(cases):
    for plot, arguments in cases.items():
        figure = plot(*arguments, "$^$ λ")
        assert figure.get_suptitle().startswith("$^$ λ"), plot
        figure.savefig(io.BytesIO(), dpi=20)


@pytest.mark.parametrize("plot", ONE_PANEL, ids=lambda plot: plot.__name__)
def test_a_figure_of_one_panel_draws_into_given_axes(plot):
    figure = Figure()
    untouched, ax = figure.subplots(1, 2)
    assert plot(*ONE_PANEL[plot], "title", ax=ax) is figure
    assert ax.get_title() == "title"
    assert ax.has_data()
    assert not untouched.has_data()
    assert not figure.get_suptitle()


def test_axes_have_labels():
    def labels(plot):
        axes = plot(*(ONE_PANEL | SEVERAL_PANELS)[plot], "title").axes
        return [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes]

    assert labels(plots.plot_grid)[0] == ("λ", "learning rate")
    assert labels(plots.plot_confusion)[0] == ("predicted class", "true class (examples)")
    assert labels(plots.plot_path) == [("λ", "accuracy"), ("λ", "loss (nats)")]
    assert labels(plots.plot_history) == [
        ("epoch", "loss (nats)"),
        ("epoch", "cost (nats)"),
        ("epoch", "accuracy"),
    ]


def test_a_heat_map_shows_every_number_and_names_diverged_runs():
    accuracy = np.array([[0.1, 0.2, NAN], [0.3, 0.35, 0.4]])
    figure = plots.plot_grid(accuracy, [0.001, 0.01], [0, 0.1, 0.5], (0.1, 0.4), "title")
    ax = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells[2, 0] == "diverged"
    assert all(float(cells[c, r]) == a for (r, c), a in np.ndenumerate(accuracy) if a > 0)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.1", "0.5"]


def test_a_large_heat_map_has_a_readable_size_and_few_ticks():
    values = np.geomspace(1e-4, 1, 40)
    figure = plots.plot_grid(np.zeros((25, 40)), values[:25], values, (0, 1), "title")
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticklabels()) <= 12
    assert max(figure.get_size_inches()) <= 12


def test_a_confusion_matrix_shows_per_cent_of_the_true_class():
    figure = plots.plot_confusion(np.array([[3, 1], [0, 0]]), ["a", "b"], "title")
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "75.0", (1, 0): "25.0"}


def test_classes_are_in_order_of_accuracy_with_their_intervals():
    report = class_report([[1, 3, 0], [0, 4, 0], [0, 0, 0]])
    ax = plots.plot_per_class(report, ["a", "b", "empty"], "title").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [bar.get_width() for bar in ax.patches] == [0.25, 1.0]
    ends = [segment[:, 0] for segment in ax.collections[-1].get_segments()]
    np.testing.assert_allclose(ends, np.transpose([report.low, report.high])[:2])


def test_only_the_best_and_worst_of_many_classes_are_drawn():
    counts = np.diag(np.arange(1, 101)) + np.diag(np.full(99, 10), 1)
    ax = plots.plot_per_class(class_report(counts), [str(k) for k in range(100)], "title").axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [str(k) for k in (*range(15), *range(85, 100))]
    assert "70" in ax.texts[0].get_text()


def test_seeds_are_drawn_as_their_mean_with_a_band_and_the_learning_rate_has_an_axis():
    history = History(*[np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])] * 6)
    axes = plots.plot_history(history, "title", np.array([1, 1, 0.1])).axes
    assert axes[0].lines[0].get_ydata().tolist() == [2, 3, 4]
    band = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1, 5)
    assert axes[-1].get_ylabel() == "learning rate"
    assert axes[-1].lines[0].get_xydata().tolist() == [[1, 1], [2, 1]]


def test_weight_images_share_a_scale_about_grey():
    weights = np.zeros((10, 3072))
    weights[0], weights[1, :1024] = 0.5, -1.0
    names = [str(k) for k in range(10)]
    figure = plots.plot_weights(Params(weights, np.zeros(10)), names, (3, 32, 32), "title")
    images = [ax.images[0].get_array() for ax in figure.axes]
    assert images[0][0, 0].tolist() == [0.75, 0.75, 0.75]
    assert images[1][0, 0].tolist() == [0.0, 0.5, 0.5]  # the red channel comes first
    assert images[2].min() == images[2].max() == 0.5


def test_reliability_has_a_point_for_each_bin_with_examples():
    measured = reliability([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0], n_bins=4)
    above, below = plots.plot_reliability(measured, measured, "title").axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [[0.6, 1], [0.85, 0.5]])
    np.testing.assert_allclose(below.patches[0].get_data().values, [0, 0, 1 / 3, 2 / 3])


def test_a_path_marks_the_chosen_lambda_on_a_logarithmic_axis():
    lam = np.geomspace(0.01, 1, 3)
    curve = {"validation": plots.Curve(lam, lam - 0.01, lam + 0.01)}
    figure = plots.plot_path(lam, curve, curve, {"validation": 0.1}, "title")
    assert figure.axes[0].get_xscale() == "log"
    assert list(figure.axes[0].lines[1].get_xdata()) == [0.1, 0.1]
