"""Commands in odd surroundings, several at once: the record is whole, or there is one line."""

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
from tests.campaign import privileges, small

Random = np.random.Generator
LONGEST = 60  # seconds of a command that takes five
USUAL = 0.6  # how often each thing is as usual
Variables = dict[str, str | None]
STREAMS = (
    *("{} >&-", "{} 2>&-", "{} <&- >&- 2>&-", "{} >/dev/full", "{} 2>/dev/full"),
    *("{} >/dev/full 2>&1", "{} | head -1", "{} 2>&1 | head -1", "{} | true", "a terminal"),
)
VARIABLES: tuple[Variables, ...] = (
    {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "xx_XX.UTF-8"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-16"},
    {"HOME": None}, {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"}, {"PATH": None},
    {"OMP_NUM_THREADS": "abc"}, {"COLUMNS": "0"}, {"COLUMNS": "abc"}, {"TERM": "nonsense"},
    {"MPLBACKEND": "nonsense"}, {"MPLCONFIGDIR": "/proc/nonexistent"},
    {"JAX_PLATFORMS": "nonsense"}, {"JAX_PLATFORMS": "cuda"}, {"JAX_NUM_CPU_DEVICES": "3"},
    {"JAX_ENABLE_X64": "1"}, {"JAX_DEBUG_NANS": "1"}, {"JAX_LOG_COMPILES": "1"},
    {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, {"PYTHONOPTIMIZE": "2"},
    {"PYTHONDEVMODE": "1"}, {"PYTHONUNBUFFERED": "1"}, {"TZ": "nonsense"},
)  # fmt: skip
LIMITS = (
    *("umask 777", "umask 077", "ulimit -f 0", "ulimit -f 4", "ulimit -f 100", "ulimit -n 64"),
    *("ulimit -s 1024", "trap '' PIPE", "trap '' INT TERM HUP"),
)
NO_TEXT = b"\xff".decode("utf-8", "surrogateescape")  # a name that isn't UTF-8
PLACES = (
    *("a b  c", "a\nb", "λ/é 漢", NO_TEXT, "-out", ".hidden", "x" * 230, "x" * 300, "a/" * 100),
    *("%s{0}$x$\\n", ".", "..", "/dev/null", "/dev/null/out", "/proc/out", "", "link", "dangling"),
    *("loop", "file", "pipe", "file/out", "read-only", "read-only/out", "unreadable", "other"),
    *("empty", "tiny"),
)
WORKING = ("cd gone && rmdir ../gone", "cd read-only", "cd unreadable", "cd /")
DATA = ("$x^$.npz", NO_TEXT + ".npz", "a\nb.npz", "%s{}.npz", "named.npz", "x" * 251 + ".npz")


def _furnish(place: Path) -> None:
    """Makes the places and the data."""
    for name in ("gone", "real", "empty", "other", "read-only", "unreadable", "tiny"):
        (place / name).mkdir()
    (place / "other" / "mine").write_text("mine")
    (place / "file").write_text("mine")
    os.mkfifo(place / "pipe")
    for name, target in (("link", "real"), ("dangling", "not/there"), ("loop", "loop")):
        (place / name).symlink_to(target)
    (place / "read-only").chmod(0o555)
    (place / "unreadable").chmod(0)
    data = small.write_data(place)
    for name in DATA:
        shutil.copy(data, place / name)
    with np.load(data) as arrays:
        names = np.array(["$a$", "λ\n", "b,\"c'"])[arrays["labels"]]
        np.savez(place / "named.npz", features=arrays["features"], labels=names)


def surrounded(rng: Random, folder: Path) -> str | None:
    """Runs a command in surroundings that are drawn."""
    place = folder / "place"
    place.mkdir()
    try:
        _furnish(place)
        return _run(rng, place)
    finally:
        for name in ("read-only", "unreadable"):
            (place / name).chmod(0o700)
        shutil.rmtree(place)


def _run(rng: Random, place: Path) -> str | None:
    def choose(values: tuple, usual):
        return usual if rng.random() < USUAL else values[rng.integers(len(values))]

    out, data = choose(PLACES, "out"), choose(DATA, "data.npz")
    variables = {**choose(VARIABLES, {}), **choose(VARIABLES, {})}
    stream, limit, working = choose(STREAMS, "{}"), choose(LIMITS, "true"), choose(WORKING, "true")
    words = small.words(str(rng.choice(list(small.COMMANDS))), place / data, Path("OUT"))
    line = shlex.join([sys.executable, "-m", *words[:-1], f"--output_dir={out}"])
    if out == "tiny":
        mount = f"mount -t tmpfs -o size={4 * rng.integers(1, 100)}k none {place}/tiny"
        line = f"unshare -rm sh -c {shlex.quote(f'{mount}; {line}')}"
    terminal = stream == "a terminal"
    line = f"{working}; {limit}; {('{}' if terminal else stream).format(line)}"
    code, shown, errors = _ended(line, place, variables, terminal)
    text = f"{variables} {line!r}: exit code {code}: {shown}{errors}"
    n_lines = sum(line.startswith("error: ") for line in errors.splitlines())
    readable = not terminal and "2>" not in stream and "<&-" not in stream
    failed = code not in (0, 1) or (readable and n_lines != code)
    traces = ("Traceback", "Exception ignored", "Fatal Python error")
    if failed or any(trace in shown + errors for trace in traces):
        return text
    if code == 0 and working == "true" and out not in ("", "tiny"):
        assert (place / out / "result.json").exists(), text
        commands.check_every_file(place / out)
    return None


def _ended(line: str, place: Path, variables: Variables, terminal: bool) -> tuple[int, str, str]:
    """The exit code of a line of shell, and what it wrote to its streams."""
    changed = commands.environment(
        PYTHONPATH=str(commands.ROOT), PYTHONWARNINGS="", MPLCONFIGDIR=str(place.parent / "mpl")
    )
    changed |= {name: value for name, value in variables.items() if value is not None}
    env = {name: value for name, value in changed.items() if variables.get(name, "") is not None}
    with contextlib.ExitStack() as ending:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        seen: list[bytes] = []
        if terminal:
            end = ending.enter_context(_terminal(seen))
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), end)
        process = subprocess.Popen(
            privileges.given_up_by(["/bin/bash", "-o", "pipefail", "-c", line]),
            cwd=place,
            env=env,
            start_new_session=True,
            **streams,
        )
        try:
            shown, errors = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return -1, f"takes longer than {LONGEST} seconds", ""
    if terminal:
        shown, errors = b"", b"".join(seen)
    # Without what UTF-16 has beyond UTF-8.
    texts = (text.replace(b"\xff\xfe", b"").replace(b"\0", b"") for text in (shown, errors))
    return process.returncode, *(text.decode("utf-8", "replace") for text in texts)


@contextlib.contextmanager
def _terminal(seen: list[bytes]) -> Iterator[int]:
    """One end of a terminal; what is written to it goes into `seen`."""
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
