"""Coverage-guided fuzzing of every loader, by atheris (libFuzzer).

A case is a session of libFuzzer in a process of its own, forked of one that has everything loaded.
It goes on from the inputs that earlier sessions found interesting. What fails is kept as a file,
which `python -m tests.campaign --only=fuzz.LOADER --input=FILE` reads again.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import resource
import shutil
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.campaign.loaders import LOADERS
from tests.campaign.parts import Part
from tests.campaign.reading import Loader, Reader

RUNS = 20_000  # of a session
MOST_GROWTH = 64 * 2**20  # bytes of memory that one tiny input may take
# Inputs a second, about.
RATE = dict.fromkeys(LOADERS, 1400) | {
    "batch": 11_000, "archive": 3000, "compressed": 4000, "safetensors": 2700, "model_npz": 2800,
    "model_safetensors": 8000, "chunk": 4500, "json": 3000,
}  # fmt: skip
SECONDS = 10  # that it may take
KEPT = Path("runs/campaign")  # what failed, for a look after the campaign
# Not `experiments.common.store`: from its comparison libFuzzer takes the checksum that is missing.
INSTRUMENTED = (
    "linear_cifar.data.",
    "linear_cifar.classifier",
    "experiments.common.records",
    "experiments.common.resumable",
    "experiments.common.seals",
    "numpy.lib._format_impl",
    "pickletools",
    "tarfile",
    "zipfile",
)


class Fuzzed(NamedTuple):
    """What the sessions of a loader share."""

    name: str
    loader: Loader
    folder: Path  # of this campaign alone

    @property
    def failed(self) -> Path:
        """Where what fails stands first: an input a place, which counts once a campaign."""
        return self.folder / "failed"


@contextlib.contextmanager
def fuzzed(name: str, folder: Path) -> Iterator[Fuzzed]:
    """Instruments the project, and writes the honest files as the first inputs."""
    for part in ("corpus", "files", "failed"):
        (folder / part).mkdir()
    for i, content in enumerate(LOADERS[name].honest()):
        (folder / "corpus" / f"honest-{i}").write_bytes(content)
    _instrument()
    yield Fuzzed(name, LOADERS[name], folder)


@functools.cache
def _instrument() -> None:
    """Makes the project's functions tell which branches they take, and what they compare."""
    import atheris

    for name, module in list(sys.modules.items()):
        if not name.startswith(INSTRUMENTED):
            continue
        owners = [module, *(v for v in vars(module).values() if inspect.isclass(v))]
        for owner in owners:
            for value in vars(owner).values():
                function = inspect.unwrap(value) if callable(value) else value
                if isinstance(function, types.FunctionType) and function.__module__ == name:
                    atheris.instrument_func(function)


def session(rng: np.random.Generator, fuzzed: Fuzzed) -> str | None:
    """A session of libFuzzer."""
    before = set(fuzzed.failed.iterdir())
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings(action="ignore"):  # JAX's, of a fork, before which it did nothing
        process = os.fork()
    if not process:
        try:
            _fuzz(int(rng.integers(1, 2**31)), fuzzed)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    found = sorted(set(fuzzed.failed.iterdir()) - before)
    failures = [_kept(fuzzed.name, path) for path in found if path.suffix != ".txt"]
    if status and not failures:
        failures = [f"the session ended with status {status}"]
    return "\n".join(failures) or None


def _kept(name: str, path: Path) -> str:
    """Keeps an input that failed; what is to be said of it."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{name}-{path.name}"
    shutil.copyfile(path, kept)
    of_us = path.with_suffix(".txt")  # libFuzzer's own, as of a hang, come without
    text = of_us.read_text() if of_us.exists() else ""
    return f"{text}python -m tests.campaign --only=fuzz.{name} --input={kept}"


def _fuzz(seed: int, fuzzed: Fuzzed) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    words = {
        "seed": seed,
        "runs": RUNS,
        "timeout": SECONDS,
        "rss_limit_mb": 4000,
        "max_len": 20_000,
        "artifact_prefix": f"{fuzzed.failed}/",
    }
    flags = [f"-{name}={value}" for name, value in words.items()]
    warnings.simplefilter("error")
    with fuzzed.loader.reader(fuzzed.folder / "files") as read:
        atheris.Setup(
            ["fuzz", str(fuzzed.folder / "corpus"), *flags],
            functools.partial(_watched, read, fuzzed, set()),
        )
        atheris.Fuzz()


def _watched(read: Reader, fuzzed: Fuzzed, known: set[str], content: bytes) -> None:
    """Reads an input, and keeps it if that fails in a place that isn't known to."""
    peak = _peak()
    try:
        read(content)
        if _peak() > peak + MOST_GROWTH:
            raise MemoryError(f"{_peak() - peak:,} bytes for an input of {len(content):,}")
    except Exception as error:
        place = "".join(traceback.format_tb(error.__traceback__)[-1:]).partition("\n")[0]
        if place not in known:
            known.add(place)
            path = fuzzed.failed / hashlib.sha256(place.encode()).hexdigest()[:12]
            path.write_bytes(content)
            path.with_suffix(".txt").write_text(traceback.format_exc())


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def again(name: str, path: Path) -> str | None:
    """Reads an input that was kept; what failed."""
    from tests.campaign.parts import folder

    warnings.simplefilter("error")
    with folder() as place, LOADERS[name].reader(Path(place)) as read:
        try:
            read(path.read_bytes())
        except Exception:
            return traceback.format_exc()
    return None


PARTS = {
    name: Part(
        tries="inputs",
        goal=1_000_000,
        case=session,
        setting=functools.partial(fuzzed, name),
        per_case=RUNS,
        seconds=RUNS / RATE[name],
        needs="atheris",
    )
    for name in LOADERS
}
