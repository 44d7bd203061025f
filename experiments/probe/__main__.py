"""A linear probe of your own features: the best λ, its test accuracy, and a model to use.

It solves every λ, picks the best on validation data, fits it again to training and validation data,
and tests once.

python -m experiments.probe --features=FOLDER
python -m experiments.probe --features=FILE --lam=1e-10:10:45:log --n_train=100,1000,10000
python -m experiments.probe --features=FILE --C=1e-6:1e3:45:log --n_folds=5 --one_standard_error
python -m experiments.probe --features=FILE --targets=TARGETS.csv
python -m experiments.probe --features='layers/*.npy'
python -m experiments.probe --model=RUN/model.npz --predict=FILE

Every λ is solved to a certified gap. A λ so small that it takes at least 40 passes over the data
ends once its predictions of the validation examples have stayed the same for 30 passes ("settled"
in path.csv). The test gives accuracy with its 95 % interval, by class (per_class.csv), confusions,
and calibration before and after a temperature, which is fitted to examples that the model hasn't
seen. --n_train and --n_per_class add a learning curve. --predict applies the model to a file of
other features. index.html shows all results as one page. Every finished chunk of λ is on disk
before the next one starts, and --resume continues after any interruption.
"""

import glob
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags as absl_flags

from experiments.common import cli, distributed, folder, path
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch, print_table, with_interval
from experiments.probe import classes, comparison, learning, page, prediction, targets
from linear_cifar import Dataset, InputError

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    path.define_flags(lam="1e-6:10:29:log")
    absl_flags.DEFINE_enum(
        "select",
        None,
        targets.METRICS,
        "The measure that chooses λ, on validation data or on folds: accuracy (the default) or "
        "loss; for targets also auroc (the default) or average_precision.",
    )
    absl_flags.DEFINE_string(
        "targets",
        None,
        "File or folder with T binary targets of the examples, instead of labels beside the "
        "features: a matrix [n, T] of 0 and 1, and -1 or NaN if unknown, or a column per target.",
    )
    learning.define_flags()
    prediction.define_flags()


def main(argv: list[str]) -> int:
    """Fits a probe, or one of each feature set, or predicts with the model of an earlier one."""
    del argv
    if FLAGS.model is not None:
        return prediction.predict_with_model()
    if FLAGS.features is None:
        raise InputError(
            "--features names the file or folder to probe (for the images use lambda_path)"
        )
    distributed.start()
    watch, paths = Stopwatch(), comparison.feature_sets(FLAGS.features)
    with folder.resumable_run("probe") as target:
        if len(paths) == 1:
            return probe(target, next(iter(paths.values())), watch)
        return probe_each(target, paths, watch)


def kind_of(dataset: Dataset) -> ModuleType:
    """The module that probes classes, or targets."""
    return targets if dataset.has_targets else classes


def load(features: Path, watch: Stopwatch, **keywords: Any) -> Dataset:
    """Loads a feature set and checks that the flags fit it."""
    with watch.phase("load"):
        dataset = load_data(required=path.required_splits(), features=features, **keywords)
    kind_of(dataset).check(dataset)
    return dataset


def probe(target: Path, features: Path, watch: Stopwatch) -> int:
    """Probes one feature set."""
    dataset = load(features, watch)
    kind = kind_of(dataset)
    new_inputs = prediction.load_further(dataset.n_features, dataset.feature_names)
    settings = path.start(target, "probe", dataset.sha256)
    record = kind.fit(target, settings, dataset, watch)
    if record is not None:
        if new_inputs is not None:
            prediction.write_predictions(target, record.model, new_inputs)
        kind.write(record, target, watch)
        kind.print_answer(record, target, watch)
    return 0


def probe_each(target: Path, paths: dict[str, Path], watch: Stopwatch) -> int:
    """Probes several feature sets of the same examples, and compares them.

    It loads each set once to check it, and again to probe it, because together they may not fit
    into memory.
    """
    if FLAGS.predict is not None:
        raise InputError("--predict needs the model of one feature set: see --model")
    checksums, first = {}, None
    for name, features in paths.items():
        dataset = load(features, watch)
        checksums[name] = dataset.sha256
        first = first or (name, dataset)
        comparison.check_same_examples((first[0], name), first[1], dataset)
    settings, probed = path.start(target, "probe", checksums), {}
    for index, (name, features) in enumerate(paths.items()):
        if not jax.process_index():
            print(f"{name}, {index + 1} of {len(paths)}", file=sys.stderr)
        set_watch = Stopwatch()
        dataset = load(features, set_watch, with_notice=False)
        kind = kind_of(dataset)
        record = kind.fit(target, settings, dataset, set_watch, part=f"set_{index}_")
        if record is not None:
            place = target / comparison.SETS / name
            place.mkdir(parents=True, exist_ok=True)
            kind.write(record, place, set_watch)
            probed[name] = kind.probed(record)
    if probed:
        write_comparison(target, probed, kind.MEASURE, watch)
    return 0


def write_comparison(
    target: Path, probed: Mapping[str, comparison.Probed], measure: str, watch: Stopwatch
) -> None:
    """Writes and prints the comparison of the sets in the folder of the run."""
    import pandas as pd

    pairs = comparison.compare(probed)
    table = comparison.comparison_table(probed, pairs)
    is_curve, title = glob.has_magic(FLAGS.features), f"{len(table)} feature sets"
    figures = {"comparison": comparison.plot_comparison(table, measure, is_curve, title)}
    folder.write_table(target / "comparison.csv", table)
    folder.write_table(target / "pairs.csv", pairs)
    if measure == targets.MEASURE:
        by_target = pd.DataFrame({name: one.auroc for name, one in probed.items()})
        by_target = by_target.dropna(how="all")  # targets with a problem
        folder.write_table(target / "auroc.csv", by_target.reset_index())
        figures["auroc"] = comparison.plot_auroc_map(by_target, title)
        if is_curve and len(by_target) <= comparison.MAX_CURVES:
            figures["auroc_curves"] = comparison.plot_auroc_curves(by_target, title)
    folder.write_figures(target, figures, with_png=True)
    data = [one.data for one in probed.values()]
    page.write_comparison(target, table, pairs, measure, figures, data)
    best = table.iloc[int(table.estimate.argmax())]
    content = {"measure": measure, "best": best.set, "sets": table.to_dict("records")}
    folder.write_result(target, "probe", None, watch, **content)
    columns = ["set", "d", "estimate", "low", "high", "difference", "p_holm", "verdict"]
    text = table[columns].to_string(index=False, float_format="{:.4g}".format, na_rep="")
    print(text, end="\n\n")
    estimate = with_interval(best.estimate, best.low, best.high)
    n_not_worse = int((table.verdict == comparison.NOT_WORSE).sum())
    print_table(
        [
            ("best", f"{best.set}, with a test {measure} of {estimate}"),
            (comparison.NOT_WORSE, f"{n_not_worse} of {len(table) - 1} others"),
            ("written to", target),
            ("page", target / "index.html"),
        ]
    )


if __name__ == "__main__":
    cli.launch(main, define_flags)
