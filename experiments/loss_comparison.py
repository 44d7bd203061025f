"""The losses against each other: curves, weights, probability histograms.

python -m experiments.loss_comparison

The folder holds a whole run for each loss, and the histograms of all beside each other.
"""

from typing import Any

import jax

from experiments.common import command, flags, records, runs, terminal
from experiments.common.data import load_data
from experiments.common.histograms import plot_histograms
from experiments.common.output import output_folder, write_result
from experiments.common.progress import Stopwatch
from experiments.common.settings import Settings
from linear_cifar.losses import LOSSES


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*(name for name in flags.RUN if name != "loss"))
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains all losses with the same settings and compares them on the test images."""
    del argv
    watch = Stopwatch()
    settings = [Settings.from_flags(loss=name) for name in LOSSES]
    outcomes: dict[str, runs.Outcome] = {}
    results, interrupted = {}, False
    with output_folder("loss_comparison") as (folder, target):
        with watch.phase("load"):
            dataset = load_data(settings[0].split, ["test"])
        for of_loss in settings:
            if interrupted:
                break
            (outcome,) = runs.train([of_loss], dataset, watch)
            own = folder / of_loss.loss
            own.mkdir()
            outcomes[of_loss.loss] = outcome
            results[of_loss.loss] = runs.write(of_loss.loss, dataset, outcome, own, watch)
            interrupted = outcome.interrupted
        params = {n: jax.tree.map(lambda a: a[0], o.params) for n, o in outcomes.items()}
        with watch.phase("plot"):
            summary = plot_histograms(params, dataset, settings[0].seed, folder)
        losses = {
            name: {key: result[key] for key in (*outcomes[name].result.by_seed, "diverged")}
            | {"true_class_probability": summary[name]}
            for name, result in results.items()
        }
        content: dict[str, Any] = {"losses": losses, "interrupted": interrupted}
        write_result(folder, "loss_comparison", dataset, watch, **content)
    for name, outcome in outcomes.items():
        runs.print_outcome(outcome, dataset, results[name], target / name)
        print()
    print(f"histograms in {target / records.FIGURES}")
    return terminal.INTERRUPTED if interrupted else 0


if __name__ == "__main__":
    command.launch(main, define_flags)
