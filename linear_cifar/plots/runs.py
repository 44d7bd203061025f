"""Figures of single runs: curves, weight images, histograms."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from linear_cifar.engine.state import History
from linear_cifar.model import Params

_TRAIN, _VALIDATION, _RATE = "C0", "C1", "0.4"


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
            if part == "validation" and not np.isfinite(values).any():
                continue  # no validation examples
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
    figure.suptitle(title, parse_math=False)
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
    images, largest = weight_images(np.asarray(params.weights), image_shape)
    n_rows = -(-len(class_names) // 5)
    figure = Figure(figsize=(10, 2.25 * n_rows + 0.5), layout="constrained")
    panels = figure.subplots(n_rows, 5, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, name in zip(panels, images, class_names, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(name, fontsize=10, parse_math=False)
    figure.suptitle(
        f"{title}\nmid-grey is 0, black and white are ∓{largest:.2g}", fontsize=11, parse_math=False
    )
    return figure


def weight_images(
    weights: np.ndarray, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, float]:
    """Weights [K, d] as images [K, rows, columns, channels] from 0 to 1, and where they end.

    They are drawn as `plot_weights` says.
    """
    turned = np.asarray(weights, float).reshape(-1, *image_shape).transpose(0, 2, 3, 1)
    largest = np.percentile(np.abs(turned), 99.5) if np.isfinite(turned).all() else np.nan
    return np.nan_to_num(0.5 + 0.5 * turned / (largest or 1.0), nan=0.5).clip(0, 1), float(largest)


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
    panels[0].set_ylabel("test examples")
    figure.suptitle(title, parse_math=False)
    return figure
