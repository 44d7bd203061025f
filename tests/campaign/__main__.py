"""Tries to break the readers of files, the flags, and the commands that can be resumed.

    python -m tests.campaign [--minutes=N] [--seed=S] [--only=PART,…] [--case=N]

The parts take turns of equal length. It prints how many cases each part tried, and how to repeat
those that failed; the exit code is 1 if there are any.
"""

import argparse
import contextlib
import importlib
import itertools
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.campaign import command_lines, damage, kills, readers, small, surroundings


class Part(NamedTuple):
    """One kind of case."""

    case: Callable[[np.random.Generator, Any], str | None]  # what failed, or None
    # Prepared once, in an empty folder; what it yields is the second argument of every case.
    setting: Callable[[Path], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


PARTS = {
    "damaged": Part(damage.damaged, small.uninterrupted_runs),
    "killed": Part(kills.killed, small.uninterrupted_runs),
    "signalled": Part(kills.signalled, kills.counted_runs),
    "process_killed": Part(kills.process_killed, kills.process_runs),
    "surrounded": Part(surroundings.surrounded),
    "flags": Part(command_lines.parsed),
    "axes": Part(command_lines.axes),
    "readers": Part(readers.read_mutated),
}


def trials(
    part: Part, seed: int, numbers: Iterable[int], seconds: float = math.inf
) -> Iterator[tuple[int, str | None]]:
    """Tries cases until the time is over: the number of each, and what failed or None.

    The random generator of a case is that of (seed, number).
    """
    memory = Path("/dev/shm")  # where files are fast
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        part.setting(Path(folder)) as prepared,
    ):
        end = time.monotonic() + seconds
        for number in itertools.takewhile(lambda _: time.monotonic() < end, numbers):
            try:
                failure = part.case(np.random.default_rng((seed, number)), prepared)
            except (Exception, small.HangError):
                failure = traceback.format_exc()
            yield number, failure


def main(argv: list[str] | None = None) -> int:
    """Runs a campaign, or one case of it; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.campaign", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=60, help="for all parts together")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--case", type=int, help="only this one")
    args = parser.parse_args(argv)
    importlib.import_module("tests.conftest")  # its settings of JAX
    names = args.only.split(",")
    n_failed = 0
    for name in names:
        numbers = itertools.count() if args.case is None else [args.case]
        seconds = 60 * args.minutes / len(names)
        n_tried = 0
        for number, failure in trials(PARTS[name], args.seed, numbers, seconds):
            n_tried += 1
            if failure is not None:
                n_failed += 1
                again = f"python -m tests.campaign --only={name} --seed={args.seed} --case={number}"
                print(f"{name}: {failure}\n{again}\n", flush=True)
        print(f"{name}: {n_tried} cases", flush=True)
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
