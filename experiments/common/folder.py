"""Result folders: new runs, runs that can be resumed, their chunks, and the files in them.

A run lists its files in `result.json`. `--overwrite` deletes those, and refuses a folder that holds
anything else.
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jaxlib
import numpy as np
import optax
from absl import flags

import linear_cifar
from experiments.common import distributed
from experiments.common.progress import Stopwatch
from linear_cifar import Dataset, InputError, Params
from linear_cifar.data import SPLITS
from linear_cifar.errors import reason

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
RESULT, STARTED, CHUNKS, FIGURES = "result.json", "started.json", "chunks", "figures"
# What a run may leave beside the files that it lists: chunks and partial files.
_PARTIAL = r"(.*/)?\.[^/]+\.partial-[0-9a-f]{8}.*"
_LEFTOVER = re.compile(rf"({CHUNKS}/(\w+/)?\d{{6,}}-\d{{6,}}\.npz|{_PARTIAL})$")
_written: set[Path] = set()  # by this process; `result.json` lists no file of somebody else


class FolderError(InputError):
    """A folder or file that can't be written or read; one line says which and what to do."""


def define_resume() -> None:
    """Defines --resume, for commands that can continue after an interruption."""
    flags.DEFINE_bool("resume", False, "Continue the run in --output_dir.")
    flags.mark_bool_flags_as_mutual_exclusive(["resume", "overwrite"])


def _resumes() -> bool:
    return "resume" in FLAGS and FLAGS.resume


def output_dir(experiment: str) -> Path:
    """--output_dir, or else a new folder under runs/, named by the time to the microsecond."""
    if _resumes() and not FLAGS.output_dir:
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
    with contextlib.ExitStack() as lock:
        with _write_errors(target):
            if place.is_dir():
                lock.enter_context(_locked(place))
            _check_free(place, experiment)
            # Inside a folder that is there, because a mount point can't be renamed.
            staged = (place if place.exists() else place.parent) / _hidden_name(place.name)
            staged.mkdir(parents=True)
        finished = False
        try:
            yield staged, target
            finished = True
            _move_into_place(staged, place, experiment)
        except (OSError, FolderError) as error:
            line = f"cannot write {target}: {reason(error)}"
            if any(staged.rglob("*.npz")):
                raise FolderError(f"{line}; the files so far are in {staged}") from error
            shutil.rmtree(staged, ignore_errors=True)
            raise FolderError(line) from error
        except BaseException:
            if not finished:
                shutil.rmtree(staged, ignore_errors=True)
            raise


def _move_into_place(staged: Path, place: Path, experiment: str) -> None:
    """Moves a finished run to its place; `result.json`, which says that it is whole, comes last."""
    if staged.parent != place:
        if place.exists():
            raise FolderError("another process has made this folder")
        staged.replace(place)
        return
    if _holds_files(place):
        _delete_run(place, experiment, keep=staged)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == RESULT):
        path.replace(place / path.name)
    staged.rmdir()


def _hidden_name(name: str) -> str:
    """A hidden, random name for a partial file or folder."""
    return f".{name}.partial-{secrets.token_hex(4)}"


# Runs that can be resumed: they are in their place from the start.


@contextmanager
def resumable_run(experiment: str) -> Iterator[Path]:
    """Yields --output_dir, new or with a run to resume, locked for this process.

    A new folder in which nothing was started is removed again. Of several processes only the first
    one uses the folder.
    """
    path = output_dir(experiment)
    if jax.process_index():
        yield path
        return
    place = Path(os.path.realpath(path))
    new = not os.path.lexists(place)
    with _write_errors(path):
        if not place.is_file():  # `_check_free` refuses it
            place.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as lock:
            with _write_errors(path):
                lock.enter_context(_locked(place))
                _check_free(place, experiment)
            if _resumes() and not (place / STARTED).exists():
                print(f"note: {path} holds nothing to resume: it starts anew", file=sys.stderr)
            with _write_errors(path, "; finished chunks are kept, for --resume"):
                yield path
    except KeyboardInterrupt as interrupt:
        if (place / STARTED).exists():
            resume = "--resume instead of --overwrite" if FLAGS.overwrite else "--resume"
            kept = "finished chunks are kept" if any(place.rglob("*.npz")) else "no chunk is kept"
            hint = f"the same command with {resume} --output_dir={path} continues"
            interrupt.args = (f"{kept}; {hint}",)
        raise
    finally:
        if new:
            with contextlib.suppress(OSError):  # it isn't empty, or no longer there
                place.rmdir()


