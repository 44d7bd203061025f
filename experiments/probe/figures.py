"""The figure of a probe that no other command has: the learning curve."""

import numpy as np
from matplotlib.figure import Figure

from linear_cifar.plots import Curve, label_axes, new_figure


def plot_learning_curve(
    n_train: np.ndarray, accuracy: Curve, draws: np.ndarray, title: str
) -> Figure:
    """Accuracy over the number of training examples [S], ascending, with a point for each draw.

    `accuracy` is the mean over draws and its interval, each [S]; an interval of NaN isn't drawn.
    `draws` is the accuracy of each draw, [S, draws]; NaN for sizes that have fewer draws.
    """
    figure = new_figure(title, (6.5, 4.4))
    ax = figure.subplots()
    # With few draws the interval of a share may go beyond 0 or 1.
    low, high = np.clip((accuracy.low, accuracy.high), 0, 1)
    ax.fill_between(n_train, low, high, color="C0", alpha=0.2, lw=0, label="95 % of the mean")
    ax.plot(n_train, accuracy.mean, color="C0", label="mean over draws")
    sizes = np.repeat(n_train, np.shape(draws)[1])
    ax.plot(sizes, np.ravel(draws), "o", ms=4, color="C0", alpha=0.5, label="a draw", mew=0)
    ax.set_xscale("log")
    label_axes(ax, "training examples", "accuracy", legend="lower right")
    ax.grid(alpha=0.3, which="minor")
    return figure
