"""The parts that figures share: new figures and panels, labels, and the axis of λ."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_TITLE_SIZE = 10  # points


class Curve(NamedTuple):
    """A mean with its interval, each an array over the same axis."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def new_figure(title: str, size: tuple[float, float] = (12, 4.5)) -> Figure:
    """A figure with its title and without panels, of a size in inches."""
    figure = Figure(figsize=size, layout="constrained")
    lines = [textwrap.fill(line, int(12 * size[0])) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=_TITLE_SIZE, parse_math=False)
    return figure


def one_panel(ax: Axes | None, title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A new figure and its axes, or `ax` and its figure, with the title."""
    if ax is None:
        figure = new_figure(title, size)
        return figure, figure.subplots()
    ax.set_title(title, fontsize=_TITLE_SIZE, parse_math=False)
    return ax.figure.figure, ax  # the axes of a subfigure have the figure that holds it


def label_axes(ax: Axes, xlabel: str, ylabel: str, legend: Any = "best") -> None:
    """Adds a grid, the labels of both axes, and a legend at a place; None for no legend."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    if legend:
        ax.legend(loc=legend)


def scale_lam(ax: Axes, lam: np.ndarray) -> None:
    """Makes the axis of λ logarithmic if λ spans more than a factor of ten; 0 is its left end."""
    positive = lam[lam > 0]
    if len(positive) and positive.max() > 10 * positive.min():
        if lam.min() == 0:
            ax.set_xscale("symlog", linthresh=positive.min(), linscale=0.4)
        else:
            ax.set_xscale("log")
