"""What a run leaves on disk: written beside its place and moved there whole, and read back."""

import contextlib
import csv
import importlib.metadata
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from linear_cifar.data import SPLITS, Dataset
from linear_cifar.errors import InputError, reason
from linear_cifar.model import Params
from linear_cifar.training import History

RESULT, HISTORY, PARAMS, FIGURES = "result.json", "history.csv", "params.npz", "figures"
HISTORY_BY_SEED = "history_by_seed.csv"


class RecordError(InputError):
    """A record that cannot be written or read; one line says which and what to do."""


@contextmanager
def new_run(output_dir: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write a run into, which appears as `output_dir` when the block ends well.

    Until then it stands under a hidden name beside `output_dir`, or within it where that is there,
    and is removed if the block fails; a run that has its parameters and then can't be written
    is left where it is. That the place can be written to is known before the block begins.

    Args:
      output_dir: the run's folder, which must not exist or be empty.
      overwrite: replace a run that is there. A folder with anything but a run is never replaced.

    Yields:
      The folder to write into.

    Raises:
      RecordError: the place is in use or cannot be written to, or the disk is full.
    """
    try:
        target = Path(os.path.realpath(output_dir))  # where a link leads, there or not
        _check_free(target, overwrite)
        # What is there stays: it may be a mount point, or the folder that the user stands in.
        beside = target if target.exists() else target.parent
        staged = beside / _unused(target.name)
        staged.mkdir(parents=True)
    except OSError as error:
        raise RecordError(f"cannot write to {output_dir}: {error.strerror}") from error
    try:
        yield staged
        _move_into_place(staged, target)
    except (OSError, RecordError) as error:
        line = f"cannot write {output_dir}: {reason(error)}"
        if any(staged.rglob("*.npz")):  # parameters, which took their time
            raise RecordError(f"{line}; what is written of it is left in {staged}") from error
        shutil.rmtree(staged, ignore_errors=True)
        raise RecordError(line) from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise RecordError(f"{target} is a file: choose another folder")
    if any(target.iterdir()):
        if not (target / RESULT).exists():
            raise RecordError(f"{target} holds something other than a run: choose another folder")
        if not overwrite:
            raise RecordError(f"{target} holds a run: choose another folder, or --overwrite it")


def _move_into_place(staged: Path, target: Path) -> None:
    if staged.parent != target:
        staged.replace(target)
        return
    replaced = staged.with_name(staged.name.replace(".partial-", ".replaced-"))
    replaced.mkdir()
    # `RESULT` says that a run is whole: it goes first and comes last.
    for path in sorted(target.iterdir(), key=lambda path: path.name != RESULT):
        if path not in (staged, replaced):
            path.replace(replaced / path.name)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == RESULT):
        path.replace(target / path.name)
    staged.rmdir()
    shutil.rmtree(replaced)


def _unused(name: str) -> str:
    """A hidden name that nothing has; a process's number would be had again in a container."""
    return f".{name}.partial-{secrets.token_hex(4)}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place if the block ends well.

    So the file is there whole or not at all; and what else has its name, as a pipe or a link to
    somewhere, is not written into.
    """
    partial = path.with_name(_unused(path.name) + path.suffix)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # as where the file system can't be written to
            partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, whatever the user's own encoding is."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a value, made `plain`, as JSON."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """A value as JSON has it; arrays become lists, and numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        # A float32 goes by its own shortest decimal form: 0.3908, and not 0.3907999992370605.
        return (
            plain(float(str(array[()])) if array.dtype.kind == "f" else array.item())
            if array.ndim == 0
            else [plain(item) for item in array]
        )
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table; numbers in their shortest form that reads back as the same."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([str(value) for value in row] for row in rows)


def write_history(path: Path, history: History) -> None:
    """Writes one run's history as CSV: `epoch` and the fields of `History`, a row an epoch."""
    columns = [np.asarray(column) for column in history]
    rows = ((epoch, *values) for epoch, values in enumerate(zip(*columns, strict=True)))
    write_csv(path, ("epoch", *History._fields), rows)


def write_history_by_seed(path: Path, history: History, first_seed: int) -> None:
    """Writes several seeds' history, fields [S, n_epochs + 1], as CSV: `seed`, `epoch`, fields."""
    columns = [np.asarray(column) for column in history]
    rows = (
        (first_seed + seed, epoch, *(column[seed, epoch] for column in columns))
        for seed, epoch in np.ndindex(columns[0].shape)
    )
    write_csv(path, ("seed", "epoch", *History._fields), rows)


def read_history(path: Path) -> History:
    """Reads what `write_history` wrote; each field a numpy array [n_epochs + 1], float64."""
    table = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    return History(*(table[name] for name in History._fields))


def write_params(path: Path, params: Params) -> None:
    """Writes the arrays `weights` [K, d] and `bias` [K] as an uncompressed .npz."""
    with replacing(path) as partial:
        np.savez(partial, weights=np.asarray(params.weights), bias=np.asarray(params.bias))


def read_history_by_seed(path: Path) -> History:
    """Reads what `write_history_by_seed` wrote; fields [S, n_epochs + 1], numpy float64."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    n_seeds = len(np.unique(table["seed"]))
    return History(*(table[name].reshape(n_seeds, -1) for name in History._fields))


def read_params(path: Path) -> Params:
    """Reads what `write_params` wrote, bit for bit, as numpy arrays."""
    with np.load(path, allow_pickle=False) as arrays:
        return Params(arrays["weights"], arrays["bias"])


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Saves matplotlib figures as `figures/NAME.png` in a run's folder."""
    (folder / FIGURES).mkdir(exist_ok=True)
    for name, figure in figures.items():
        with replacing(folder / FIGURES / f"{name}.png") as partial:
            figure.savefig(partial, dpi=120)


def read_result(folder: Path) -> dict[str, Any]:
    """Reads a run's `result.json`.

    Raises:
      RecordError: there is none, or it is not JSON.
    """
    try:
        return json.loads((folder / RESULT).read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{folder} holds no readable {RESULT}: {error}") from error


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What a record says of its data: what it is, how large, and what the user was told of it."""
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "sizes": {name: len(getattr(dataset, name).labels) for name in SPLITS},
        "official": dataset.official,
        "standardise": dataset.standardise,
        "notice": dataset.notice,
    }


def describe_machine() -> dict[str, Any]:
    """The versions, and the devices that a run was made with."""
    packages = ("linear_cifar", "jax", "jaxlib", "optax", "numpy")
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, not installed
            versions[name] = "not installed"
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": f"{device.platform}: {device.device_kind}",
        "n_devices": jax.device_count(),
    }
