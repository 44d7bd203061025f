"""The figures of a sweep: accuracy over λ and learning rate, in panels by the other settings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from linear_cifar.plots import label_axes, new_figure, plot_grid, scale_lam

if TYPE_CHECKING:
    import pandas as pd

MAX_PANELS = 12
LEGEND_ROWS = 14
LABELS = {"lam": "λ", "learning_rate": "learning rate"}


def figures(
    results: "pd.DataFrame", axes: Mapping[str, np.ndarray], n_epochs: int, data: str
) -> dict[str, Figure]:
    """The figures by name.

    Args:
      results: a row per configuration, the best first.
      axes: the axes of the table, by name.
      n_epochs: of the runs, for titles.
      data: the data's title.
    """
    title = f"{n_epochs} epochs · {data}"
    drawn = {"validation_and_test": plot_validation_and_test(results, title)}
    varied = [name for name in axes if results[name].nunique() > 1]
    others = [name for name in varied if name not in LABELS]
    if len(varied) == 1 == len(others) and _is_number(results[varied[0]]):  # not λ or η
        drawn[f"accuracy_over_{varied[0]}"] = _plot_one_axis(results, varied[0], title)
        return drawn
    if len(results[others].drop_duplicates()) > min(MAX_PANELS, len(results) // 2):
        others = [name for name in others if not _is_number(results[name])]
    groups: Any = results.groupby(others) if others else [((), results)]
    for values, group in groups:
        words = [f"{name}_{value}" for name, value in zip(others, values, strict=True)]
        suffix = "".join(f"_{word}" for word in words)
        heading = ", ".join([*(word.replace("_", " ") for word in words), title])
        drawn |= _panel(group, suffix, f"Validation accuracy, {heading}", _ends(results))
    return drawn


def _is_number(column: "pd.Series") -> bool:
    return column.dtype.kind in "iuf"


def _plot_one_axis(results: "pd.DataFrame", x: str, title: str) -> Figure:
    """Accuracy over the only axis that varies."""
    finite = results[~results.diverged].sort_values(x)
    figure = new_figure(title, (6.5, 4.2))
    ax = figure.subplots()
    sd = finite.get("validation_accuracy_sd", finite.validation_accuracy * 0)
    ax.errorbar(finite[x], finite.validation_accuracy, yerr=sd, fmt="o-", ms=4, capsize=3)
    label_axes(ax, x.replace("_", " "), "validation accuracy ± sd over seeds", legend=None)
    return figure


def _ends(results: "pd.DataFrame") -> tuple[float, float]:
    """The ends of the colour scale that all heat maps share."""
    accuracy = results.validation_accuracy[~results.diverged]
    return (accuracy.min(), accuracy.max()) if len(accuracy) else (0.0, 1.0)


def _panel(
    group: "pd.DataFrame", suffix: str, title: str, ends: tuple[float, float]
) -> dict[str, Figure]:
    """The figures of configurations that differ in λ and learning rate alone, or were drawn."""
    lams, rates = (np.unique(group[name]) for name in ("lam", "learning_rate"))
    if len(group) == 1:
        return {}
    repeated = group.duplicated(["lam", "learning_rate"]).any()  # they differ in other settings
    if repeated or len(group) != len(lams) * len(rates):
        return {f"drawn{suffix}": plot_drawn(group, title)}
    cells = group.pivot(index="learning_rate", columns="lam")
    mean = cells.validation_accuracy.where(~cells.diverged.astype(bool)).to_numpy(float)
    sd = np.zeros_like(mean)
    if "validation_accuracy_sd" in group:
        sd = cells.validation_accuracy_sd.to_numpy(float)
    x = "lam" if len(lams) > 1 else "learning_rate"
    if x == "learning_rate":
        mean, sd = mean.T, sd.T
    lines = rates if x == "lam" else lams
    values = lams if x == "lam" else rates
    drawn = {f"accuracy_over_{x}{suffix}": plot_over(x, values, lines, mean, sd, title)}
    if len(lams) > 1 and len(rates) > 1:
        name = f"heat_map{suffix}"
        drawn[name] = plot_grid(mean, rates.tolist(), lams.tolist(), ends, title)
    return drawn


def plot_over(
    x: str, values: np.ndarray, lines: np.ndarray, accuracy: np.ndarray, sd: np.ndarray, title: str
) -> Figure:
    """Accuracy over λ or the learning rate, with a curve for each value of the other one.

    Args:
      x: "lam" or "learning_rate".
      values: of x, [L], ascending.
      lines: values of the other one, [R].
      accuracy: [R, L], means over seeds; NaN if training diverged, which leaves a gap.
      sd: [R, L], standard deviations over seeds, drawn as a band of one to either side; 0 for none.
      title: goes above.
    """
    other = "learning rate" if x == "lam" else "λ"
    n_columns = -(-len(lines) // LEGEND_ROWS)
    title = f"{title}\nband: ± one standard deviation over seeds" if sd.any() else title
    figure = new_figure(title, (7 + n_columns, 4.6))
    ax = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for line, mean, spread, colour in zip(lines, accuracy, sd, colours, strict=True):
        ax.plot(values, mean, "o-", ms=3, color=colour, label=f"{line:.2g}")
        ax.fill_between(values, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)
    if np.isfinite(accuracy).any():
        row, column = np.unravel_index(np.nanargmax(accuracy), accuracy.shape)
        ax.plot(values[column], accuracy[row, column], "*", ms=13, color="C3", label="best")
    scale_lam(ax, values)
    label_axes(ax, LABELS[x], "validation accuracy", legend=None)
    ax.legend(title=other, ncols=n_columns, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_drawn(results: "pd.DataFrame", title: str) -> Figure:
    """Accuracy of configurations that make no grid: points over λ and learning rate.

    A configuration that diverged is a cross.
    """
    lam, rate, accuracy = (
        results[name].to_numpy(float) for name in ("lam", "learning_rate", "validation_accuracy")
    )
    finite = ~results.diverged.to_numpy(bool)
    figure = new_figure(title, (11, 4.4))
    plane, heights = figure.subplots(1, 2)
    points = plane.scatter(lam[finite], rate[finite], c=accuracy[finite], s=22)
    plane.scatter(lam[~finite], rate[~finite], marker="x", color="C3", s=22)
    plane.set_yscale("log")
    label_axes(plane, "λ", "learning rate", legend=None)
    figure.colorbar(points, ax=plane, label="validation accuracy")
    logs = np.log10(rate[finite])
    points = heights.scatter(lam[finite], accuracy[finite], c=logs, s=22, cmap="plasma")
    label_axes(heights, "λ", "validation accuracy", legend=None)
    figure.colorbar(points, ax=heights, label="log₁₀ of the learning rate")
    for ax in (plane, heights):
        scale_lam(ax, lam)
    return figure


def plot_validation_and_test(results: "pd.DataFrame", title: str) -> Figure:
    """Test over validation accuracy of each configuration; the first, the best, is marked."""
    figure = new_figure(title, (5.6, 5))
    ax = figure.subplots()
    finite: Any = results[~results.diverged]
    ax.scatter(finite.validation_accuracy, finite.test_accuracy, s=14, alpha=0.6)
    label_axes(ax, "validation accuracy", "test accuracy", legend=None)
    if len(finite):
        best = finite.iloc[0]
        marker: dict[str, Any] = {"s": 60, "facecolors": "none", "edgecolors": "C3"}
        label = "best on validation data"
        ax.scatter(best.validation_accuracy, best.test_accuracy, label=label, **marker)
        both = finite[["validation_accuracy", "test_accuracy"]].to_numpy()
        ends = [both.min(), both.max()]
        ax.plot(ends, ends, color="0.5", lw=1, zorder=0, label="test = validation")
        ax.legend()
    return figure
