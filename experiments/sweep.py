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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    others = [name for name in AXES if name not in ("learning_rate", "lam")]
    define_sweep(axes=others, learning_rate="1e-4:1e-1:7:log", lam="1e-5:1:13:log")
    absl_flags.DEFINE_integer(
        "n_random", None, "Configurations to draw, from --seed, instead of all combinations.", 1
    )


def define_sweep(*settings: str, axes: Sequence[str] = (), **defaults: Any) -> None:
    """Defines the flags of a sweep: settings with one value, axes, and axes with own defaults."""
    flags.define("n_seeds", "split", "shuffle", "select", *settings, n_epochs=20)
    flags.define_features()
    flags.define_axes(*axes, **defaults)
    absl_flags.DEFINE_bool(
        "refit", False, "Train the best on training and validation data together, and test that."
    )
    flags.define_list(
        "table",
        [],
        ("markdown", "latex", "csv"),
        "Also write the table of λ × learning rate, mean ± standard deviation over seeds.",
    )
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
    table = training.configurations(**axes)
    runs = training.runs_of(table, FLAGS.seed, FLAGS.n_seeds)
    with distributed.first_only(folder.resumable_run(experiment)) as opened:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, required=("validation", "test"))
        settings = {
            **{name: FLAGS[name].value for name in ("n_epochs", "shuffle", "seed", "n_seeds")},
            **{name: list(dict.fromkeys(table[name].tolist())) for name in training.SETTINGS},
            "n_configurations": len(table),
            "data": dataset.sha256,
        }
        config = training.config_from_flags(measure=False)
        check(runs, dataset, config)
        distributed.check_same(folder.fingerprint(settings, flags.shared_values()))
        path = opened.path if opened else Path(FLAGS.output_dir or "runs")
        if opened:
            opened.start(settings)
            seeds = f" × {FLAGS.n_seeds} seeds" if FLAGS.n_seeds > 1 else ""
            print(f"{len(table)} configurations{seeds}, in {path}", file=sys.stderr)
        chunks = folder.chunks_of(path, settings, table.to_dict("list"))
        measures, interrupted = train(runs, config, dataset, watch, chunks)
        if interrupted:
            n_finished = np.isfinite(measures["train_accuracy"]).sum()
            done = f"{n_finished} of {len(runs)} runs are finished"
            raise folder.Interrupted(f"{done}; {folder.resume_hint(path)}")
        results = training.by_configuration(runs, measures, FLAGS.select)
        refitted = None
        if FLAGS.refit and not results.diverged.iloc[0]:
            refitted = refit(runs[runs.configuration == results.index[0]], config, dataset, watch)
        if opened:
            record = sweep_record.Record(experiment, axes, runs, measures, results, refitted)
            sweep_record.write(record, chunks, dataset, path, watch)
    return 0


def check(runs: "pd.DataFrame", dataset: Dataset, config: TrainConfig) -> None:
    """Raises `InputError` unless every configuration can be trained on these data."""
    keys, columns = training.sweep_arguments(runs)
    sweep(keys, columns, dataset, config, finished=range(len(runs)))


def train(
    runs: "pd.DataFrame",
    config: TrainConfig,
    dataset: Dataset,
    watch: Stopwatch,
    chunks: folder.Chunks,
) -> tuple[dict[str, np.ndarray], bool]:
    """Trains every run that the chunks don't have yet, and writes each chunk as it is finished.

    Returns:
      `training.MEASURES`, each [R], NaN for unfinished runs; and whether an interrupt came.
    """
    measures = {name: np.full(len(runs), np.nan) for name in training.MEASURES}
    is_finished = np.zeros(len(runs), bool)
    if jax.process_index() == 0:
        for part in folder.read_chunks(chunks):
            is_finished[part["rows"]] = True
            for name, values in measures.items():
                values[part["rows"]] = part[name]
    received = distributed.from_first({"is_finished": is_finished, **measures})
    is_finished = received.pop("is_finished")
    measures, finished = received, set(np.flatnonzero(is_finished).tolist())
    progress = training.SweepProgress(runs, config, finished, keep=False)

    def on_chunk(chunk: SweepChunk) -> None:
        with watch.phase("evaluate"):
            of_chunk = training.measure_runs(chunk, runs, dataset)
        arrays = chunk.params._asdict() | of_chunk
        if config.measure:
            # With a prefix, because measures have the same names.
            arrays |= {f"history_{n}": a for n, a in chunk.history._asdict().items()}
        folder.write_chunk(chunks, chunk.rows, **arrays)
        for name, values in measures.items():
            values[chunk.rows] = of_chunk[name]
        progress.chunk(chunk)

    keys, table = training.sweep_arguments(runs)
    hooks: dict[str, Any] = {"on_epoch": progress.epoch, "on_chunk": on_chunk}
    try:
        with watch.phase("train"):
            sweep(keys, table, dataset, config, mesh=device_mesh(), finished=finished, **hooks)
    except KeyboardInterrupt:
        return measures, True
    return measures, False


class Refit(NamedTuple):
    """The best configuration, trained on training and validation data."""

    test_accuracy: np.ndarray  # [S]
    params: Params  # of the first seed


def refit(runs: "pd.DataFrame", config: TrainConfig, dataset: Dataset, watch: Stopwatch) -> Refit:
    """Trains one configuration on training and validation data, and tests it."""
    runs = runs.reset_index(drop=True)
    keys, table = training.sweep_arguments(runs)
    both = with_validation(dataset)
    progress = training.SweepProgress(runs, config)
    with watch.phase("train"):
        params, history = sweep(
            keys, table, both, config, mesh=device_mesh(), on_epoch=progress.epoch
        )
    with watch.phase("evaluate"):
        chunk = SweepChunk(np.arange(len(runs)), params, history, config.n_epochs)
        accuracy = training.measure_runs(chunk, runs, both)["test_accuracy"]
    return Refit(accuracy, jax.tree.map(lambda a: a[0], params))


if __name__ == "__main__":
    cli.launch(main, define_flags)
