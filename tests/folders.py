"""Folders as values, in every state in which a kill could leave one; full disks, permissions."""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Folder = dict[str, bytes | None]  # contents by relative path, None for a folder
_watched: list[tuple[Path, list[Folder]]] = []  # a folder and its states


def read(root: Path) -> Folder:
    """The files and folders in a folder, without those that can't be read."""
    folder: Folder = {}
    for path in sorted(root.rglob("*")):
        with contextlib.suppress(PermissionError):
            if path.is_file():
                folder[str(path.relative_to(root))] = path.read_bytes()
            elif path.is_dir() and not path.is_symlink():
                folder[str(path.relative_to(root))] = None
    return folder


def write(folder: Folder, root: Path) -> None:
    """Replaces whatever is at `root` by a folder with these contents."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in folder.items():
        (root / name).mkdir() if content is None else (root / name).write_bytes(content)


@cache  # an audit hook can't be removed again
def _watch() -> None:
    def hook(event: str, arguments: tuple) -> None:
        changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
        writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writing or event in changes) and _watched:
            root, states = _watched.pop()  # because `read` opens files itself
            states.append(read(root))
            _watched.append((root, states))

    sys.addaudithook(hook)


@contextlib.contextmanager
def every_state(root: Path) -> Iterator[list[Folder]]:
    """In order, every state in which a SIGKILL could leave a folder that this process changes."""
    states: list[Folder] = []  # a file is empty in one and whole in the next
    _watch()
    _watched.append((root, states))
    try:
        yield states
    finally:
        _watched.pop()
    states.append(read(root))
    states[:] = [state for i, state in enumerate(states) if i == 0 or state != states[i - 1]]


def assert_same(folder: Folder, expected: Folder) -> None:
    """Asserts the same files and bytes; seconds, command lines and machines may differ."""

    def essence(content: bytes | None) -> object:
        try:
            value = json.loads(content or b"")
        except ValueError:
            return content
        changing = ("seconds", "command", "machine")
        return {name: value[name] for name in value if name not in changing}, "seconds" in value

    assert folder.keys() == expected.keys()
    assert [name for name in folder if essence(folder[name]) != essence(expected[name])] == []


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """A full disk, as a process meets it: a longer file can't be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def permissions_apply() -> Iterator[None]:
    """Makes this thread obey file permissions, even as the superuser."""
    if os.geteuid():
        yield
        return
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    libc.capget(header, data)  # effective, permitted and inheritable capabilities, twice
    before = data[0]
    data[0] = before & ~0b110  # without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, data)
    try:
        yield
    finally:
        data[0] = before
        libc.capset(header, data)
