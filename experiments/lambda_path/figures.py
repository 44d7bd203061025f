"""The figures of a λ path."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.common import store
from experiments.common.paths import Choice, Path, plot, plot_passes
from linear_cifar.data import Dataset
from linear_cifar.plots import label_axes, new_figure, scale_lam, weight_images

N_WEIGHTS = 5  # λ whose weights are shown


class Drawn(NamedTuple):
    """What is drawn."""

    path: Path
    choice: Choice
    stopped: Sequence[dict[str, Any]]  # runs of gradient descent, as the record has them
    dataset: Dataset
    title: str


def draw(what: Drawn, chunks: pathlib.Path) -> dict[str, Any]:
    """The figures by name.

    Args:
      what: is drawn.
      chunks: the folder that holds the parameters.
    """
    path, title = what.path, f"The optimum over λ, {what.title}"
    columns = path.columns
    stopped = [
        StoppedRun(run["title"], run["lam"], run["cost"], run["optimum_cost"])
        for run in what.stopped
    ]
    drawn = {
        "path": plot(path, what.choice, what.title),
        "cost": plot_costs(path.lam, columns["cost"], columns["gap"], stopped, title),
        "passes": plot_passes(path, title),
    }
    if what.dataset.image_shape is not None:
        places = np.unique(np.linspace(0, len(path.lam) - 1, N_WEIGHTS).round().astype(int))
        weights = [store.read_row(chunks, int(path.rows[place]))["weights"] for place in places]
        drawn["weights"] = plot_weights_over_lam(
            np.stack(weights),
            path.lam[places].tolist(),
            what.dataset.class_names,
            what.dataset.image_shape,
            f"Weights at the optimum, {what.title}; mid-grey is 0, each row has its scale",
        )
    return drawn


class StoppedRun(NamedTuple):
    """The end of a run of gradient descent."""

    name: str
    lam: float
    cost: float  # in nats
    optimum: float  # the least cost at this λ, in nats


def plot_costs(
    lam: np.ndarray,
    cost: np.ndarray,
    gap: np.ndarray,
    stopped: Sequence[StoppedRun],
    title: str,
) -> Figure:
    """The least cost over λ, and runs of gradient descent that stopped above it.

    The costs are on the left, and on the right their relative excess over the least cost.

    Args:
      lam: λ, [C], ascending.
      cost: at the optimum, [C], in nats.
      gap: certified upper bound of the cost's distance from the minimum, [C], in nats.
      stopped: the runs.
      title: goes above both panels.
    """
    figure = new_figure(title)
    costs, excesses = panels = figure.subplots(1, 2)
    costs.plot(lam, cost, color="C0", label="optimum", zorder=1)
    excesses.plot(lam, gap / cost, color="C0", label="optimum: certified, at most")
    for i, run in enumerate(stopped, 1):
        excess = (run.cost - run.optimum) / run.optimum
        for ax, height in ((costs, run.cost), (excesses, excess)):
            ax.plot(run.lam, height, "o", color=f"C{i}", label=run.name)
    for ax, name in zip(
        panels, ("cost (nats)", "excess over the least cost, relative"), strict=True
    ):
        scale_lam(ax, lam)
        label_axes(ax, "λ", name)
    excesses.set_yscale("log")
    return figure


def plot_weights_over_lam(
    weights: np.ndarray,
    lam: Sequence[float],
    class_names: Sequence[str],
    image_shape: tuple[int, int, int],
    title: str,
) -> Figure:
    """The weights of each class as images, a row for each λ.

    Each row has one scale, the one of `weight_images`, and its label shows the ends.

    Args:
      weights: [C, K, d].
      lam: λ of each row, [C].
      class_names: K names.
      image_shape: (channels, rows, columns), whose product is d.
      title: goes above the images.
    """
    n_rows, n_columns = weights.shape[:2]
    figure = new_figure(title, (1.25 * n_columns + 1.2, 1.3 * n_rows + 0.8))
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for row, matrix, value in zip(panels, weights, lam, strict=True):
        images, largest = weight_images(matrix, image_shape)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"λ = {value:.3g}\nfrom −{largest:.2g}\nto {largest:.2g}")
    for ax, name in zip(panels[0], class_names, strict=True):
        ax.set_title(name, fontsize=10, parse_math=False)
    return figure
