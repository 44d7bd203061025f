"""Curves: over epochs, over λ, over the number of training examples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from linear_cifar.plots.panels import Curve, label_axes, new_figure, scale_lam
from linear_cifar.training import History

_PANELS = {"loss": "loss (nats)", "cost": "cost (nats)", "accuracy": "accuracy"}
_SPLITS = (("train", "training", "C0"), ("validation", "validation", "C1"))


def plot_history(history: History, title: str, learning_rates: np.ndarray | None = None) -> Figure:
    """Curves of loss, cost and accuracy over epochs, training and validation.

    The fields of `history` are [n_epochs + 1], of one run; or [S, n_epochs + 1], of S seeds, drawn
    as their mean with a band of one standard deviation to either side. A value that isn't finite
    leaves a gap. `learning_rates`, η of each epoch [n_epochs + 1], get an axis in the last panel.
    """
    figure = new_figure(title, (12, 3.6))
    panels = figure.subplots(1, len(_PANELS))
    for ax, (name, ylabel) in zip(panels, _PANELS.items(), strict=True):
        for split, label, colour in _SPLITS:
            values = np.atleast_2d(np.asarray(getattr(history, f"{split}_{name}"), float))
            if split == "validation" and not np.isfinite(values).any():
                continue  # there are no validation examples
            mean, sd = values.mean(axis=0), values.std(axis=0)
            ax.plot(mean, color=colour, label=label)
            if len(values) > 1:
                ax.fill_between(range(len(mean)), mean - sd, mean + sd, color=colour, alpha=0.25)
        label_axes(ax, "epoch", ylabel)
    panels[1].sharey(panels[0])
    if learning_rates is not None:
        right = panels[-1].twinx()
        right.set_zorder(-1)  # behind the legend
        panels[-1].patch.set_visible(False)
        # An epoch's rate belongs to the stretch that ends at its point.
        right.step(range(1, len(learning_rates)), learning_rates[:-1], color="0.4", ls=":")
        right.set_yscale("log")
        right.set_ylabel("learning rate", color="0.4")
    return figure


def plot_path(
    lam: np.ndarray,
    accuracy: Mapping[str, Curve],
    loss: Mapping[str, Curve],
    chosen: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy and loss, in nats, at the optimum over λ [C], ascending, with their intervals.

    The curves [C] have names, which are in one legend below both panels. `chosen` is the λ that
    each criterion chose, by its name, marked by a vertical line.
    """
    figure = new_figure(title)
    panels = figure.subplots(1, 2)
    for ax, curves, name in zip(panels, (accuracy, loss), ("accuracy", "loss (nats)"), strict=True):
        for i, (label, curve) in enumerate(curves.items()):
            ax.plot(lam, curve.mean, color=f"C{i}", label=label, marker=".")
            ax.fill_between(lam, curve.low, curve.high, color=f"C{i}", alpha=0.2, lw=0)
        for (label, value), style in zip(chosen.items(), ("--", ":"), strict=False):
            ax.axvline(value, color="0.3", ls=style, label=f"{label}: λ = {value:.3g}")
        scale_lam(ax, lam)
        label_axes(ax, "λ", name, legend=None)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    return figure
