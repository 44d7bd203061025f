"""Folders as values: every state in which a kill could leave one, and how two differ."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Folder = dict[str, bytes | None]  # contents by relative path, None for a folder
_CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def read(root: Path) -> Folder:
    """The files and folders in a folder; what can't be read is left out."""
    folder: Folder = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            folder[str(path.relative_to(root))] = None
        elif path.is_file():
            with contextlib.suppress(PermissionError):
                folder[str(path.relative_to(root))] = path.read_bytes()
    return folder


def write(folder: Folder, root: Path) -> None:
    """Replaces whatever is at `root` by a folder with these contents."""
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in folder.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


class _Watcher:
    """Python's audit hook, which can't be removed again, hence one for all."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.states: list[Folder] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGING or (event == "open" and arguments[2] & _WRITING)
        if self.root and changes:
            root, self.root = self.root, None  # `look` opens files itself
            self.look(root)
            self.root = root

    def look(self, root: Path) -> None:
        folder = read(root)
        if not self.states or folder != self.states[-1]:
            self.states.append(folder)


_watchers: list[_Watcher] = []


@contextlib.contextmanager
def every_state(root: Path) -> Iterator[list[Folder]]:
    """Every state in which a SIGKILL could leave a folder that this process changes.

    Each state is as before one change, and the last one as at the end. A file that is being written
    is in it with none of its bytes or all of them.
    """
    if not _watchers:
        _watchers.append(_Watcher())
    (watcher,) = _watchers
    watcher.root, watcher.states = root, []
    try:
        yield watcher.states
    finally:
        watcher.root = None
    watcher.look(root)


def difference(folder: Folder, expected: Folder) -> str | None:
    """The first difference between two folders; None if there is none.

    Seconds, the command line and the machine may differ.
    """
    for name in sorted({*folder, *expected}):
        if name not in expected:
            return f"{name} is left over"
        if name not in folder:
            return f"{name} is missing"
        if _essence(folder[name]) != _essence(expected[name]):
            return f"{name} differs"
    return None


def _essence(content: bytes | None) -> Any:
    """A JSON object without what may differ; other files as they are."""
    try:
        value = json.loads(content or b"")
    except ValueError:
        return content
    kept = {name: value[name] for name in value if name not in ("seconds", "command", "machine")}
    return kept, "seconds" in value