def start(path: Path, experiment: str, settings: Mapping[str, Any]) -> None:
    """Starts a run, or continues one that was started with the same settings.

    Other versions or another number of devices only change the rounding, which a note says.
    """
    if jax.process_index():
        return
    if FLAGS.overwrite and any((path / name).exists() for name in (RESULT, STARTED)):
        _delete_run(path, experiment)
    for leftover in path.rglob(".*.partial-*"):
        if leftover.is_file() and re.fullmatch(_PARTIAL, str(leftover.relative_to(path))):
            leftover.unlink()
    settings, machine = _as_json(settings), _as_json(describe_machine())
    before = _read_object(path / STARTED)
    if before is None:
        content = {"experiment": experiment, **settings, "machine": machine}
        write_json(path / STARTED, content)
        return
    for name, value in settings.items():
        if before.get(name) != value:
            old, new = (json.dumps(v)[:60] for v in (before.get(name), value))
            line = f"started with {name}={old}, and this command asks for {name}={new}"
            line = f"started with another {name}" if old == new else line  # in these characters
            raise FolderError(f"{path} was {line}: choose another --output_dir")
    versions: Any = before.get("machine")
    versions = versions if isinstance(versions, dict) else {}
    changed = [name for name in machine if versions.get(name) != machine[name]]
    if changed:
        line = f"{', '.join(changed)} changed since this run started"
        print(f"note: {line}: new results may round differently", file=sys.stderr)


# What both kinds of run check.


@contextmanager
def _write_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Turns an error of the operating system into one line: which path, why, and what to do."""
    try:
        yield
    except BlockingIOError as error:  # of the lock
        raise FolderError(f"{path} is in use by another process: choose another folder") from error
    except OSError as error:
        raise FolderError(f"cannot write to {path}: {reason(error)}{advice}") from error


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Locks a folder for the block; a process that ends frees it, however it ends."""
    lock = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _check_free(place: Path, experiment: str) -> None:
    """Raises `FolderError` unless a run of this command may be written here."""
    if place.exists() and not place.is_dir():
        raise FolderError(f"{place} is a file: choose another folder")
    if not place.exists():
        return
    if not os.access(place, os.W_OK, effective_ids=True):
        raise FolderError(f"cannot write to {place}: Permission denied")
    if not _holds_files(place):
        return
    if FLAGS.overwrite:
        _files_to_delete(place, experiment)
        return
    _check_owner(place, experiment)
    started = (place / STARTED).exists()
    if not (_resumes() and started):
        advice = "--resume it, " if started else ""
        raise FolderError(f"{place} holds a run: {advice}--overwrite it, or choose another folder")


def _files_in(place: Path) -> dict[str, Path]:
    """All files and links below a folder, by their relative paths."""
    files = [path for path in place.rglob("*") if not path.is_dir() or path.is_symlink()]
    return {str(path.relative_to(place)): path for path in files}


def _holds_files(place: Path) -> bool:
    """Whether a folder holds more than what a kill leaves."""
    return not all(_LEFTOVER.match(name) for name in _files_in(place))


def _check_owner(place: Path, experiment: str) -> None:
    """Raises `FolderError` unless a folder holds a run of this command."""
    owner = (_read_object(place / RESULT) or _read_object(place / STARTED) or {}).get("experiment")
    if not owner and _resumes() and (place / STARTED).exists():
        return  # it is damaged, but the chunks know which run they belong to
    if owner != experiment:
        holds = f"a run of {owner}" if owner else "something other than a run"
        raise FolderError(f"{place} holds {holds}: choose another folder")


