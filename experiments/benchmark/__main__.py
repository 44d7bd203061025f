"""Speed and memory against NumPy, PyTorch, scikit-learn and the machine's own limit.

    python -m experiments.benchmark
    python -m experiments.benchmark --section=single,sweep --batch_size=50 --split=full
    python -m experiments.benchmark --quick --dataset=synthetic

`single` trains one configuration, `sweep` 1 to 256 at once, and `path` solves 41 λ, alone and in
five folds. `memory` and `path_sizes` train and solve random data of several sizes. PyTorch and
scikit-learn take part if they are installed (pip install -e '.[bench]').

Before `single` and `sweep` are timed, each contender trains for two epochs; if its parameters
differ from ours, the command stops. Then the contenders take turns in this process with a product
of two float32 matrices, the machine's peak. Ratios are formed round by round. Figures are medians
over rounds; _q1 and _q3 are quartiles. Unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which may slow
NumPy down.

benchmark.json holds `limits`, with the `matmul_gflops` of the matrix product (null without `single`
and `sweep`), and `rows`, which benchmark.csv has too. Their columns, apart from sizes:

    milliseconds      per configuration and epoch, without compilation
    gflops            10⁹ operations a second at that time: two products of [n, d] with [d, K]
    peak_gflops       of the matrix product in the same rounds; `fraction_of_peak` is the ratio
    times_numpy       how many times as fast as the NumPy loop
    seconds           of a path; `times_ours` is the ratio to ours with its compilation
    timed             configurations of the path that were timed; their mean represents all
    relative_gap      the largest certified gap over cost among the timed ones
    passes            over the data per λ, the mean; `most_passes` is the largest number
    peak_mb           the most memory of the process, in 10⁶ bytes

result.json also has `other_processes`, the share of the cores that other processes used meanwhile.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments.benchmark.contenders import installed
from experiments.benchmark.path import path
from experiments.benchmark.sizes import memory, path_sizes
from experiments.benchmark.timing import Options, cpu_seconds_of_others
from experiments.benchmark.training import single, sweep
from experiments.common import cli, flags, folder
from experiments.common.data import data_title, load_data
from experiments.common.progress import Stopwatch, print_table
from linear_cifar.data import Dataset

FLAGS = absl_flags.FLAGS
N_ROUNDS = 7
SECTIONS = {section.__name__: section for section in (single, sweep, path, memory, path_sizes)}


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define("batch_size", "split")
    names = ", ".join(SECTIONS)
    absl_flags.DEFINE_list("section", list(SECTIONS), f"Sections to run: {names}.")
    absl_flags.register_validator(
        "section",
        lambda sections: bool(sections) and set(sections) <= SECTIONS.keys(),
        f"Choose one or more of {names}, separated by commas.",
    )
    absl_flags.DEFINE_bool("quick", False, "One round and small sizes, to see that it works.")


def main(argv: list[str]) -> int:
    """Runs the sections and writes their rows."""
    del argv
    watch = Stopwatch()
    for package, title in (("torch", "PyTorch"), ("sklearn", "scikit-learn")):
        if not installed(package):
            print(f"note: {title} is not installed, so it is left out", file=sys.stderr)
    with folder.new_run("benchmark") as (path, target):
        with watch.phase("load"):
            dataset = load_data(FLAGS.split)
        with watch.phase("train"):
            table, machine = _run_sections(dataset)
        with watch.phase("plot"):
            _write(path, table, machine["limits"], data_title(dataset))
        settings: dict[str, Any] = {
            name: FLAGS[name].value for name in ("section", "quick", "batch_size", "split", "seed")
        }
        folder.write_result(path, "benchmark", dataset, watch, **settings, **machine)
    for _, rows in table.groupby("section", sort=False):
        print(printed(rows), end="\n\n")
    peak, others = machine["limits"]["matmul_gflops"], machine["other_processes"]
    print_table(
        [
            ("data", data_title(dataset)),
            ("matrix product", f"{peak:.0f} GFLOP/s" if peak > 0 else "not measured"),
            ("other processes", f"{others:.0%} of the cores" if others >= 0 else "unknown"),
            ("seconds", watch),
            ("written to", target),
        ]
    )
    return 0


def printed(rows: Any) -> str:
    """A section's rows as text, without empty columns; quartiles are in parentheses."""
    rows = rows.dropna(axis="columns", how="all").set_index("contender")
    digits = {float: ".3g", int: "d", str: ""}
    cells = rows.map(lambda cell: format(cell, digits[type(cell)])).replace("nan", "")
    for name in [name for name in cells if f"{name}_q1" in cells]:
        cells[name] += " (" + cells.pop(f"{name}_q1") + "–" + cells.pop(f"{name}_q3") + ")"
    cells = cells.drop(columns=["section", "gflops", "peak_gflops"], errors="ignore")
    return cells.rename_axis(index=None, columns=rows["section"].iloc[0]).to_string()


def _run_sections(dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """A DataFrame of all rows, with NaN in empty cells, and facts about the machine."""
    import pandas as pd

    options = Options(FLAGS.batch_size, FLAGS.seed, 1 if FLAGS.quick else N_ROUNDS, FLAGS.quick)
    rows, start, others = [], time.perf_counter(), cpu_seconds_of_others()
    for name in FLAGS.section:
        print(f"section {name}", file=sys.stderr, flush=True)
        rows += [{"section": name, **row} for row in SECTIONS[name](dataset, options)]
    n_cores = os.cpu_count() or 1
    share = (cpu_seconds_of_others() - others) / (time.perf_counter() - start) / n_cores
    table = pd.DataFrame(rows, dtype=object)  # so that integers stay integers beside NaN
    peaks = table.get("peak_gflops", pd.Series(dtype=float))
    limits = {"matmul_gflops": float(peaks.drop_duplicates().median())}
    return table, {"cores": n_cores, "other_processes": max(share, 0.0), "limits": limits}


def _write(path: Path, table: Any, limits: dict[str, float], data_name: str) -> None:
    from experiments.benchmark.figures import plot_scaling

    if len(rows := table[table["section"] == "sweep"]):
        folder.write_figures(path, {"sweep": plot_scaling(rows, f"sweep · {data_name}")})
    folder.write_table(path / "benchmark.csv", table)
    content = {"limits": limits, "rows": table.to_dict("records")}
    folder.write_json(path / "benchmark.json", content)


if __name__ == "__main__":
    cli.launch(main, define_flags)
