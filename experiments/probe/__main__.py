"""A linear probe of your own features: the best λ, its test accuracy, and a model to use.

It solves every λ, picks the best on validation data, fits it again to training and validation data,
and tests once.

python -m experiments.probe --features=FOLDER
python -m experiments.probe --features=FILE --lam=1e-10:10:45:log --n_train=100,1000,10000
python -m experiments.probe --features=FILE --C=1e-6:1e3:45:log --n_folds=5 --one_standard_error
python -m experiments.probe --model=RUN/model.npz --predict=FILE

Every λ is solved to a certified gap. A λ so small that it takes more than 75 passes over the data
ends once its predictions of the validation examples have stayed the same for 50 passes ("settled"
in path.csv). The test gives accuracy with its 95 % interval, by class (per_class.csv), confusions,
and calibration before and after a temperature, which is fitted to examples that the model hasn't
seen. --n_train and --n_per_class add a learning curve. --predict applies the model to a file of
further features. index.html shows all results as one page. Every finished chunk of λ is on disk
before the next one starts, and --resume continues after any interruption.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from absl import flags as absl_flags

from experiments.common import cli, distributed, folder, path
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch, print_table
from experiments.probe import learning, measures, page, prediction
from linear_cifar import Dataset, InputError
from linear_cifar.data import SPLITS

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    path.define_flags(lam="1e-6:10:29:log")
    learning.define_flags()
    prediction.define_flags()


def main(argv: list[str]) -> int:
    """Fits a probe, or predicts with the model of an earlier one."""
    del argv
    if FLAGS.model is not None:
        return prediction.predict_with_model()
    if FLAGS.features is None:
        raise InputError(
            "--features names the file or folder to probe (for the images use lambda_path)"
        )
    distributed.start()
    watch = Stopwatch()
    with folder.resumable_run("probe") as target:
        with watch.phase("load"):
            dataset = load_data(required=path.required_splits())
        further = prediction.load_further(dataset.n_features, dataset.feature_names)
        sizes = learning.sizes_from_flags(dataset)
        fit = path.fit_path(target, "probe", dataset, watch, settle=True)
        lam, config = fit.table.lam.to_numpy(), path.config_from_flags()
        curve = learning.learning_curve(sizes, lam, dataset, config, watch)
        if jax.process_index():
            return 0
        with watch.phase("evaluate"):
            test = measures.test_refit(fit, dataset, config.loss)
        record = Record(fit, test, curve, dataset)
        _write(record, target, watch)
        if further is not None:
            prediction.write_predictions(target, test.model, further)
        folder.write_result(target, "probe", dataset, watch, **_answer(record))
    _print(record, target, watch)
    return 0


class Record(NamedTuple):
    """A finished probe."""

    fit: path.Fit
    test: measures.TestReport
    curve: "pd.DataFrame"  # a row per draw of the learning curve
    dataset: Dataset


def _write(record: Record, target: Path, watch: Stopwatch) -> None:
    """Writes the tables, the figures and the model."""
    from linear_cifar import plots  # matplotlib takes half a second

    fit, test, curve, dataset = record
    title, names = path.title(dataset), dataset.class_names
    with watch.phase("plot"):
        heading = f"Test examples, {title}"
        figures = {
            "path": path.plot_choice(fit.table, fit.choice, title),
            "confusions": plots.plot_confusion(test.counts, names, heading),
            "per_class": plots.plot_per_class(test.by_class, names, f"Test accuracy, {title}"),
            "reliability": plots.plot_reliability(test.before, test.after, heading),
            **learning.figures(curve, f"Test accuracy over training examples, {title}"),
        }
        folder.write_figures(target, figures, with_png=True)
    folder.write_table(target / "path.csv", fit.table)
    folder.write_table(target / "per_class.csv", measures.class_table(test, names))
    if len(curve):
        folder.write_table(target / "learning_curve.csv", curve)
    for suffix in (".npz", ".safetensors"):
        with folder.replacing(target / f"model{suffix}") as partial:
            test.model.save(partial)
    page.write(target, fit, test, curve, dataset, _lines(record))


def _answer(record: Record) -> dict[str, Any]:
    """What `result.json` says, with the answer at its top level."""
    fit, test, curve, dataset = record
    return {
        **path.answer(fit),
        "balanced_accuracy": test.balanced_accuracy,
        f"top_{measures.TOP_K}_accuracy": test.top_k and test.top_k.estimate,
        "temperature": test.model.temperature,
        "not_calibrated": test.not_calibrated,
        "calibration_error": test.before.error,
        "calibration_error_with_temperature": test.after.error,
        "n": sum(len(getattr(dataset, name).labels) for name in ("train", "validation")),
        "d": dataset.n_features,
        "n_classes": dataset.n_classes,
        "normalise_rows": dataset.normalise_rows,
        "confusions": test.counts,
        "reliability": {"before": test.before._asdict(), "after": test.after._asdict()},
        "learning_curve": curve.to_dict("records"),
    }


def _lines(record: Record) -> list[tuple[str, Any]]:
    """The lines of the printed table that the page has, too."""
    fit, test, curve, dataset = record
    calibration = test.not_calibrated or (
        f"{test.after.error:.4f} after scaling by the temperature {test.model.temperature:.3g}"
    )
    lines: list[tuple[str, Any]] = [
        *path.answer_lines(fit, dataset),
        ("balanced accuracy", test.balanced_accuracy),
    ]
    if test.top_k is not None:
        lines.append((f"top-{measures.TOP_K} accuracy", test.top_k.estimate))
    lines.append(("expected calibration error", f"{test.before.error:.4f}; {calibration}"))
    return lines + learning.describe(curve)


def _print(record: Record, target: Path, watch: Stopwatch) -> None:
    """Prints the answer."""
    dataset = record.dataset
    sizes = (len(getattr(dataset, name).labels) for name in SPLITS)
    counts = "{} training, {} validation and {} test examples".format(*sizes)
    data = f"{counts} of {dataset.n_features} features, {dataset.n_classes} classes"
    if len(dataset.class_names) <= measures.MAX_PRINTED_CLASSES:
        report = measures.class_table(record.test, dataset.class_names)
        print(report.to_string(index=False, float_format="{:.3f}".format), end="\n\n")
    more = [("seconds", watch), ("written to", target), ("page", target / "index.html")]
    print_table([("data", data), *_lines(record), *more])
    path.note_edge(record.fit)


if __name__ == "__main__":
    cli.launch(main, define_flags)
