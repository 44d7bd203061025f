"""Figures of the exact optimum over λ."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linear_cifar.plots.runs import weight_images


class Curve(NamedTuple):
    """A figure over λ with its 95 % interval, each [C]."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Stopped(NamedTuple):
    """Where a run of gradient descent stopped."""

    name: str
    lam: float
    cost: float  # in nats
    optimum: float  # the least cost at this λ


def plot_path(
    lam: np.ndarray,
    accuracy: Mapping[str, Curve],
    loss: Mapping[str, Curve],
    chosen: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy and loss at the optimum over λ, with their intervals.

    Args:
      lam: λ, [C], ascending.
      accuracy: curves by name, from 0 to 1.
      loss: curves by name, in nats.
      chosen: λ by what chose it, marked by vertical lines.
      title: goes above both panels.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, curves, name in zip(
        panels, (accuracy, loss), ("accuracy", "loss (nats)"), strict=True
    ):
        for i, (label, curve) in enumerate(curves.items()):
            axes.plot(lam, curve.mean, color=f"C{i}", label=label, marker=".")
            axes.fill_between(lam, curve.low, curve.high, color=f"C{i}", alpha=0.2, lw=0)
        for (label, value), style in zip(chosen.items(), ("--", ":"), strict=False):
            axes.axvline(value, color="0.3", ls=style, label=f"{label}: λ = {value:.3g}")
        _over_lam(axes, name)
    of_both = panels[0].get_legend_handles_labels()
    figure.legend(*of_both, loc="outside lower center", ncols=4)
    figure.suptitle(title, parse_math=False)
    return figure


def plot_costs(
    lam: np.ndarray, cost: np.ndarray, gap: np.ndarray, stopped: Sequence[Stopped], title: str
) -> Figure:
    """The least cost over λ, and where runs of gradient descent stopped above it.

    Args:
      lam: λ, [C], ascending.
      cost: at the optimum, [C], in nats.
      gap: certified, [C]: what the cost is above the minimum by at most.
      stopped: the runs.
      title: goes above both panels.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(lam, cost, color="C0", label="optimum", zorder=1)
    right.plot(lam, gap / cost, color="C0", label="optimum: certified, at most")
    for i, run in enumerate(stopped, 1):
        own: dict[str, Any] = {"color": f"C{i}", "marker": "o", "ls": "", "label": run.name}
        left.plot(run.lam, run.cost, **own)
        right.plot(run.lam, (run.cost - run.optimum) / run.optimum, **own)
    _over_lam(left, "cost (nats)")
    _over_lam(right, "excess over the least cost, relative")
    right.set_yscale("log")
    for axes in (left, right):
        axes.legend()
    figure.suptitle(title, parse_math=False)
    return figure


def plot_passes(lam: np.ndarray, passes: np.ndarray, title: str) -> Figure:
    """Passes over the data that each λ took.

    Args:
      lam: λ, [C], ascending.
      passes: [C].
      title: goes above.
    """
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(lam, passes, marker=".", color="C0")
    axes.axhline(float(np.mean(passes)), color="0.4", ls="--", label=f"mean {np.mean(passes):.1f}")
    axes.set_ylim(bottom=0)
    _over_lam(axes, "passes over the data")
    axes.legend()
    figure.suptitle(title, parse_math=False)
    return figure


def plot_weights_over_lam(
    weights: np.ndarray,
    lam: Sequence[float],
    class_names: Sequence[str],
    image_shape: tuple[int, int, int],
    title: str,
) -> Figure:
    """The weights of each class as images, a row a λ.

    A row has one scale, as `plot_weights` has it; it stands beside the row.

    Args:
      weights: [C, K, d].
      lam: of the rows, [C].
      class_names: K names.
      image_shape: (channels, rows, columns), whose product is d.
      title: goes above the images.
    """
    n_rows, n_columns = weights.shape[:2]
    size = (1.25 * n_columns + 1.2, 1.3 * n_rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for row, of_lam, value in zip(panels, weights, lam, strict=True):
        images, largest = weight_images(of_lam, image_shape)
        for axes, image in zip(row, images, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"λ = {value:.3g}\nfrom −{largest:.2g}\nto {largest:.2g}")
    for axes, name in zip(panels[0], class_names, strict=True):
        axes.set_title(name, fontsize=10, parse_math=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _over_lam(axes: Axes, label: str) -> None:
    axes.set(xscale="log", xlabel="λ", ylabel=label)
    axes.grid(alpha=0.3)
