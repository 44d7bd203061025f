"""What a campaign is made of: parts, whose cases a seed and a number repeat.

Each module beside this one that has `PARTS`, by name, takes part as MODULE.NAME.
"""

import contextlib
import importlib
import itertools
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """One kind of trial."""

    tries: str  # what is counted, as "SIGKILLs"
    goal: int  # how many an hour's campaign wants
    case: Callable[[np.random.Generator, Any], str | None]  # what failed, or None
    # Made once a process in an empty folder that goes afterwards; what it yields is the second
    # argument of every case. `nullcontext` yields the folder itself.
    setting: Callable[[Path], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    per_case: int = 1  # how many a case tries
    seconds: float = 1.0  # that a case takes, about; minutes are shared by it
    needs: str = ""  # a package that may be missing


def every() -> dict[str, Part]:
    """All parts by name, with JAX set up as in the tests."""
    importlib.import_module("tests.conftest")
    found = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        parts = getattr(importlib.import_module(f"tests.campaign.{path.stem}"), "PARTS", {})
        found |= {f"{path.stem}.{name}": part for name, part in parts.items()}
    return found


def folder() -> tempfile.TemporaryDirectory[str]:
    """An empty folder that goes at the end, in memory where there is such a place."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def trials(
    part: Part, seed: int, numbers: Iterable[int], seconds: float
) -> Iterator[tuple[int, str | None]]:
    """Tries cases until the time is over; what failed of each, or None, by its number.

    Args:
      part: what is tried.
      seed: of all cases.
      numbers: of the cases, each of which has a random generator by (seed, number).
      seconds: after which no further case begins.
    """
    end = time.monotonic() + seconds
    with folder() as place, part.setting(Path(place)) as made:
        for number in numbers:
            if time.monotonic() > end:
                return
            try:
                failure = part.case(np.random.default_rng((seed, number)), made)
            except Exception:
                failure = traceback.format_exc()
            yield number, failure


def work(name: str, seed: int, seconds: float, tell: Connection) -> None:
    """What a process that tries a part does: it tells what came of each case."""
    os.setsid()  # for what it starts to be ended with it
    for told in trials(every()[name], seed, itertools.count(), seconds):
        tell.send(told)
