"""The benchmark's figure."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, StrMethodFormatter


def plot_scaling(rows: Any, title: str) -> Figure:
    """Time per configuration and fraction of the machine's peak, over configurations at once.

    `rows` is a DataFrame. A contender with just one configuration is a level, dotted line.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    most = rows["configurations"].max()
    for i, (contender, points) in enumerate(rows.groupby("contender", sort=False)):
        style: dict[str, Any] = {"color": f"C{i}", "label": contender}
        for axes, name in zip(panels, ("milliseconds", "fraction_of_peak"), strict=True):
            x = points["configurations"].to_numpy(int)
            q1, y, q3 = points[[f"{name}_q1", name, f"{name}_q3"]].to_numpy(float).T
            if list(x) == [1]:
                axes.plot([1, most], [*y, *y], ":", **style)
            else:
                axes.errorbar(x, y, (y - q1, q3 - y), fmt="o-", ms=4, capsize=2, **style)
    times, fractions = panels
    times.set(ylabel="ms per configuration and epoch", yscale="log")
    for set_formatter in (times.yaxis.set_major_formatter, times.yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())
    fractions.set(ylabel="fraction of the matrix-product peak", ylim=(0, None))
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("configurations at once")
        axes.grid(alpha=0.3, which="both")
    fractions.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(title)
    return figure
