"""The figures of a sweep: accuracy over λ and learning rate, in panels by the other settings."""

from collections.abc import Sequence
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
    results: "pd.DataFrame", varied: Sequence[str], n_epochs: int, data: str
) -> dict[str, Figure]:
    """The figures by name of a table of configurations, in which some settings are varied."""
    title = f"{n_epochs} epochs · {data}"
    if len(varied) == 1 and results[varied[0]].dtype.kind in "iuf":
        return {f"accuracy_over_{varied[0]}": plot_over(results, varied[0], None, title)}
    others = [name for name in varied if name not in LABELS]
    if len(results[others].drop_duplicates()) > min(MAX_PANELS, len(results) // 2):
        others = [name for name in others if results[name].dtype.kind not in "iuf"]
    accuracy = results.validation_accuracy[~results.diverged]
    ends = (accuracy.min(), accuracy.max()) if len(accuracy) else (0.0, 1.0)
    drawn: dict[str, Figure] = {}
    groups: Any = results.groupby(others) if others else [((), results)]
    for values, group in groups:
        words = [f"{name}_{value}" for name, value in zip(others, values, strict=True)]
        suffix = "".join(f"_{word}" for word in words)
        heading = ", ".join([*(word.replace("_", " ") for word in words), title])
        drawn |= _panels(group, suffix, f"Validation accuracy, {heading}", ends)
    return drawn


def _panels(
    group: "pd.DataFrame", suffix: str, title: str, ends: tuple[float, float]
) -> dict[str, Figure]:
    """The figures of configurations that differ in λ and learning rate alone, or were drawn."""
    n_lams, n_rates = (group[name].nunique() for name in ("lam", "learning_rate"))
    if len(group) == 1:
        return {}
    repeated = group.duplicated(["lam", "learning_rate"]).any()  # they differ in other settings
    if repeated or len(group) != n_lams * n_rates:
        return {f"drawn{suffix}": plot_random(group, title)}
    x, other = LABELS if n_lams > 1 else reversed(LABELS)
    drawn = {f"accuracy_over_{x}{suffix}": plot_over(group, x, other, title)}
    if n_lams > 1 and n_rates > 1:
        finite = group.assign(accuracy=group.validation_accuracy.mask(group.diverged))
        cells = finite.pivot(index="learning_rate", columns="lam", values="accuracy")
        rates, lams = cells.index.tolist(), cells.columns.tolist()
        drawn[f"heat_map{suffix}"] = plot_grid(cells.to_numpy(float), rates, lams, ends, title)
    return drawn


def plot_over(results: "pd.DataFrame", x: str, other: str | None, title: str) -> Figure:
    """Validation accuracy over a setting, with a curve for each value of the other one.

    A configuration that diverged leaves a gap.
    """
    results = results.sort_values(x)
    accuracy = results.validation_accuracy.mask(results.diverged)
    deviation = results.get("validation_accuracy_sd", accuracy * 0)
    title += "\nband: ± one standard deviation over seeds" if deviation.any() else ""
    lines: Any = results.groupby(other).groups if other else {"": results.index}
    n_columns = -(-len(lines) // LEGEND_ROWS)
    figure = new_figure(title, (7 + n_columns, 4.6))
    ax = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(lines)))
    for (value, rows), colour in zip(lines.items(), colours, strict=True):
        at, mean, spread = results[x][rows], accuracy[rows], deviation[rows]
        label = f"{value:.2g}" if other else "validation accuracy"
        ax.plot(at, mean, "o-", ms=3, color=colour, label=label)
        ax.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)
    if accuracy.notna().any():
        best = accuracy.idxmax()
        ax.plot(results[x][best], accuracy[best], "*", ms=13, color="C3", label="best")
    if x in LABELS:
        scale_lam(ax, results[x].to_numpy(float))
    label_axes(ax, LABELS.get(x, x.replace("_", " ")), "validation accuracy", legend=None)
    place: Any = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    ax.legend(title=LABELS.get(other or ""), ncols=n_columns, fontsize=9, **place)
    return figure


def plot_random(results: "pd.DataFrame", title: str) -> Figure:
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
