"""Rows of a table kept on disk in parts, each there whole or not at all.

A part is an .npz with two more lines: what it is of, and the checksum of all before. What doesn't
fit is no part: it is put aside, and its rows are done again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.common import records, seals
from experiments.common.records import RecordError

ANYTHING = seals.fingerprint()
_LINE = len(ANYTHING) + 1  # with the end of the line


def write(
    folder: Path, rows: Sequence[int] | np.ndarray, *, of: str = ANYTHING, **arrays: np.ndarray
) -> None:
    """Writes what is known of some rows, so that it survives whatever comes next.

    Of several processes only the first one does.

    Args:
      folder: of the table; made where there is none.
      rows: of the table.
      of: `seals.fingerprint` of what determines the table.
      **arrays: with an axis of those rows first.

    Raises:
      RecordError: the disk is full, or the folder can't be written to.
    """
    if jax.process_index():
        return
    path = folder / _name(rows)
    content: dict[str, Any] = {"rows": np.asarray(rows), **arrays}
    try:
        folder.mkdir(exist_ok=True)
        with records.replacing(path) as partial, partial.open("w+b") as file:
            np.savez(file, **content)
            file.write(f"{of}\n".encode())
            file.seek(0)
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            file.write(f"{checksum}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror}; what is finished before is kept"
        ) from error


def read_row(folder: Path, row: int) -> dict[str, np.ndarray]:
    """What was written of a row, by name.

    Raises:
      RecordError: nothing was.
    """
    for path in _paths(folder):
        if _unfit(path, None):
            continue
        with np.load(path) as part:
            (index,) = np.nonzero(part["rows"] == row)
            if index.size:
                return {name: part[name][index[0]] for name in part if name != "rows"}
    raise RecordError(f"{folder} holds nothing of row {row}: --resume does it again")


def read(folder: Path, of: str | None = None) -> Iterator[dict[str, np.ndarray]]:
    """What was written, part by part: "rows", and the arrays by name.

    Args:
      folder: of the table; what is damaged or of something else is put aside.
      of: what was given to `write`; None for whatever it is.
    """
    for path in _paths(folder):
        if why := _unfit(path, of):
            seals.put_aside(path, why)
            continue
        with np.load(path) as part:
            content = dict(part)
        if path.name != _name(content["rows"]):  # that name would be written to for others
            seals.put_aside(path, "is of other rows than its name")
            continue
        yield content


def _name(rows: Sequence[int] | np.ndarray) -> str:
    return f"{rows[0]:06d}-{rows[-1]:06d}.npz"


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.npz"))


def _unfit(path: Path, of: str | None) -> str:
    """Why a part can't be used, "" if it can; only what has its checksum is looked into."""
    digest, end = hashlib.sha256(), b""
    try:
        with seals.open_file(path) as file:
            while block := file.read(2**20):
                digest.update(end[: -2 * _LINE])
                end = end[-2 * _LINE :] + block
    except OSError as error:
        return f"can't be read ({error.strerror})"
    digest.update(end[:-_LINE])
    written_of, checksum = end[-2 * _LINE : -_LINE], end[-_LINE:]
    if checksum != f"{digest.hexdigest()}\n".encode():
        return "is damaged"
    return "is of something else" if of and written_of != f"{of}\n".encode() else ""
