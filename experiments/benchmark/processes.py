"""The sections that start processes: whole commands, and the memory of a training."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial

from experiments.benchmark.measuring import Measured, Rows, Setup, measure_seconds
from experiments.benchmark.timing import Turn, seconds_once
from experiments.common.progress import progress
from experiments.common.records import RecordError

COMMANDS = {"baseline": 1, "grid_search": 18}  # with the configurations that each trains
ROUNDS = 3  # at most, of commands that take seconds
SIZES = (  # n, d, K, configurations
    (10_000, 3072, 10, 1),
    (49_000, 3072, 10, 1),
    (49_000, 3072, 10, 64),
    (10_000, 6144, 10, 1),
    (10_000, 3072, 100, 1),
    (10_000, 3072, 10, 64),
    (10_000, 3072, 10, 128),
    (10_000, 3072, 100, 64),
)
PATH_SIZES = (
    (10_000, 768, 10, 41),
    (10_000, 3072, 10, 1),
    (10_000, 3072, 10, 41),
    (10_000, 3072, 10, 164),
    (49_000, 3072, 10, 41),
    (10_000, 768, 100, 41),
    (10_000, 768, 1000, 41),
    (10_000, 8192, 10, 41),
    (2_000, 8192, 10, 41),  # of the examples
    (9_000, 9_000, 10, 41),  # neither is decomposed
)
QUICK_PATH = ((100, 50, 10, 3),)


def end_to_end(setup: Setup) -> Measured:
    """Whole commands, from the start of the process to the figures."""
    words = [f"--dataset={setup.dataset.name}", *(["--n_epochs=1"] if setup.quick else [])]
    words += [f"--data_dir={setup.data_dir}"] if setup.data_dir else []
    turns = [
        Turn(f"experiments.{name}", partial(seconds_once, partial(_command, name, words)))
        for name in COMMANDS
    ]
    rows = measure_seconds(turns, min(ROUNDS, setup.n_rounds), setup.seed)
    for row, n_runs in zip(rows, COMMANDS.values(), strict=True):
        row["configurations"] = n_runs
    return Measured(rows)


def memory(setup: Setup) -> Measured:
    """Peak resident memory of a process that trains, for several n, d, K and configurations."""
    rows = _rows_of_sizes("train", SIZES[:1] if setup.quick else SIZES)
    return Measured([{**row, "batch_size": 100} for row in rows])


def path_sizes(setup: Setup) -> Measured:
    """Time and memory of a process that solves a path of λ, for several n, d, K and λ."""
    return Measured(_rows_of_sizes("solve", QUICK_PATH if setup.quick else PATH_SIZES))


def _rows_of_sizes(what: str, sizes: Sequence[tuple[int, int, int, int]]) -> Rows:
    rows: Rows = []
    for size in progress(sizes, len(sizes), lambda size: "n {}, d {}, K {}, C {}".format(*size)):
        n, d, n_classes, c = size
        found = json.loads(_run("experiments.benchmark.memory", [what, *map(str, size)]))
        name = f"ours, {n_classes} classes"
        rows.append({"contender": name, "configurations": c, "n": n, "d": d, **found})
    return rows


def _command(name: str, words: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _run(f"experiments.{name}", [*words, f"--output_dir={scratch}/run"])


def _run(module: str, words: Sequence[str]) -> str:
    """Runs a module in a process of its own, and returns what it prints."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RecordError(f"python -m {module} failed: {last}")
    return done.stdout
