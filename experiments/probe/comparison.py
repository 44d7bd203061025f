"""Several feature sets of the same examples: which is better, and which differences are real."""

import glob
import os
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags as absl_flags

from linear_cifar import DataError, Dataset, InputError
from linear_cifar.data import SPLITS, USUAL, is_labels_file
from linear_cifar.metrics import holm, mcnemar, paired_test

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS
ALPHA = 0.05  # of Holm's correction over all pairs
BEST, WORSE, NOT_WORSE = "best", "worse", "not shown to be worse"
MAX_CURVES = 10  # targets that are drawn as curves
SETS = "sets"  # folder of the sets' own results


class Probed(NamedTuple):
    """A probed feature set."""

    values: np.ndarray  # of each test example, [n]: whether it is correct, or its pseudo-value
    row: dict[str, Any]  # of the comparison: "d", "estimate", "low", "high", "lam", "gap"
    auroc: "pd.Series | None"  # of targets, by name
    data: dict[str, Any]  # `folder.describe_dataset`


def feature_sets(pattern: str) -> dict[str, Path]:
    """The files or folders that --features names, by name, in their order.

    The flag has paths and patterns such as layers/*.npy, separated by commas. A pattern's files are
    in their natural order, layer2 before layer10, without files of labels.
    """
    if os.path.exists(pattern):  # noqa: PTH110 (a `Path` fails if a list is too long for a name)
        return {Path(pattern).stem: Path(pattern)}
    paths: list[Path] = []
    for word in filter(None, map(str.strip, pattern.split(","))):
        if not glob.has_magic(word):
            paths.append(Path(word))
            continue
        files = glob.glob(word)  # noqa: PTH207 (a `Path` takes no absolute pattern)
        matches = [path for path in map(Path, files) if not is_labels_file(path)]
        if not matches:
            raise DataError(f"--features={word} matches no file of features")
        paths += sorted(matches, key=_natural_order)
    names = [_short_name(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}_{_short_name(path)}" for path in paths]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--features names {repeated[0]} twice: the sets need different names")
    return dict(zip(names, paths, strict=True))


def _short_name(path: Path) -> str:
    """The name of a file or folder without its ending, and without a word such as "features"."""
    stem = path.stem if path.stem.strip(".") else path.resolve().stem  # of "." and ".."
    stem = os.fsencode(stem).decode(errors="backslashreplace")  # it is drawn and written
    words = re.split(r"([_.\- ]+)", stem)
    name = "".join(word for word in words if word.lower() not in USUAL["inputs"])
    return name.strip("_.- ") or stem


def _natural_order(path: Path) -> list[Any]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words]


def check_same_examples(names: tuple[str, str], first: Dataset, other: Dataset) -> None:
    """Raises `DataError` unless both sets have the same labels in every split."""
    for split in SPLITS:
        a, b = (np.asarray(getattr(dataset, split).labels) for dataset in (first, other))
        if a.shape != b.shape or (a != b).any() or first.class_names != other.class_names:
            line = f"{names[1]} has other {split} labels than {names[0]}"
            raise DataError(f"{line}: the sets need the same examples in the same order")


def compare(probed: Mapping[str, Probed]) -> "pd.DataFrame":
    """A row per pair of sets: the difference of the measure, its interval, and p-values.

    Accuracies have McNemar's exact test, and AUROCs the paired t-test of their pseudo-values.
    `p_holm` is corrected for the number of pairs by Holm's method. `DataError` if no set has the
    measure.
    """
    import pandas as pd

    if all(np.isnan(one.row["estimate"]) for one in probed.values()):
        line = "no probed target has both positive and negative test examples"
        raise DataError(f"{line}: the sets can't be compared; each set has its own results")
    rows = []
    for a, b in combinations(probed, 2):
        difference = paired_test(probed[a].values, probed[b].values)
        if probed[a].auroc is None:
            difference = difference._replace(p=mcnemar(probed[a].values, probed[b].values))
        rows.append({"set": a, "other": b, **difference._asdict()})
    pairs = pd.DataFrame(rows)
    pairs["p_holm"] = holm(pairs.p.to_numpy())
    return pairs


def comparison_table(probed: Mapping[str, Probed], pairs: "pd.DataFrame") -> "pd.DataFrame":
    """A row per set in the order of --features: its measure, and how it differs from the best."""
    import pandas as pd

    table = pd.DataFrame([{"set": name, **one.row} for name, one in probed.items()])
    best = table.set[int(table.estimate.argmax())]
    reverse = {"set": pairs.other, "other": pairs.set, "estimate": -pairs.estimate}
    reverse |= {"low": -pairs.high, "high": -pairs.low}
    both_ways = pd.concat([pairs, pairs.assign(**reverse)])
    names = {"estimate": "difference", "low": "difference_low", "high": "difference_high"}
    others = both_ways[both_ways.other == best].drop(columns="other").rename(columns=names)
    table = table.merge(others, on="set", how="left")
    table["verdict"] = np.where(table.p_holm <= ALPHA, WORSE, NOT_WORSE)
    table.loc[table.set == best, "verdict"] = BEST
    return table


# Figures.


def plot_comparison(table: "pd.DataFrame", measure: str, is_curve: bool, title: str) -> Any:
    """The measure of each set with its interval, joined by a line if the sets are in an order."""
    from linear_cifar import plots  # matplotlib takes half a second

    figure = plots.new_figure(f"{measure}, {title}", (max(6.5, 0.45 * len(table) + 2), 4.6))
    ax, places = figure.subplots(), np.arange(len(table))
    reach = np.nan_to_num([table.estimate - table.low, table.high - table.estimate])
    line = "-" if is_curve else ""
    label = "95 % interval"
    ax.errorbar(places, table.estimate, yerr=reach, fmt="o", ls=line, capsize=3, label=label)
    good = table[table.verdict != WORSE]
    label = "the best, and those not shown to be worse"
    ax.plot(good.index, good.estimate, "o", color="C1", zorder=3, label=label)
    _name_sets(ax, table.set)
    plots.label_axes(ax, "", measure)
    return figure


def plot_auroc_map(table: "pd.DataFrame", title: str) -> Any:
    """A heat map of the AUROC of targets, the rows, with each set, the columns."""
    from linear_cifar import plots

    values, n = table.to_numpy(float), len(table)
    size = (max(6, 0.6 * values.shape[1] + 3), min(12, max(3, 0.3 * n + 1.5)))
    figure = plots.new_figure(f"AUROC on test examples, {title}", size)
    ax = figure.subplots()
    image = ax.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
    _name_sets(ax, table.columns)
    rows = range(0, n, -(-n // 40))  # at most 40 names
    ax.set_yticks(rows, table.index[list(rows)], parse_math=False)
    figure.colorbar(image, ax=ax, label="AUROC")
    return figure


def plot_auroc_curves(table: "pd.DataFrame", title: str) -> Any:
    """The AUROC over the sets, a curve for each target."""
    from linear_cifar import plots

    figure = plots.new_figure(f"AUROC on test examples, {title}", (8, 4.6))
    ax = figure.subplots()
    for target, *values in table.itertuples(name=None):
        ax.plot(values, marker="o", ms=4, label=str(target))
    _name_sets(ax, table.columns)
    plots.label_axes(ax, "", "AUROC")
    return figure


def _name_sets(ax: Any, names: Any) -> None:
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
