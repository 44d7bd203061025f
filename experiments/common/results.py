"""What configurations gave: one row each, with its figures over seeds, for every record alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import records
from experiments.common.settings import Settings
from linear_cifar.data import Dataset
from linear_cifar.metrics import Metrics
from linear_cifar.selection import ranking


@dataclass(frozen=True)
class Result:
    """What one configuration gave."""

    index: int  # of the configuration among those that were asked for
    settings: Settings
    by_seed: Mapping[str, np.ndarray]  # figures as "test_accuracy", each [S]

    @property
    def diverged(self) -> bool:
        """Whether a figure of any seed is not finite."""
        return not all(np.isfinite(values).all() for values in self.by_seed.values())

    def mean(self, name: str) -> float:
        """A figure's mean over seeds; NaN if a seed diverged."""
        return float(np.mean(self.by_seed[name]).round(9))

    def cell(self, column: str) -> Any:
        """A column of a table: a setting ("" if it isn't read), a figure's mean, or its `_sd`."""
        if column == "diverged":
            return self.diverged
        if column in self.by_seed:
            return self.mean(column)
        figure = column.removesuffix("_sd")
        if figure in self.by_seed:
            return float(self.by_seed[figure].std(ddof=1))
        return self.settings.flat.get(column, "")

    def row(self) -> dict[str, Any]:
        """All of it for a JSON record: settings, and each figure's mean, values and deviation."""
        row = {"index": self.index, **self.settings.flat}
        for name, values in self.by_seed.items():
            row |= {name: self.mean(name), f"{name}_by_seed": values}
            if len(values) > 1:
                row[f"{name}_sd"] = self.cell(f"{name}_sd")
        return row | {"diverged": self.diverged}


def by_seed(metrics: Mapping[str, Metrics], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Figures as "test_accuracy", float64 [S], of metrics by split."""
    figures = {}
    for split, of_split in metrics.items():
        for name in names:
            values = np.asarray(getattr(of_split, name), float)
            # A float32 fraction in seven digits is the fraction of the counts again.
            figures[f"{split}_{name}"] = values.round(7) if name == "accuracy" else values
    return figures


def ranked(results: Sequence[Result], by: str = "accuracy") -> list[Result]:
    """The results with the best by validation first, the diverged ones last."""
    accuracy, loss = (
        np.array([math.nan if r.diverged else r.mean(f"validation_{name}") for r in results])
        for name in ("accuracy", "loss")
    )
    return [results[i] for i in ranking(accuracy, loss, by)]


def write_tables(
    folder: Path,
    stem: str,
    results: Sequence[Result],
    settings: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Writes `STEM.csv`, a row a result, and with several seeds `STEM_by_seed.csv`.

    Args:
      folder: to write into.
      stem: of the names.
      results: all with the same number of seeds.
      settings: the columns that tell configurations apart.
      columns: the others, as `Result.cell` knows them; those of deviations over seeds are left out
        where there is one.
    """
    first = results[0].settings
    seeds = range(first.seed, first.seed + first.n_seeds)
    figures = [name for name in columns if name in results[0].by_seed]
    names = [*settings, *(n for n in columns if len(seeds) > 1 or not n.endswith("_sd"))]
    table = ([result.cell(name) for name in names] for result in results)
    records.write_csv(folder / f"{stem}.csv", names, table)
    if len(seeds) > 1:
        lines = (
            (seed, *map(result.cell, settings), *(result.by_seed[name][i] for name in figures))
            for result in results
            for i, seed in enumerate(seeds)
        )
        records.write_csv(folder / f"{stem}_by_seed.csv", ("seed", *settings, *figures), lines)


def class_accuracy(counts: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """The accuracy of each class, by name, of confusion matrices [..., K, K]; their mean."""
    of_class = np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(counts.sum(axis=-1), 1)
    means = of_class.reshape(-1, of_class.shape[-1]).mean(axis=0)
    return dict(zip(dataset.class_names, means.round(9), strict=True))
