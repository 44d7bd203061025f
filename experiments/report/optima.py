"""The exact optimum beside the report's runs: how far each stopped, and which claims hold there."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.common import folder, path as optimum_path
from experiments.common.flags import parse_axis
from experiments.common.progress import Stopwatch
from experiments.common.training import evaluate_models
from experiments.report import plan
from linear_cifar import LOSSES, Dataset
from linear_cifar.metrics import paired_test
from linear_cifar.optimum import DEFAULTS

if TYPE_CHECKING:
    import pandas as pd


class Solved(NamedTuple):
    """A solved path of the plan."""

    planned: Mapping[str, Any]  # of the plan
    table: "pd.DataFrame"  # a row per λ
    choice: optimum_path.Choice  # by validation accuracy
    correct: np.ndarray  # [n], whether the best λ classifies each test image correctly

    @property
    def best(self) -> "pd.Series":
        """The row of the best λ."""
        return self.table.iloc[self.choice.best]


def solve(
    path: Path, settings: dict[str, Any], data: Mapping[str, Dataset], watch: Stopwatch
) -> dict[str, Solved]:
    """Solves the paths of the plan, by name."""
    solved: dict[str, Solved] = {}
    for planned in plan.PATHS:
        lam, dataset = np.array(parse_axis(planned["lam"]).values), data[planned["split"]]
        print(f"{len(lam)} optima: {planned['title']}", file=sys.stderr)
        config = DEFAULTS._replace(loss=LOSSES[planned["loss"]])
        nothing = np.full(len(lam), -1), np.zeros(len(dataset.train.labels), int)
        problems = optimum_path.Problems(lam, *nothing)
        columns = optimum_path.COLUMNS
        chunks = folder.chunks_of(
            path, columns, settings, lam, config.tolerance, part=planned["name"]
        )
        measures = optimum_path.solve_problems(
            problems, dataset, config, chunks, watch, columns, optimum_path.measure_path
        )
        table = optimum_path.path_table(problems, measures)
        choice = optimum_path.choose(table, "accuracy", within_error=False)
        params = jax.tree.map(lambda a: a[None], folder.row_params(chunks, choice.best))
        correct = evaluate_models(params, dataset.test, dataset, config.loss).correct[0] == 1
        solved[planned["name"]] = Solved(planned, table, choice, correct)
    return solved


def table(solved: Mapping[str, Solved]) -> "pd.DataFrame":
    """All paths in one table: a row per path and λ."""
    import pandas as pd

    paths = []
    for name, one in solved.items():
        rows = one.table.drop(columns="settled")
        rows.insert(0, "path", name)
        rows.insert(1, "best", rows.index == one.choice.best)
        paths.append(rows)
    return pd.concat(paths, ignore_index=True)


def compare(
    solved: Mapping[str, Solved], runs: "pd.DataFrame", correct: Mapping[str, np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """What the optimum says about the report's runs, about its losses, and about what stacks.

    `correct` says by run whether each test image is classified correctly, [S, n].
    """
    few, binary, full = (solved[planned["name"]] for planned in plan.PATHS)
    decay, decay_full = (correct[name][0] for name in ("step_decay", "step_decay_full"))
    pairs = [
        ("binary − softmax, each at its best λ", binary.correct, few.correct),
        ("49,000 − 10,000 images, each at its best λ", full.correct, few.correct),
        ("(optimum at the best λ) − (step decay), 10,000 images", few.correct, decay),
        ("(optimum at the best λ) − (step decay), 49,000 images", full.correct, decay_full),
    ]
    test = runs.groupby("name").test_accuracy.mean()
    stack = [
        ("constant η, λ = 0.1", test["lam_0.1"], test["full_data"]),
        ("step decay, λ = 0.1", test["step_decay"], test["step_decay_full"]),
        ("optimum, λ = 0.1", *(_at(one, 0.1).test_accuracy for one in (few, full))),
        ("optimum, best λ by validation", few.best.test_accuracy, full.best.test_accuracy),
    ]
    return {
        "runs": distances(solved, runs),
        "paths": [one.planned | one.best.to_dict() for one in solved.values()],
        "tests": [
            {"quantity": quantity, **paired_test(a, b)._asdict(), "n": len(a)}
            for quantity, a, b in pairs
        ],
        "stack": [
            {"title": title, "few": first, "full": second, "difference": second - first}
            for title, first, second in stack
        ],
    }


def distances(solved: Mapping[str, Solved], runs: "pd.DataFrame") -> list[dict[str, Any]]:
    """Each of the report's runs with λ > 0 beside the optimum of its λ."""
    runs = runs[(runs.section == "run") & (runs.lam > 0)]
    of_data = {(one.planned["split"], one.planned["loss"]): one for one in solved.values()}
    rows = []
    for name, seeds in runs.groupby("name", sort=False):
        run = seeds.iloc[0]
        optimum = _at(of_data[run.split, run.loss], run.lam)
        cost = seeds.train_cost.mean()
        rows.append({
            "name": name, "title": run.title, "lam": run.lam, "cost": cost,
            "optimum_cost": optimum.cost, "distance": (cost - optimum.cost) / optimum.cost,
            "test_accuracy": seeds.test_accuracy.mean(),
            "optimum_test_accuracy": optimum.test_accuracy,
        })  # fmt: skip
    return rows


def _at(one: Solved, lam: float) -> "pd.Series":
    return one.table[one.table.lam == lam].iloc[0]
