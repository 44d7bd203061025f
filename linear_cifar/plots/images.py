"""Figures of pixels: weights as images, and heat maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linear_cifar.model import Params
from linear_cifar.plots.panels import new_figure, one_panel

_COLUMNS = 5  # weight images side by side
_MAX_NUMBERED = 15  # rows or columns of a heat map with room for numbers
_MAX_TICKS = 12  # of a heat map with more


def plot_weights(
    params: Params, class_names: Sequence[str], image_shape: tuple[int, int, int], title: str
) -> Figure:
    """The weights [K, d] of each class as an image, five in a row; `weight_images` says which."""
    images, largest = weight_images(np.asarray(params.weights), image_shape)
    n_rows = -(-len(class_names) // _COLUMNS)
    title = f"{title}\nmid-grey is 0, black and white are ∓{largest:.2g}"
    figure = new_figure(title, (10, 2.25 * n_rows + 0.5))
    panels = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, image, name in zip(panels, images, class_names, strict=False):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(name, fontsize=10, parse_math=False)
    return figure


def weight_images(
    weights: np.ndarray, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, float]:
    """Weights [K, d] as images [K, rows, columns, channels] from 0 to 1, and their scale's end.

    All classes share one scale, symmetric about zero, so that they can be compared: mid-grey is
    zero, and a channel that is brighter or darker counts for or against the class. The scale ends
    at the 99.5th percentile of |W|, so that a few large weights don't flatten the rest.
    `image_shape` is (channels, rows, columns), whose product is d.
    """
    images = np.asarray(weights, float).reshape(-1, *image_shape).transpose(0, 2, 3, 1)
    largest = np.percentile(np.abs(images), 99.5) if np.isfinite(images).all() else np.nan
    return np.nan_to_num(0.5 + 0.5 * images / (largest or 1.0), nan=0.5).clip(0, 1), float(largest)


def plot_grid(
    accuracy: np.ndarray,
    learning_rates: Sequence[float],
    lams: Sequence[float],
    low_high: tuple[float, float],
    title: str,
    *,
    ax: Axes | None = None,
) -> Figure:
    """A heat map of accuracy [R, L] over learning rates [R], the rows, and λ [L], the columns.

    NaN, drawn grey, means that training diverged. `low_high` are the accuracies at the ends of the
    colour scale, which maps to compare should share. Up to 15 rows and columns, cells have numbers.
    """
    n_rows, n_columns = accuracy.shape
    numbered = max(accuracy.shape) <= _MAX_NUMBERED
    size = (max(5, 1.6 + 1.3 * n_columns), 1.8 + 0.7 * n_rows) if numbered else (11, 7)
    figure, ax = one_panel(ax, title, size)
    low, high = low_high
    colours = colormaps["viridis"].with_extremes(bad="0.8")
    image = ax.imshow(accuracy, vmin=low, vmax=high, cmap=colours, aspect="auto")
    if numbered:
        for (row, column), value in np.ndenumerate(accuracy):
            text = "diverged" if np.isnan(value) else f"{value:.4f}"
            colour = "white" if value < (low + high) / 2 else "black"
            ax.text(column, row, text, ha="center", va="center", color=colour)
    rows, columns = (range(0, n, 1 if numbered else -(-n // _MAX_TICKS)) for n in accuracy.shape)
    ax.set_xticks(columns, [f"{lams[i]:.2g}" for i in columns])
    ax.set_yticks(rows, [f"{learning_rates[i]:.2g}" for i in rows])
    ax.set(xlabel="λ", ylabel="learning rate")
    ax.figure.colorbar(image, ax=ax, label="accuracy")
    return figure
