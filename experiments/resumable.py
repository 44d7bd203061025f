"""Folders of long commands, which stand in their place from the start and can be gone on with."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags

from linear_cifar.records import RecordError, write_json

FLAGS = flags.FLAGS
BEGUN = "begun.json"  # what was asked for at the start; who goes on has to ask for the same


def define_flags() -> None:
    """Defines --resume."""
    flags.DEFINE_bool("resume", False, "Go on with what --output_dir holds.")
    flags.mark_bool_flags_as_mutual_exclusive(["resume", "overwrite"])
    FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS["resume"])  # for --helpshort


@contextmanager
def open_folder(folder: Path, kind: str, asked: dict[str, Any]) -> Iterator[None]:
    """Holds a folder for this process alone, new or with what --resume goes on with.

    Args:
      folder: need not exist.
      kind: the command's, for messages, with its article: "a report".
      asked: what determines the results, in values that JSON knows.

    Raises:
      RecordError: the folder is in use, holds something else or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)  # held until this process ends, however it ends
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        _take(lock, folder)
        try:
            _begin(folder, kind, json.loads(json.dumps(asked)))
        except OSError as error:
            raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
        yield
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecordError(
            f"{folder} is in use by another process: choose another folder"
        ) from error


def _begin(folder: Path, kind: str, asked: dict[str, Any]) -> None:
    begun = folder / BEGUN
    if begun.exists() and FLAGS.overwrite:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if begun.exists():
        if not FLAGS.resume:
            raise RecordError(
                f"{folder} holds {kind}: --resume it, --overwrite it, or choose another folder"
            )
        before = json.loads(begun.read_text())
        other = [name for name in asked if before.get(name) != asked[name]]
        if other:
            raise RecordError(
                f"{folder} was begun with other {', '.join(other)}: choose another folder"
            )
        for left_over in folder.glob("*/.*.partial*"):
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    elif any(folder.iterdir()):
        raise RecordError(f"{folder} holds something other than {kind}: choose another folder")
    else:
        partial = folder / f".{BEGUN}.partial"
        write_json(partial, asked)
        partial.replace(begun)
