"""Rows of a table kept on disk in parts, each there whole or not at all."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from linear_cifar.records import RecordError


def write(folder: Path, rows: Sequence[int] | np.ndarray, **arrays: np.ndarray) -> None:
    """Writes what is known of some rows, so that it survives whatever comes next.

    Of several processes only the first one does.

    Args:
      folder: of the table; made where there is none.
      rows: of the table.
      **arrays: with an axis of those rows first.

    Raises:
      RecordError: the disk is full, or the folder can't be written to.
    """
    if jax.process_index():
        return
    name = f"{rows[0]:06d}-{rows[-1]:06d}.npz"
    partial = folder / f".{name}.partial"
    content: dict[str, Any] = {"rows": np.asarray(rows), **arrays}
    try:
        folder.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RecordError(
            f"cannot write {folder / name}: {error.strerror}; what is finished before is kept"
        ) from error


def read_row(folder: Path, row: int) -> dict[str, np.ndarray]:
    """What was written of a row, by name.

    Raises:
      RecordError: nothing was.
    """
    for part in read(folder):
        (index,) = np.nonzero(part["rows"] == row)
        if index.size:
            return {name: part[name][index[0]] for name in part if name != "rows"}
    raise RecordError(f"{folder} holds nothing of row {row}")


def read(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """What was written, part by part: "rows", and the arrays by name."""
    for path in sorted(folder.glob("[0-9]*.npz")):
        try:
            with path.open("rb") as file, np.load(file) as part:
                content = dict(part)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"cannot read {path} ({error}): without it, --resume does its rows again"
            ) from error
        yield content
