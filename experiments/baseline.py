"""One configuration: training curves, weight images, and accuracy on the test images.

python -m experiments.baseline --lam=0.1
python -m experiments.baseline --optimizer=adam --learning_rate=1e-4 --n_seeds=10

It trains on data_batch_1, validates on data_batch_2 and tests on test_batch. With --lam=0.1 expect
a test accuracy of about 0.39, after a few seconds on two cores.
"""

from typing import TYPE_CHECKING, Any

from experiments.common import cli, flags, folder, run_record, training
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch
from linear_cifar import Dataset, sweep
from linear_cifar.training import SweepChunk, device_mesh

if TYPE_CHECKING:
    import pandas as pd


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*flags.RUN)
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains the configuration that the flags describe."""
    del argv
    return run("baseline")


def run(experiment: str, split: str = "assignment") -> int:
    """Trains, tests and records the configuration of the flags; returns the exit code."""
    watch = Stopwatch()
    runs, config = training.runs_from_flags(), training.config_from_flags(measure=True)
    with folder.new_run(experiment) as (path, target):
        with watch.phase("load"):
            dataset = load_data(split)
        trained, interrupted = train(runs, config, dataset, watch)
        result = run_record.write(
            path, experiment, runs, trained, dataset, watch, split=split, interrupted=interrupted
        )
    run_record.print_result(result, dataset, target)
    return cli.INTERRUPTED if interrupted else 0


def train(
    runs: "pd.DataFrame", config: Any, dataset: Dataset, watch: Stopwatch
) -> tuple[SweepChunk, bool]:
    """Trains every run of a table; an interrupt keeps the finished runs.

    Returns:
      The trained runs, and whether an interrupt came before all were finished.
    """
    keys, table = training.sweep_arguments(runs)
    progress = training.SweepProgress(runs, config)
    hooks: dict[str, Any] = {"on_epoch": progress.epoch, "on_chunk": progress.chunk}
    try:
        with watch.phase("train"):
            sweep(keys, table, dataset, config, mesh=device_mesh(), **hooks)
    except KeyboardInterrupt:
        return progress.collected(), True
    return progress.collected(), False


if __name__ == "__main__":
    cli.launch(main, define_flags)
