"""A probe of many binary targets: each has its own λ, refit, test, and row in a table."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import folder, path, path_record
from experiments.common.data import data_title, describe_sizes
from experiments.common.progress import Stopwatch, print_table, with_interval
from experiments.probe import page
from experiments.probe.comparison import Probed
from linear_cifar import (
    BINARY_CROSS_ENTROPY,
    Classifier,
    Dataset,
    InputError,
    Optimum,
    Params,
    best,
    with_validation,
)
from linear_cifar.metrics import (
    BinaryMetrics,
    Interval,
    binary_metrics,
    fold_target_metrics,
    pseudo_values,
    summarise,
    target_metrics,
)
from linear_cifar.optimum import SolveConfig, check_lam

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS
METRICS = ("loss", "accuracy", "auroc", "average_precision")
SOURCES = ("validation", "folds")
COLUMNS = (*path.OPTIMUM, *(f"{source}_{name}" for source in SOURCES for name in METRICS))
TESTED = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "loss")
MEASURE = "mean AUROC"
MAX_PRINTED = 30
N_SHOWN = 15  # best and worst targets in a figure
FEW = 10  # positive or negative examples for a choice of λ
REFUSED = ("loss", "one_standard_error", "every_lam", "n_train", "n_per_class")


class Record(NamedTuple):
    """T targets, each solved for L values of λ."""

    by_lam: "pd.DataFrame"  # a row per λ and target
    table: "pd.DataFrame"  # a row per target
    source: str  # "validation" or "folds"
    select: str  # one of `METRICS`
    model: Classifier  # of the probed targets
    values: np.ndarray  # AUROC's pseudo-value of each test example, the mean over targets, [n]
    summary: dict[str, Any]  # `path.summarise_optima` of the probed targets
    dataset: Dataset

    @property
    def mean_auroc(self) -> Interval:
        """The mean AUROC over targets on test examples."""
        mean, _, low, high, n = summarise(self.values)
        return Interval(mean, low, high, n)


def check(dataset: Dataset) -> None:
    """Raises `InputError` if a flag doesn't fit the data."""
    for name in REFUSED:
        if FLAGS[name].present:
            raise InputError(f"--{name} can't be used with targets")
    problems_from_flags(dataset)


def fit(
    target: Path, settings: Any, dataset: Dataset, watch: Stopwatch, part: str = ""
) -> Record | None:
    """Solves every λ for every target, chooses one for each, refits it and tests it once.

    Only the first process returns a record.
    """
    config, problems = path.config_from_flags(), problems_from_flags(dataset)
    chunks = folder.chunks_of(target, COLUMNS, settings, problems.lam, part=part)
    result = partial(path.validation_predictions, dataset)
    columns = path.solve_problems(
        problems, dataset, config, chunks, watch, COLUMNS, measure, result
    )
    by_lam = path_table(problems, columns, dataset)
    source, select = SOURCES[bool(FLAGS.n_folds)], FLAGS.select or "auroc"
    chosen, reasons = choose(by_lam, source, select, dataset)
    solved = np.flatnonzero(chosen >= 0)
    if not solved.size:
        raise InputError(f"no target can be probed; {dataset.class_names[0]}: {reasons[0]}")
    rows = by_lam.iloc[chosen[solved] * dataset.n_classes + solved]
    both, lam = with_validation(dataset), rows.lam.to_numpy()
    optimum = path.solve_with_validation(lam, both, config, watch, target=solved)
    if jax.process_index():
        return None
    model = Classifier(
        Params(*(array[:, 0] for array in optimum.params)),
        both.standardiser,
        [dataset.class_names[t] for t in solved],
        BINARY_CROSS_ENTROPY,
        normalise_rows=dataset.normalise_rows,
        feature_names=dataset.feature_names,
    )
    with watch.phase("evaluate"):
        scores, labels = model.logits(both.test.inputs), np.asarray(both.test.labels)[:, solved]
        tested = test_columns(binary_metrics(scores, labels))
        exists = np.isfinite(tested["test_auroc"])
        values = pseudo_values(scores, labels, "auroc")[:, exists].sum(axis=1)
        values /= exists.sum() or np.nan
    answers = {
        "lam": lam,
        "C": 1 / (2 * lam * n_known(both)[solved]),
        "gap": optimum.gap / optimum.cost,
        "converged": optimum.converged,
        f"{source}_{select}": rows[f"{source}_{select}"].to_numpy(),
        **tested,
    }
    table = target_table(both, reasons, solved, answers)
    is_solved = np.isin(problems.target, solved)
    summary = path.summarise_optima([{name: a[is_solved] for name, a in columns.items()}])
    return Record(by_lam, table, source, select, model, values, summary, dataset)


