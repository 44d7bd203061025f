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

from absl import flags as absl_flags

from experiments.common import (
    axes,
    chunks,
    command,
    distributed,
    flags,
    resumable,
    terminal,
    training,
)
from experiments.common.data import load_data
from experiments.common.output import default_folder
from experiments.common.progress import Stopwatch
from experiments.common.results import ranked
from experiments.common.settings import Settings, unread
from experiments.sweep import record
from experiments.sweep.refit import refit
from linear_cifar.optimizers import OPTIMIZER_FIELDS

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
    flags.define("n_seeds", "split", "shuffle", "select", n_epochs=20)
    flags.define_features()
    others = [name for name in AXES if name not in ("learning_rate", "lam")]
    axes.define(*others, learning_rate="1e-4:1e-1:7:log", lam="1e-5:1:13:log")
    absl_flags.DEFINE_integer(
        "n_random", None, "Configurations to draw, from --seed; all combinations without it.", 1
    )
    absl_flags.DEFINE_bool(
        "refit", False, "Train the best on training and validation data too, and test that."
    )
    resumable.define_flags()
    distributed.define_flags()


def main(argv: list[str]) -> int:
    """Trains the table that the flags describe and writes the record."""
    del argv
    columns = axes.columns(AXES, FLAGS.n_random)
    distributed.start()
    watch = Stopwatch()
    fixed = Settings.from_flags(**{name: values[0] for name, values in columns.items()})
    configurations = _configurations(columns, fixed)
    folder = default_folder("sweep")
    with distributed.first_only(resumable.open_folder(folder, "a sweep")) as held:
        with watch.phase("load"):
            dataset = load_data(fixed.split, ("validation", "test"))
        training.check(configurations, dataset)
        if held:
            asked = {
                "axes": columns,
                "epochs": fixed.n_epochs,
                "order": "shuffled" if fixed.shuffle else "as stored",
                "seeds": [fixed.seed, fixed.n_seeds],
                "data": dataset.sha256,
            }
            held.begin(asked)
            table = f"{len(configurations)} configurations × {fixed.n_seeds} seeds"
            print(f"{table}, in {folder}", file=sys.stderr)
        kept, interrupted = chunks.train(configurations, dataset, watch, folder / "chunks")
        if interrupted:
            done = f"{kept.finished.sum()} of {len(kept.finished)} runs are finished"
            print(f"interrupted: {done}; {resumable.goes_on(folder)}", file=sys.stderr)
            return terminal.INTERRUPTED
        results = ranked(chunks.results(configurations, kept), FLAGS.select)
        refitted = None
        if FLAGS.refit and not results[0].diverged:
            refitted = refit(results[0].settings, dataset, watch)
        if held:
            record.write(columns, results, refitted, dataset, folder, watch)
    return 0


def _configurations(columns: dict[str, list], fixed: Settings) -> list[Settings]:
    """The table's configurations; those that differ only in what isn't read are one."""
    usual = Settings().hyperparameters
    configurations = []
    for values in zip(*columns.values(), strict=True):
        settings = fixed.but(**dict(zip(columns, values, strict=True)))
        not_read = {name: getattr(usual, name) for name in unread(settings.optimizer)}
        configurations.append(settings.but(**not_read))
    return list(dict.fromkeys(configurations))


if __name__ == "__main__":
    command.launch(main, define_flags)