def _files_to_delete(place: Path, experiment: str) -> list[Path]:
    """The files of the run in a folder; `FolderError` if it holds others, or another command's."""
    _check_owner(place, experiment)
    listed = {RESULT, STARTED, *_listed_files(place)}
    files = _files_in(place)
    for name in files:
        if name not in listed and not _LEFTOVER.match(name):
            advice = "--resume it or choose" if (place / STARTED).exists() else "choose"
            line = f"{place} holds {name}, which isn't listed in its {RESULT}"
            raise FolderError(f"{line}: {advice} another folder")
    return list(files.values())


def _listed_files(place: Path) -> set[str]:
    """The files that a run's `result.json` lists."""
    names = (_read_object(place / RESULT) or {}).get("files")
    return set(map(str, names)) if isinstance(names, list) else set()


def _delete_run(place: Path, experiment: str, keep: Path | None = None) -> None:
    """Deletes a run's files and the folders that this leaves empty, its marks last."""
    files = [path for path in _files_to_delete(place, experiment) if keep not in path.parents]
    for path in sorted(files, key=lambda path: (path.name == STARTED, path.name == RESULT)):
        path.unlink()
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and path != keep:
            with contextlib.suppress(OSError):  # it isn't empty
                path.rmdir()


# Chunks: finished rows of a table, each chunk an .npz that says which run it belongs to.


class Chunks(NamedTuple):
    """The finished rows of a run."""

    folder: Path
    fingerprint: str  # of everything that determines the rows


def chunks_of(path: Path, *settings: Any, part: str = "") -> Chunks:
    """The chunks of a run, or of a named part, with the settings that determine its rows."""
    if jax.process_index() == 0:
        (path / CHUNKS / part).mkdir(parents=True, exist_ok=True)
    return Chunks(path / CHUNKS / part, fingerprint(part, *settings))


def fingerprint(*settings: Any) -> str:
    """A checksum of settings, in hexadecimal."""
    return hashlib.sha256(json.dumps(_as_json(settings)).encode()).hexdigest()


