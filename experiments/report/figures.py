"""The figures of the report's page."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.common import path_record, training
from experiments.common.data import data_title
from experiments.common.run_record import run_figures
from experiments.report import plan
from experiments.report.optima import Solved
from linear_cifar import Dataset, History, Params, plots

if TYPE_CHECKING:
    import pandas as pd


def figures_of_runs(
    runs: "pd.DataFrame",
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    data: Mapping[str, Dataset],
) -> Iterator[tuple[str, Any]]:
    """Curves and weights of each of the report's runs, by name."""
    for name, run in arrays.items():
        seeds = runs[runs.name == name]
        dataset = data[seeds.split.iloc[0]]
        title = f"{training.title(seeds.iloc[0], len(seeds))} · {data_title(dataset)}"
        history = History(*(run[field] for field in History._fields))
        params = Params(run["weights"], run["bias"])
        for kind, figure in run_figures(seeds, history, params, dataset, title).items():
            yield f"{kind}_{name}", figure


def heat_maps(cells: "pd.DataFrame", data: str) -> Any:
    """Validation accuracy over λ and η, a panel for each batch size."""
    sizes = cells.batch_size.unique()
    title = f"Validation accuracy, {plan.GRID_EPOCHS} epochs · {data}"
    figure = plots.new_figure(title, (4.6 * len(sizes), 3.2))
    ends = (cells["mean"].min(), cells["mean"].max())
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for ax, size in zip(panels, sizes, strict=True):
        table = cells[cells.batch_size == size].pivot(index="learning_rate", columns="lam")["mean"]
        rates, lams = table.index.tolist(), table.columns.tolist()
        plots.plot_grid(table.to_numpy(float), rates, lams, ends, f"batches of {size}", ax=ax)
    return figure


def over_batch_size(cells: "pd.DataFrame", data: str) -> Any:
    """Validation accuracy over the batch size, the report's and ours with its deviation."""
    title = f"λ = 0.1, η = 0.001, {plan.GRID_EPOCHS} epochs · {data}"
    figure = plots.new_figure(title, (6.5, 3.6))
    ax = figure.subplots()
    ax.errorbar(cells.batch_size, cells["mean"], cells.sd.fillna(0), marker="o", label="ours")
    ax.plot(cells.batch_size, cells.published, "s--", color="C1", label="report")
    ax.set_xticks(cells.batch_size)
    plots.label_axes(ax, "batch size", "validation accuracy")
    return figure


def path_figure(solved: Solved, data: str) -> Any:
    """Accuracy and loss at the optimum over λ."""
    choice = solved.choice._replace(one_standard_error=solved.choice.best)
    return path_record.plot_choice(solved.table, choice, f"{solved.planned['title']} · {data}")
