"""Result folders: new runs, runs that can be resumed, their chunks, and the files in them.

A run lists its files in `result.json`. `--overwrite` deletes those, and refuses a folder that holds
anything else.
"""

import contextlib
import csv
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.common.progress import Stopwatch
from linear_cifar import Dataset, InputError, Params
from linear_cifar.data import SPLITS
from linear_cifar.errors import reason

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
RESULT, STARTED, CHUNKS, FIGURES = "result.json", "started.json", "chunks", "figures"
# What a run may leave beside the files that it lists: chunks, files put aside, partial files.
_CHUNK = r"\d{6}-\d{6}\.npz"
_LEFTOVER = re.compile(
    rf"({CHUNKS}/(\w+/)?(unfit-)?{_CHUNK}|unfit-{STARTED}|(.*/)?\.[^/]+\.partial-[0-9a-f]{{8}}.*)$"
)
PACKAGES = ("linear_cifar", "jax", "jaxlib", "optax", "numpy")
_written: set[Path] = set()  # by this process; `result.json` lists no file of somebody else


class FolderError(InputError):
    """A folder or file that can't be written or read; one line says which and what to do."""


def define_resume() -> None:
    """Defines --resume, for commands that can continue after an interruption."""
    flags.DEFINE_bool("resume", False, "Continue the run in --output_dir.")
    flags.mark_bool_flags_as_mutual_exclusive(["resume", "overwrite"])


def output_dir(experiment: str) -> Path:
    """--output_dir, or else a new folder under runs/, named by the time to the microsecond."""
    if "resume" in FLAGS and FLAGS.resume and not FLAGS.output_dir:
        raise InputError("--resume needs --output_dir, the folder to continue in")
    now = datetime.datetime.now()
    return Path(FLAGS.output_dir or f"runs/{experiment}-{now:%Y%m%d-%H%M%S-%f}")


# Runs that appear whole or not at all.


@contextmanager
def new_run(experiment: str) -> Iterator[tuple[Path, Path]]:
    """Yields a hidden folder to write a run into, and --output_dir, to which it moves at the end.

    If the block fails it is removed, unless it holds parameters, which took long to train.
    """
    target = output_dir(experiment)
    place = Path(os.path.realpath(target))  # follows a link, even to a missing folder
    with write_errors(f"cannot write to {target}"):
        locking = _locked(place, target) if place.is_dir() else contextlib.nullcontext()
    with locking:
        with write_errors(f"cannot write to {target}"):
            _check_free(place, experiment)
            staged = (place if place.exists() else place.parent) / _hidden_name(place.name)
            staged.mkdir(parents=True)
        try:
            yield staged, target
            _move_into_place(staged, place)
        except (OSError, FolderError) as error:
            line = f"cannot write {target}: {reason(error)}"
            if any(staged.rglob("*.npz")):
                raise FolderError(f"{line}; the files so far are in {staged}") from error
            shutil.rmtree(staged, ignore_errors=True)
            raise FolderError(line) from error
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise


def _check_free(place: Path, experiment: str) -> None:
    """Raises `FolderError` unless a run may be written to this path."""
    if place.exists() and not place.is_dir():
        raise FolderError(f"{place} is a file: choose another folder")
    if not place.exists() or not any(place.iterdir()):
        return
    if FLAGS.overwrite:
        _files_to_delete(place, experiment)
        return
    advice = ", or --overwrite it" if (place / RESULT).exists() else ""
    holds = "a run" if advice else "something other than a run"
    raise FolderError(f"{place} holds {holds}: choose another folder{advice}")


def _move_into_place(staged: Path, place: Path) -> None:
    """Moves a finished run to its place; `result.json`, which says that it is whole, comes last."""
    if staged.parent != place:
        staged.replace(place)
        return
    _delete_run(place, keep=staged)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == RESULT):
        path.replace(place / path.name)
    staged.rmdir()


def _hidden_name(name: str) -> str:
    """A hidden name that nothing has yet."""
    return f".{name}.partial-{secrets.token_hex(4)}"


