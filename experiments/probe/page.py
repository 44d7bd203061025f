"""The pages of a probe of classes, a probe of targets, and a comparison of feature sets."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from experiments.common import folder, path, path_record
from experiments.common.page import Column, Figure, Section, write_page
from experiments.common.progress import with_interval
from experiments.probe import measures
from experiments.probe.comparison import ALPHA, SETS, WORSE
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
        _certificate(fit.summary, _proof(fit), dataset),
    ]
    data = [folder.describe_dataset(dataset)]
    title = f"Linear probe of {dataset.name}"
    write_page(target, title, _answer(fit, dataset), sections, "probe", data)


def _answer(fit: path.Fit, dataset: Dataset) -> str:
    accuracy = with_interval(*(fit.refit.test[f"test_accuracy{end}"] for end in path.ENDS))
    return (
        f"A linear probe of {dataset.n_features:,} features tells {dataset.n_classes:,} classes "
        f"apart with a test accuracy of {accuracy}, on {len(dataset.test.labels):,} test examples."
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
    if note := path_record.edge_note(fit):
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


def _proof(fit: path.Fit) -> str:
    refit = fit.refit
    gap = refit.optimum.gap[0] / refit.optimum.cost[0]
    low, high = (f"{end:.4f}" for end in refit.test_accuracy_at_optimum)
    bounds = f"be {low}" if low == high else f"lie between {low} and {high}"
    return (
        f"The probe itself has a relative gap of {gap:.1e}. The exact optimum's test accuracy is "
        f"proven to {bounds}."
    )


def _certificate(summary: Mapping[str, Any], refits: str, dataset: Dataset) -> Section:
    """The section on `path.summarise_optima`, with a sentence about the refits."""
    counts = f"{summary['n_converged']:,} are certified and {summary['n_settled']:,} settled"
    if summary["n_unfinished"]:
        counts += f"; {summary['n_unfinished']:,} ended by rounding or --max_passes"
    split = "validation" if len(dataset.validation.labels) else "training"
    text = [
        f"Of {summary['n']:,} fits, {counts}. The worst relative gap is "
        f"{summary['worst_gap']:.1e}.",
        "Certified: the cost is proven to be above its minimum by at most "
        f"{FLAGS.tolerance:g} of itself (the relative gap).",
        f"Settled: the solver stopped earlier, because the predictions of the {split} examples had "
        "stayed the same for 30 passes; the gap says how far the cost may still be from its "
        "minimum.",
        refits,
    ]
    return Section("What is certified", text)


# Targets.

TARGET_COLUMNS = [
    Column("target", "target"),
    Column("known", "n_train", "count"),
    Column("positive", "n_train_positive", "count"),
    Column("λ", "lam", "lam"),
    Column("relative gap", "gap", "share"),
    Column("AUROC", "test_auroc", "accuracy"),
    Column("95 % interval", ("test_auroc_low", "test_auroc_high"), "accuracy"),
    Column("average precision", "test_average_precision", "accuracy"),
    Column("accuracy", "test_accuracy", "accuracy"),
    Column("balanced", "test_balanced_accuracy", "accuracy"),
    Column("loss", "test_loss", "accuracy"),
]
TARGET_FIGURES = [
    Figure(
        "auroc",
        "How the AUROC is distributed over targets, and the best and worst targets.",
        "AUROC on test examples: its distribution, and the best and the worst targets.",
    ),
    Figure(
        "lam",
        "How many targets chose each λ, and the AUROC over λ.",
        "The chosen λ, and the AUROC of the targets that chose it.",
    ),
]


def write_targets(
    target: Path,
    table: "pd.DataFrame",
    answer: Mapping[str, Any],
    dataset: Dataset,
    lines: Sequence[tuple[str, Any]],
) -> None:
    """Writes `index.html` of a probe of targets; `answer` is the content of `result.json`."""
    n_probed = answer["n_probed"]
    mean = with_interval(*(answer[f"mean_test_auroc{end}"] for end in path.ENDS))
    sentence = (
        f"Linear probes of {dataset.n_features:,} features predict {n_probed:,} of "
        f"{len(table):,} targets with a mean AUROC of {mean} on {len(dataset.test.labels):,} test "
        "examples."
    )
    by_target = [
        "Each target has a logistic regression of its own. Counts are of training and validation "
        "examples whose label is known; measures are on test examples. The AUROC of a target has "
        "DeLong's interval, and the interval of the mean AUROC is over test examples."
    ]
    source, select = answer["chosen_by"].split("_", 1)
    place = "validation examples" if source == "validation" else f"{FLAGS.n_folds} folds"
    choice = [
        f"For each target, λ has the best {select.replace('_', ' ')} on {place}. It was fitted "
        "again to all training and validation examples, and tested once. path.csv has every λ."
    ]
    refits = f"The worst relative gap of the refits is {answer['gap']:.1e}."
    problem = [Column("problem", "problem")] if (table.problem != "").any() else []
    columns = [TARGET_COLUMNS[0], *problem, *TARGET_COLUMNS[1:]]
    sections = [
        Section("Results", facts=lines),
        Section("Targets", by_target, table=table, columns=columns, figures=TARGET_FIGURES),
        Section("The choice of λ", choice),
        _certificate(answer["optima"], refits, dataset),
    ]
    data = [folder.describe_dataset(dataset)]
    write_page(target, f"Linear probes of {dataset.name}", sentence, sections, "probe", data)


# Feature sets.

SET_COLUMNS = [
    Column("set", ("set", "page"), "link"),
    Column("features", "d", "count"),
    Column("{measure}", "estimate", "accuracy"),
    Column("95 % interval", ("low", "high"), "accuracy"),
    Column("verdict", "verdict"),
    Column("difference from the best", "difference", "signed"),
    Column("95 % interval", ("difference_low", "difference_high"), "signed"),
    Column("corrected p", "p_holm", "short"),
    Column("{lam}", "lam", "lam"),
]
PAIR_COLUMNS = [
    Column("set", "set"),
    Column("compared with", "other"),
    Column("difference", "estimate", "signed"),
    Column("95 % interval", ("low", "high"), "signed"),
    Column("p", "p", "short"),
    Column("corrected p", "p_holm", "short"),
]
SET_FIGURES = {
    "comparison": "The test {measure} of each feature set, with its 95 % interval.",
    "auroc": "The AUROC of each target (rows) with each feature set (columns).",
    "auroc_curves": "The AUROC over the feature sets, a curve for each target.",
}


def write_comparison(
    target: Path,
    table: "pd.DataFrame",
    pairs: "pd.DataFrame",
    measure: str,
    figures: Iterable[str],
    data: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `index.html` of a comparison of feature sets."""
    best = table.loc[table.estimate.idxmax()]
    n_worse = int((table.verdict == WORSE).sum())
    sentence = (
        f"Of {len(table):,} feature sets, {best.set} has the best test {measure}, "
        f"{with_interval(best.estimate, best.low, best.high)}. {n_worse:,} of the "
        f"{len(table) - 1:,} others are worse beyond chance."
    )
    test = "McNemar's exact test" if measure == "accuracy" else "a paired test of the mean AUROC"
    text = [
        "Each set has its own probe, with its own λ, on the same examples. All pairs of sets are "
        f"compared on the same test examples by {test}. Holm's method corrects the p-values "
        f"by the number of pairs. If a corrected p is below {ALPHA:g}, chance hardly explains the "
        "difference. Intervals aren't corrected."
    ]
    heads = {"measure": measure, "lam": "λ" if measure == "accuracy" else "median λ"}
    columns = [column._replace(head=column.head.format(**heads)) for column in SET_COLUMNS]
    linked = table.assign(page=[f"{SETS}/{name}/index.html" for name in table.set])
    captions = {name: SET_FIGURES[name].format(measure=measure) for name in figures}
    drawn = [Figure(name, caption, caption) for name, caption in captions.items()]
    sections = [
        Section("Feature sets", text, table=linked, columns=columns, figures=drawn),
        Section("All pairs", table=pairs, columns=PAIR_COLUMNS),
    ]
    write_page(target, f"{len(table)} feature sets", sentence, sections, "probe", data)