def write(record: Record, target: Path, watch: Stopwatch) -> None:
    """Writes the tables, the figures, the model and `result.json`."""
    title, content = data_title(record.dataset), answer(record)
    with watch.phase("plot"):
        figures = {"auroc": plot_auroc(record.table, title), "lam": plot_lam(record.table, title)}
        folder.write_figures(target, figures, with_png=True)
    folder.write_table(target / "targets.csv", record.table)
    folder.write_table(target / "path.csv", record.by_lam)
    for suffix in (".npz", ".safetensors"):
        with folder.replacing(target / f"model{suffix}") as partial_file:
            record.model.save(partial_file)
    page.write_targets(target, record.table, content, record.dataset, lines(record))
    folder.write_result(target, "probe", record.dataset, watch, **content)


def answer(record: Record) -> dict[str, Any]:
    """What `result.json` says."""
    table, dataset, mean = record.table, record.dataset, record.mean_auroc
    return {
        "mean_test_auroc": mean.estimate,
        "mean_test_auroc_low": mean.low,
        "mean_test_auroc_high": mean.high,
        "median_test_auroc": table.test_auroc.median(),
        "gap": table.gap.max(),
        "n_targets": len(table),
        "n_probed": int((table.problem == "").sum()),
        "n": sum(len(getattr(dataset, name).labels) for name in ("train", "validation")),
        "d": dataset.n_features,
        "normalise_rows": dataset.normalise_rows,
        "chosen_by": f"{record.source}_{record.select}",
        **{name: FLAGS[name].value for name in path.SETTINGS if name != "loss"},
        "optima": record.summary,
    }


def lines(record: Record) -> list[tuple[str, Any]]:
    """Names and values of the answer; the command prints them and the page shows them."""
    table, mean, summary = record.table, record.mean_auroc, record.summary
    has_problem = table.problem != ""
    rows = table[table.test_auroc.notna()].sort_values("test_auroc")
    parts = [
        ("optima", path_record.describe_optima(summary)),
        ("λ chosen by", f"{record.source} {record.select}, one for each target"),
        ("refits", f"worst relative gap {table.gap.max():.1e}"),
        ("mean test AUROC", f"{with_interval(*mean[:3])}, over {len(rows)} targets"),
        ("median", float(rows.test_auroc.median())),
    ]
    for name, row in (("best", rows.iloc[-1:]), ("worst", rows.iloc[:1])):
        parts += [(name, f"{row.test_auroc.item():.4f}, {row.target.item()}")] if len(row) else []
    if has_problem.any():
        first = table[has_problem].iloc[0]
        parts.append(("not probed", f"{has_problem.sum()}; {first.target}: {first.problem}"))
    return [*parts, *(("note", note) for note in notes(record))]


def notes(record: Record) -> list[str]:
    """What to do if a choice of λ rests on few examples, or is an end of the path."""
    dataset, probed = record.dataset, record.table[record.table.problem == ""]
    split = dataset.train if record.source == "folds" else dataset.validation
    labels, places = np.asarray(split.labels), probed.index
    fewest = np.minimum((labels == 0).sum(axis=0), (labels == 1).sum(axis=0))[places]
    texts = []
    if (n := int(np.sum(fewest < FEW))) > 0:
        first = probed.target.iloc[int(np.argmax(fewest < FEW))]
        text = f"the λ of {n} targets, {first} among them, rests on fewer than {FEW} positive or "
        advice = "--select=loss" if record.source == "folds" else "--n_folds or --select=loss"
        texts.append(f"{text}negative examples: try {advice}")
    by_target = record.by_lam.groupby("target", sort=False).lam
    for end, values in (("smallest", by_target.min()), ("largest", by_target.max())):
        n = int(np.sum(probed.lam.to_numpy() == values[probed.target].to_numpy()))
        if n and by_target.size().max() > 1:
            texts.append(f"{n} targets chose the {end} λ that was tried: try a wider path")
    return texts


