"""Speed and memory against NumPy, PyTorch, scikit-learn and the machine's own limits.

python -m experiments.benchmark
python -m experiments.benchmark --section=single,sweep

PyTorch and scikit-learn are contenders where they are installed (pip install -e '.[bench]'). A
section's contenders take turns in this process; figures are medians, compilation apart.
benchmark.json holds the limits and a row a contender: milliseconds a configuration and epoch, and
what that is of the machine's peak for products of float32 matrices.
"""

import os
import sys
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments import benchmark_sections as sections, flags, runner, timing
from linear_cifar import records
from linear_cifar.datasets import Dataset

FLAGS = absl_flags.FLAGS
COLUMNS = (
    "section", "contender", "configurations", "batch_size", "n", "d", "milliseconds", "gflops",
    "fraction_of_peak", "seconds", "peak_mb",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Runs the sections and writes their rows."""
    del argv
    watch = runner.Stopwatch()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        if name in os.environ:
            print(f"note: {name} is set, which may slow NumPy down", file=sys.stderr)
    for name, there in (("PyTorch", sections.TORCH), ("scikit-learn", sections.SKLEARN)):
        if not there:
            print(f"note: {name} is not installed; it is left out", file=sys.stderr)
    with runner.output_folder("benchmark") as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data()
        limits, rows = _measure(dataset)
        for row in rows:
            _complete(row, dataset, limits)
        _write(folder, dataset, limits, rows, watch)
    _print(limits, rows, dataset, target)
    return 0


def _measure(dataset: Dataset) -> tuple[dict[str, float], list[dict[str, Any]]]:
    n_rounds = 1 if FLAGS.quick else 5
    side, n_bytes = (1024, 2**26) if FLAGS.quick else (4096, 2**29)
    peaks = [timing.matmul_gflops(side, n_rounds)]
    rows: list[dict[str, Any]] = []
    for name in FLAGS.section:
        print(f"section {name}", file=sys.stderr, flush=True)
        found = sections.SECTIONS[name](dataset, n_rounds, FLAGS.quick)
        rows += [{"section": name, **row} for row in found]
        peaks.append(timing.matmul_gflops(side, n_rounds))
    limits = {
        # The median of what was measured before, between and after the sections.
        "matmul_gflops": sorted(peaks)[len(peaks) // 2],
        "bandwidth_gb_s": timing.bandwidth_gb_s(n_bytes, n_rounds),
    }
    return limits, rows


def _complete(row: dict[str, Any], dataset: Dataset, limits: dict[str, float]) -> None:
    """Adds what follows from the time: two products of [n, d] with [d, K] an epoch."""
    row.setdefault("n", len(dataset.train.labels))
    row.setdefault("d", dataset.n_features)
    if row.get("milliseconds") is not None:
        operations = 4 * row["n"] * row["d"] * dataset.n_classes
        row["gflops"] = operations / row["milliseconds"] * 1e-6
        row["fraction_of_peak"] = row["gflops"] / limits["matmul_gflops"]
    for name in COLUMNS:
        row.setdefault(name, None)


def _write(folder: Path, dataset: Dataset, limits, rows, watch) -> None:
    from linear_cifar import plots

    figures = {}
    for section in dict.fromkeys(row["section"] for row in rows):
        of_section = [r for r in rows if r["section"] == section and r["milliseconds"] is not None]
        title = f"{section.replace('_', ' ')} · {runner.data_title(dataset)}"
        if section == "sweep":
            figures[section] = plots.plot_scaling(of_section, title)
        elif of_section:
            figures[section] = plots.plot_times(of_section, title)
    with watch.phase("plot"):
        records.write_figures(folder, figures)
    records.write_csv(folder / "benchmark.csv", COLUMNS, (["" if row[c] is None else row[c]
                      for c in COLUMNS] for row in rows))  # fmt: skip
    records.write_json(folder / "benchmark.json", {"limits": limits, "rows": rows})
    result = {
        **runner.describe_source("benchmark", dataset),
        "quick": FLAGS.quick,
        "cores": os.cpu_count(),
        "limits": limits,
        "seconds": watch.seconds,
    }
    records.write_json(folder / records.RESULT, result)


def _print(limits: dict[str, float], rows: list[dict[str, Any]], dataset: Dataset, target) -> None:
    heads = ("section", "contender", "runs", "batch", "ms", "GFLOP/s", "of peak", "s", "MB")
    print("{:<11} {:<34} {:>5} {:>5} {:>8} {:>8} {:>8} {:>7} {:>6}".format(*heads))
    for row in rows:

        def cell(name: str, form: str, width: int, row=row) -> str:
            return f"{'' if row[name] is None else format(row[name], form):>{width}}"

        print(
            f"{row['section']:<11} {row['contender']:<34}", cell("configurations", "d", 5),
            cell("batch_size", "d", 5), cell("milliseconds", ".2f", 8), cell("gflops", ".0f", 8),
            cell("fraction_of_peak", ".0%", 8), cell("seconds", ".1f", 7),
            cell("peak_mb", ".0f", 6),
        )  # fmt: skip
    runner.print_table(
        [
            ("data", runner.data_title(dataset)),
            ("matrix product", f"{limits['matmul_gflops']:.0f} GFLOP/s"),
            ("copy", f"{limits['bandwidth_gb_s']:.1f} GB/s, read and written"),
            ("written to", target),
        ]
    )


if __name__ == "__main__":
    flags.define()
    absl_flags.DEFINE_list(
        "section", list(sections.SECTIONS), f"What to measure, of {', '.join(sections.SECTIONS)}."
    )
    absl_flags.register_validator(
        "section", lambda names: bool(names) and set(names) <= sections.SECTIONS.keys(),
        f"It is one or more of {', '.join(sections.SECTIONS)}, separated by commas.",
    )  # fmt: skip
    absl_flags.DEFINE_bool("quick", False, "Few rounds and sizes: to see that it works.")
    runner.launch(main)
