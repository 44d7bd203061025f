"""Anything may become of what a command left; it goes on all the same, or says why it can't."""

import functools
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign import folders, honest
from tests.campaign.honest import Honest
from tests.campaign.parts import Part

Random = np.random.Generator


def _of_bytes(change: Callable[[Random, bytearray], bytes]) -> Callable[[Random, Path], None]:
    def damage(rng: Random, path: Path) -> None:
        path.write_bytes(change(rng, bytearray(path.read_bytes())))

    return damage


def _flipped(rng: Random, content: bytearray) -> bytes:
    if content:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return content


def _set(rng: Random, content: bytearray) -> bytes:
    start = int(rng.integers(len(content) + 1))
    content[start : start + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(9)))
    return content


def _cut(rng: Random, content: bytearray) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _extended(rng: Random, content: bytearray) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 300)))


def _repeated(_: Random, content: bytearray) -> bytes:
    return content + content


def _zeros(_: Random, content: bytearray) -> bytes:
    return bytes(len(content))


def _files(root: Path) -> list[Path]:
    readable = functools.partial(os.access, mode=os.R_OK, effective_ids=True)
    return sorted(p for p in root.rglob("*") if p.is_file() and readable(p))


def _swapped(rng: Random, path: Path) -> None:
    """With another file of the folder."""
    root = next(parent for parent in path.parents if parent.name == "out")
    others = _files(root)
    other = others[rng.integers(len(others))]
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "λ", "\ud800\n", [], {}, [[]],
    10**400, {"": None},
)  # fmt: skip


def _odd_value(rng: Random, path: Path) -> None:
    """One value of a JSON file, or a key; a bit of others."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        _of_bytes(_flipped)(rng, path)
        return
    place, key = value, rng.choice(list(value))
    while isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else int(rng.integers(len(place)))
    if rng.random() < 0.3:
        del place[key]
    else:
        place[key] = _ODD[rng.integers(len(_ODD))]
    path.write_text(json.dumps(value))


def _odd_array(rng: Random, path: Path) -> None:
    """One array of an .npz, with the lines that follow it kept; a bit of others."""
    try:
        with np.load(path) as loaded:
            arrays = dict(loaded)
    except (OSError, ValueError, zipfile.BadZipFile):
        _of_bytes(_flipped)(rng, path)
        return
    name = rng.choice(list(arrays))
    array = arrays[name]
    changed: tuple[Callable[[], Any], ...] = (
        array.ravel,
        lambda: array[:0],
        lambda: array[..., None],
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array.astype(rng.choice(["bool", "int8", "float16", "complex64", "S3", "M8[s]"])),
        lambda: array * np.nan if array.dtype.kind == "f" else array - 1,
    )
    arrays[name] = changed[rng.integers(len(changed))]()
    if rng.random() < 0.2:
        del arrays[name]
    written = io.BytesIO()
    np.savez(written, **arrays)
    path.write_bytes(written.getvalue() + path.read_bytes()[-130:])


def _instead(make: Callable[[Path], None]) -> Callable[[Random, Path], None]:
    def replace(_: Random, path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return replace


def _folder_of_one(path: Path) -> None:
    path.mkdir()
    (path / folders.FOREIGN).write_text("mine")


OF_FILES: dict[str, Callable[[Random, Path], None]] = {
    "a bit": _of_bytes(_flipped),
    "some bytes": _of_bytes(_set),
    "cut": _of_bytes(_cut),
    "empty": _of_bytes(lambda *_: b""),
    "extended": _of_bytes(_extended),
    "twice": _of_bytes(_repeated),
    "zeros": _of_bytes(_zeros),
    "swapped": _swapped,
    "a value": _odd_value,
    "an array": _odd_array,
}
OF_ALL: dict[str, Callable[[Random, Path], None]] = {
    "removed": _instead(lambda path: None),
    "a folder": _instead(_folder_of_one),
    "an empty folder": _instead(Path.mkdir),
    "a file": _instead(lambda path: path.write_text("mine")),
    "a pipe": _instead(os.mkfifo),
    "a link to nothing": _instead(lambda path: path.symlink_to("nothing")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a link to a device": _instead(lambda path: path.symlink_to("/dev/full")),
    "without permissions": lambda _, path: path.is_symlink() or path.chmod(0),
}


def _damage(rng: Random, root: Path) -> str:
    """Damages one entry of a folder; what was done."""
    every = sorted(root.rglob("*"))
    files = _files(root)
    if not every:
        return "nothing is left"
    kinds, among = (OF_FILES, files) if files and rng.random() < 0.7 else (OF_ALL, every)
    name = rng.choice(list(kinds))
    path = among[rng.integers(len(among))]
    kinds[name](rng, path)
    return f"{path.relative_to(root)}, {name}"


def _left(rng: Random, of: Honest) -> None:
    """The command's folder as it was at some moment, with something in it."""
    for path in (of.out, *of.out.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(of.out)
    with_files = [m for m in of.moments if any(b is not None for b in m.values())]
    folders.write(with_files[rng.integers(len(with_files))], of.out)


def case(rng: Random, commands: dict[str, Honest]) -> str | None:
    """Goes on with what is damaged: to the bytes of what nothing happened to, or one line."""
    name = honest.drawn(rng, commands)
    of = commands[name]
    _left(rng, of)
    what = f"{name}: {' and '.join(_damage(rng, of.out) for _ in range(1 + rng.binomial(2, 0.1)))}"
    done = honest.run([*of.line, "--resume"], of.seconds)
    if isinstance(done, str):
        return f"{what}: {done}"
    wrong = (
        honest.one_line(done)
        if done.returncode
        else folders.difference(folders.read(of.out), of.whole)
    )
    return f"{what}: {wrong}\n{done.stderr}" if wrong else None


PARTS = {
    "resumed": Part("damaged files", 2000, case, honest.each_resumable, seconds=0.6),
}