def _files_to_delete(place: Path, experiment: str) -> list[Path]:
    """The files of the run in a folder; `FolderError` if it holds others, or another command's."""
    result, started = (_read_object(place / name) for name in (RESULT, STARTED))
    command = (result or started or {}).get("experiment")
    if command != experiment:
        holds = f"a run of {command}" if command else "something other than a run"
        raise FolderError(f"{place} holds {holds}: choose another folder")
    listed = {RESULT, STARTED, *_listed_files(place)}
    files = [path for path in place.rglob("*") if not path.is_dir() or path.is_symlink()]
    for path in files:
        name = str(path.relative_to(place))
        if name not in listed and not _LEFTOVER.match(name):
            raise FolderError(
                f"{place} holds {name}, which isn't listed in its {RESULT}: choose another folder"
            )
    return files


def _listed_files(place: Path) -> set[str]:
    """The files that a run's `result.json` lists."""
    names = (_read_object(place / RESULT) or {}).get("files")
    return set(map(str, names)) if isinstance(names, list) else set()


def _delete_run(place: Path, keep: Path | None = None) -> None:
    """Deletes a run's files and the folders that this leaves empty, its marks last."""
    if not any(path != keep for path in place.iterdir()):
        return
    mark = _read_object(place / RESULT) or _read_object(place / STARTED) or {}
    files = _files_to_delete(place, mark.get("experiment", "unknown"))
    files = [path for path in files if not (keep and path.is_relative_to(keep))]
    for path in sorted(files, key=lambda path: (path.name == STARTED, path.name == RESULT)):
        path.unlink()
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and path != keep:
            with contextlib.suppress(OSError):  # it isn't empty
                path.rmdir()


# Runs that can be resumed: they are in their place from the start.


class Resumable(NamedTuple):
    """A folder that this process has locked."""

    path: Path
    experiment: str

    def start(self, settings: Mapping[str, Any]) -> None:
        """Starts the run, or continues one that was started with the same settings.

        Other versions or another number of devices only change the rounding, which a note says.
        """
        settings = _as_json(settings)
        machine = _as_json(describe_machine())
        with write_errors(f"cannot write to {self.path}"):
            if FLAGS.overwrite:
                _delete_run(self.path)
            before = _read_object(self.path / STARTED)
            if before is None:
                if os.path.lexists(self.path / STARTED):
                    put_aside(self.path / STARTED, "can't be read")
                content = {"experiment": self.experiment, **settings, "machine": machine}
                write_json(self.path / STARTED, content)
            else:
                self._compare(before, settings, machine)
            for pattern in (".*.partial-*", "*/.*.partial-*"):
                for leftover in self.path.glob(pattern):
                    if _LEFTOVER.match(str(leftover.relative_to(self.path))):
                        _remove(leftover)

    def _compare(
        self, before: dict[str, Any], settings: Mapping[str, Any], machine: dict[str, Any]
    ) -> None:
        """Raises `FolderError` unless the settings are the same as before."""
        for name, value in settings.items():
            if before.get(name) != value:
                old, new = (_shorten(v) for v in (before.get(name), value))
                raise FolderError(
                    f"{self.path} was started with {name}={old}, and this command asks for "
                    f"{name}={new}: choose another --output_dir"
                )
        versions = before.get("machine")
        versions = versions if isinstance(versions, dict) else {}
        changed = [name for name in machine if versions.get(name) != machine[name]]
        if changed:
            print(
                f"note: started with another {', '.join(changed)}: "
                "further results may round differently",
                file=sys.stderr,
            )


class Interrupted(KeyboardInterrupt):
    """An interrupt of a run that can be resumed; its message says how."""


def resume_hint(path: Path) -> str:
    """How to continue after an interrupt."""
    return f"the same command with --resume --output_dir={path} continues"


@contextmanager
def resumable_run(experiment: str) -> Iterator[Resumable]:
    """Locks --output_dir for this process, new or with a run to resume.

    A new folder in which nothing was started is removed again.
    """
    path = output_dir(experiment)
    place = Path(os.path.realpath(path))
    new = not os.path.lexists(place)
    with write_errors(f"cannot write to {path}"):
        place.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(place, path):
            _check_usable(path, experiment)
            yield Resumable(path, experiment)
    except KeyboardInterrupt as interrupt:
        if _is_started(path) and not isinstance(interrupt, Interrupted):
            raise Interrupted(resume_hint(path)) from None
        raise
    finally:
        if new:
            with contextlib.suppress(OSError):  # it isn't empty, or no longer there
                place.rmdir()


