"""A probe of classes: its path, refit, test and learning curve, and the files with the results."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.common import folder, path, path_record
from experiments.common.data import describe_sizes
from experiments.common.progress import Stopwatch, print_table
from experiments.probe import learning, measures, page
from experiments.probe.comparison import Probed
from linear_cifar import Classifier, Dataset

if TYPE_CHECKING:
    import pandas as pd

MEASURE = "accuracy"


class Record(NamedTuple):
    """A finished probe."""

    fit: path.Fit
    test: measures.TestReport
    curve: "pd.DataFrame"  # a row per draw of the learning curve
    dataset: Dataset

    @property
    def model(self) -> Classifier:
        """The refitted model."""
        return self.test.model


def check(dataset: Dataset) -> None:
    """Raises `InputError` if a flag doesn't fit the data."""
    path.problems_from_flags(dataset)
    learning.sizes_from_flags(dataset)


def fit(
    target: Path, settings: Any, dataset: Dataset, watch: Stopwatch, part: str = ""
) -> Record | None:
    """Fits and tests the probe and the learning curve; only the first process returns a record."""
    problems, sizes = path.problems_from_flags(dataset), learning.sizes_from_flags(dataset)
    fitted = path.fit_path(target, problems, settings, dataset, watch, settle=True, part=part)
    lam, config = fitted.first.problems.path, path.config_from_flags()
    curve = learning.learning_curve(sizes, lam, dataset, config, watch)
    if jax.process_index():
        return None
    with watch.phase("evaluate"):
        return Record(fitted, measures.test_refit(fitted, dataset, config.loss), curve, dataset)


def probed(record: Record) -> Probed:
    """What a comparison of feature sets needs."""
    fitted, test, _, dataset = record
    predicted = test.model.predict(dataset.test.inputs)
    labels = np.array(dataset.class_names)[np.asarray(dataset.test.labels)]
    estimate, low, high = (fitted.refit.test[f"test_accuracy{end}"] for end in path.ENDS)
    gap = fitted.refit.optimum.gap[0] / fitted.refit.optimum.cost[0]
    row = {"d": dataset.n_features, "estimate": estimate, "low": low, "high": high}
    row |= {"lam": fitted.refit.lam, "gap": gap}
    return Probed(predicted == labels, row, None, folder.describe_dataset(dataset))


def write(record: Record, target: Path, watch: Stopwatch) -> None:
    """Writes the tables, the figures, the model and `result.json`."""
    from linear_cifar import plots  # matplotlib takes half a second

    fit, test, curve, dataset = record
    title, names = path_record.title(dataset), dataset.class_names
    with watch.phase("plot"):
        heading = f"Test examples, {title}"
        figures = {
            "path": path_record.plot_choice(fit.table, fit.choice, title),
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
    folder.write_result(target, "probe", dataset, watch, **_answer(record))


def _answer(record: Record) -> dict[str, Any]:
    """What `result.json` says, with the answer at its top level."""
    fit, test, curve, dataset = record
    return {
        **path_record.answer(fit),
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
    """Names and values of the answer; the command prints them and the page shows them."""
    fit, test, curve, dataset = record
    calibration = test.not_calibrated or (
        f"{test.after.error:.4f} after scaling by the temperature {test.model.temperature:.3g}"
    )
    lines: list[tuple[str, Any]] = [
        *path_record.answer_lines(fit, dataset),
        ("balanced accuracy", test.balanced_accuracy),
    ]
    if test.top_k is not None:
        lines.append((f"top-{measures.TOP_K} accuracy", test.top_k.estimate))
    lines.append(("expected calibration error", f"{test.before.error:.4f}; {calibration}"))
    return lines + learning.describe(curve)


def print_answer(record: Record, target: Path, watch: Stopwatch) -> None:
    """Prints the answer."""
    names = record.dataset.class_names
    if len(names) <= measures.MAX_PRINTED_CLASSES:
        report = measures.class_table(record.test, names)
        print(report.to_string(index=False, float_format="{:.3f}".format), end="\n\n")
    more = [("seconds", watch), ("written to", target), ("page", target / "index.html")]
    print_table([("data", describe_sizes(record.dataset)), *_lines(record), *more])
    path_record.note_edge(record.fit)
