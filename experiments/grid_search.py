"""Every combination of batch size, learning rate and λ; the best by validation is tested.

python -m experiments.grid_search
python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 --lam=0.1

All configurations of a batch size are trained at once. The accuracies in grid.json are those on
validation data, which are what the report prints. For other axes there is `experiments.sweep`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common import axes, command, flags, grids, terminal
from experiments.common.data import data_title, load_data
from experiments.common.output import output_folder
from experiments.common.progress import Stopwatch, print_table
from experiments.common.results import Result
from experiments.common.settings import Settings


def define_flags() -> None:
    """Defines the command's flags."""
    others = [name for name in flags.RUN if name not in grids.COLUMNS]
    flags.define(*others, "split", n_epochs=20)
    flags.define_features()
    axes.define(batch_size="10,50,500", learning_rate="0.001,0.01", lam="0,0.1,0.5")


def main(argv: list[str]) -> int:
    """Trains the grid that the flags describe and writes the record."""
    del argv
    values = {name: list(dict.fromkeys(axes.columns([name])[name])) for name in grids.COLUMNS}
    fixed = Settings.from_flags(**{name: of_axis[0] for name, of_axis in values.items()})
    watch = Stopwatch()
    with output_folder("grid_search") as (folder, target):
        with watch.phase("load"):
            dataset = load_data(fixed.split, ("validation", "test"))
        result, results = grids.run("grid_search", values, fixed, dataset, folder, watch)
    _print(result, results, data_title(dataset), watch, target)
    if result["interrupted"]:
        print("interrupted: the configurations that were finished are written", file=sys.stderr)
        return terminal.INTERRUPTED
    return 0


def _print(
    result: dict[str, Any], results: Sequence[Result], data: str, watch: Stopwatch, target: Path
) -> None:
    print(f"{'batch':>6} {'η':>8} {'λ':>8} {'validation':>11} {'test':>8}")
    for row in results:
        size, rate, lam, _, validation, test = map(row.cell, (*grids.COLUMNS, *grids.ACCURACIES))
        numbers = f"{size:>6} {rate:>8g} {lam:>8g} {validation:>11.4f} {test:>8.4f}"
        print(numbers, "diverged" if row.diverged else "")
    best = result["best"]
    print_table(
        [
            ("data", data),
            ("best by validation", best["key"] if best else "none: every one diverged"),
            *([("its test accuracy", best["test_accuracy"])] if best else []),
            ("seconds", watch),
            ("written to", target),
        ]
    )


if __name__ == "__main__":
    command.launch(main, define_flags)
