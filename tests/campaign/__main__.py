"""Tries to break everything that the project reads, and the commands that keep something.

    python -m tests.campaign [--minutes=N] [--seed=S] [--only=PART,…] [--output=FILE]

It prints what was tried, and for each failure how to repeat it; the exit code is 1 if there is one.
Parts run in processes of their own, as many at once as there are cores, and share the minutes in
proportion to what an hour's campaign wants of them. It needs the extras `test` and `campaign`.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.campaign import fuzz, parts

GRACE = 120  # seconds that the last case of a part may take beyond its time
SHOWN = 3  # failures of a part
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Tried:
    """What came of a part."""

    part: str
    tries: str
    goal: int
    missing: str = ""  # the package without which it was left out
    tried: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: list[str] = field(default_factory=list)  # the first ones, with what repeats them
    cases: list[int] = field(default_factory=list)  # the numbers of all that failed

    def add(self, number: int, count: int, failure: str | None, seed: int) -> None:
        """Counts a case."""
        self.tried += count
        if failure is not None:
            self.failed += 1
            self.cases.append(number)
            again = f"python -m tests.campaign --only={self.part} --seed={seed} --case={number}"
            said = failure if "--input=" in failure else f"{failure}\n{again}"
            self.failures += [said][: SHOWN - len(self.failures)]

    def __str__(self) -> str:
        columns = f"{self.part:<26}{self.tries:<14}{self.tried:>12,}{self.goal:>12,}"
        if self.missing:
            return f"{columns}  left out: pip install -e '.[campaign]' for {self.missing}"
        return f"{columns}{self.failed:>10}{self.seconds:>9.0f}"


def main(argv: list[str] | None = None) -> int:
    """Runs a campaign, one case of it, or one input of a loader; returns the exit code."""
    given = _parser().parse_args(argv)
    every = parts.every()
    wanted = given.only.split(",") if given.only else list(every)
    chosen = [name for name in every if any(f"{name}.".startswith(f"{w}.") for w in wanted)]
    if not chosen:
        print(f"error: there is no part {given.only}, but {', '.join(every)}", file=sys.stderr)
        return 1
    if given.input:
        return _told(fuzz.again(chosen[0].removeprefix("fuzz."), given.input))
    if given.case is not None:
        ((_, failure),) = parts.trials(every[chosen[0]], given.seed, [given.case], math.inf)
        return _told(failure)
    found = _campaign({name: every[name] for name in chosen}, given.seed, 60 * given.minutes)
    print(f"{'part':<26}{'of':<14}{'tried':>12}{'in an hour':>12}{'failed':>10}{'seconds':>9}")
    print(*found, sep="\n")
    for tried in found:
        print(*(f"\n{tried.part}: {failure}" for failure in tried.failures), sep="\n", end="")
        if tried.failed > SHOWN:
            print(f"\n{tried.part}: all cases that failed: {tried.cases}")
    if given.output:
        given.output.write_text(json.dumps([asdict(tried) for tried in found], indent=2) + "\n")
    return int(any(tried.failed for tried in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.campaign", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=60, help="that it takes, about")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--only", help="parts, as fuzz.npz, or groups of them, as fuzz")
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    parser.add_argument("--case", type=int, help="only this one of a part")
    parser.add_argument("--input", type=Path, help="only this file, of a part of fuzz")
    return parser


def _told(failure: str | None) -> int:
    print("nothing failed" if failure is None else failure)
    return int(failure is not None)


def _campaign(chosen: dict[str, parts.Part], seed: int, seconds: float) -> list[Tried]:
    """Runs parts, as many at once as there are cores."""
    found = {name: Tried(name, part.tries, part.goal) for name, part in chosen.items()}
    for name, part in chosen.items():
        if part.needs and importlib.util.find_spec(part.needs) is None:
            found[name].missing = part.needs
    left = [name for name in chosen if not found[name].missing]
    need = {name: chosen[name].goal / chosen[name].per_case * chosen[name].seconds for name in left}
    n_cores = len(os.sched_getaffinity(0))
    share = n_cores * seconds / sum(need.values()) if need else 0
    left.sort(key=need.__getitem__)
    running: dict[Connection, _Running] = {}
    try:
        while left or running:
            while left and len(running) < n_cores:
                name = left.pop()  # the longest first
                started = _Running(name, seed, min(share * need[name], seconds))
                running[started.told] = started
            for told in _ready(running):
                if running[told].listen(found[running[told].name], chosen, seed):
                    del running[told]
    finally:
        for started in running.values():
            started.end()
    return list(found.values())


def _ready(running: dict[Connection, "_Running"]) -> list[Connection]:
    """Those that told something, or are late."""
    heard = wait(list(running), timeout=1)
    return [told for told, of in running.items() if told in heard or time.monotonic() > of.latest]


class _Running:
    """A process that tries a part."""

    def __init__(self, name: str, seed: int, seconds: float) -> None:
        self.name, self.begun = name, time.monotonic()
        self.latest = self.begun + seconds + GRACE
        self.told, tell = SPAWN.Pipe(duplex=False)
        self.process = SPAWN.Process(target=parts.work, args=(name, seed, seconds, tell))
        self.process.start()
        tell.close()
        print(f"{name}: {seconds:.0f} s", file=sys.stderr)

    def listen(self, tried: Tried, chosen: dict[str, parts.Part], seed: int) -> bool:
        """Counts what the process tells, if it isn't late; whether it has ended."""
        tried.seconds = time.monotonic() - self.begun
        try:
            if time.monotonic() > self.latest:
                raise TimeoutError
            number, failure = self.told.recv()
            tried.add(number, chosen[self.name].per_case, failure, seed)
            return False
        except (EOFError, TimeoutError) as error:
            self.end()
            if isinstance(error, TimeoutError) or self.process.exitcode:
                number = tried.tried // chosen[self.name].per_case
                how = "hangs" if isinstance(error, TimeoutError) else "ended its process"
                tried.add(number, 0, f"the case {how} (exit code {self.process.exitcode})", seed)
            return True

    def end(self) -> None:
        """Ends the process, if it doesn't by itself, and what it has started."""
        self.told.close()
        self.process.join(timeout=2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


if __name__ == "__main__":
    sys.exit(main())
