"""Figures of what a classifier is worth: class by class, by confidence, by training examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from linear_cifar.calibration import Reliability
from linear_cifar.plots.paths import Curve
from linear_cifar.quality import ClassQuality, row_shares

_ROOM = 20  # classes that a confusion matrix has room for, with numbers and names
_DIGITS = 10  # classes up to which a cell has room for a digit after the point
_MARKED = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # shares on the scale of colours
_ENDS = 15  # classes shown of the worst, and of the best
_LONGEST = 24  # characters of a name that there is room for


def plot_confusion(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix, as shares of the examples of each true class.

    Colours go with the root of the share, so that rare confusions are seen beside the diagonal.

    Args:
      counts: by true class (rows) and predicted class (columns), [K, K].
      class_names: K names.
      title: goes above.

    Returns:
      The figure. Up to 20 classes are named, and cells other than 0 have their share in per cent;
      grey is a class without examples.
    """
    shares = row_shares(counts)
    n_classes = len(shares)
    roomy = n_classes <= _ROOM
    side = max(4.0, 2.2 + 0.45 * n_classes) if roomy else 11
    figure = Figure(figsize=(max(6.5, side + 1), side), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["Blues"].with_extremes(bad="0.8")
    # A cell of 1,000 classes is about a pixel, which averaging with its neighbours would hide.
    scale: dict[str, Any] = {"norm": PowerNorm(0.5, vmin=0, vmax=1), "interpolation": "nearest"}
    image = axes.imshow(shares, cmap=colours, **scale)
    if roomy:
        _write_shares(axes, shares)
        names = _shortened(class_names)
        axes.set_xticks(range(n_classes), names, rotation=90, parse_math=False)
        axes.set_yticks(range(n_classes), names, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    bar = figure.colorbar(image, label="share of the true class", shrink=0.8)
    bar.set_ticks(_MARKED, labels=[f"{share:.0%}" for share in _MARKED])
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _write_shares(axes: Any, shares: np.ndarray) -> None:
    digits = 1 if len(shares) <= _DIGITS else 0
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            text, colour = f"{100 * share:.{digits}f}", "white" if share > 0.3 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def plot_reliability(before: Reliability, after: Reliability, title: str) -> Figure:
    """Accuracy over confidence, before and after temperature scaling, and how many are how sure.

    Args:
      before: measured with bins that `after` has too.
      after: of the scaled logits.
      title: goes above.

    Returns:
      The figure: above a point a bin with examples, at their mean confidence; below the share of
      examples in each bin. The legend has the expected calibration errors (ECE).
    """
    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--", label="calibrated")
    for measured, name, colour in ((before, "before", "C3"), (after, "after", "C0")):
        filled = measured.n > 0
        label = f"{name} scaling: ECE {measured.error:.4f}"
        points = (measured.confidence[filled], measured.accuracy[filled])
        above.plot(*points, "o-", ms=4, color=colour, label=label)
        share = measured.n / max(measured.n.sum(), 1)
        below.stairs(share, measured.edges, color=colour, fill=True, alpha=0.3)
        below.stairs(share, measured.edges, color=colour)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="confidence: the largest probability", ylabel="share of examples")
    above.legend(loc="upper left")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def plot_learning_curve(
    n_train: np.ndarray, accuracy: Curve, draws: np.ndarray, title: str
) -> Figure:
    """Accuracy over the number of training examples, with the draws of these as points.

    Args:
      n_train: training examples, [S], ascending.
      accuracy: the mean over draws and its interval, each [S]; an interval that is NaN isn't drawn.
      draws: the accuracy of each draw, [S, draws]; NaN where there are fewer.
      title: goes above.

    Returns:
      The figure; its axis of examples is logarithmic.
    """
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.subplots()
    low, high = np.clip((accuracy.low, accuracy.high), 0, 1)  # those of few draws go further
    axes.fill_between(n_train, low, high, color="C0", alpha=0.2, lw=0, label="95 % of the mean")
    axes.plot(n_train, accuracy.mean, color="C0", label="mean over draws")
    rows = np.repeat(n_train, np.shape(draws)[1])
    axes.plot(rows, np.ravel(draws), "o", ms=4, color="C0", alpha=0.5, label="a draw", mew=0)
    axes.set(xscale="log", xlabel="training examples", ylabel="accuracy")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def plot_per_class(quality: ClassQuality, class_names: Sequence[str], title: str) -> Figure:
    """The accuracy of each class with its 95 % interval, the best at the top.

    Args:
      quality: accuracy and interval, [K].
      class_names: K names.
      title: goes above.

    Returns:
      The figure. Of more than 30 classes only the 15 best and the 15 worst are drawn; classes
      without examples are left out.
    """
    order = np.argsort(quality.accuracy, kind="stable")
    order = order[: np.isfinite(quality.accuracy).sum()]
    left_out = max(0, len(order) - 2 * _ENDS)
    places = np.arange(len(order) - left_out)
    if left_out:
        order = np.concatenate([order[:_ENDS], order[-_ENDS:]])
        places[_ENDS:] += 1
    mean, low, high = (values[order] for values in (quality.accuracy, quality.low, quality.high))
    figure = Figure(figsize=(6.5, 1.4 + 0.24 * (len(order) + bool(left_out))), layout="constrained")
    axes = figure.subplots()
    axes.barh(places, mean, color="C0", alpha=0.6)
    # The difference of equal numbers may be rounded below 0.
    ends = np.maximum([mean - low, high - mean], 0)
    axes.errorbar(mean, places, xerr=ends, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    axes.set_yticks(places, _shortened([class_names[k] for k in order]), parse_math=False)
    if left_out:
        axes.text(0.01, _ENDS, f"… {left_out} classes between …", va="center", fontsize=9)
    axes.set(xlabel="accuracy of the class", xlim=(0, 1), ylim=(-0.7, places.max(initial=0) + 0.7))
    axes.grid(alpha=0.3, axis="x")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _shortened(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
