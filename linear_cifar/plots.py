"""Figures, from arrays; each function returns a matplotlib `Figure` for the caller to save."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, StrMethodFormatter

from linear_cifar.model import Params
from linear_cifar.training import History

_TRAIN, _VALIDATION, _RATE = "C0", "C1", "0.4"
_ROOM = 15  # rows or columns of a heat map that have room for numbers


def plot_history(history: History, title: str, learning_rates: np.ndarray | None = None) -> Figure:
    """Curves of loss, cost and accuracy over epochs, training and validation.

    Args:
      history: of one run, fields [n_epochs + 1]; or of S seeds, [S, n_epochs + 1], drawn as their
        mean with a band of one standard deviation to either side.
      title: goes above the three panels; says which run and which data.
      learning_rates: η of each epoch, [n_epochs + 1], where it is not constant; drawn on an axis
        of its own.

    Returns:
      The figure. Epochs with a value that is not finite are left out of the curves.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", "cost", "accuracy"), strict=True):
        for part, colour in (("train", _TRAIN), ("validation", _VALIDATION)):
            values = np.atleast_2d(np.asarray(getattr(history, f"{part}_{name}"), float))
            mean, sd = values.mean(axis=0), values.std(axis=0)
            axes.plot(mean, color=colour, label={"train": "training"}.get(part, part))
            if len(values) > 1:
                axes.fill_between(range(len(mean)), mean - sd, mean + sd, color=colour, alpha=0.25)
        axes.set(
            xlabel="epoch", ylabel={"loss": "loss (nats)", "cost": "cost (nats)"}.get(name, name)
        )
        axes.grid(alpha=0.3)
        axes.legend()
    if learning_rates is not None:
        right = axes.twinx()
        # An epoch's rate belongs to the stretch that ends at its point.
        right.step(range(1, len(learning_rates)), learning_rates[:-1], color=_RATE, ls=":")
        right.set_yscale("log")
        right.set_ylabel("learning rate", color=_RATE)
    figure.suptitle(title)
    return figure


def plot_weights(
    params: Params, class_names: Sequence[str], image_shape: tuple[int, int, int], title: str
) -> Figure:
    """The weights of each class as an image.

    All classes share one scale, symmetric about zero: mid-grey is no weight, and a channel that is
    brighter or darker counts for or against the class. With a scale for each class, one could not
    see which class leans on its pixels more, and grey would stand for a different value in each.
    The scale ends at the 99.5th percentile of |W|, lest a few pixels make the rest flat.

    Args:
      params: of one model, weights [K, d].
      class_names: K names.
      image_shape: (channels, rows, columns), whose product is d.
      title: goes above the images.

    Returns:
      The figure, five images a row.
    """
    weights = np.asarray(params.weights, float).reshape(-1, *image_shape).transpose(0, 2, 3, 1)
    largest = np.percentile(np.abs(weights), 99.5) if np.isfinite(weights).all() else np.nan
    images = np.nan_to_num(0.5 + 0.5 * weights / (largest or 1.0), nan=0.5).clip(0, 1)
    n_rows = -(-len(class_names) // 5)
    figure = Figure(figsize=(10, 2.25 * n_rows + 0.5), layout="constrained")
    panels = figure.subplots(n_rows, 5, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, name in zip(panels, images, class_names, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(name, fontsize=10)
    figure.suptitle(f"{title}\nmid-grey is 0, black and white are ∓{largest:.2g}", fontsize=11)
    return figure


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
            axes.text(column, row, "diverged" if np.isnan(value) else f"{value:.4f}",
                      ha="center", va="center", color="white" if dark else "black")  # fmt: skip
    rows, columns = (range(0, n, 1 if roomy else -(-n // 12)) for n in accuracy.shape)
    axes.set_xticks(columns, [f"{lams[i]:.3g}" for i in columns])
    axes.set_yticks(rows, [f"{learning_rates[i]:.3g}" for i in rows])
    axes.set(xlabel="λ", ylabel="learning rate")
    figure.colorbar(image, label="accuracy")
    figure.suptitle(title, fontsize=10)
    return figure


def plot_probabilities(
    probabilities: Sequence[np.ndarray],
    correct: Sequence[np.ndarray],
    names: Sequence[str],
    title: str,
) -> Figure:
    """Histograms of the probability given to the true class, by whether the prediction is right.

    Args:
      probabilities: of each model, [n], from 0 to 1.
      correct: of each model, [n], bool.
      names: of the models, a panel each.
      title: goes above the panels.

    Returns:
      The figure; all panels have the same bins and axes.
    """
    figure = Figure(figsize=(5.5 * len(names), 4), layout="constrained")
    bins = np.linspace(0, 1, 41)
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for axes, p, right, name in zip(panels, probabilities, correct, names, strict=True):
        for mask, label, colour in ((right, "correctly", "C2"), (~right, "incorrectly", "C3")):
            text = f"{label} classified ({mask.sum()})"
            axes.hist(p[mask], bins=bins, alpha=0.55, color=colour, label=text)
        axes.set(xlabel="probability of the true class", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylabel("test images")
    figure.suptitle(title)
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
    axes.legend(title="learning rate", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize=10)
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
    figure.suptitle(title, fontsize=10)
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
        axes.scatter(validation[0], test[0], s=60, facecolors="none", edgecolors="C3",
                     label="chosen on validation data")  # fmt: skip
        ends = [np.nanmin([validation, test]), np.nanmax([validation, test])]
        axes.plot(ends, ends, color="0.5", lw=1, zorder=0)
        axes.legend()
    axes.set(xlabel="validation accuracy", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    return figure


def plot_scaling(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Time a configuration, and what that is of the machine's peak, over configurations.

    Args:
      rows: with `contender`, `configurations`, `milliseconds` and `fraction_of_peak`.
      title: goes above.

    Returns:
      The figure, a line a contender; one that trains one configuration at a time is a level.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    most = max(row["configurations"] for row in rows)
    panels = dict(zip(("milliseconds", "fraction_of_peak"), figure.subplots(1, 2), strict=True))
    for i, contender in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        of_contender = [row for row in rows if row["contender"] == contender]
        x = [row["configurations"] for row in of_contender]
        for name, axes in panels.items():
            y = [row[name] for row in of_contender]
            style = {"color": f"C{i}", "label": contender}
            if x == [1]:
                axes.plot([1, most], y * 2, ":", **style)
            else:
                axes.plot(x, y, "o-", ms=4, **style)
    panels["milliseconds"].set(ylabel="ms a configuration and epoch", yscale="log")
    panels["fraction_of_peak"].set(ylabel="fraction of the matrix-product peak", ylim=(0, None))
    panels["milliseconds"].yaxis.set_major_formatter(ScalarFormatter())
    panels["milliseconds"].yaxis.set_minor_formatter(ScalarFormatter())
    for axes in panels.values():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("configurations at once")
        axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.suptitle(title)
    return figure


def plot_times(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Time a configuration and epoch of each contender, as bars.

    Args:
      rows: with `contender`, `configurations`, `batch_size`, `n`, `d` and `milliseconds`.
      title: goes above.
    """
    varied = [n for n in ("batch_size", "n", "d") if len({row[n] for row in rows}) > 1]
    names = [
        ", ".join([f"{row['contender']}, {row['configurations']} at once",
                   *(f"{n.replace('_', ' ')} {row[n]:,}" for n in varied)])
        for row in rows
    ]  # fmt: skip
    figure = Figure(figsize=(9, 1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(rows)), [row["milliseconds"] for row in rows])
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(xlabel="ms a configuration and epoch")
    figure.suptitle(title)
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
