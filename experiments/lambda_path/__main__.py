"""The exact optimum for every λ, each with its certificate; the best by validation is tested.

python -m experiments.lambda_path --lam=1e-4:10:41:log
python -m experiments.lambda_path --split=full --loss=multi_bce
python -m experiments.lambda_path --n_folds=5 --one_standard_error

The cost is convex, so that it has a minimum, which no learning rate, batch size or number of epochs
has a part in. path.csv has a row a λ: the cost, what it is above its minimum by at most (gap), and
loss and accuracy with 95 % intervals of the examples. The chosen λ is fitted again to training and
validation data and tested. Then the report's runs of gradient descent on the same data are trained,
to show where they stop. Each finished chunk is kept at once, and --resume goes on after an
interruption.
"""

import sys

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import axes, command, flags, resumable, solving
from experiments.common.data import load_data
from experiments.common.output import default_folder
from experiments.common.paths import as_path, choose
from experiments.common.progress import Stopwatch
from experiments.lambda_path import record, stopping
from linear_cifar.data import Dataset
from linear_cifar.losses import LOSSES
from linear_cifar.optimum.folds import N_FOLDS, stratified_folds
from linear_cifar.optimum.solver import DEFAULTS, LAM, check_fits

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define("loss", "split", "tolerance", "max_passes", "select")
    flags.define_features()
    axes.define(settings={**flags.SETTINGS, "lam": LAM}, lam="1e-4:10:41:log")
    absl_flags.DEFINE_integer(
        "n_folds",
        None,
        f"Choose λ by {N_FOLDS.help}, and not on validation data; --seed deals them out.",
        2,
    )
    absl_flags.DEFINE_bool(
        "one_standard_error",
        False,
        "Choose the largest λ that is within one standard error of the best, over the folds or "
        "over the validation examples.",
    )
    resumable.define_flags()


def main(argv: list[str]) -> int:
    """Solves the path that the flags describe and writes the record."""
    del argv
    lam = np.unique(axes.columns(["lam"])["lam"])
    flags.check_runs(
        f"{len(lam)} λ, {FLAGS.n_folds or 0} folds", len(lam) * (1 + (FLAGS.n_folds or 0))
    )
    how = DEFAULTS._replace(
        loss=LOSSES[FLAGS.loss], tolerance=FLAGS.tolerance, max_passes=FLAGS.max_passes
    )
    check_fits(lam, how.dtype)
    watch = Stopwatch()
    folder = default_folder("lambda_path")
    with resumable.open_folder(folder, "a λ path") as held:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, ("validation", "test"))
        # The report has no runs on features of one's own.
        runs = [] if FLAGS.features else stopping.runs(FLAGS.split, FLAGS.loss)
        others = [run.lam for run in runs]
        what = solving.problems(lam, others, dataset, _folds(dataset))
        held.begin(_asked(lam, dataset))
        print(f"{len(what.lam)} optima, in {folder}", file=sys.stderr)
        columns, interrupted = solving.solve_all(what, dataset, how, folder / "chunks", watch)
        if interrupted:
            n_finished = int(np.isfinite(columns["cost"]).sum())
            done = f"{n_finished} of {len(what.lam)} optima are finished"
            print(f"interrupted: {done}; {resumable.goes_on(folder)}", file=sys.stderr)
            return 130
        path = as_path(what, columns)
        choice = choose(path, FLAGS.select, FLAGS.one_standard_error)
        refit = solving.refit(float(lam[choice.chosen]), dataset, how, watch)
        stopped = stopping.train(runs, dataset, watch)
        record.write(path, choice, refit, stopped, dataset, folder, watch)
    return 0


def _folds(dataset: Dataset) -> np.ndarray | None:
    if FLAGS.n_folds is None:
        return None
    return stratified_folds(jax.random.key(FLAGS.seed), dataset.train.labels, FLAGS.n_folds)


def _asked(lam: np.ndarray, dataset: Dataset) -> dict:
    names = ("loss", "tolerance", "max_passes", "n_folds", "select", "one_standard_error", "seed")
    return {
        "lam": lam.tolist(),
        **{name: FLAGS[name].value for name in names},
        "data": dataset.sha256,
    }


if __name__ == "__main__":
    command.launch(main, define_flags)
