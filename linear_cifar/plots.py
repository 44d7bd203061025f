"""Figures, from arrays; each function returns a matplotlib `Figure` for the caller to save."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from linear_cifar.model import Params
from linear_cifar.training import History

_TRAIN, _VALIDATION = "C0", "C1"


def plot_history(history: History, title: str) -> Figure:
    """Curves of loss, cost and accuracy over epochs, training and validation.

    Args:
      history: of one run, fields [n_epochs + 1].
      title: goes above the three panels; says which run and which data.

    Returns:
      The figure. Epochs with a value that is not finite are left out of the curves.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", "cost", "accuracy"), strict=True):
        for part, colour in (("train", _TRAIN), ("validation", _VALIDATION)):
            values = np.asarray(getattr(history, f"{part}_{name}"), float)
            axes.plot(values, color=colour, label={"train": "training"}.get(part, part))
        axes.set(
            xlabel="epoch", ylabel={"loss": "loss (nats)", "cost": "cost (nats)"}.get(name, name)
        )
        axes.grid(alpha=0.3)
        axes.legend()
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
