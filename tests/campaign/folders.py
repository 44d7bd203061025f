"""Folders as values: what a command has left at any moment, and whether it is what it should be."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOREIGN = "mine"  # a file of somebody else, which stays where it is
Folder = dict[str, bytes | None]  # what it holds by relative path, None for a folder
_CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def read(root: Path) -> Folder:
    """What a folder holds; what isn't a file or can't be read is left out."""
    found: Folder = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            found[str(path.relative_to(root))] = None
        elif path.is_file():
            with contextlib.suppress(PermissionError):
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def write(content: Folder, root: Path) -> None:
    """Makes a folder that holds it."""
    root.mkdir()
    for name, of_file in content.items():
        if of_file is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(of_file)


class _Watched:
    """Is told of every change before it is made, for a hook can't be taken away again."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.moments: list[Folder] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGING or (event == "open" and arguments[2] & _WRITING)
        if self.root and changes:
            root, self.root = self.root, None  # reading is no change
            self.look(root)
            self.root = root

    def look(self, root: Path) -> None:
        """Adds what the folder holds now, if that is something new."""
        found, last = read(root), self.moments[-1] if self.moments else {}
        # Bytes that are the same as before are kept once.
        found = {name: old if (old := last.get(name)) == b else b for name, b in found.items()}
        if not self.moments or found != last:
            self.moments.append(found)


_watched: list[_Watched] = []


@contextlib.contextmanager
def every_moment(root: Path) -> Iterator[list[Folder]]:
    """Each state in which a SIGKILL could leave a folder, as a command in this process changes it.

    But for the bytes of a file that is being written, all of which are there or none.
    """
    if not _watched:
        _watched.append(_Watched())
    (watched,) = _watched
    watched.root, watched.moments = root, []
    try:
        yield watched.moments
    finally:
        watched.root = None
    watched.look(root)


def difference(found: Folder, expected: Folder) -> str | None:
    """The first thing that a folder lacks, has otherwise, or has too much; None if there is none.

    Seconds may differ, and what didn't fit may have been put aside.
    """
    for name, content in expected.items():
        if name not in found:
            return f"{name} is missing"
        if (found[name] is None) != (content is None):
            return f"{name} is of another kind"
        if found[name] != content and _essence(name, found[name]) != _essence(name, content):
            return f"{name} differs"
    for name in found:
        aside = any(part.startswith("unfit-") for part in Path(name).parts)
        if name not in expected and not aside and not name.endswith(FOREIGN):
            return f"{name} is left over"
    return None


def _essence(name: str, content: bytes | None) -> Any:
    """A file without seconds, the checksums of what tells them, and machines."""
    if content is None or not name.endswith((".json", ".html")):
        return content
    if name.endswith(".html"):
        return content.split(b'<h2 id="machine">')[0]
    try:
        value = json.loads(content)
    except ValueError:
        return content
    if name.endswith("seal.json"):
        return value["of"], sorted(value["files"])
    value.pop("seconds", None)
    if name == "begun.json":
        value.pop("machine", None)  # stays that of the beginning
    return value
