"""The figures of a sweep: accuracy over λ and η for each value of everything else."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.results import Result


def figures(columns: dict[str, list], results: Sequence[Result], data: str) -> dict[str, Any]:
    """The figures by name.

    Args:
      columns: the table's axes.
      results: of all configurations, the best first.
      data: the data's title.
    """
    from linear_cifar import plots

    title = f"{results[0].settings.n_epochs} epochs · {data}"
    accuracy, test = (
        np.array([np.nan if r.diverged else r.mean(f"{split}_accuracy") for r in results])
        for split in ("validation", "test")
    )
    drawn = {"validation_and_test": plots.plot_validation_and_test(accuracy, test, title)}
    others = [name for name in columns if name not in ("lam", "learning_rate")]
    panels: dict[tuple, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.index):
        panels.setdefault(tuple(map(result.cell, others)), []).append(result)
    varied = [i for i, _ in enumerate(others) if len({panel[i] for panel in panels}) > 1]
    for panel, members in panels.items():
        words = [f"{others[i]}_{panel[i]}" for i in varied if panel[i] != ""]
        suffix = "".join(f"_{word}" for word in words)
        of_panel = ", ".join([*(word.replace("_", " ") for word in words), title])
        drawn |= _panel(members, suffix, f"Validation accuracy, {of_panel}")
    return drawn


def _panel(members: Sequence[Result], suffix: str, title: str) -> dict[str, Any]:
    """The figures of the configurations that differ in λ and η alone."""
    from linear_cifar import plots

    lam, rate = (
        np.array([getattr(member.settings.hyperparameters, name) for member in members], float)
        for name in ("lam", "learning_rate")
    )
    by_seed = np.array([member.by_seed["validation_accuracy"] for member in members], float)
    accuracy = by_seed.mean(axis=1)
    sd = by_seed.std(axis=1, ddof=1) if by_seed.shape[1] > 1 else np.zeros(len(members))
    accuracy[[member.diverged for member in members]] = np.nan
    lams, rates = np.unique(lam), np.unique(rate)
    if len(members) == len(lams) * len(rates):
        cells = (np.searchsorted(rates, rate), np.searchsorted(lams, lam))
        mean, spread = np.full((2, len(rates), len(lams)), np.nan)
        mean[cells], spread[cells] = accuracy, sd
        ends = (np.nanmin(mean), np.nanmax(mean)) if np.isfinite(mean).any() else (0.0, 1.0)
        return {
            f"accuracy_over_lam{suffix}": plots.plot_over_lam(lams, rates, mean, spread, title),
            f"heat_map{suffix}": plots.plot_grid(mean, rates.tolist(), lams.tolist(), ends, title),
        }
    return {f"drawn{suffix}": plots.plot_drawn(lam, rate, accuracy, title)}