@contextmanager
def _locked(place: Path, path: Path) -> Iterator[None]:
    """Locks a folder for the block; a process that ends frees it, however it ends."""
    with write_errors(f"cannot write to {path}"):
        lock = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise FolderError(f"{path} is in use by another process: choose another folder") from error
    except OSError as error:  # some network file systems have no locks
        os.close(lock)
        raise FolderError(f"cannot lock {path}: {reason(error)}: choose another folder") from error
    try:
        yield
    finally:
        os.close(lock)


def _is_started(path: Path) -> bool:
    return any(os.path.lexists(path / name) for name in (STARTED, f"unfit-{STARTED}"))


def _check_usable(path: Path, experiment: str) -> None:
    """Raises `FolderError` unless the run can start in this folder or continue there."""
    started = _is_started(path)
    if any(not item.name.startswith(f".{STARTED}.partial-") for item in path.iterdir()):
        if FLAGS.overwrite:
            _files_to_delete(path, experiment)
            return
        if not started:
            raise FolderError(f"{path} holds something other than a run: choose another folder")
        owner = (_read_object(path / STARTED) or {}).get("experiment", experiment)
        if owner != experiment:
            raise FolderError(f"{path} holds a run of {owner}: choose another folder")
        if not FLAGS.resume:
            raise FolderError(
                f"{path} holds a run of {experiment}: --resume it, --overwrite it, or choose "
                "another folder"
            )
    if FLAGS.resume and not started:
        print(f"note: {path} holds nothing to resume: it starts anew", file=sys.stderr)
    if not os.access(path, os.W_OK, effective_ids=True):
        raise FolderError(f"cannot write to {path}: Permission denied")


# Chunks: finished rows of a table, each chunk an .npz that says which run it belongs to.


class Chunks(NamedTuple):
    """The finished rows of a run."""

    folder: Path
    fingerprint: str  # of everything that determines the rows


def chunks_of(path: Path, *settings: Any, part: str = "") -> Chunks:
    """The chunks of a run, or of a named part, with the settings that determine its rows."""
    if jax.process_index() == 0:
        make_folder(path / CHUNKS)
        make_folder(path / CHUNKS / part)
    return Chunks(path / CHUNKS / part, fingerprint(*settings))


def fingerprint(*settings: Any) -> str:
    """A checksum of settings, in hexadecimal."""
    return hashlib.sha256(json.dumps(_as_json(settings)).encode()).hexdigest()


def write_chunk(chunks: Chunks, rows: np.ndarray, **arrays: np.ndarray) -> None:
    """Writes arrays [rows, …] so that they survive a kill; only the first process writes."""
    if jax.process_index():
        return
    path = chunks.folder / _chunk_name(rows)
    content: dict[str, Any] = {"fingerprint": chunks.fingerprint, "rows": rows, **arrays}
    with (
        write_errors(f"cannot write {path}", "; the chunks before it are kept"),
        replacing(path) as partial,
        partial.open("wb") as file,
    ):
        np.savez(file, checksum=_checksum(content), **content)
        file.flush()
        os.fsync(file.fileno())


def read_chunks(chunks: Chunks) -> Iterator[dict[str, np.ndarray]]:
    """Reads all chunks: "rows" and the arrays by name. Damaged or foreign ones are put aside."""
    for path in sorted(chunks.folder.glob("[0-9]*.npz")):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as part:
                content = _checked(part)
            if str(content.pop("fingerprint")) != chunks.fingerprint:
                put_aside(path, "belongs to another run")
            elif path.name != _chunk_name(content["rows"]):
                put_aside(path, "has other rows than its name says")
            else:
                yield content
        except Exception as error:  # a damaged zip file raises errors of many kinds
            if isinstance(error, FolderError):
                raise
            put_aside(path, f"is damaged ({reason(error)})")


def read_row(chunks: Chunks, row: int) -> dict[str, np.ndarray]:
    """The arrays of one row, by name; `FolderError` if no chunk has it."""
    for path in sorted(chunks.folder.glob("[0-9]*.npz")):
        with (
            contextlib.suppress(Exception),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as part,
        ):
            (index,) = np.nonzero(part["rows"] == row)
            if index.size:
                content = _checked(part)
                if str(content.pop("fingerprint")) == chunks.fingerprint:
                    del content["rows"]
                    return {name: array[index[0]] for name, array in content.items()}
    raise FolderError(f"{chunks.folder} has nothing of row {row}: --resume computes it again")


