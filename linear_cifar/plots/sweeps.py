"""Figures of many configurations: heat maps, curves over λ, points."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

_ROOM = 15  # rows or columns of a heat map that have room for numbers

_LEGEND_ROWS = 14  # that a figure has room for


def plot_grid(
    accuracy: np.ndarray,
    learning_rates: Sequence[float],
    lams: Sequence[float],
    low_high: tuple[float, float],
    title: str,
) -> Figure:
    """A heat map of accuracy over η (rows) and λ (columns).

    Args:
      accuracy: [η, λ], from 0 to 1; NaN where training diverged.
      learning_rates: the rows' η.
      lams: the columns' λ.
      low_high: accuracies at the ends of the colour scale; share them among maps to compare.
      title: goes above the map.

    Returns:
      The figure. Each cell has its number, where there is room for them; grey is diverged.
    """
    n_rows, n_columns = accuracy.shape
    roomy = n_rows <= _ROOM and n_columns <= _ROOM
    size = (max(5, 1.6 + 1.3 * n_columns), 1.8 + 0.7 * n_rows) if roomy else (11, 7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    low, high = low_high
    colours = colormaps["viridis"].with_extremes(bad="0.8")
    image = axes.imshow(accuracy, vmin=low, vmax=high, cmap=colours, aspect="auto")
    if roomy:
        for (row, column), value in np.ndenumerate(accuracy):
            dark = value < (low + high) / 2
            axes.text(
                column,
                row,
                "diverged" if np.isnan(value) else f"{value:.4f}",
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    rows, columns = (range(0, n, 1 if roomy else -(-n // 12)) for n in accuracy.shape)
    axes.set_xticks(columns, [f"{lams[i]:.3g}" for i in columns])
    axes.set_yticks(rows, [f"{learning_rates[i]:.3g}" for i in rows])
    axes.set(xlabel="λ", ylabel="learning rate")
    figure.colorbar(image, label="accuracy")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def plot_over_lam(
    lams: np.ndarray, learning_rates: np.ndarray, accuracy: np.ndarray, sd: np.ndarray, title: str
) -> Figure:
    """Accuracy over λ, a curve for each learning rate.

    Args:
      lams: λ, [L], ascending.
      learning_rates: η, [R].
      accuracy: [R, L], means over seeds; NaN where training diverged, which leaves a gap.
      sd: [R, L], standard deviations over seeds, drawn as a band of one to either side; 0 for none.
      title: goes above.

    Returns:
      The figure; its λ axis is logarithmic where λ spans more than a factor of ten, with λ = 0 at
      its left end.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(learning_rates)))
    for rate, mean, spread, colour in zip(learning_rates, accuracy, sd, colours, strict=True):
        axes.plot(lams, mean, "o-", ms=3, color=colour, label=f"{rate:.3g}")
        axes.fill_between(lams, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)
    _scale_lam(axes, lams)
    axes.set(ylabel="accuracy")
    axes.grid(alpha=0.3)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    n_columns = -(-len(learning_rates) // _LEGEND_ROWS)
    axes.legend(title="learning rate", ncols=n_columns, fontsize=9, columnspacing=1, **place)
    figure.set_figwidth(7 + n_columns)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def plot_drawn(
    lam: np.ndarray, learning_rate: np.ndarray, accuracy: np.ndarray, title: str
) -> Figure:
    """Accuracy of configurations that don't make a grid: points over λ and η.

    Args:
      lam: λ, [C].
      learning_rate: η, [C].
      accuracy: [C]; NaN for a configuration that diverged, drawn as a cross.
      title: goes above.

    Returns:
      The figure; accuracy is the colour on the left, and the height on the right.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    where, height = figure.subplots(1, 2)
    finite = np.isfinite(accuracy)
    points = where.scatter(lam[finite], learning_rate[finite], c=accuracy[finite], s=22)
    where.scatter(lam[~finite], learning_rate[~finite], marker="x", color="C3", s=22)
    where.set(yscale="log", ylabel="learning rate")
    figure.colorbar(points, ax=where, label="accuracy")
    logs = np.log10(learning_rate[finite])
    points = height.scatter(lam[finite], accuracy[finite], c=logs, s=22, cmap="plasma")
    height.set(ylabel="accuracy")
    figure.colorbar(points, ax=height, label="log₁₀ of the learning rate")
    for axes in (where, height):
        _scale_lam(axes, np.unique(lam))
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def plot_validation_and_test(validation: np.ndarray, test: np.ndarray, title: str) -> Figure:
    """Test over validation accuracy, a point a configuration, the chosen one marked.

    Args:
      validation: [C], the chosen one first; NaN for configurations that diverged, which are left
        out.
      test: [C].
      title: goes above.

    Returns:
      The figure, with the line on which both are equal.
    """
    figure = Figure(figsize=(5.6, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(validation, test, s=14, alpha=0.6)
    if np.isfinite(validation).any():
        axes.scatter(
            validation[0],
            test[0],
            s=60,
            facecolors="none",
            edgecolors="C3",
            label="chosen on validation data",
        )
        ends = [np.nanmin([validation, test]), np.nanmax([validation, test])]
        axes.plot(ends, ends, color="0.5", lw=1, zorder=0)
        axes.legend()
    axes.set(xlabel="validation accuracy", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def _scale_lam(axes, lams: np.ndarray) -> None:
    """A logarithmic axis of λ where it spans more than a factor of ten; λ = 0 is at its end."""
    positive = lams[lams > 0]
    if len(positive) and positive.max() > 10 * positive.min():
        if lams.min() == 0:
            axes.set_xscale("symlog", linthresh=positive.min(), linscale=0.4)
        else:
            axes.set_xscale("log")
    axes.set(xlabel="λ")
