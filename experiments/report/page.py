"""The report's record: tables, figures, `report.json`, and the page that shows them all."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.common import folder, page, training
from experiments.common.data import data_title
from experiments.common.progress import Stopwatch, print_table
from experiments.loss_comparison import probability_histograms
from experiments.report import claims, optima, plan
from linear_cifar import LOSSES, Dataset, Params, best
from linear_cifar.metrics import summarise

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.015  # between a printed number and ours, because the images may be JPEG copies
VERDICTS = (claims.SUPPORTED, claims.CONTRADICTED, claims.NOISE, claims.NOT_TESTED)


class Finished(NamedTuple):
    """All that was trained and solved."""

    runs: "pd.DataFrame"  # a row per run and seed, with all measures
    arrays: Mapping[str, Mapping[str, np.ndarray]]  # by run: parameters and history
    correct: Mapping[str, np.ndarray]  # by run, [S, n] of the test images
    solved: Mapping[str, optima.Solved]
    data: Mapping[str, Dataset]  # by split
    settings: Mapping[str, Any]


def write(path: Path, finished: Finished, watch: Stopwatch) -> dict[str, Any]:
    """Writes all files of the report, and returns what `report.json` says."""
    rows = summarise_runs(finished.runs)
    with watch.phase("plot"):
        probabilities = write_figures(path, finished, rows)
    report = describe(finished, rows) | {"true_class_probability": probabilities}
    is_cell = rows.section.str.startswith("grid")
    folder.write_table(path / "runs.csv", rows[~is_cell].drop(columns="explains"))
    folder.write_table(path / "grid.csv", rows[is_cell].drop(columns="explains"))
    folder.write_table(path / "optimum.csv", optima.table(finished.solved))
    folder.write_json(path / "report.json", report)
    folder.write_text(path / "index.html", render(folder.plain(report), path))
    content: dict[str, Any] = {**finished.settings, **report["summary"]}
    folder.write_result(path, "report", finished.data["assignment"], watch, **content)
    return report


def summarise_runs(runs: "pd.DataFrame") -> "pd.DataFrame":
    """A row per run: its description, and the published measure over seeds.

    That is the test accuracy, and in the grids the validation accuracy; `mean`, `sd`, `low`, `high`
    and `n` are its `summarise`.
    """
    import pandas as pd

    table = plan.table()
    means = runs.groupby("configuration")[list(training.MEASURES)].mean()
    is_cell = table.section.str.startswith("grid")
    summaries = []
    for index, seeds in runs.groupby("configuration"):
        measure = "validation_accuracy" if is_cell[index] else "test_accuracy"
        summaries.append(summarise(seeds[measure])._asdict())
    summary = pd.DataFrame(summaries)
    summary["difference"] = summary["mean"] - table.published
    table["seed"] = runs.seed.min()
    return table.join([summary, means])


def write_figures(path: Path, finished: Finished, rows: "pd.DataFrame") -> dict[str, Any]:
    """Writes the figures, each before the next one is drawn; returns the histograms' numbers."""
    from experiments.report import figures  # matplotlib takes half a second

    runs, arrays, data = finished.runs, finished.arrays, finished.data
    dataset = data["assignment"]
    title = data_title(dataset)
    for name, figure in figures.figures_of_runs(runs, arrays, data):
        folder.write_figures(path, {name: figure}, with_png=True)
    params = {
        loss: Params(arrays[name]["weights"][0], arrays[name]["bias"][0])
        for loss, name in (("softmax", "lam_0"), ("multi_bce", "multi_bce"))
    }
    seed = f"seed {finished.settings['seed']}"
    drawn, numbers = probability_histograms(params, dataset, seed)
    grid, narrowed = (rows[rows.section == one["section"]] for one in plan.GRIDS)
    more = {
        "probabilities": drawn,
        "grid": figures.heat_maps(grid, title),
        "grid_narrowed": figures.over_batch_size(narrowed, title),
        **{name: figures.path_figure(one, title) for name, one in finished.solved.items()},
    }
    folder.write_figures(path, more, with_png=True)
    return numbers


