"""Any table of configurations, trained at the machine's limit, resumable; the best is tested.

python -m experiments.sweep --lam=1e-5:1:13:log --learning_rate=1e-4:1e-1:7:log --n_seeds=3
python -m experiments.sweep --lam=1e-5:1:log --learning_rate=1e-4:1e-1:log --n_random=200
python -m experiments.sweep --optimizer=momentum,adam --learning_rate=1e-5:1e-2:7:log --refit

An axis is a list of values or a range. The sweep trains all combinations, or --n_random drawn from
the lists and ranges; sweep.csv has them sorted, the best on validation data first. Each finished
chunk is kept at once, and --resume goes on after an interruption. To share the work among several
processes, of one host or many, start the same command in each with --distributed.
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import axes, distributed, flags, resumable, runner, sweep_record, tables
from experiments.settings import OPTIMIZER_FIELDS, Settings, as_table
from experiments.sweep_record import Refit
from linear_cifar.datasets import Dataset, with_validation
from linear_cifar.devices import device_mesh, replicate
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import OPTIMIZERS
from linear_cifar.sweep import steps

FLAGS = absl_flags.FLAGS
AXES = (
    "batch_size", "loss", "optimizer", "momentum", "b1", "b2", "eps", "decay_factor",
    "decay_every", "learning_rate", "lam",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Trains the table that the flags describe and writes the record."""
    del argv
    columns = axes.columns(AXES, FLAGS.n_random)
    distributed.start()
    watch = runner.Stopwatch()
    fixed = Settings.from_flags(**{name: values[0] for name, values in columns.items()})
    with watch.phase("load"):
        dataset = runner.load_data(fixed.split)
    configurations = _configurations(columns, fixed)
    folder = Path(FLAGS.output_dir or f"runs/sweep-{runner.time_stamp()}")
    asked = {
        "axes": columns,
        "epochs": fixed.n_epochs,
        "order": "shuffled" if fixed.shuffle else "as stored",
        "seeds": [fixed.seed, fixed.n_seeds],
        "data": dataset.sha256,
    }
    with distributed.first_only(resumable.open_folder(folder, "a sweep", asked)):
        if jax.process_index() == 0:
            table = f"{len(configurations)} configurations × {fixed.n_seeds} seeds"
            print(f"{table}, in {folder}", file=sys.stderr)
        known, interrupted = tables.train(configurations, dataset, watch, folder / "chunks")
        if interrupted:
            done = f"{known.finished.sum()} of {len(known.finished)} runs are finished"
            print(f"interrupted: {done}; --resume --output_dir={folder} goes on", file=sys.stderr)
            return 130
        rows = tables.ranked(tables.rows(configurations, known), FLAGS.select)
        refit = None
        if FLAGS.refit and not rows[0]["diverged"]:
            refit = _refit(configurations[rows[0]["index"]], dataset, watch)
        if jax.process_index() == 0:
            sweep_record.write(columns, fixed, rows, refit, dataset, folder, watch)
    return 0


def _configurations(columns: dict[str, list], fixed: Settings) -> list[Settings]:
    """The table's configurations; those that differ only in what isn't read are one."""
    configurations = []
    for values in zip(*columns.values(), strict=True):
        settings = replace(fixed, **dict(zip(columns, values, strict=True)))
        read = settings.described["hyperparameters"]
        unread = {name for names in OPTIMIZER_FIELDS.values() for name in names} - read.keys()
        configurations.append(replace(settings, **{n: getattr(Settings, n) for n in unread}))
    return list(dict.fromkeys(configurations))


def _refit(settings: Settings, dataset: Dataset, watch: runner.Stopwatch) -> Refit:
    """Trains one configuration on training and validation data, and tests it."""
    key, hyperparameters, keywords = as_table([settings])
    mesh = device_mesh()
    both, test = with_validation(dataset), replicate(dataset.test, mesh)
    training = steps(key, hyperparameters, both, mesh=mesh, measure=False, **keywords)
    accuracy, params = np.zeros(len(key)), None
    for step in runner.timed(training, watch):
        if step.finished:
            with watch.phase("evaluate"):
                (tested,) = step.evaluate([test], both.standardiser)
            accuracy[step.rows] = np.asarray(tested.accuracy, float).round(7)
            of_rows = step.params
            if 0 in step.rows:
                params = jax.tree.map(lambda a: a[0], of_rows)
    assert params is not None
    return Refit(accuracy, params)


def _one_of(names: Collection[str]):
    return lambda value: value in names


def _define_axes() -> None:
    define = axes.define
    define("batch_size", "100", int, "Examples a step; at least 1.", lambda v: v >= 1)
    define("loss", "softmax", str, f"Losses: {', '.join(LOSSES)}.", _one_of(LOSSES))
    define("optimizer", "sgd", str, f"Optimisers: {', '.join(OPTIMIZERS)}.", _one_of(OPTIMIZERS))
    define("momentum", "0.9", float, "μ of momentum; below 1.", lambda v: 0 <= v < 1)
    define("b1", "0.9", float, "Adam's decay of means; below 1.", lambda v: 0 <= v < 1)
    define("b2", "0.999", float, "Adam's decay of mean squares; below 1.", lambda v: 0 <= v < 1)
    define("eps", "1e-8", float, "Adam's ε; above 0.", lambda v: v > 0)
    text = "What η is divided by at each decay; at least 1, which is no decay."
    define("decay_factor", "1", float, text, lambda v: v >= 1)
    text = "Epochs from one decay to the next; at least 1."
    define("decay_every", "10", int, text, lambda v: v >= 1)
    define("learning_rate", "1e-4:1e-1:7:log", float, "η; above 0.", lambda v: v > 0)
    define("lam", "1e-5:1:13:log", float, "λ of the penalty λ‖W‖²; at least 0.", lambda v: v >= 0)


if __name__ == "__main__":
    flags.define("n_seeds", "split", "shuffle", n_epochs=20)
    _define_axes()
    absl_flags.DEFINE_integer(
        "n_random", None, "Configurations to draw, from --seed; all combinations without it.", 1
    )
    absl_flags.DEFINE_enum(
        "select", "accuracy", ["accuracy", "loss"], "What on validation data makes the best."
    )
    absl_flags.DEFINE_bool(
        "refit", False, "Train the best on training and validation data too, and test that."
    )
    resumable.define_flags()
    distributed.define_flags()
    runner.launch(main)
