"""The page of a probe: the answer, by class, its calibration, and how λ was chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from experiments.common import folder, path
from experiments.common.page import Column, Figure, Section, write_page
from experiments.probe import measures
from linear_cifar import Dataset

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
CLASS_COLUMNS = [
    Column("class", "class"),
    Column("test examples", "support", "count"),
    Column("accuracy", "accuracy", "accuracy"),
    Column("95 % interval", ("low", "high"), "accuracy"),
    Column("precision", "precision", "accuracy"),
    Column("F1", "f1", "accuracy"),
]
CURVE_COLUMNS = [
    Column("training examples", "n", "count"),
    Column("per class", "n_per_class", "count"),
    Column("draw", "draw", "count"),
    Column("chosen λ", "lam", "lam"),
    Column("test accuracy", "test_accuracy", "accuracy"),
]
CURVE_FIGURES = [
    Figure(
        "learning_curve",
        "Test accuracy over the number of training examples, with a point per draw.",
        "Each class keeps its share of the examples. Every draw chooses its own λ.",
    ),
    Figure(
        "few_shot",
        "Test accuracy over the number of training examples, with a point per draw.",
        "Every class has the same number of examples. Every draw chooses its own λ.",
    ),
]


def write(
    target: Path,
    fit: path.Fit,
    test: measures.TestReport,
    curve: "pd.DataFrame",
    dataset: Dataset,
    lines: Sequence[tuple[str, Any]],
) -> None:
    """Writes `index.html`; `lines` are the answer's names and values."""
    sections = [
        Section("Results", facts=lines),
        _classes(test, dataset),
        _calibration(test),
        *([_learning(curve)] if len(curve) else []),
        _choice(fit, dataset),
        _certificate(fit, dataset),
    ]
    data = [folder.describe_dataset(dataset)]
    title = f"Linear probe of {dataset.name}"
    write_page(target, title, _answer(fit, dataset), sections, "probe", data)


def _answer(fit: path.Fit, dataset: Dataset) -> str:
    accuracy, low, high = (fit.refit.test[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
    return (
        f"A linear probe of {dataset.n_features:,} features tells {dataset.n_classes:,} classes "
        f"apart with a test accuracy of {accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), on "
        f"{len(dataset.test.labels):,} test examples."
    )


def _classes(test: measures.TestReport, dataset: Dataset) -> Section:
    figures = [
        Figure(
            "per_class",
            "Test accuracy of each class, with its 95 % interval.",
            "The test accuracy of each class, with its 95 % interval.",
        ),
        Figure(
            "confusions",
            "Confusion matrix: true classes in rows, predicted classes in columns.",
            "How test examples of each true class (rows) are predicted (columns).",
        ),
    ]
    table = measures.class_table(test, dataset.class_names)
    text = (
        "The accuracy of a class is the share of its examples that the probe gets right (recall), "
        "and the precision is the share of its predictions that are right."
    )
    return Section("Classes", [text], table=table, columns=CLASS_COLUMNS, figures=figures)


def _calibration(test: measures.TestReport) -> Section:
    if test.not_calibrated:
        text = f"The probabilities aren't scaled: {test.not_calibrated}."
    else:
        text = (
            "The temperature scales the logits. It was fitted to examples that the probe hadn't "
            "seen. Test examples weren't among them."
        )
    figure = Figure(
        "reliability",
        "Accuracy over confidence on test examples, before and after scaling.",
        "Accuracy over confidence on test examples. On the diagonal, the probe is right as often "
        "as its probabilities say.",
    )
    return Section("Calibration", [text], figures=[figure])


def _learning(curve: "pd.DataFrame") -> Section:
    by_size = curve.n_per_class.isna()
    present = zip(CURVE_FIGURES, (by_size.any(), (~by_size).any()), strict=True)
    figures = [figure for figure, is_drawn in present if is_drawn]
    return Section("Learning curve", table=curve, columns=CURVE_COLUMNS, figures=figures)


def _choice(fit: path.Fit, dataset: Dataset) -> Section:
    choice, n_validation = fit.choice, len(dataset.validation.labels)
    measure = {"accuracy": "the highest accuracy", "loss": "the lowest loss"}[choice.select]
    source = f"the {n_validation:,} validation examples"
    if choice.source == "folds":
        source = f"the left-out examples of {FLAGS.n_folds} folds, on average"
    rule = f"Of {len(fit.table):,} values of λ, the best one has {measure} on {source}"
    if FLAGS.one_standard_error:
        rule += "; the chosen one is the largest within one standard error"
    fitted = "training and validation examples together" if n_validation else "training examples"
    text = [
        f"{rule}. The chosen λ was fitted again to all {fitted}, and tested once: test examples "
        "had no part in the choice."
    ]
    if note := path.edge_note(fit):
        text.append(f"Note: {note}.")
    table = fit.table.assign(choice="–")
    table["ending"] = np.select(
        [table.converged, table.settled], ["certified", "settled"], "unfinished"
    )
    for mark, row in (("best", choice.best), ("chosen", choice.chosen)):
        table.loc[row, "choice"] = mark
    splits = [s for s in ("train", "validation", "test") if table[f"{s}_loss"].notna().any()]
    splits = list(dict.fromkeys([*splits[:-1], choice.source, splits[-1]]))
    columns = [
        Column("λ", "lam", "lam"),
        Column("C", "C", "lam"),
        Column("choice", "choice"),
        *(Column(f"{split} accuracy", f"{split}_accuracy", "accuracy") for split in splits),
        Column(f"{choice.source} loss", f"{choice.source}_loss", "accuracy"),
        Column("passes", "passes", "count"),
        Column("relative gap", "gap", "share"),
        Column("ending", "ending"),
    ]
    figure = Figure(
        "path",
        "Accuracy and loss over λ, with the best λ marked.",
        "Accuracy and loss of every λ. These fits saw training examples only.",
    )
    return Section("The choice of λ", text, table=table, columns=columns, figures=[figure])


def _certificate(fit: path.Fit, dataset: Dataset) -> Section:
    summary, refit = fit.summary, fit.refit
    counts = f"{summary['n_converged']:,} are certified and {summary['n_settled']:,} settled"
    if summary["n_unfinished"]:
        counts += f"; {summary['n_unfinished']:,} ended by rounding or --max_passes"
    split = "validation" if len(dataset.validation.labels) else "training"
    gap = refit.optimum.gap[0] / refit.optimum.cost[0]
    low, high = (f"{end:.4f}" for end in refit.test_accuracy_at_optimum)
    proven = f"be {low}" if low == high else f"lie between {low} and {high}"
    text = [
        f"Of {summary['n']:,} fits, {counts}. The worst relative gap is "
        f"{summary['worst_gap']:.1e}.",
        "Certified: the cost is proven to be above its minimum by at most "
        f"{FLAGS.tolerance:g} of itself (the relative gap).",
        f"Settled: the solver stopped earlier, because the predicted classes of the {split} "
        "examples had stayed the same for 50 passes; the gap says how far the cost may still be "
        "from its minimum.",
        f"The probe itself has a relative gap of {gap:.1e}. The exact optimum's test accuracy is "
        f"proven to {proven}.",
    ]
    return Section("What is certified", text)