def describe(finished: Finished, rows: "pd.DataFrame") -> dict[str, Any]:
    """What `report.json` says, but for the histograms."""
    data = finished.data
    judged = claims.judge(finished.runs, finished.correct)
    names = ["name", "title", "command", "published", "mean", "sd", "low", "high", "n",
             "difference", "stable", "train_accuracy", "validation_accuracy"]  # fmt: skip
    runs = rows[rows.section == "run"]
    variants = {}
    for name, group in rows[rows.section == "variant"].groupby("explains", sort=False):
        published = runs.set_index("name").published[name]
        nearer = group.assign(difference=group["mean"] - published)
        variants[name] = nearer.assign(distance=nearer.difference.abs())[[*names, "distance"]]
    compared = optima.compare(finished.solved, finished.runs, finished.correct)
    return {
        "experiment": "report",
        **{name: finished.settings[name] for name in ("seed", "n_seeds", "quick")},
        "datasets": {name: folder.describe_dataset(dataset) for name, dataset in data.items()},
        "data_title": data_title(data["assignment"]),
        "summary": summary_of(runs, judged),
        "runs": runs[names].to_dict("records"),
        "variants": {name: group.to_dict("records") for name, group in variants.items()},
        "grids": {one["section"]: describe_grid(one, rows) for one in plan.GRIDS},
        "claims": judged.to_dict("records"),
        "optima": compared,
        **folder.describe_machine(),
    }


def summary_of(runs: "pd.DataFrame", judged: "pd.DataFrame") -> dict[str, Any]:
    """Counts of verdicts, and how near our numbers are to the published ones."""
    stable = runs[runs.stable.astype(bool)]
    size = stable.difference.abs()
    largest = stable.loc[size.fillna(np.inf).idxmax()]
    counts = judged.verdict.value_counts()
    return {
        "claims": {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS},
        "n_numbers": len(stable),
        "n_near": int((size <= TOLERANCE).sum()),
        "largest": largest[["name", "title", "published", "mean", "difference"]].to_dict(),
    }


def describe_grid(one: Mapping[str, Any], rows: "pd.DataFrame") -> dict[str, Any]:
    """A grid's cells, its best one, and how far the published numbers are from ours."""
    cells = rows[rows.section == one["section"]]
    cells = cells.assign(key=cells.title, test=cells.test_accuracy)
    names = ["key", "published", "mean", "sd", "low", "high", "n", "difference", "test"]
    records = cells[names].to_dict("records")
    to_test = (cells.test - cells.published).abs().mean()
    return {
        **{name: one[name] for name in ("title", "command")},
        "rows": records,
        "best": records[best(cells["mean"])],
        "mean_distance": {"validation": cells.difference.abs().mean(), "test": to_test},
    }


def render(report: dict[str, Any], path: Path) -> str:
    """The page, with the figures of the folder inside."""
    optima = report["optima"] | {"runs": _link(report["optima"]["runs"])}
    values = report | {"runs": _link(report["runs"]), "optima": optima}
    values |= {"tolerance": TOLERANCE, "losses": LOSSES}
    return page.render("report/report.html.jinja", path, values)


def _link(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to the rows of runs the text of a link to their curves, and its address."""
    notes = {True: "", False: " (does not converge)"}
    return [
        row | {"run": row["title"] + notes[row.get("stable", True)], "address": f"#{row['name']}"}
        for row in rows
    ]


def print_summary(report: dict[str, Any], path: Path, watch: Stopwatch) -> None:
    """Prints the report's numbers beside ours, and how many claims have which verdict."""
    import pandas as pd

    names = ["name", "published", "mean", *(["sd"] if report["n_seeds"] > 1 else [])]
    runs = pd.DataFrame(report["runs"])[names]
    runs = runs.rename(columns={"name": "run", "published": "report", "mean": "ours"})
    print(runs.to_string(index=False, float_format="{:.4f}".format, na_rep="–"), end="\n\n")
    counts = (f"{n} {verdict}" for verdict, n in report["summary"]["claims"].items() if n)
    lines = [("data", report["data_title"]), ("claims", ", ".join(counts))]
    print_table([*lines, ("seconds", watch), ("page", path / "index.html")])
