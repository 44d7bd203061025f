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
from linear_cifar import Dataset, TrainConfig, sweep
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
    with folder.new_run(experiment) as (path, target):
        with watch.phase("load"):
            dataset = load_data(split)
        runs = training.runs_of(training.configurations())
        config = training.config_from_flags(measure=True)
        trained = train(runs, config, dataset, watch)
        result = run_record.write(path, experiment, runs, trained, dataset, watch, split=split)
    run_record.print_result(result, dataset, target, watch)
    return cli.INTERRUPTED if result["interrupted"] else 0


def train(
    runs: "pd.DataFrame", config: TrainConfig, dataset: Dataset, watch: Stopwatch
) -> SweepChunk:
    """Trains every run of a table; an interrupt keeps the finished runs, or else the epochs."""
    keys, table = training.sweep_arguments(runs)
    show = training.progress_hook(runs, config)
    epochs: list[SweepChunk] = []
    finished: list[SweepChunk] = []

    def on_epoch(chunk: SweepChunk) -> None:
        epochs[:] = [chunk]
        show(chunk)

    hooks: dict[str, Any] = {"on_epoch": on_epoch, "on_chunk": finished.append}
    try:
        with watch.phase("train"):
            sweep(keys, table, dataset, config, mesh=device_mesh(), **hooks)
    except KeyboardInterrupt:
        if not finished and not (epochs and epochs[0].epoch):
            raise
    return training.join_chunks(finished or epochs)


if __name__ == "__main__":
    cli.launch(main, define_flags)
