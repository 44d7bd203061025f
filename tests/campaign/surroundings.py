"""What surrounds a command is of any kind, several at once: its records are whole, or one line."""

import contextlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests import commands
from tests.campaign import honest, privileges
from tests.campaign.parts import Part

Random = np.random.Generator
MOST_SECONDS = 60  # of a command that takes five
USUAL = 0.6  # of the time each thing is as usual
# What is in a command's folder at the end.
COMMANDS = {
    "experiments.baseline": "result.json",
    "experiments.grid_search": "result.json",
    "experiments.sweep": "result.json",
    "experiments.lambda_path": "result.json",
    "experiments.probe": "probe.json",
}
LOCALES: tuple[dict[str, str | None], ...] = (
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "xx_XX.UTF-8"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1:strict"},
    {"PYTHONIOENCODING": "utf-16"},
    {"PYTHONUTF8": "1"},
)
STREAMS = (
    "{} >&-", "{} 2>&-", "{} <&- >&- 2>&-", "{} >/dev/full", "{} 2>/dev/full",
    "{} >/dev/full 2>&1", "{} | head -1", "{} 2>&1 | head -1", "{} | true", "a terminal",
)  # fmt: skip
VARIABLES: tuple[dict[str, str | None], ...] = (
    {"HOME": None}, {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"}, {"PATH": None},
    {"OMP_NUM_THREADS": "abc"}, {"OMP_NUM_THREADS": "0"}, {"OPENBLAS_NUM_THREADS": "1000"},
    {"NO_COLOR": "1"}, {"COLUMNS": "0"}, {"COLUMNS": "abc"}, {"TERM": "nonsense"},
    {"MPLBACKEND": "nonsense"}, {"MPLBACKEND": "TkAgg"}, {"MPLCONFIGDIR": "/proc/nonexistent"},
    {"JAX_PLATFORMS": "nonsense"}, {"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": ""},
    {"JAX_NUM_CPU_DEVICES": "3"}, {"JAX_ENABLE_X64": "1"}, {"JAX_DEBUG_NANS": "1"},
    {"JAX_COMPILATION_CACHE_DIR": "/proc/nonexistent"}, {"JAX_LOG_COMPILES": "1"},
    {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
    {"PYTHONOPTIMIZE": "2"}, {"PYTHONDEVMODE": "1"}, {"PYTHONUNBUFFERED": "1"},
    {"PYTHONWARNINGS": "error"}, {"PYTHONHASHSEED": "7"}, {"TZ": "nonsense"},
    {"LINEAR_CIFAR_DATA": "/nonexistent"}, {"SOURCE_DATE_EPOCH": "0"},
)  # fmt: skip
LIMITS = (
    "umask 777", "umask 077", "ulimit -f 0", "ulimit -f 4", "ulimit -f 100", "ulimit -n 64",
    "ulimit -n 128", "ulimit -s 1024", "ulimit -c 0", "trap '' PIPE", "trap '' INT TERM HUP",
)  # fmt: skip
NO_TEXT = b"\xff".decode("utf-8", "surrogateescape")  # a name of bytes that are none
PLACES = (
    "a b  c", "a\nb", "λ/é 漢", NO_TEXT, "-out", ".hidden",
    "x" * 230, "x" * 300, "a/" * 100, "%s{0}$x$\\n", ".", "..", "/dev/null", "/dev/null/out",
    "/proc/out", "", "link", "dangling", "loop", "file", "pipe", "file/out", "read-only",
    "read-only/out", "unreadable", "other", "empty", "run", "tiny",
)  # fmt: skip
WORKING = ("cd gone && rmdir ../gone", "cd read-only", "cd unreadable", "cd /")
DATA = (
    "$x^$.npz",
    NO_TEXT + ".npz",
    "a\nb.npz",
    "λ 漢.npz",
    "%s{}.npz",
    "named.npz",
    "x" * 251 + ".npz",
)


def _furnish(place: Path) -> None:
    """What the places are in."""
    for name in ("gone", "real", "empty", "other", "run", "read-only", "unreadable", "tiny"):
        (place / name).mkdir()
    (place / "other" / "mine").write_text("mine")
    (place / "run" / "result.json").write_text("{}")
    (place / "file").write_text("mine")
    os.mkfifo(place / "pipe")
    for name, to in (("link", "real"), ("dangling", "not/there"), ("loop", "loop")):
        (place / name).symlink_to(to)
    (place / "read-only").chmod(0o555)
    (place / "unreadable").chmod(0)
    data = honest.make_data(place)
    for name in DATA:
        shutil.copy(data, place / name)
    with np.load(data) as arrays:
        names = np.array(["$a$", "λ\n", "b,\"c'"])[arrays["labels"]]
        np.savez(place / "named.npz", features=arrays["features"], labels=names)


def _choose(rng: Random, what: tuple, usual):
    return usual if rng.random() < USUAL else what[rng.integers(len(what))]


def case(rng: Random, folder: Path) -> str | None:
    """Runs a command in surroundings that are drawn."""
    place = folder / "place"
    place.mkdir()
    try:
        _furnish(place)
        return _case(rng, place)
    finally:
        for name in ("read-only", "unreadable"):
            (place / name).chmod(0o700)
        shutil.rmtree(place)


def _case(rng: Random, place: Path) -> str | None:
    name = rng.choice(list(COMMANDS))
    out, data = _choose(rng, PLACES, "out"), _choose(rng, DATA, "data.npz")
    variables = {**_choose(rng, VARIABLES, {}), **_choose(rng, LOCALES, {})}
    stream, limit = _choose(rng, STREAMS, "{}"), _choose(rng, LIMITS, "true")
    working = "true" if rng.random() < 0.85 else WORKING[rng.integers(len(WORKING))]
    words = [sys.executable, "-m", *honest.words(name, place / data, Path("OUT"))]
    words[-1] = f"--output_dir={out}"
    line = shlex.join(words)
    if out == "tiny":
        mount = f"mount -t tmpfs -o size={4 * rng.integers(1, 100)}k none {place}/tiny"
        line = f"unshare -rm sh -c {shlex.quote(f'{mount}; {line}')}"
    terminal = stream == "a terminal"
    line = f"{working}; {limit}; {(stream if not terminal else '{}').format(line)}"
    code, shown, errors = _ended(line, place, variables, terminal)
    what = f"{variables} {line!r}"
    if code not in (0, 1):
        return f"{what}: exit code {code}: {shown}{errors}"
    for sign in ("Traceback", "Exception ignored", "Fatal Python error"):
        if sign in shown + errors:
            return f"{what}: exit code {code}: {shown}{errors}"
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if len(lines) != code and "2>" not in stream and not terminal and "<&-" not in stream:
        return f"{what}: exit code {code}: {errors}"
    if code == 0 and working == "true" and out not in ("", "tiny"):
        return _lacks(place / out, COMMANDS[name], what)
    return None


def _lacks(out: Path, last: str, what: str) -> str | None:
    if not (out / last).exists():
        return f"{what}: exit code 0 without {last}"
    try:
        commands.check_every_file(out)
    except (ValueError, AssertionError) as error:
        return f"{what}: {error!r}"
    return None


def _ended(
    line: str, place: Path, variables: dict[str, str | None], terminal: bool
) -> tuple[int, str, str]:
    """The exit code of a shell's line, and what it left on its streams."""
    changed = commands.environment(
        PYTHONPATH=str(commands.ROOT), PYTHONWARNINGS="", MPLCONFIGDIR=str(place.parent / "mpl")
    )
    changed |= {name: value for name, value in variables.items() if value is not None}
    env = {name: value for name, value in changed.items() if variables.get(name, "") is not None}
    with contextlib.ExitStack() as ending:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        seen: list[bytes] = []
        if terminal:
            streams = dict.fromkeys(
                ("stdin", "stdout", "stderr"), ending.enter_context(_terminal(seen))
            )
        process = subprocess.Popen(
            privileges.given_up_by(["/bin/bash", "-o", "pipefail", "-c", line]),
            cwd=place,
            env=env,
            start_new_session=True,
            **streams,
        )
        try:
            shown, errors = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return -1, f"takes longer than {MOST_SECONDS} seconds", ""
    if terminal:
        shown, errors = b"", b"".join(seen)
    # What UTF-16 has more than UTF-8.
    texts = (text.replace(b"\xff\xfe", b"").replace(b"\0", b"") for text in (shown, errors))
    return process.returncode, *(text.decode("utf-8", "replace") for text in texts)


@contextlib.contextmanager
def _terminal(seen: list[bytes]) -> Iterator[int]:
    """The end of a terminal that a command is given; what it shows goes into `seen`."""
    ours, theirs = pty.openpty()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(ours, 4096):
                seen.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield theirs
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)


PARTS = {"any": Part("surroundings", 100, case, seconds=5)}
