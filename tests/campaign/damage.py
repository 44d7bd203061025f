"""Damages what a command left, before --resume: the same bytes again, or one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.campaign import folders, small

Random = np.random.Generator


def _flip(rng: Random, content: bytearray) -> bytes:
    if content:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return content


def _overwrite(rng: Random, content: bytearray) -> bytes:
    start = int(rng.integers(len(content) + 1))
    content[start : start + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(9)))
    return content


def _change_json(rng: Random, content: bytearray) -> bytes:
    """Removes an entry of a JSON object, or changes its type."""
    try:
        value = json.loads(content)
    except ValueError:
        return _flip(rng, content)
    key = str(rng.choice(list(value)))
    odd = [None, True, -1, 1e308, float("nan"), "", "\ud800\n", [], {}, [[]], 10**400]
    value[key] = odd[rng.integers(len(odd))]
    if rng.random() < 0.3:
        del value[key]
    return json.dumps(value).encode()


def _fill(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


CONTENTS: dict[str, Callable[[Random, bytearray], bytes]] = {
    "a bit": _flip,
    "some bytes": _overwrite,
    "cut": lambda rng, content: content[: rng.integers(len(content) + 1)],
    "empty": lambda *_: b"",
    "zeros": lambda _, content: bytes(len(content)),
    "a value": _change_json,
}
INSTEAD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a folder": _fill,
    "an empty folder": Path.mkdir,
    "a file": lambda path: path.write_text("mine"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def damage(rng: Random, root: Path) -> str:
    """Damages a file of a folder, and returns how."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    path = paths[rng.integers(len(paths))]
    name = rng.choice([*CONTENTS, *INSTEAD, "another file's", "without permissions"])
    if name in CONTENTS:
        path.write_bytes(CONTENTS[name](rng, bytearray(path.read_bytes())))
    elif name in INSTEAD:
        path.unlink()
        INSTEAD[name](path)
    elif name == "another file's":
        path.write_bytes(paths[rng.integers(len(paths))].read_bytes())
    else:
        path.chmod(0)
    return f"{path.relative_to(root)}, {name}"


def damaged(rng: Random, runs: dict[str, small.Run]) -> str | None:
    """A state of a run with one file damaged, then resumed."""
    name = rng.choice(list(runs))
    run = runs[name]
    states = [state for state in run.states if any(b is not None for b in state.values())]
    folders.write(states[rng.integers(len(states))], run.out)
    text = f"{name}: {damage(rng, run.out)}"
    done = small.run([*run.line, "--resume"])
    wrong = small.error_in(done) if done.returncode else None
    if not done.returncode:
        wrong = folders.difference(folders.read(run.out), run.whole)
    return f"{text}: {wrong}\n{done.stderr}" if wrong else None
