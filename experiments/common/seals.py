"""What is kept is known again: of what it is, and that it is as it was written.

What a disk, an editor or another command has done to a file in the meantime is nobody's to guess.
What doesn't fit is put aside, where it can be looked at, and made again.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax

from experiments.common import records
from experiments.common.records import RecordError
from linear_cifar.errors import reason

SEAL = "seal.json"  # in a folder: what it is of, and the checksums of its files


def fingerprint(*of: Any) -> str:
    """Tells apart what determines results, in values that a record can have; in hexadecimal."""
    return hashlib.sha256(json.dumps(records.plain(of)).encode()).hexdigest()


def seal(folder: Path, of: str) -> None:
    """Writes what a folder is of, and the checksums of all that it holds."""
    records.write_json(folder / SEAL, {"of": of, "files": _checksums(folder)})


def unfit(folder: Path, of: str) -> str:
    """Why a sealed folder can't be used, "" if it can."""
    try:
        sealed = read_json(folder / SEAL)
        if sealed.get("of") != of:
            return "is of something else"
        return "" if sealed.get("files") == _checksums(folder) else "is damaged"
    except (OSError, ValueError) as error:
        return f"is damaged ({reason(error)})"


def _checksums(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name != SEAL and not path.is_dir():
            found[name] = checksum(path)
    return found


def checksum(path: Path) -> str:
    """Of a file, in hexadecimal; OSError if it is none, and a pipe is none."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_file(path: Path) -> Any:
    """Opens a file for reading; OSError if there is none, or a pipe, which would be waited for."""
    if not path.exists():
        raise FileNotFoundError(2, "there is none")
    if not path.is_file():
        raise OSError(0, "it is no file")
    return path.open("rb")


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object; OSError or ValueError if that is not what the file holds."""
    with open_file(path) as file:
        try:
            found = json.load(file)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no object")
    return found


def put_aside(path: Path, why: str) -> None:
    """Takes what can't be used out of the way, and says so.

    Of several processes only the first one does.

    Args:
      path: of what can't be used; OSError on the way to it is a `RecordError`.
      why: goes on after the path, as "is damaged".
    """
    if jax.process_index():
        return
    kept = aside(path)
    try:
        remove(kept)
        path.rename(kept)
    except OSError as error:
        raise RecordError(f"{path} {why}, and can't be moved: {error.strerror}") from error
    print(f"note: {path} {why}: kept as {kept.name}, and made again", file=sys.stderr)


def aside(path: Path) -> Path:
    """Where it is put."""
    return path.with_name(f"unfit-{path.name}")


def remove(path: Path) -> None:
    """Removes whatever is there, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder of parts where there is none; what else has its name is put aside."""
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        put_aside(path, "is no folder")
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write to {path}: {error.strerror}") from error