def print_answer(record: Record, target: Path, watch: Stopwatch) -> None:
    """Prints the answer."""
    names = ["target", "n_train", "n_train_positive", "lam", "test_auroc", "test_accuracy"]
    if len(record.table) <= MAX_PRINTED:
        text = record.table[names].to_string(index=False, float_format="{:.4g}".format)
        print(text, end="\n\n")
    more = [("seconds", watch), ("written to", target), ("page", target / "index.html")]
    shown = [line for line in lines(record) if line[0] != "note"]
    print_table([("data", describe_sizes(record.dataset)), *shown, *more])
    for note in notes(record):
        print(f"note: {note}", file=sys.stderr)


def probed(record: Record) -> Probed:
    """What a comparison of feature sets needs."""
    estimate, low, high, _ = record.mean_auroc
    row = {"d": record.dataset.n_features, "estimate": estimate, "low": low, "high": high}
    row |= {"lam": record.table.lam.median(), "gap": record.table.gap.max()}
    auroc = record.table.set_index("target").test_auroc
    return Probed(record.values, row, auroc, folder.describe_dataset(record.dataset))


def problems_from_flags(dataset: Dataset) -> path.Problems:
    """Every λ of the flags for every target, on all examples and without each fold."""
    axis, values = path.penalties_from_flags()
    if axis == "lam":
        lam = np.repeat(values, dataset.n_classes)
    else:
        lam = (1 / (2 * values[::-1, None] * n_known(dataset))).ravel()
    target = np.tile(np.arange(dataset.n_classes), len(values))
    # All targets share the folds, so these can't be stratified.
    return path.with_folds(check_lam(lam), np.zeros(len(dataset.train.labels), int), target)


def n_known(dataset: Dataset) -> np.ndarray:
    """The number of training examples whose label each target knows, [T]; 1 for none."""
    return np.maximum((np.asarray(dataset.train.labels) >= 0).sum(axis=0), 1)


def measure(
    optimum: Optimum, rows: np.ndarray, problems: path.Problems, dataset: Dataset, _: SolveConfig
) -> dict[str, np.ndarray]:
    """`COLUMNS` of some problems, measured on validation examples or on the left-out fold."""
    solved = path.optimum_columns(optimum)
    columns = {name: solved.get(name, np.full(len(rows), np.nan)) for name in COLUMNS}
    models = Params(*(array[:, 0] for array in optimum.params))
    target, fold = problems.target[rows], problems.fold[rows]
    for source, places in zip(SOURCES, (fold < 0, fold >= 0), strict=True):
        if not places.any():
            continue
        some = (Params(*(array[places] for array in models)), target[places])
        if source == "validation":
            measured = target_metrics(*some, dataset.validation, dataset.standardiser)
        else:
            measured = fold_target_metrics(*some, problems.fold_of, fold[places], dataset)
        for name, values in measured.items():
            columns[f"{source}_{name}"][places] = values
    return columns


def path_table(
    problems: path.Problems, columns: Mapping[str, np.ndarray], dataset: Dataset
) -> "pd.DataFrame":
    """A row per λ and target, λ ascending, with means over the folds that have a measure."""
    import pandas as pd

    in_path = problems.fold < 0
    names = np.array(dataset.class_names, object)[problems.target[in_path]]
    c = 1 / (2 * problems.path * n_known(dataset)[problems.target[in_path]])
    table = pd.DataFrame({"target": names, "lam": problems.path, "C": c})
    for name in (*path.OPTIMUM, *(f"validation_{name}" for name in METRICS)):
        table[name] = columns[name][in_path]
    for name in METRICS if not in_path.all() else ():
        by_fold = columns[f"folds_{name}"][~in_path].reshape(-1, len(table))
        exists = np.isfinite(by_fold)
        sums = np.where(exists, by_fold, 0).sum(axis=0)
        table[f"folds_{name}"] = sums / np.where(exists.any(axis=0), exists.sum(axis=0), np.nan)
    return table.astype({"passes": int, "converged": bool, "settled": bool})


