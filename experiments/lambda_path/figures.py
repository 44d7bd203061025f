"""The figures of a λ path."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common import store
from experiments.common.paths import Choice, Path, plot
from linear_cifar.data import Dataset

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
    from linear_cifar import plots

    path, title = what.path, f"The optimum over λ, {what.title}"
    columns = path.columns
    stopped = [
        plots.Stopped(run["title"], run["lam"], run["cost"], run["optimum_cost"])
        for run in what.stopped
    ]
    drawn = {
        "path": plot(path, what.choice, what.title),
        "cost": plots.plot_costs(path.lam, columns["cost"], columns["gap"], stopped, title),
        "passes": plots.plot_passes(path.lam, columns["passes"], title),
    }
    if what.dataset.image_shape is not None:
        places = np.unique(np.linspace(0, len(path.lam) - 1, N_WEIGHTS).round().astype(int))
        weights = [store.read_row(chunks, int(path.rows[place]))["weights"] for place in places]
        drawn["weights"] = plots.plot_weights_over_lam(
            np.stack(weights),
            path.lam[places].tolist(),
            what.dataset.class_names,
            what.dataset.image_shape,
            f"Weights at the optimum, {what.title}; mid-grey is 0, each row has its scale",
        )
    return drawn
