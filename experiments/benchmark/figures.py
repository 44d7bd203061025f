"""The benchmark's figure."""

from typing import Any

from matplotlib.figure import Figure

from linear_cifar.plots import label_axes, new_figure


def plot_scaling(rows: Any, title: str) -> Figure:
    """Time per configuration and fraction of the machine's peak, over configurations at once.

    `rows` is a DataFrame. A contender with just one configuration is a level, dotted line.
    """
    figure = new_figure(title)
    times, fractions = figure.subplots(1, 2)
    counts = sorted(set(rows["configurations"]))
    for axes, name in ((times, "milliseconds"), (fractions, "fraction_of_peak")):
        for contender, points in rows.groupby("contender", sort=False):
            x = points["configurations"].to_numpy(int)
            q1, y, q3 = points[[f"{name}_q1", name, f"{name}_q3"]].to_numpy(float).T
            if list(x) == [1]:
                axes.plot([1, counts[-1]], [*y, *y], ":", label=contender)
            else:
                axes.errorbar(x, y, (y - q1, q3 - y), fmt="o-", ms=4, capsize=2, label=contender)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, counts)
    times.set_yscale("log")
    times.yaxis.set_major_formatter("{x:g}")
    times.yaxis.set_minor_formatter("{x:g}")
    fractions.set_ylim(0, None)
    label_axes(times, "configurations at once", "ms per configuration and epoch", legend=None)
    label_axes(fractions, "configurations at once", "fraction of the matrix-product peak")
    return figure