def choose(
    table: "pd.DataFrame", source: str, select: str, dataset: Dataset
) -> tuple[np.ndarray, list[str]]:
    """The place of the best λ for each target, [T]; or −1, and the reason why there is none."""
    shape = (-1, dataset.n_classes)
    loss = table[f"{source}_loss"].to_numpy().reshape(shape)
    scores = table[f"{source}_{select}"].to_numpy().reshape(shape)
    by, scores = ("loss", -scores) if select == "loss" else ("accuracy", scores)
    chosen, reasons = np.full(dataset.n_classes, -1), []
    for target, labels in enumerate(np.asarray(dataset.train.labels).T):
        values = np.unique(labels[labels >= 0])
        if not values.size:
            reasons.append("no training label is known")
        elif values.size == 1:
            reasons.append(f"all known training labels are {values[0]}")
        elif not np.isfinite(scores[:, target]).any():
            place = "validation examples" if source == "validation" else "any fold"
            reasons.append(f"no {select} on {place}: too few labels are known, or all are equal")
        else:
            chosen[target] = best(scores[:, target], loss[:, target], by)
            reasons.append("")
    return chosen, reasons


def test_columns(metrics: BinaryMetrics) -> dict[str, np.ndarray]:
    """The measures of `TESTED` with the ends of their intervals, [T] each, by column."""
    columns: dict[str, np.ndarray] = {}
    for name in TESTED:
        estimate, low, high, _ = getattr(metrics, name)
        columns |= {f"test_{name}": estimate, f"test_{name}_low": low, f"test_{name}_high": high}
    return columns


def target_table(
    both: Dataset, reasons: list[str], solved: np.ndarray, answers: Mapping[str, np.ndarray]
) -> "pd.DataFrame":
    """A row per target: its examples, and the answers of the solved ones."""
    import pandas as pd

    table = pd.DataFrame({"target": both.class_names, "problem": reasons})
    for split, labels in (("train", both.train.labels), ("test", both.test.labels)):
        table[f"n_{split}"] = (np.asarray(labels) >= 0).sum(axis=0)
        table[f"n_{split}_positive"] = (np.asarray(labels) == 1).sum(axis=0)
    return table.join(pd.DataFrame(dict(answers), index=solved))


# Figures.


def plot_auroc(table: "pd.DataFrame", title: str) -> Any:
    """A histogram of the AUROC over targets, and the best and worst targets with intervals."""
    from linear_cifar import plots  # matplotlib takes half a second

    rows = table[table.test_auroc.notna()].sort_values("test_auroc")
    figure = plots.new_figure(f"AUROC on test examples, {title}", (12, 5.5))
    histogram, intervals = figure.subplots(1, 2)
    histogram.yaxis.get_major_locator().set_params(integer=True)
    histogram.hist(rows.test_auroc, bins=min(40, max(5, len(rows) // 5)), color="C0")
    histogram.axvline(rows.test_auroc.mean(), color="0.3", ls="--", label="mean")
    plots.label_axes(histogram, "AUROC", "targets")
    ends = rows if len(rows) <= 2 * N_SHOWN else rows.iloc[[*range(N_SHOWN), *range(-N_SHOWN, 0)]]
    estimate, places = ends.test_auroc, np.arange(len(ends))
    reach = [estimate - ends.test_auroc_low, ends.test_auroc_high - estimate]
    intervals.errorbar(estimate, places, xerr=np.nan_to_num(reach), fmt="o", ms=4, capsize=2)
    intervals.set_yticks(places, ends.target, parse_math=False)
    if len(ends) < len(rows):
        intervals.axhline(N_SHOWN - 0.5, color="0.6", lw=1)
    plots.label_axes(intervals, "AUROC, with its 95 % interval", "", legend=None)
    return figure


def plot_lam(table: "pd.DataFrame", title: str) -> Any:
    """How many targets chose each λ, and the AUROC over λ."""
    from linear_cifar import plots

    rows = table[table.lam.notna()]
    figure = plots.new_figure(f"The chosen λ, {title}")
    counts_ax, auroc_ax = figure.subplots(1, 2)
    lam, counts = np.unique(rows.lam, return_counts=True)
    counts_ax.yaxis.get_major_locator().set_params(integer=True)
    counts_ax.vlines(lam, 0, counts, lw=4)
    auroc_ax.plot(rows.lam, rows.test_auroc, "o", ms=5, alpha=0.5, mew=0)
    for ax, name in ((counts_ax, "targets"), (auroc_ax, "AUROC on test examples")):
        plots.scale_lam(ax, rows.lam.to_numpy())
        plots.label_axes(ax, "λ", name, legend=None)
    counts_ax.set_ylim(bottom=0)
    return figure
