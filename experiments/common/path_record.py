"""What is written, printed and drawn of a path: for `result.json`, the terminal, and figures."""

import sys
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from experiments.common.data import data_title
from experiments.common.path import ENDS, SETTINGS, Choice, Fit
from experiments.common.progress import with_interval
from linear_cifar import LOSSES, Dataset
from linear_cifar.data import SPLITS

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS


def title(dataset: Dataset) -> str:
    """The loss and the data, for figures and the printed table."""
    return f"{LOSSES[FLAGS.loss].title} · {data_title(dataset)}"


def answer(fit: Fit) -> dict[str, Any]:
    """What `result.json` says about the path, the chosen λ and its refit."""
    table, choice, refit = fit.table, fit.choice, fit.refit
    chosen = table.iloc[choice.chosen]
    return {
        "lam": refit.lam,
        "C": refit.C,
        "gap": refit.optimum.gap[0] / refit.optimum.cost[0],
        "converged": refit.optimum.converged[0],
        "train_accuracy": chosen.train_accuracy,
        "train_cost": chosen.cost,
        "validation_accuracy": chosen[f"{choice.source}_accuracy"],
        "validation_cost": chosen[f"{choice.source}_loss"] + refit.lam * chosen.weights_norm**2,
        **refit.test,
        "test_accuracy_at_optimum": refit.test_accuracy_at_optimum,
        "diverged": False,
        "chosen_by": choice.criterion,
        "by_one_standard_error": FLAGS.one_standard_error,
        **{name: FLAGS[name].value for name in SETTINGS},
        "select": choice.select,
        "n_lam": len(table),
        "n_added": len(table) - len(fit.first.problems.path),
        "gap_between": fit.solutions.gap_between,
        "optima": fit.summary,
        "best": table.iloc[choice.best].to_dict(),
        "one_standard_error": table.iloc[choice.one_standard_error].to_dict(),
    }


def answer_lines(fit: Fit, dataset: Dataset) -> list[tuple[str, Any]]:
    """`answer` for the printed table."""
    table, choice, refit = fit.table, fit.choice, fit.refit
    summary, test = fit.summary, refit.test
    c = f"C = {table.C[choice.chosen]:.4g}; {refit.C:.4g} with validation data"
    accuracy = with_interval(*(test[f"test_accuracy{end}"] for end in ENDS))
    by = f"{choice.source} {choice.select}"
    rule = ", the largest λ within one standard error" if FLAGS.one_standard_error else ""
    return [
        ("path", f"{title(dataset)}, {len(table)} λ, {table.lam.min():g} to {table.lam.max():g}"),
        ("optima", describe_optima(summary)),
        *every_lam_lines(fit),
        ("passes", f"{table.passes.mean():.1f} per λ on average, {table.passes.max()} at most"),
        (f"best by {by}", _describe(fit, choice.best)),
        ("largest λ within one standard error", _describe(fit, choice.one_standard_error)),
        ("chosen", f"λ = {refit.lam:.4g} ({c}) by {by}{rule}"),
        ("refit", f"relative gap {refit.optimum.gap[0] / refit.optimum.cost[0]:.1e}, certified"),
        ("test accuracy", accuracy),
    ]


def describe_optima(summary: Mapping[str, Any]) -> str:
    """`summarise_optima` in words."""
    solved = [f"{summary['n_converged']} of {summary['n']} certified to --tolerance"]
    solved += [f"{summary['n_settled']} settled"] if summary["n_settled"] else []
    if summary["n_unfinished"]:
        solved.append(f"{summary['n_unfinished']} stopped by rounding or --max_passes")
    return f"{', '.join(solved)}; worst gap {summary['worst_gap']:.1e} of the cost"


def every_lam_lines(fit: Fit) -> list[tuple[str, str]]:
    """The printed lines on the proven gap of every λ between the smallest and the largest."""
    table, goal, gap = fit.table, FLAGS.every_lam, fit.solutions.gap_between
    if len(table) == 1:
        return []
    percent = Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(100 * gap)
    text = f"has a solution here with a gap of at most {percent:f} % of the cost, proven"
    if goal is not None and not gap <= goal:
        n_loose = int(np.sum(~(table.gap <= goal / 2)))
        reason = f"{n_loose} λ have gaps above half this" if n_loose else "--max_runs is reached"
        text += f"; this misses --every_lam={goal:g}, because {reason}"
    lines = [(f"every λ from {table.lam.min():g} to {table.lam.max():g}", text)]
    if goal is not None:
        lines += [("λ added by --every_lam", str(len(table) - len(fit.first.problems.path)))]
    return lines


def _describe(fit: Fit, index: int) -> str:
    row, name = fit.table.iloc[index], fit.choice.criterion
    return f"λ = {row.lam:.4g}, {row[name]:.4f} ± {row[f'{name}_error']:.4f} (standard error)"


def note_edge(fit: Fit) -> None:
    """Prints a note if the best λ is at an end of the path."""
    if note := edge_note(fit):
        print(f"note: {note}", file=sys.stderr)


def edge_note(fit: Fit) -> str:
    """What to do if the best λ is at an end of the path; "" if it isn't."""
    best, last = fit.choice.best, len(fit.table) - 1
    if not last or best not in (0, last):
        return ""
    end, beyond = ("largest", "larger") if best else ("smallest", "smaller")
    return f"the best λ is the {end} that was tried: try {beyond} ones"


# Figures.


def plot_choice(table: "pd.DataFrame", choice: Choice, title: str) -> Any:
    """Accuracy and loss over λ, with the chosen λ marked."""
    from linear_cifar import plots  # matplotlib takes half a second

    chosen = {"best": float(table.lam[choice.best])}
    if choice.one_standard_error != choice.best:
        chosen["one standard error"] = float(table.lam[choice.one_standard_error])
    if choice.source == "folds":  # added λ aren't fitted without each fold
        table = table[table.folds_loss.notna()]
    accuracy, loss = (_curves(table, name) for name in ("accuracy", "loss"))
    lam = table.lam.to_numpy()
    heading = f"The optimum over λ, {title}\nbands: 95 % intervals over the examples"
    return plots.plot_path(lam, accuracy, loss, chosen, heading)


def _curves(table: "pd.DataFrame", name: str) -> dict[str, Any]:
    from linear_cifar import plots

    curves = {
        split: plots.Curve(*(table[f"{split}_{name}{end}"] for end in ENDS))
        for split in SPLITS
        if np.isfinite(table[f"{split}_{name}"]).any()  # else it has no examples
    }
    if f"folds_{name}" in table:
        mean, error = table[f"folds_{name}"], table[f"folds_{name}_error"]
        curves["folds ± one standard error"] = plots.Curve(mean, mean - error, mean + error)
    return curves
