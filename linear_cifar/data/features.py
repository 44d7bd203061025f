"""A `Dataset` from files of features and labels."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from linear_cifar.checks import Setting, check_choice, is_text
from linear_cifar.data.blocks import LazyRows, blocks, in_memory
from linear_cifar.data.dataset import (
    SPLITS,
    STANDARDISE,
    Dataset,
    Split,
    as_inputs,
    as_labels,
    check_finite,
    check_one_label_each,
    class_ids,
    input_dtype,
    make_dataset,
    normalised_rows,
)
from linear_cifar.data.formats import (
    StoredArray,
    find_examples,
    find_inputs,
    read_targets,
    readable,
    too_large,
)
from linear_cifar.data.stratify import held_out
from linear_cifar.errors import DataError, InputError

_HELD_OUT = "share of each class's training examples held out {}, if the files have no such split"
SETTINGS: dict[str, Setting] = {
    "validation_fraction": Setting(_HELD_OUT.format("for validation"), low=0, below=1),
    "test_fraction": Setting(_HELD_OUT.format("first, for testing"), low=0, below=1),
    "memory_gb": Setting(
        "GB (10⁹ bytes) that the inputs may take, as stored plus as float32; larger splits stay in "
        "their files; half of the memory if not set",
        above=0,
    ),
}
HELP = {
    "inputs_name": "name of the array of inputs, without its split; guessed if not set",
    "labels_name": "name of the array or column of labels; guessed if not set",
    "standardise": "scale (mean 0 and deviation 1 of each training feature), centre (mean 0), none",
    "normalise_rows": "divide every example by its L2 norm before anything else",
}


def load_features(
    path: str | Path,
    targets: str | Path | None = None,
    *,
    inputs_name: str | None = None,
    labels_name: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    standardise: str = "scale",
    normalise_rows: bool = False,
    memory_gb: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads inputs and labels from files; `DataError` names a file or array that can't be used.

    The path is an .npz or .safetensors file with arrays such as `features` and `labels`, or
    `x_train`, `y_train`, `x_test` and `y_test`; the .npy file of the inputs, `NAME_features.npy`,
    with `NAME_labels.npy` beside it; a .parquet or .csv table with a column of labels; or a folder
    with .npy files of such names, with a file for each split (`train.npz`, `test.npz`), or with a
    folder for each split. `formats.USUAL` and `formats.SPLIT_WORDS` list all names.

    Inputs keep their dtype; bool becomes uint8, and wide integers int32. Only .safetensors can hold
    bfloat16. Labels are integers, whole floats or text; the classes are the distinct training
    labels in their order. Missing splits are drawn from the training examples with NumPy's PCG64:
    first the test examples, then validation examples from the rest. The `Dataset` is named after
    the file or folder; its notice lists guesses and held-out examples.

    Labels may also be a matrix [n, T] for T binary targets: 1, 0, or −1 or NaN if unknown. Held-out
    examples aren't stratified then. `targets` names another file or folder for them, and only the
    inputs come from the path. It has one of the formats above, with a matrix [n, T], or a column or
    array [n] for each target, under its name; splits are named like the inputs'.

    Args:
      path: the file or folder.
      targets: file or folder of targets; None: the path has the labels, too.
      inputs_name: name of the array of inputs, without its split; None for a usual one.
      labels_name: likewise for the labels, or their column or .npy file.
      validation_fraction: from 0 to below 1, of the training examples without the test examples.
      test_fraction: from 0 to below 1, of the training examples.
      standardise: as in `dataset_from_arrays`.
      normalise_rows: divide every row by its L2 norm, in float32 or a stored float64.
      memory_gb: 10⁹ bytes that all inputs together may take, as stored plus as float32. The largest
        splits beyond it stay in their files, as `LazyRows`. None: half of the memory.
      seed: of the held-out examples.
    """
    SETTINGS["validation_fraction"].check("validation_fraction", validation_fraction)
    SETTINGS["test_fraction"].check("test_fraction", test_fraction)
    Setting("", low=0, integer=True).check("seed", seed)
    check_choice("standardise", standardise, STANDARDISE)
    if not isinstance(normalise_rows, bool):
        raise InputError(f"normalise_rows is {normalise_rows!r}: it has to be True or False")
    memory_gb = memory_bytes() / 2e9 if memory_gb is None else memory_gb
    SETTINGS["memory_gb"].check("memory_gb", memory_gb)
    path, max_bytes = Path(path), memory_gb * 1e9
    array_names = {"inputs": inputs_name, "labels": labels_name}
    files = find_examples(path, array_names, max_bytes, with_labels=targets is None)
    train_inputs, train_labels = files["train"]
    stored = {
        split: _checked_rows(array, train_inputs.columns, max_bytes, normalise_rows)
        for split, (array, _) in files.items()
    }
    with readable(path):  # whose text may be damaged
        fractions = {"test": test_fraction, "validation": validation_fraction}
        if targets is None:
            values, class_names = _read_labels(files)
        else:
            values, class_names = _read_targets(Path(targets), files)
        source = train_labels.source if targets is None else f"{targets}:"
        rows, labels = _draw_splits(values, fractions, seed, class_names, source)
    arrays = {split: files.get(split, files["train"])[0] for split in SPLITS}
    inputs: dict[str, Any] = {s: stored.get(s, stored["train"]).take(rows[s]) for s in SPLITS}
    sizes = {s: math.prod(rows.shape) * (rows.dtype.itemsize + 4) for s, rows in inputs.items()}
    for split in sorted(SPLITS, key=sizes.__getitem__):  # the largest stay in their file
        if sizes[split] <= max_bytes or not arrays[split].in_blocks:
            inputs[split] = inputs[split].in_memory()
            max_bytes -= sizes[split]
    if all((block == inputs["train"][:1]).all() for _, block in blocks(inputs["train"])):
        raise DataError(f"{train_inputs.source} inputs are equal in all training examples")
    name = os.fsencode(path.resolve().name).decode(errors="backslashreplace")  # it is drawn
    labels_source = train_labels.name if targets is None else Path(targets).name
    notice = f"{name}: inputs are {train_inputs.name}, labels {labels_source}"
    if len(files) < len(SPLITS):
        parts = " and ".join(f"{len(rows[s]) or 'no'} {s}" for s in SPLITS if s not in files)
        n = train_inputs.shape[0]
        draw = "stratified" if labels["train"].ndim == 1 else "at random"
        notice += f"; {parts} examples were held out from {n} ({draw}, seed {seed})"
    if in_file := [split for split in SPLITS if not in_memory(inputs[split])]:
        notice += f"; {' and '.join(in_file)} inputs stay in their file"
    return make_dataset(
        {split: Split(inputs[split], labels[split]) for split in SPLITS},
        class_names,
        standardise,
        {split: array.source for split, array in arrays.items()},
        name=name,
        notice=notice,
        normalise_rows=normalise_rows,
        feature_names=train_inputs.columns,
    )


