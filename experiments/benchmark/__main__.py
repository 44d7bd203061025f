"""Speed and memory against NumPy, PyTorch, scikit-learn and the machine's own limits.

python -m experiments.benchmark
python -m experiments.benchmark --section=single,sweep
python -m experiments.benchmark --quick --dataset=synthetic

PyTorch and scikit-learn are contenders where they are installed (pip install -e '.[bench]'). Before
a section is timed, the parameters of each contender after two epochs are compared with ours; one
that differs ends the command. Then the section's contenders take turns in this process, and so does
the machine's product of float32 matrices, its peak. Ratios are formed round by round. Figures are
medians over rounds; the same names with _q1 and _q3 are their quartiles.

benchmark.json holds `limits` and `rows`, which benchmark.csv has too. The limits:

  matmul_gflops     10⁹ operations a second of the matrix product, over all rounds of all sections
  bandwidth_gb_s    10⁹ bytes a second of a copy, read and written

A row is a contender of a section, with what the section measures:

  configurations, batch_size, n, d    what was trained, and on how many examples and features
  milliseconds      a configuration and epoch, compilation apart
  gflops            10⁹ operations a second at that time: two products of [n, d] with [d, K]
  peak_gflops       of the matrix product in the same rounds
  fraction_of_peak  what the contender's rate was of it in each round
  times_numpy       how many times as fast as the fastest NumPy loop with the same batches, likewise
  seconds           of the whole: to an accuracy, of a command, or of a path of λ
  times_ours        how many times as long as ours, round by round; of a path, as ours with all that
                    it compiles
  timed             how many of the configurations of a path were timed, one after the other and
                    once; the seconds of all are by their mean
  relative_gap      what the cost is above its minimum by at most, over the cost, in the worst of
                    those that were timed, by our certificate in float64
  passes            over the data, for a λ, and most_passes, for the one that takes most
  peak_mb           the most memory of a process, in 10⁶ bytes

result.json has `other_processes` too: what others had of the cores meanwhile, from 0 to 1.
"""

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments.benchmark import limits, table
from experiments.benchmark.contenders import OPTIONAL, installed
from experiments.benchmark.measuring import Rows, Setup
from experiments.benchmark.sections import SECTIONS
from experiments.benchmark.timing import Cores, take_turns
from experiments.common import command, flags, records
from experiments.common.data import data_title, load_data
from experiments.common.output import output_folder, write_result
from experiments.common.progress import Stopwatch, print_table
from linear_cifar.data import Dataset

FLAGS = absl_flags.FLAGS
ROUNDS = 7


def _with_quartiles(*names: str) -> tuple[str, ...]:
    return tuple(name + end for name in names for end in ("", "_q1", "_q3"))


COLUMNS = (
    *("section", "contender", "configurations", "batch_size", "n", "d"),
    *_with_quartiles("milliseconds"),
    *("gflops", "peak_gflops"),
    *_with_quartiles("fraction_of_peak", "times_numpy", "seconds", "times_ours"),
    *("timed", "relative_gap", "passes", "most_passes", "peak_mb"),
)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define()
    names = ", ".join(SECTIONS)
    absl_flags.DEFINE_list("section", list(SECTIONS), f"What to measure, of {names}.")
    absl_flags.register_validator(
        "section",
        lambda given: bool(given) and set(given) <= SECTIONS.keys(),
        f"It is one or more of {names}, separated by commas.",
    )
    absl_flags.DEFINE_bool("quick", False, "Few rounds and sizes: to see that it works.")


def main(argv: list[str]) -> int:
    """Runs the sections and writes their rows."""
    del argv
    watch = Stopwatch()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        if name in os.environ:
            print(f"note: {name} is set, which may slow NumPy down", file=sys.stderr)
    for package, title in OPTIONAL.items():
        if not installed(package):
            print(f"note: {title} is not installed; it is left out", file=sys.stderr)
    with output_folder("benchmark") as (folder, target):
        with watch.phase("load"):
            dataset = load_data()
        n_rounds = 1 if FLAGS.quick else ROUNDS
        setup = Setup(dataset, FLAGS.data_dir, FLAGS.seed, n_rounds, FLAGS.quick)
        before = Cores.now()
        with watch.phase("train"):
            found, rows = _measure(setup)
        after = Cores.now()
        others = before.share_of_others(after) if before and after else None
        _write(folder, dataset, found, rows, others, watch)
    print(*table.lines(rows), sep="\n")
    print_table(
        [
            ("data", data_title(dataset)),
            ("matrix product", f"{found['matmul_gflops']:.0f} GFLOP/s"),
            ("copy", f"{found['bandwidth_gb_s']:.1f} GB/s, read and written"),
            (
                "other processes",
                "unknown" if others is None else f"{others:.0%} of the cores".replace("%", " %"),
            ),
            ("seconds", watch),
            ("written to", target),
        ]
    )
    return 0


def _measure(setup: Setup) -> tuple[dict[str, float], Rows]:
    """The machine's limits and the rows of all sections, with every column."""
    rows: Rows = []
    peaks: list[float] = []
    for name in FLAGS.section:
        print(f"section {name}", file=sys.stderr, flush=True)
        measured = SECTIONS[name](setup)
        peaks += measured.peaks
        size = {"n": len(setup.dataset.train.labels), "d": setup.dataset.n_features}
        given = ({"section": name, **size, **row} for row in measured.rows)
        rows += ({column: row.get(column) for column in COLUMNS} for row in given)
    if not peaks:  # none of the sections has the matrix product among its turns
        turns = limits.peak_turns(setup.quick)
        peaks = limits.peak(take_turns(turns, setup.n_rounds, setup.seed)).tolist()
    found = {
        "matmul_gflops": statistics.median(peaks),
        "bandwidth_gb_s": limits.bandwidth_gb_s(setup.n_rounds, setup.quick),
    }
    return found, rows


def _write(
    folder: Path,
    dataset: Dataset,
    found: dict[str, float],
    rows: Rows,
    others: float | None,
    watch: Stopwatch,
) -> None:
    from experiments.benchmark import figures

    with watch.phase("plot"):
        records.write_figures(folder, figures.draw(rows, data_title(dataset)))
    cells: list[list[Any]] = [["" if cell is None else cell for cell in r.values()] for r in rows]
    records.write_csv(folder / "benchmark.csv", COLUMNS, cells)
    records.write_json(folder / "benchmark.json", {"limits": found, "rows": rows})
    content = {
        "quick": FLAGS.quick,
        "cores": os.cpu_count(),
        "other_processes": others,
        "limits": found,
    }
    write_result(folder, "benchmark", dataset, watch, **content)


if __name__ == "__main__":
    command.launch(main, define_flags)
