"""Figures of the benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, StrMethodFormatter

from experiments.benchmark.table import with_quartiles

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, data: str) -> dict[str, Figure]:
    """The figures by name: one of each section that has milliseconds.

    Args:
      rows: of all sections.
      data: the data's title.
    """
    timed = [row for row in rows if row["milliseconds"] is not None]
    figures = {}
    for section in dict.fromkeys(row["section"] for row in timed):
        plot = plot_scaling if section == "sweep" else plot_times
        title = f"{section.replace('_', ' ')} · {data}"
        figures[section] = plot([row for row in timed if row["section"] == section], title)
    return figures


def plot_scaling(rows: Rows, title: str) -> Figure:
    """Time a configuration, and what that is of the machine's peak, over configurations.

    Args:
      rows: with `contender`, `configurations`, and `milliseconds` and `fraction_of_peak` with their
        quartiles.
      title: goes above.

    Returns:
      The figure: a line a contender, with its quartiles; one that trains one configuration at a
      time is a level.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    most = max(row["configurations"] for row in rows)
    panels = dict(zip(("milliseconds", "fraction_of_peak"), figure.subplots(1, 2), strict=True))
    handles = []
    for i, contender in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        of_contender = [row for row in rows if row["contender"] == contender]
        x = [row["configurations"] for row in of_contender]
        style: dict[str, Any] = {"color": f"C{i}", "label": contender}
        for name, axes in panels.items():
            y, below, above = _spread(of_contender, name)
            if x == [1]:
                (handle,) = axes.plot([1, most], [*y, *y], ":", **style)
                axes.axhspan(y[0] - below[0], y[0] + above[0], color=f"C{i}", alpha=0.15, lw=0)
            else:
                handle = axes.errorbar(x, y, (below, above), fmt="o-", ms=4, capsize=2, **style)
        handles.append(handle)
    panels["milliseconds"].set(ylabel="ms a configuration and epoch", yscale="log")
    panels["fraction_of_peak"].set(ylabel="fraction of the matrix-product peak", ylim=(0, None))
    panels["milliseconds"].yaxis.set_major_formatter(ScalarFormatter())
    panels["milliseconds"].yaxis.set_minor_formatter(ScalarFormatter())
    for axes in panels.values():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("configurations at once")
        axes.grid(alpha=0.3, which="both")
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(title)
    return figure


def plot_times(rows: Rows, title: str) -> Figure:
    """Time a configuration and epoch of each contender, as bars with their quartiles.

    Args:
      rows: with `contender`, `configurations`, `batch_size`, `n`, `d`, and `milliseconds` with its
        quartiles.
      title: goes above.
    """
    varied = [n for n in ("batch_size", "n", "d") if len({row[n] for row in rows}) > 1]
    names = []
    for row in rows:
        words = [f"{row['contender']}, {row['configurations']} at once"]
        words += [f"{name.replace('_', ' ')} {row[name]:,}" for name in varied]
        names.append(", ".join(words))
    figure = Figure(figsize=(9, 1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    times, below, above = _spread(rows, "milliseconds")
    bars = axes.barh(range(len(rows)), times, xerr=(below, above), error_kw={"capsize": 2, "lw": 1})
    labels = [with_quartiles(row, "milliseconds", ".1f") for row in rows]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set(xlabel="ms a configuration and epoch")
    figure.suptitle(title)
    return figure


def _spread(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column, and how far its quartiles are below and above."""
    middle, q1, q3 = (np.array([row[name + end] for row in rows]) for end in ("", "_q1", "_q3"))
    return middle, middle - q1, q3 - middle
