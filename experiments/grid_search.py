"""Every combination of batch size, learning rate and λ; the best by validation is tested.

python -m experiments.grid_search
python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 --lam=0.1

All configurations of a batch size are trained at once. The accuracies in grid.json are those on
validation data, which are what the report prints. For other axes there is `experiments.sweep`.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments import flags, grids, runner, tables
from experiments.settings import Settings

FLAGS = absl_flags.FLAGS


def main(argv: list[str]) -> int:
    """Trains the grid that the flags describe and writes the record."""
    del argv
    axes = grids.Axes(
        batch_size=[int(value) for value in FLAGS.batch_size],
        learning_rate=[float(value) for value in FLAGS.learning_rate],
        lam=[float(value) for value in FLAGS.lam],
    )
    fixed = Settings.from_flags(lam=0.0, learning_rate=0.1, batch_size=1)
    watch = runner.Stopwatch()
    with runner.output_folder("grid_search") as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data(fixed.split)
        result, rows = grids.run("grid_search", axes, fixed, dataset, folder, watch)
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
    flags.define_list("batch_size", "10,50,500", int, "Batch sizes.", lambda v: v >= 1)
    flags.define_list("learning_rate", "0.001,0.01", float, "Values of η.", lambda v: v > 0)
    flags.define_list("lam", "0,0.1,0.5", float, "Values of λ.", lambda v: v >= 0)
    runner.launch(main)
