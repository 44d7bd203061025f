"""Folders of long commands, which stand in their place from the start and can be gone on with."""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from experiments.common import records, seals
from experiments.common.records import RecordError
from linear_cifar.errors import reason

FLAGS = flags.FLAGS
BEGUN = "begun.json"  # what was asked for at the start; who goes on has to ask for the same


def define_flags() -> None:
    """Defines --resume."""
    flags.DEFINE_bool("resume", False, "Go on with what --output_dir holds.")
    flags.mark_bool_flags_as_mutual_exclusive(["resume", "overwrite"])


class Interrupted(KeyboardInterrupt):
    """An interrupt of what can be gone on with; it says how."""


def goes_on(folder: Path) -> str:
    """How to go on after an interrupt."""
    return f"the same command with --resume --output_dir={folder} goes on"


@dataclass(frozen=True)
class Held:
    """A folder that this process holds, and that can be used."""

    folder: Path
    kind: str

    def begin(self, asked: dict[str, Any]) -> None:
        """Begins anew, or goes on where the same was asked for.

        Other versions or another number of devices are no other results but for rounding: it says
        so and goes on.

        Args:
          asked: what determines the results, in values that JSON knows.

        Raises:
          RecordError: something else was asked for, or the folder cannot be written to.
        """
        asked = json.loads(json.dumps(asked))
        machine = json.loads(json.dumps(records.describe_machine()))
        begun = self.folder / BEGUN
        try:
            if FLAGS.overwrite:
                # What says that it is ours goes last, for a kill on the way to leave it.
                marks = _marks(self.folder)
                for path in sorted(self.folder.iterdir(), key=marks.__contains__):
                    seals.remove(path)
            before = self._begun() if os.path.lexists(begun) else None
            if before is None:
                records.write_json(begun, asked | {"machine": machine})
            else:
                self._go_on(before, asked, machine)
            for pattern in (".*.partial*", "*/.*.partial*"):
                for left_over in self.folder.glob(pattern):
                    seals.remove(left_over)
        except OSError as error:
            raise RecordError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _begun(self) -> dict[str, Any] | None:
        """What was asked for; None where that can't be read. Each part knows it of itself."""
        path = self.folder / BEGUN
        try:
            return seals.read_json(path)
        except (OSError, ValueError) as error:
            seals.put_aside(path, f"can't be read ({reason(error)})")
            return None

    def _go_on(
        self, before: dict[str, Any], asked: dict[str, Any], machine: dict[str, Any]
    ) -> None:
        if other := [n for n in asked if n not in before or before[n] != asked[n]]:
            raise RecordError(
                f"{self.folder} was begun with other {', '.join(other)}: choose another folder"
            )
        was = before.get("machine")
        was = was if isinstance(was, dict) else {}
        changes = [
            f"{name} {was.get(name)}, now {machine[name]}"
            for name in machine
            if was.get(name) != machine[name]
        ]
        if changes:
            print(
                f"note: begun with {'; '.join(changes)}: what is trained from here on may round "
                "differently",
                file=sys.stderr,
            )


@contextmanager
def open_folder(folder: Path, kind: str) -> Iterator[Held]:
    """Holds a folder for this process alone, new or with what --resume goes on with.

    It is known to be usable before anything is loaded. A new one that is left without having been
    begun is removed.

    Args:
      folder: need not exist.
      kind: the command's, for messages, with its article: "a report".

    Raises:
      RecordError: the folder is in use, holds something else or cannot be written to.
    """
    try:
        place = Path(os.path.realpath(folder))  # where a link leads, there or not
        new = not os.path.lexists(place)
        place.mkdir(parents=True, exist_ok=True)
        lock = os.open(place, os.O_RDONLY)  # held until this process ends, however it ends
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        _take(lock, folder)
        _check_usable(folder, kind)
        if FLAGS.resume and not _is_begun(folder):
            print(f"note: {folder} holds nothing to resume: begun anew", file=sys.stderr)
        yield Held(folder, kind)
    except KeyboardInterrupt:
        if _is_begun(folder):
            raise Interrupted(goes_on(folder)) from None
        raise
    finally:
        os.close(lock)
        if new:
            with contextlib.suppress(OSError):  # it isn't empty, or not there
                place.rmdir()


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecordError(
            f"{folder} is in use by another process: choose another folder"
        ) from error


def _marks(folder: Path) -> tuple[Path, Path]:
    """What says that a folder is ours: what was begun, or that this was put aside."""
    return folder / BEGUN, seals.aside(folder / BEGUN)


def _is_begun(folder: Path) -> bool:
    return any(map(os.path.lexists, _marks(folder)))


def _check_usable(folder: Path, kind: str) -> None:
    if _is_begun(folder):
        if not (FLAGS.resume or FLAGS.overwrite):
            raise RecordError(
                f"{folder} holds {kind}: --resume it, --overwrite it, or choose another folder"
            )
    elif any(not path.name.startswith(f".{BEGUN}.partial") for path in folder.iterdir()):
        raise RecordError(f"{folder} holds something other than {kind}: choose another folder")
    elif not os.access(folder, os.W_OK):
        raise RecordError(f"cannot write to {folder}: Permission denied")
