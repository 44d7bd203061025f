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

from absl import flags as absl_flags

from experiments.common import command, distributed, path_flags, resumable, solving
from experiments.common.data import load_data
from experiments.common.output import default_folder
from experiments.common.paths import as_path, choose
from experiments.common.progress import Stopwatch
from experiments.lambda_path import record, stopping

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    path_flags.define(lam="1e-4:10:41:log")


def main(argv: list[str]) -> int:
    """Solves the path that the flags describe and writes the record."""
    del argv
    lam, how = path_flags.lam(), path_flags.solver()
    distributed.start()
    watch = Stopwatch()
    folder = default_folder("lambda_path")
    with distributed.first_only(resumable.open_folder(folder, "a λ path")) as held:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, path_flags.needed())
        # The report has no runs on features of one's own.
        runs = [] if FLAGS.features else stopping.runs(FLAGS.split, FLAGS.loss)
        others = [run.lam for run in runs]
        what = solving.problems(lam, others, dataset, path_flags.folds(dataset))
        path_flags.begin(held, lam, what, dataset)
        columns, interrupted = solving.solve_all(what, dataset, how, folder / "chunks", watch)
        if interrupted:
            return path_flags.say_interrupted(columns, what, folder)
        path = as_path(what, columns)
        choice = choose(path, FLAGS.select, FLAGS.one_standard_error)
        refit = solving.refit(float(lam[choice.chosen]), dataset, how, watch)
        stopped = stopping.train(runs, dataset, watch)
        if held:
            record.write(path, choice, refit, stopped, dataset, folder, watch)
    return 0


if __name__ == "__main__":
    command.launch(main, define_flags)
