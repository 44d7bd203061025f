"""The figures of a sweep: accuracy over λ and η for each value of everything else."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.common.results import Result
from linear_cifar.plots import label_axes, new_figure, plot_grid, scale_lam

_LEGEND_ROWS = 14  # that a figure has room for


def figures(columns: dict[str, list], results: Sequence[Result], data: str) -> dict[str, Any]:
    """The figures by name.

    Args:
      columns: the table's axes.
      results: of all configurations, the best first.
      data: the data's title.
    """
    title = f"{results[0].settings.n_epochs} epochs · {data}"
    accuracy, test = (
        np.array([np.nan if r.diverged else r.mean(f"{split}_accuracy") for r in results])
        for split in ("validation", "test")
    )
    drawn = {"validation_and_test": plot_validation_and_test(accuracy, test, title)}
    others = [name for name in columns if name not in ("lam", "learning_rate")]
    panels: dict[tuple, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.index):
        panels.setdefault(tuple(map(result.cell, others)), []).append(result)
    varied = [i for i, _ in enumerate(others) if len({panel[i] for panel in panels}) > 1]
    for panel, members in panels.items():
        words = [f"{others[i]}_{panel[i]}" for i in varied if panel[i] != ""]
        suffix = "".join(f"_{word}" for word in words)
        of_panel = ", ".join([*(word.replace("_", " ") for word in words), title])
        drawn |= _panel(members, suffix, f"Validation accuracy, {of_panel}")
    return drawn


def _panel(members: Sequence[Result], suffix: str, title: str) -> dict[str, Any]:
    """The figures of the configurations that differ in λ and η alone."""
    lam, rate = (
        np.array([getattr(member.settings.hyperparameters, name) for member in members], float)
        for name in ("lam", "learning_rate")
    )
    by_seed = np.array([member.by_seed["validation_accuracy"] for member in members], float)
    accuracy = by_seed.mean(axis=1)
    sd = by_seed.std(axis=1, ddof=1) if by_seed.shape[1] > 1 else np.zeros(len(members))
    accuracy[[member.diverged for member in members]] = np.nan
    lams, rates = np.unique(lam), np.unique(rate)
    if len(members) == len(lams) * len(rates):
        cells = (np.searchsorted(rates, rate), np.searchsorted(lams, lam))
        mean, spread = np.full((2, len(rates), len(lams)), np.nan)
        mean[cells], spread[cells] = accuracy, sd
        ends = (np.nanmin(mean), np.nanmax(mean)) if np.isfinite(mean).any() else (0.0, 1.0)
        return {
            f"accuracy_over_lam{suffix}": plot_over_lam(lams, rates, mean, spread, title),
            f"heat_map{suffix}": plot_grid(mean, rates.tolist(), lams.tolist(), ends, title),
        }
    return {f"drawn{suffix}": plot_drawn(lam, rate, accuracy, title)}


def plot_over_lam(
    lams: np.ndarray, learning_rates: np.ndarray, accuracy: np.ndarray, sd: np.ndarray, title: str
) -> Figure:
    """Accuracy over λ, with a curve for each learning rate.

    Args:
      lams: λ, [L], ascending.
      learning_rates: η, [R].
      accuracy: [R, L], means over seeds; NaN if training diverged, which leaves a gap.
      sd: [R, L], standard deviations over seeds, drawn as a band of one to either side; 0 for none.
      title: goes above.
    """
    n_columns = -(-len(learning_rates) // _LEGEND_ROWS)
    figure = new_figure(title, (7 + n_columns, 4.6))
    ax = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(learning_rates)))
    for rate, mean, spread, colour in zip(learning_rates, accuracy, sd, colours, strict=True):
        ax.plot(lams, mean, "o-", ms=3, color=colour, label=f"{rate:.3g}")
        ax.fill_between(lams, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)
    scale_lam(ax, lams)
    label_axes(ax, "λ", "accuracy", legend=None)
    ax.legend(
        title="learning rate",
        ncols=n_columns,
        fontsize=9,
        columnspacing=1,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return figure


def plot_drawn(
    lam: np.ndarray, learning_rate: np.ndarray, accuracy: np.ndarray, title: str
) -> Figure:
    """Accuracy of randomly drawn configurations, which make no grid: points over λ and η.

    Args:
      lam: λ, [C].
      learning_rate: η, [C].
      accuracy: [C]; the colour on the left, and the height on the right. NaN for a configuration
        that diverged, drawn as a cross.
      title: goes above both panels.
    """
    figure = new_figure(title, (11, 4.4))
    plane, heights = figure.subplots(1, 2)
    finite = np.isfinite(accuracy)
    points = plane.scatter(lam[finite], learning_rate[finite], c=accuracy[finite], s=22)
    plane.scatter(lam[~finite], learning_rate[~finite], marker="x", color="C3", s=22)
    plane.set_yscale("log")
    label_axes(plane, "λ", "learning rate", legend=None)
    figure.colorbar(points, ax=plane, label="accuracy")
    logs = np.log10(learning_rate[finite])
    points = heights.scatter(lam[finite], accuracy[finite], c=logs, s=22, cmap="plasma")
    label_axes(heights, "λ", "accuracy", legend=None)
    figure.colorbar(points, ax=heights, label="log₁₀ of the learning rate")
    for ax in (plane, heights):
        scale_lam(ax, lam)
    return figure


def plot_validation_and_test(validation: np.ndarray, test: np.ndarray, title: str) -> Figure:
    """Test over validation accuracy, with the line on which both are equal.

    Args:
      validation: [C], the best one first, which is marked; configurations with NaN, which diverged,
        aren't drawn.
      test: [C].
      title: goes above.
    """
    figure = new_figure(title, (5.6, 5))
    ax = figure.subplots()
    ax.scatter(validation, test, s=14, alpha=0.6)
    label_axes(ax, "validation accuracy", "test accuracy", legend=None)
    if np.isfinite(validation).any():
        label = "chosen on validation data"
        ax.scatter(validation[0], test[0], 60, facecolors="none", edgecolors="C3", label=label)
        ends = [np.nanmin([validation, test]), np.nanmax([validation, test])]
        ax.plot(ends, ends, color="0.5", lw=1, zorder=0)
        ax.legend()
    return figure