def _checked(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a chunk; `ValueError` if one isn't as it was written, or is missing."""
    content = dict(part)
    if str(content.pop("checksum")) != _checksum(content):  # .npz has no checksum of its index
        raise ValueError("its checksum differs")
    return content


def _checksum(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _chunk_name(rows: np.ndarray) -> str:
    return f"{rows[0]:06d}-{rows[-1]:06d}.npz"


def put_aside(path: Path, why: str) -> None:
    """Renames an unusable file or folder and prints a note; only the first process does."""
    if jax.process_index():
        return
    aside = path.with_name(f"unfit-{path.name}")
    with write_errors(f"{path} {why}, and can't be moved"):
        _remove(aside)
        path.rename(aside)
    print(f"note: {path} {why}: kept as {aside.name}, and computed again", file=sys.stderr)


def make_folder(path: Path) -> None:
    """Makes a folder; a file or a broken link in its place is put aside."""
    if os.path.lexists(path) and not path.is_dir():
        put_aside(path, "is no folder")
    with write_errors(f"cannot write to {path}"):
        path.mkdir(exist_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# Files.


@contextmanager
def write_errors(line: str, advice: str = "") -> Iterator[None]:
    """Turns an error of the operating system into a `FolderError`: `line: reason advice`."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"{line}: {reason(error)}{advice}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place if the block ends well."""
    partial = path.with_name(_hidden_name(path.name) + path.suffix)
    try:
        yield partial
        partial.replace(path)
        _written.add(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the file system may have become read-only
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, whatever the user's locale."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; arrays become lists, and NaN and infinity null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a DataFrame as CSV, each number in its shortest form that reads back the same."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows as CSV as they come, for tables that may not fit into memory."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_params(path: Path, params: Params) -> None:
    """Writes `weights` [K, d] and `bias` [K] as an uncompressed .npz."""
    with replacing(path) as partial:
        np.savez(partial, weights=np.asarray(params.weights), bias=np.asarray(params.bias))


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Saves matplotlib figures as `figures/NAME.png`, or in the formats of --figure_format."""
    (path / FIGURES).mkdir(exist_ok=True)
    for name, figure in figures.items():
        for ending in FLAGS.figure_format:
            with replacing(path / FIGURES / f"{name}.{ending}") as partial:
                figure.savefig(partial, dpi=120)


def write_result(
    path: Path, experiment: str, dataset: Dataset | None, watch: Stopwatch, **content: Any
) -> dict[str, Any]:
    """Writes `result.json`, the last file of a run, and returns its content."""
    if dataset is not None and dataset.image_shape is None:
        content.pop("split", None)  # --split belongs to the named data sets
    listed = _listed_files(path)
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if not file.is_dir()}
    names = sorted(name for name, file in files.items() if file in _written or name in listed)
    result = {
        "experiment": experiment,
        "dataset": dataset and describe_dataset(dataset),
        **describe_machine(),
        **content,
        "seconds": watch.seconds,
        "command": " ".join(["python -m", f"experiments.{experiment}", shlex.join(sys.argv[1:])]),
        "files": [n for n in names if n not in (RESULT, STARTED) and not _LEFTOVER.match(n)],
    }
    write_json(path / RESULT, result)
    return plain(result)


def _read_object(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None if there is no file, or it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.ndim:
            return [plain(item) for item in array]
        # A float32 in its own shortest form: 0.3908, and not 0.3907999992370605.
        return plain(float(str(array[()])) if array.dtype.kind == "f" else array.item())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return float(value) if math.isfinite(value) else None


def _as_json(value: Any) -> Any:
    """A value as it would come back from JSON."""
    return json.loads(json.dumps(plain(value)))


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """The data as a record describes them."""
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "sizes": {name: len(getattr(dataset, name).labels) for name in SPLITS},
        "official": dataset.official,
        "standardise": dataset.standardise,
        "notice": dataset.notice,
    }


def describe_machine() -> dict[str, Any]:
    """Versions and devices."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            versions[name] = "not installed"
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": f"{device.platform}: {device.device_kind}",
        "n_devices": jax.device_count(),
    }
