"""Speed and memory against NumPy, PyTorch, scikit-learn and the machine's own limit.

    python -m experiments.benchmark
    python -m experiments.benchmark --section=single,sweep --batch_size=50 --split=full
    python -m experiments.benchmark --quick --dataset=synthetic

`single` trains one configuration, `sweep` 1 to 256 at once, and `path` solves 41 λ, alone and in
five folds. `targets` solves 20 λ of 1,000 binary targets. `memory` and `path_sizes` train and solve
random data of several sizes. `gpu` runs only if it is named: a sweep, a path and a thousand classes
beside a GPU's peak. --features takes your own data. PyTorch, scikit-learn, scikit-learn-intelex and
cyanure take part if they are installed (pip install -e '.[peers]').

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
    seconds           of a path; `times_ours` is the ratio to ours with its compilation. In `gpu`,
                      without compilation, which `seconds_with_compilation` includes
    timed             configurations of the path that were timed; their mean represents all
    relative_gap      the largest certified gap over cost among the timed ones
    passes            over the data per λ, the mean; `most_passes` is the largest number
    peak_mb           the most memory of the process, in 10⁶ bytes
"""

import statistics
import sys
from importlib.util import find_spec
from typing import Any

import jax
from absl import flags as absl_flags

from experiments.benchmark.gpu import gpu
from experiments.benchmark.path import path
from experiments.benchmark.sizes import memory, path_sizes
from experiments.benchmark.targets import targets
from experiments.benchmark.timing import Options
from experiments.benchmark.training import single, sweep
from experiments.common import cli, flags, folder
from experiments.common.data import data_title, load_data
from experiments.common.progress import Stopwatch, print_table

FLAGS = absl_flags.FLAGS
N_ROUNDS = 7
SECTIONS = {s.__name__: s for s in (single, sweep, path, targets, memory, path_sizes, gpu)}
DEFAULT_SECTIONS = [name for name in SECTIONS if name != gpu.__name__]


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define("batch_size", "split")
    flags.define_features()
    flags.define_list("section", DEFAULT_SECTIONS, list(SECTIONS), "Sections to run")
    absl_flags.DEFINE_bool("quick", False, "One round and small sizes, to see that it works.")


def main(argv: list[str]) -> int:
    """Runs the sections and writes their rows."""
    del argv
    import pandas as pd

    jax.config.update("jax_enable_compilation_cache", False)  # compilation is timed, too
    watch = Stopwatch()
    for package in ("torch", "sklearn", "sklearnex", "cyanure"):
        if not find_spec(package):
            print(f"note: {package} is not installed, so it is left out", file=sys.stderr)
    options = Options(FLAGS.batch_size, FLAGS.seed, 1 if FLAGS.quick else N_ROUNDS, FLAGS.quick)
    rows = []
    with folder.new_run("benchmark") as (run_path, target):
        with watch.phase("load"):
            dataset = load_data(FLAGS.split)
        with watch.phase("train"):
            for name in FLAGS.section:
                print(f"section {name}", file=sys.stderr, flush=True)
                rows += [{"section": name, **row} for row in SECTIONS[name](dataset, options)]
        peaks = [row["peak_gflops"] for row in rows if "peak_gflops" in row]
        peak = statistics.median(peaks) if peaks else None
        limits = {"matmul_gflops": peak}
        table = pd.DataFrame(rows, dtype=object)  # so that integers stay integers beside NaN
        folder.write_table(run_path / "benchmark.csv", table)
        content = {"limits": limits, "rows": table.to_dict("records")}
        folder.write_json(run_path / "benchmark.json", content)
        settings = {"section": FLAGS.section, "split": FLAGS.split, **options._asdict()}
        folder.write_result(run_path, "benchmark", dataset, watch, **settings, limits=limits)
    for _, section_rows in table.groupby("section", sort=False):
        print(_printed(section_rows), end="\n\n")
    print_table(
        [
            ("data", data_title(dataset)),
            ("matrix product", f"{peak:.0f} GFLOP/s" if peak else "not measured"),
            ("seconds", watch),
            ("written to", target),
        ]
    )
    return 0


def _printed(rows: Any) -> str:
    """A section's rows as text, without empty columns; quartiles are in parentheses."""
    rows = rows.dropna(axis="columns", how="all").set_index("contender")
    cells = rows.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
    for name in [name for name in cells if f"{name}_q1" in cells]:
        cells[name] += " (" + cells.pop(f"{name}_q1") + "–" + cells.pop(f"{name}_q3") + ")"
    cells = cells.drop(columns=["section", "gflops", "peak_gflops"], errors="ignore")
    cells = cells.replace("nan", "").rename_axis(index=None, columns=rows["section"].iloc[0])
    return cells.to_string()


if __name__ == "__main__":
    cli.launch(main, define_flags)
