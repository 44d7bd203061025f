"""A linear probe: λ chosen among exact optima, fitted again, tested once; and a model to use.

python -m experiments.probe --features=FOLDER
python -m experiments.probe --features=FILE --lam=1e-10:10:45:log --n_train=100,1000,10000
python -m experiments.probe --features=FILE --n_folds=5 --one_standard_error
python -m experiments.probe --model=RUN/model.npz --predict=FILE

The cost is minimised for every λ of the path, each with its certificate; a λ so small that this
takes more than 75 passes over the data ends where its predictions of the validation examples
have stayed the same for 50 ("settled" in path.csv). The λ that is best on validation examples, or
by folds, is fitted again to training and validation examples, and tested once: accuracy with its
95 % interval, by class, confusions, and calibration before and after a temperature, which is fitted
to validation examples that the model hasn't seen. --n_train and --n_per_class add a learning curve.
The folder holds probe.json, path.csv, figures, and the model as .npz and .safetensors; --predict
applies it to a file of further features. Each finished chunk of λ is kept at once, and --resume
goes on after an interruption.
"""

from absl import flags as absl_flags

from experiments.common import command, distributed, path_flags, resumable, solving
from experiments.common.data import load_data
from experiments.common.output import default_folder
from experiments.common.paths import as_path, choose
from experiments.common.progress import Stopwatch
from experiments.probe import learning, measures, prediction, record

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    path_flags.define(lam="1e-6:10:29:log")
    learning.define_flags()
    prediction.define_flags()


def main(argv: list[str]) -> int:
    """Fits a probe, or predicts with one, as the flags say."""
    del argv
    if FLAGS.model is not None:
        return prediction.with_model()
    lam, how = path_flags.lam(), path_flags.solver()
    distributed.start()
    watch = Stopwatch()
    folder = default_folder("probe")
    with distributed.first_only(resumable.open_folder(folder, "a probe")) as held:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, path_flags.needed())
        further = prediction.further(dataset.n_features, dataset.feature_names)
        sizes = learning.sizes(dataset)
        what = solving.problems(lam, (), dataset, path_flags.folds(dataset))
        path_flags.begin(held, lam, what, dataset)
        columns, interrupted = solving.solve_all(what, dataset, how, folder / "chunks", watch, True)
        if interrupted:
            return path_flags.say_interrupted(columns, what, folder)
        path = as_path(what, columns)
        choice = choose(path, FLAGS.select, FLAGS.one_standard_error)
        refit = solving.refit(float(lam[choice.chosen]), dataset, how, watch)
        curve = learning.measure(sizes, lam, dataset, how, watch)
        if held:
            chosen = measures.Chosen(path, choice, what, dataset, folder / "chunks")
            with watch.phase("evaluate"):
                tested = measures.test(refit, chosen, how.loss)
            record.write(chosen, refit, tested, curve, further, folder, watch)
    return 0


if __name__ == "__main__":
    command.launch(main, define_flags)