def write_chunk(chunks: Chunks, rows: np.ndarray, **arrays: np.ndarray) -> None:
    """Writes arrays [rows, …] so that they survive a kill; only the first process writes."""
    if jax.process_index():
        return
    name = f"{rows[0]:06d}-{rows[-1]:06d}.npz"
    names = sorted(["rows", *arrays])  # damage of the archive's index can hide an array
    content: dict[str, Any] = {"fingerprint": [chunks.fingerprint, *names], "rows": rows, **arrays}
    with replacing(chunks.folder / name) as partial, partial.open("wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())


def read_chunks(chunks: Chunks, row: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Reads all chunks, or those that have a row: "rows" and the arrays by name.

    A damaged or foreign chunk is left out, which a note says. Its rows are then computed again.
    """
    for path in sorted(chunks.folder.glob("[0-9]*.npz")):
        try:
            with path.open("rb") as file, np.load(file) as part:
                if row is not None and row not in part["rows"]:
                    continue
                content = dict(part)
            with zipfile.ZipFile(path) as archive:
                # NumPy doesn't notice a damaged shape, because it then reads too little.
                if archive.testzip():
                    raise ValueError("its checksum differs")
            fingerprint, *names = content.pop("fingerprint").tolist()
            if names != sorted(content):
                raise ValueError("arrays are missing")
            if fingerprint != chunks.fingerprint:
                raise ValueError("it belongs to another run")
        except Exception as error:  # a damaged zip file raises errors of many kinds
            print(f"note: {path} isn't used ({reason(error)})", file=sys.stderr)
            continue
        yield content


def read_columns(
    chunks: Chunks, n_rows: int, names: Iterable[str]
) -> tuple[dict[str, np.ndarray], set[int]]:
    """The first process's columns [n_rows], NaN if unfinished; and the finished rows' numbers."""
    columns = {name: np.full(n_rows, np.nan) for name in names}
    is_finished = np.zeros(n_rows, bool)
    if jax.process_index() == 0:
        for part in read_chunks(chunks):
            is_finished[part["rows"]] = True
            for name, column in columns.items():
                column[part["rows"]] = part[name]
    received = distributed.from_first({"is_finished": is_finished, **columns})
    finished = np.flatnonzero(received.pop("is_finished"))
    return received, set(finished.tolist())


def read_row(chunks: Chunks, row: int) -> dict[str, np.ndarray]:
    """The arrays of one row, by name; `FolderError` if no chunk has it."""
    content = _read_chunk(chunks, row)
    (index,) = np.flatnonzero(content.pop("rows") == row)
    return {name: array[index] for name, array in content.items()}


def row_params(chunks: Chunks, row: int) -> Params:
    """The parameters of one row, [K, d] and [K]."""
    return chunk_params(chunks, row)[row]


def chunk_params(chunks: Chunks, row: int) -> dict[int, Params]:
    """The parameters of a row and of all others in its chunk, by row."""
    content = _read_chunk(chunks, row)
    rows = content["rows"].tolist()
    zipped = zip(rows, content["weights"], content["bias"], strict=True)
    return {row: Params(weights, bias) for row, weights, bias in zipped}


def _read_chunk(chunks: Chunks, row: int) -> dict[str, np.ndarray]:
    for content in read_chunks(chunks, row):
        return content
    raise FolderError(f"{chunks.folder} has nothing of row {row}: --resume computes it again")


# Files.


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
    """Writes text as UTF-8, whatever the user's locale; bytes of file names may be no UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; arrays become lists, and NaN and infinity null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a DataFrame as CSV, each number in its shortest form that reads back the same."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def write_params(path: Path, params: Params) -> None:
    """Writes `weights` [K, d] and `bias` [K] as an uncompressed .npz."""
    with replacing(path) as partial:
        np.savez(partial, weights=np.asarray(params.weights), bias=np.asarray(params.bias))


def write_figures(path: Path, figures: Mapping[str, Any], with_png: bool = False) -> None:
    """Saves matplotlib figures as `figures/NAME.png`, or in the formats of --figure_format.

    `with_png` adds PNG to these formats, because a page holds PNGs.
    """
    (path / FIGURES).mkdir(exist_ok=True)
    formats = dict.fromkeys([*(["png"] if with_png else []), *FLAGS.figure_format])
    for name, figure in figures.items():
        for suffix in formats:
            with replacing(path / FIGURES / f"{name}.{suffix}") as partial:
                figure.savefig(partial, dpi=120)


def write_result(
    path: Path, experiment: str, dataset: Dataset | None, watch: Stopwatch, **content: Any
) -> dict[str, Any]:
    """Writes `result.json`, the last file of a run, and returns its content."""
    if dataset is not None and dataset.image_shape is None:
        content.pop("split", None)  # --split belongs to the named data sets
    names = {str(file.relative_to(path)) for file in _written if file.is_relative_to(path)}
    names = {name for name in names - {RESULT, STARTED} if not _LEFTOVER.match(name)}
    stale = _listed_files(path) - names  # of an earlier --resume with other flags
    for name in stale & _files_in(path).keys():
        (path / name).unlink()
    result = {
        "experiment": experiment,
        "dataset": dataset and describe_dataset(dataset),
        **describe_machine(),
        **content,
        "seconds": watch.seconds,
        "command": " ".join(["python -m", f"experiments.{experiment}", shlex.join(sys.argv[1:])]),
        "files": sorted(names),
    }
    write_json(path / RESULT, result)
    return plain(result)


def _read_object(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None if there is no file, or it holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
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
    versions = {"python": platform.python_version(), "linear_cifar": linear_cifar.__version__}
    versions |= {module.__name__: module.__version__ for module in (jax, jaxlib, optax, np)}
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": f"{device.platform}: {device.device_kind}",
        "n_devices": jax.device_count(),
    }