def load_inputs(
    path: str | Path,
    inputs_name: str | None = None,
    labels_name: str | None = None,
    feature_names: Sequence[str] = (),
) -> LazyRows:
    """The inputs [n, d] of a file, with or without labels, to predict; rows are read when sliced.

    Names, formats and errors as in `load_features`; a file's only array needs no name. A table has
    to have the `feature_names`, if there are any, in their order.
    """
    names, max_bytes = {"inputs": inputs_name, "labels": labels_name}, memory_bytes() / 2
    stored = find_inputs(Path(path), names, max_bytes, feature_names)
    return _checked_rows(stored, feature_names, max_bytes)


def memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """The machine's memory in bytes, or the limit of its container (a cgroup) if that is lower."""
    limits = [float("inf")]
    if hasattr(os, "sysconf"):  # Windows has none
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such version of cgroup, or "max"
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def _checked_rows(
    stored: StoredArray, columns: Sequence[str], max_bytes: float, normalise: bool = False
) -> LazyRows:
    """The inputs in a dtype that is computed with, normalised if asked to, after all checks."""
    source, dtype = stored.source, input_dtype(stored.source, stored.shape, stored.dtype)
    n, d = stored.shape
    if not n:
        raise DataError(f"{source} inputs {[n, d]} have no examples")
    n_bytes = n * d * (dtype.itemsize + 4)
    if n_bytes > max_bytes and not stored.in_blocks:
        raise too_large(source, n_bytes, max_bytes)
    if columns and stored.columns:
        for i, (name, expected) in enumerate(zip_longest(stored.columns, columns)):
            if name != expected:
                raise DataError(f"{source} column {i} is {name!r}, but {expected!r} in training")
    rows = LazyRows(lambda start, stop: as_inputs(source, stored.read(start, stop)), (n, d), dtype)
    check_finite(source, rows)
    if not normalise:
        return rows
    for part, block in blocks(rows):
        zero = np.flatnonzero(~block.any(axis=1))
        if zero.size:
            row = part.start + zero[0]
            raise DataError(f"{source} inputs can't be normalised: row {row} is all zeros")
    wide = np.float64 if dtype == np.float64 else np.float32
    return LazyRows(lambda start, stop: normalised_rows(rows[start:stop]), (n, d), wide)


