"""Any table of configurations, resumable, on several devices and hosts; the best one is tested.

python -m experiments.sweep --lam=1e-5:1:13:log --learning_rate=1e-4:1e-1:7:log --n_seeds=3
python -m experiments.sweep --lam=1e-5:1:log --learning_rate=1e-4:1e-1:log --n_random=200
python -m experiments.sweep --optimizer=momentum,adam --learning_rate=1e-5:1e-2:7:log --refit

Axes are lists or ranges. The sweep trains all combinations, or --n_random drawn from the lists and
ranges. sweep.csv has a row per configuration, the best on validation data first. Its test columns
are for looking only: choose by validation, and quote the test accuracy of the best.

Every finished chunk is on disk before the next one starts, and --resume continues after any
interruption. To share the work among processes, start the same command in each with --distributed.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import cli, distributed, flags, folder, sweep_record, training
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch
from linear_cifar import Dataset, Params, TrainConfig, sweep, with_validation
from linear_cifar.optimizers import OPTIMIZER_FIELDS
from linear_cifar.training import SweepChunk, device_mesh

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS
AXES = (
    "batch_size",
    "loss",
    "optimizer",
    *dict.fromkeys(name for names in OPTIMIZER_FIELDS.values() for name in names),
    "decay_factor",
    "decay_every",
    "learning_rate",
    "lam",
)


def define_flags() -> None:
    """Defines the command's flags."""
    define_sweep(axes=[name for name in AXES if name not in ("learning_rate", "lam")])
    flags.define_axis("learning_rate", "1e-4:1e-1:7:log")
    flags.define_axis("lam", "1e-5:1:13:log")
    absl_flags.DEFINE_integer(
        "n_random", None, "Configurations to draw, from --seed, instead of all combinations.", 1
    )


def define_sweep(*settings: str, axes: Sequence[str] = ()) -> None:
    """Defines the flags of a sweep: `settings` take one value, `axes` several."""
    names = ("n_seeds", "max_runs", "split", "shuffle", "select", *settings)
    flags.define(*names, n_epochs=20)
    flags.define_features()
    for name in axes:
        flags.define_axis(name)
    text = "Train the best configuration again, with the validation data too, and test that."
    absl_flags.DEFINE_bool("refit", False, text)
    text = "Also write the table of λ × learning rate, mean ± standard deviation over seeds"
    flags.define_list("table", [], ("markdown", "latex", "csv"), text)
    folder.define_resume()
    distributed.define_flags()


def main(argv: list[str]) -> int:
    """Trains the table that the flags describe."""
    del argv
    return run("sweep", flags.table_of_axes(AXES, FLAGS.n_random))


def run(experiment: str, axes: dict[str, np.ndarray]) -> int:
    """Trains a table of configurations and writes its record; returns the exit code."""
    distributed.start()
    watch = Stopwatch()
    with folder.resumable_run(experiment) as path:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, required=("validation", "test"))
        table = training.configurations(**axes)
        runs = training.runs_of(table)
        config = training.config_from_flags(measure=False)
        settings = {
            **{name: FLAGS[name].value for name in ("n_epochs", "shuffle", "seed", "n_seeds")},
            **{name: list(dict.fromkeys(table[name].tolist())) for name in training.SETTINGS},
            "n_configurations": len(table),
            "data": dataset.sha256,
        }
        keys, columns = training.sweep_arguments(runs)
        sweep(keys, columns, dataset, config, finished=range(len(runs)))  # it only checks
        distributed.check_same(folder.fingerprint(settings, flags.shared_values()))
        folder.start(path, experiment, settings)
        print(f"{len(table)} configurations, {len(runs)} runs, in {path}", file=sys.stderr)
        chunks = folder.chunks_of(path, settings, table.to_dict("list"), training.MEASURES)
        runs = train(runs, config, dataset, watch, chunks)
        results = training.by_configuration(runs, FLAGS.select)
        refitted = None
        if FLAGS.refit and not results.diverged.iloc[0]:
            refitted = refit(runs[runs.configuration == results.index[0]], config, dataset, watch)
        if jax.process_index():
            return 0
        record = sweep_record.Record(experiment, axes, runs, results, refitted)
        sweep_record.write(record, chunks, dataset, path, watch)
    sweep_record.print_answer(record, dataset, path, watch)
    return 0


def train(
    runs: "pd.DataFrame",
    config: TrainConfig,
    dataset: Dataset,
    watch: Stopwatch,
    chunks: folder.Chunks,
) -> "pd.DataFrame":
    """Trains every run that the chunks don't have yet, and writes each chunk as it is finished.

    Returns the runs with `training.MEASURES`.
    """
    measures, finished = folder.read_columns(chunks, len(runs), training.MEASURES)

    def on_chunk(chunk: SweepChunk) -> None:
        with watch.phase("evaluate"):
            measured = training.measure_runs(chunk, runs, dataset)
        arrays = chunk.params._asdict() | measured
        if config.measure:
            # With a prefix, because measures have the same names.
            arrays |= {f"history_{n}": a for n, a in chunk.history._asdict().items()}
        folder.write_chunk(chunks, chunk.rows, **arrays)
        for name, values in measured.items():
            measures[name][chunk.rows] = values

    keys, table = training.sweep_arguments(runs)
    show = training.progress_hook(runs, config, finished)
    hooks: dict[str, Any] = {"on_epoch": show, "on_chunk": on_chunk, "finished": finished}
    with watch.phase("train"):
        sweep(keys, table, dataset, config, mesh=device_mesh(), **hooks)
    return runs.assign(**measures)


def refit(
    runs: "pd.DataFrame", config: TrainConfig, dataset: Dataset, watch: Stopwatch
) -> tuple[Params, np.ndarray]:
    """Trains the seeds of a configuration on training and validation data.

    Returns the parameters of the first seed, and the test accuracies, [S].
    """
    runs = runs.reset_index(drop=True)
    keys, table = training.sweep_arguments(runs)
    both = with_validation(dataset)
    show = training.progress_hook(runs, config)
    with watch.phase("train"):
        trained = sweep(keys, table, both, config, mesh=device_mesh(), on_epoch=show)
    with watch.phase("evaluate"):
        chunk = SweepChunk(np.arange(len(runs)), *trained, config.n_epochs)
        accuracy = training.measure_runs(chunk, runs, both)["test_accuracy"]
    return jax.tree.map(lambda a: a[0], chunk.params), accuracy


if __name__ == "__main__":
    cli.launch(main, define_flags)
