"""Every combination of batch size, learning rate and λ; the best by validation is tested.

python -m experiments.grid_search
python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 --lam=0.1

All configurations of a batch size are trained at once. The accuracies in grid.json are those on
validation data, which are what the report prints. For other axes there is `experiments.sweep`.
"""

import sys
from pathlib import Path
from typing import Any

from experiments import axes, flags, grids, runner, tables
from experiments.settings import Settings


def main(argv: list[str]) -> int:
    """Trains the grid that the flags describe and writes the record."""
    del argv
    values = {name: list(dict.fromkeys(axes.columns([name])[name])) for name in grids.Axes._fields}
    fixed = Settings.from_flags(lam=0.0, learning_rate=0.1, batch_size=1)
    watch = runner.Stopwatch()
    with runner.output_folder("grid_search") as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data(fixed.split)
        result, rows = grids.run("grid_search", grids.Axes(**values), fixed, dataset, folder, watch)
    _print(result, rows, runner.data_title(dataset), target)
    if result["interrupted"]:
        print("interrupted: the configurations that were finished are written", file=sys.stderr)
        return 130
    return 0


def _print(result: dict[str, Any], rows: list[dict[str, Any]], data: str, target: Path) -> None:
    print(f"{'batch':>6} {'η':>8} {'λ':>8} {'validation':>11} {'test':>8}")
    for row in tables.ranked(rows):
        numbers = f"{row['batch_size']:>6} {row['learning_rate']:>8g} {row['lam']:>8g}"
        accuracies = f"{row['validation_accuracy']:>11.4f} {row['test_accuracy']:>8.4f}"
        print(numbers, accuracies, "diverged" if row["diverged"] else "")
    best = result["best"]
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    runner.print_table(
        [
            ("data", data),
            ("best by validation", best["key"] if best else "none: every one diverged"),
            *([("its test accuracy", float(best["test_accuracy"]))] if best else []),
            ("seconds", seconds),
            ("written to", target),
        ]
    )


if __name__ == "__main__":
    flags.define("n_seeds", "loss", "split", "shuffle", n_epochs=20)
    axes.define("batch_size", "10,50,500", int, "Batch sizes.", lambda v: v >= 1)
    axes.define("learning_rate", "0.001,0.01", float, "Values of η.", lambda v: v > 0)
    axes.define("lam", "0,0.1,0.5", float, "Values of λ.", lambda v: v >= 0)
    runner.launch(main)