def _read_labels(
    files: Mapping[str, tuple[StoredArray, StoredArray]],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The class ids [n] or targets [n, T] of each split, and the names of classes or targets."""
    values, source = {}, files["train"][1].source
    for split, (inputs, array) in files.items():
        check_one_label_each(array.source, array, inputs.shape[0], (1, 2))
        values[split] = as_labels(array.source, array.read(0, array.shape[0]))
        if values[split].shape[1:] != values["train"].shape[1:]:
            raise DataError(f"{array.source} labels are {list(array.shape)}, unlike train's")
    if values["train"].ndim == 2:
        return values, tuple(map(str, range(values["train"].shape[1])))
    classes = np.unique(values["train"])
    if len(classes) < 2:
        raise DataError(f"{source} labels have one class only, {classes[0]}")
    if classes.dtype.kind == "U":
        if not all(map(is_text, classes.tolist())):
            raise DataError(f"{source} labels have to be text without NUL or half characters")
        values = {split: labels.astype(str) for split, labels in values.items()}
    ids = {s: class_ids(files[s][1].source, labels, classes) for s, labels in values.items()}
    return ids, tuple(map(str, classes.tolist()))


def _read_targets(
    path: Path, files: Mapping[str, tuple[StoredArray, StoredArray]]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The targets [n, T] of each split of the inputs, and their names [T]."""
    matrices, values = read_targets(path, memory_bytes() / 2), {}
    names = matrices["train"][0]
    for split in sorted({*files} ^ {*matrices}):
        present, absent = ("inputs", "targets") if split in files else ("targets", "inputs")
        raise DataError(f"{path}: there are {split} {present}, but no {split} {absent}")
    for split, (split_names, matrix) in matrices.items():
        if split_names != names:
            raise DataError(f"{path}: the {split} targets have other names than train's")
        check_one_label_each(f"{path}: {split}", matrix, files[split][0].shape[0], (2,))
        values[split] = as_labels(f"{path}: {split}", matrix)
    return values, names


def _draw_splits(
    values: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    seed: int,
    names: Sequence[str],
    source: str,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rows and the labels of each split; all rows are ascending.

    The rows of a split without labels of its own are held out from the training examples.
    """
    labels, has_classes = values["train"], values["train"].ndim == 1
    strata = labels if has_classes else np.zeros(len(labels), int)
    rows = {split: np.arange(len(values[split])) for split in values}
    generator = np.random.default_rng(seed)
    for split, fraction in fractions.items():
        if split not in values:
            rest = rows["train"]
            drawn = held_out(generator, strata[rest], fraction)
            rows[split], rows["train"] = rest[drawn], np.delete(rest, drawn)
    split_labels = {split: values.get(split, labels)[rows[split]] for split in rows}
    absent = np.setdiff1d(np.arange(len(names)), split_labels["train"])
    if has_classes and absent.size:
        problem = f"no example of class {names[absent[0]]} remains for training"
        raise DataError(f"{source} {problem}: hold out smaller fractions")
    if not has_classes and (split_labels["train"] < 0).all():
        raise DataError(f"{source} no training example has a known target")
    return rows, split_labels
