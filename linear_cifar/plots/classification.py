"""Figures of predictions: by class, and by their probability."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from linear_cifar.metrics import ClassReport, Reliability, accuracy_interval, row_shares
from linear_cifar.plots.panels import label_axes, new_figure, one_panel

_MAX_NAMED = 20  # classes that a confusion matrix has room for, with numbers and names
_MAX_DECIMALS = 10  # classes up to which a cell has room for a digit after the point
_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # shares on the scale of colours
_N_ENDS = 15  # classes drawn of the worst, and of the best
_LONGEST = 24  # characters of a name that there is room for


def plot_confusion(
    counts: np.ndarray, class_names: Sequence[str], title: str, *, ax: Axes | None = None
) -> Figure:
    """A confusion matrix, as shares of the examples of each true class.

    `counts` is [K, K], by true class (rows) and predicted class (columns). The colour depends on
    the root of the share, so that rare confusions are visible beside the diagonal. Up to 20 classes
    have their names, and shares above 0 in per cent. The row of a class without examples is grey.
    """
    shares = row_shares(counts)
    n_classes = len(shares)
    named = n_classes <= _MAX_NAMED
    side = max(4.0, 2.2 + 0.45 * n_classes) if named else 11
    figure, ax = one_panel(ax, title, (max(6.5, side + 1), side))
    colours = colormaps["Blues"].with_extremes(bad="0.8")
    # A cell of 1,000 classes is about a pixel; an average with its neighbours would hide it.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = ax.imshow(shares, cmap=colours, norm=norm, interpolation="nearest")
    if named:
        digits = 1 if n_classes <= _MAX_DECIMALS else 0
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                text, colour = f"{100 * share:.{digits}f}", "white" if share > 0.3 else "black"
                ax.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        names = _shortened(class_names)
        ax.set_xticks(range(n_classes), names, rotation=90, parse_math=False)
        rows = [f"{name} ({n})" for name, n in zip(names, np.sum(counts, axis=1), strict=True)]
        ax.set_yticks(range(n_classes), rows, parse_math=False)
    ax.set(xlabel="predicted class", ylabel="true class (examples)")
    bar = ax.figure.colorbar(image, ax=ax, label="share of the true class", shrink=0.8)
    bar.set_ticks(_TICKS, labels=[f"{share:.0%}" for share in _TICKS])
    return figure


def plot_per_class(
    report: ClassReport, class_names: Sequence[str], title: str, *, ax: Axes | None = None
) -> Figure:
    """The accuracy of each class with its 95 % interval, the best at the top.

    Classes without examples aren't drawn, and of more than 30 only the 15 best and the 15 worst.
    """
    order = np.argsort(report.accuracy, kind="stable")
    order = order[: np.isfinite(report.accuracy).sum()]
    n_omitted = max(0, len(order) - 2 * _N_ENDS)
    places = np.arange(len(order) - n_omitted)
    if n_omitted:
        order = np.concatenate([order[:_N_ENDS], order[-_N_ENDS:]])
        places[_N_ENDS:] += 1
    mean, low, high = (values[order] for values in (report.accuracy, report.low, report.high))
    figure, ax = one_panel(ax, title, (6.5, 1.4 + 0.24 * (len(order) + bool(n_omitted))))
    ax.barh(places, mean, color="C0", alpha=0.6)
    # The difference of two equal numbers may be rounded below 0.
    ends = np.maximum([mean - low, high - mean], 0)
    ax.errorbar(mean, places, xerr=ends, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    ax.set_yticks(places, _shortened([class_names[k] for k in order]), parse_math=False)
    if n_omitted:
        ax.text(0.01, _N_ENDS, f"… {n_omitted} classes between …", va="center", fontsize=9)
    ax.set(xlabel="accuracy of the class", xlim=(0, 1), ylim=(-0.7, places.max(initial=0) + 0.7))
    ax.grid(alpha=0.3, axis="x")
    return figure


def _shortened(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]


def plot_reliability(before: Reliability, after: Reliability, title: str) -> Figure:
    """Accuracy over confidence, before and after temperature scaling, above their histograms.

    Both have the same bins. Each point above is a bin with examples, at their mean confidence, with
    the 95 % interval of its accuracy; below is the share of examples in each bin.
    """
    figure = new_figure(title, (5.6, 6.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--", label="calibrated")
    for measured, name, colour in ((before, "before", "C3"), (after, "after", "C0")):
        filled = measured.n > 0
        x, y = measured.confidence[filled], measured.accuracy[filled]
        ends = np.abs(np.array(accuracy_interval(y, measured.n[filled])) - y)
        label = f"{name} scaling: ECE {measured.error:.4f}"
        above.errorbar(x, y, ends, fmt="o-", ms=4, color=colour, label=label)
        share = measured.n / max(measured.n.sum(), 1)
        below.stairs(share, measured.edges, color=colour, fill=True, alpha=0.3)
        below.stairs(share, measured.edges, color=colour)
    above.set(xlim=(0, 1), ylim=(0, 1.02))
    label_axes(above, "", "accuracy", legend="upper left")
    label_axes(below, "confidence: the largest probability", "share of examples", legend=None)
    return figure
