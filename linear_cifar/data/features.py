"""A `Dataset` from files: features of one's own with their labels, in memory or left on disk."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from linear_cifar.data import checks
from linear_cifar.data.arrays import computable
from linear_cifar.data.division import check_left, divide
from linear_cifar.data.errors import DataError
from linear_cifar.data.files import Stored, reader, too_large
from linear_cifar.data.labels import number_classes
from linear_cifar.data.layout import Examples, find_examples, find_inputs
from linear_cifar.data.on_disk import OnDisk
from linear_cifar.data.types import (
    SPLITS,
    STANDARDISE,
    Dataset,
    Split,
    fit_standardiser,
    normalised_rows,
)
from linear_cifar.settings import Setting, SettingsError, settings_of


class Reading(NamedTuple):
    """How files are read."""

    inputs_name: Annotated[
        str | None, Setting("name of the array of inputs, without its split; guessed if not given")
    ] = None
    labels_name: Annotated[
        str | None, Setting("name of the array or column of labels; guessed if not given")
    ] = None
    validation_fraction: Annotated[
        float,
        Setting(
            "share of the training examples that validates where the files have no validation "
            "examples, the same of each class",
            low=0,
            below=1,
        ),
    ] = 0.1
    test_fraction: Annotated[
        float,
        Setting(
            "share of the training examples that tests where the files have no test examples, the "
            "same of each class; validation examples are taken from the rest",
            low=0,
            below=1,
        ),
    ] = 0.2
    standardise: Annotated[
        str,
        Setting(
            "by the training examples: scale: mean 0 and deviation 1 of each feature; centre: mean "
            "0; none: as stored"
        ),
    ] = "scale"
    normalise_rows: Annotated[
        bool, Setting("divide every example by its L2 norm, before anything else")
    ] = False
    memory_gb: Annotated[
        float | None,
        Setting(
            "GB (10⁹ bytes) that the inputs may take, as stored and as float32; larger ones stay "
            "on disk; half of the machine's memory if not given",
            above=0,
        ),
    ] = None


DEFAULTS = Reading()
SEED = Setting("seed of the examples that are taken", low=0)


def load_features(
    path: str | Path,
    *,
    inputs_name: str | None = DEFAULTS.inputs_name,
    labels_name: str | None = DEFAULTS.labels_name,
    validation_fraction: float = DEFAULTS.validation_fraction,
    test_fraction: float = DEFAULTS.test_fraction,
    standardise: str = DEFAULTS.standardise,
    normalise_rows: bool = DEFAULTS.normalise_rows,
    memory_gb: float | None = DEFAULTS.memory_gb,
    seed: int = 0,
) -> Dataset:
    """Loads inputs and labels from files, or says in one line what is wrong with them.

    Formats and names:
      an .npz or .safetensors file with arrays as `features` and `labels`, or `x_train`, `y_train`,
      `x_test`, `y_test`; the .npy file of the inputs, `NAME_features.npy`, with `NAME_labels.npy`
      beside it; a .parquet or .csv table, one of whose columns is the labels; or a folder with
      .npy files of those names, with a file for each split (`train.npz`, `test.npz`), or with a
      folder for each split. `layout.USUAL` and `layout.SPLIT_WORDS` have all names.

    Inputs keep their dtype, bfloat16 too (.safetensors alone can say so): one of
    `checks.INPUT_DTYPES`; bool becomes uint8, and wider integers int32. Labels are integers, of any
    value, or text; classes are the training labels' distinct values in their order.

    Examples to validate and test are taken from the training ones where the files have none, by
    numpy's PCG64 with the seed: first to test and then, of the rest, to validate. Of each class as
    large a share, to one example; rows stay in their order.

    Args:
      path: the file or folder.
      inputs_name: name of the inputs' array, without its split; None for a usual one.
      labels_name: likewise of the labels, or of their column or .npy file.
      validation_fraction: from 0 to below 1, of the training examples that are not taken to test.
      test_fraction: from 0 to below 1, of the training examples.
      standardise: "scale", "centre" or "none", as `Standardiser.limited_to` has it.
      normalise_rows: divide every row by its L2 norm as it is read, in float32 (in float64 where
        it is stored so).
      memory_gb: 10⁹ bytes that all inputs may take together, as stored and as float32; the largest
        splits that exceed it are left on disk, as `OnDisk`. None: half of the machine's memory.
      seed: of the examples that are taken.

    Returns:
      The `Dataset`, named after the file or folder; its notice says what was guessed and taken.

    Raises:
      DataError: a file is missing or damaged, or an array can't be trained on.
      SettingsError: a setting is out of its range.
    """
    how = Reading(
        inputs_name,
        labels_name,
        validation_fraction,
        test_fraction,
        standardise,
        normalise_rows,
        memory_gb,
    )
    _check_settings(how)
    SEED.check_integer("seed", seed)
    path = Path(path)
    most_bytes = _machine_bytes() / 2 if memory_gb is None else memory_gb * 1e9
    given = {"inputs": inputs_name, "labels": labels_name}
    found = find_examples(path, given, most_bytes)
    for split in SPLITS:  # the training examples first, which the others have to match
        if split in found:
            _check_form(found[split], found["train"].inputs)
    codes, class_names = number_classes(
        {split: examples.labels for split, examples in found.items()}
    )
    rows = divide(codes, {"test": test_fraction, "validation": validation_fraction}, seed)
    check_left(found["train"].labels.where, codes["train"][rows["train"]], class_names)
    parts = _parts(found, codes, rows, how.normalise_rows, most_bytes)
    where = found["train"].inputs.where
    checks.check_varied(where, parts["train"].inputs)
    standardiser = fit_standardiser(parts["train"].inputs)
    checks.check_offsets(where, *map(np.asarray, standardiser))
    name = os.fsencode(path.resolve().name).decode(errors="backslashreplace")  # it is drawn
    return Dataset(
        name=name,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        standardiser=standardiser.limited_to(standardise),
        class_names=class_names,
        notice=_notice(name, found, parts, seed),
        standardise=standardise,
        normalise_rows=normalise_rows,
        feature_names=found["train"].inputs.columns,
    )


def load_inputs(
    path: str | Path,
    inputs_name: str | None = None,
    labels_name: str | None = None,
    feature_names: Sequence[str] = (),
) -> OnDisk:
    """The inputs of a file, with or without labels, to predict; each is read where it is used.

    Args:
      path: a file of a format that `load_features` reads.
      inputs_name: name of the array of inputs; None for a usual one, or for the only one.
      labels_name: name of a table's column that is none of the features; None for a usual one.
      feature_names: that the columns of a table have to have, as those of training; () for any.

    Returns:
      [n, d], as stored.

    Raises:
      DataError: the file is missing or damaged, or holds no array [n, d] that could be meant.
    """
    given = {"inputs": inputs_name, "labels": labels_name}
    _check_names(given)
    stored = find_inputs(Path(path), given, _machine_bytes() / 2, feature_names)
    checks.check_inputs(stored.where, stored._replace(dtype=_dtype(stored)))
    checks.check_columns(stored.where, stored.columns, feature_names)
    return _rows(stored, normalise=False)


def _check_settings(how: Reading) -> None:
    settings = settings_of(Reading)
    for name in ("validation_fraction", "test_fraction"):
        settings[name].check(name, getattr(how, name))
    if how.memory_gb is not None:
        settings["memory_gb"].check("memory_gb", how.memory_gb)
    _check_names({"inputs": how.inputs_name, "labels": how.labels_name})
    if not isinstance(how.normalise_rows, bool):
        raise SettingsError(f"normalise_rows is {how.normalise_rows!r}: it has to be True or False")
    if not isinstance(how.standardise, str) or how.standardise not in STANDARDISE:
        raise SettingsError(
            f"standardise is {how.standardise!r}: it has to be one of {', '.join(STANDARDISE)}"
        )


def _check_names(given: dict[str, str | None]) -> None:
    for role, name in given.items():
        if not isinstance(name, (str, type(None))):
            raise SettingsError(f"{role}_name is {name!r}: it has to be text")


def _machine_bytes() -> float:
    # Not what is free of it: that is less the more files the machine keeps in its cache.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_form(examples: Examples, train: Stored) -> None:
    """Checks shapes and dtypes, before anything is read."""
    inputs, labels = examples.inputs, examples.labels
    checks.check_inputs(inputs.where, inputs._replace(dtype=_dtype(inputs)))
    checks.check_width(inputs.where, inputs, train.shape[1])
    checks.check_columns(inputs.where, inputs.columns, train.columns)
    if not inputs.shape[0]:
        raise DataError(f"{inputs.where} inputs {list(inputs.shape)} have no examples")
    checks.check_one_label_each(labels.where, labels, inputs.shape[0])


def _dtype(inputs: Stored) -> np.dtype:
    """The dtype that the inputs have as they are computed with."""
    return computable(inputs.where, np.zeros(0, inputs.dtype)).dtype


def _parts(
    found: dict[str, Examples],
    codes: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    normalise: bool,
    most_bytes: float,
) -> dict[str, Split]:
    """The splits, checked, in memory or on disk."""
    sources = {split: split if split in found else "train" for split in SPLITS}
    labels = {
        split: codes[source][rows[split]] if split in rows else codes[source]
        for split, source in sources.items()
    }
    stored = {split: found[source].inputs for split, source in sources.items()}
    on_disk = _left_on_disk(stored, labels, normalise, most_bytes)
    inputs = {split: _rows(examples.inputs, normalise) for split, examples in found.items()}
    parts = {}
    for split, source in sources.items():
        of_split = inputs[source].take(rows[split]) if split in rows else inputs[source]
        kept = of_split if split in on_disk else of_split.in_memory()
        parts[split] = Split(kept, labels[split])
    return parts


def _left_on_disk(
    stored: dict[str, Stored], labels: dict[str, np.ndarray], normalise: bool, most_bytes: float
) -> set[str]:
    """The splits whose inputs don't fit into memory, the smaller ones first."""
    sizes = {}
    for split, inputs in stored.items():
        dtype = _unit_dtype(_dtype(inputs)) if normalise else _dtype(inputs)
        sizes[split] = len(labels[split]) * inputs.shape[1] * (dtype.itemsize + 4)
    on_disk, left = set(), most_bytes
    for split in sorted(sizes, key=sizes.__getitem__):
        if sizes[split] <= left:
            left -= sizes[split]
        elif stored[split].whole:
            raise DataError(
                too_large(stored[split].where, sizes[split], most_bytes, stored[split].whole)
            )
        else:
            on_disk.add(split)
    return on_disk


def _rows(stored: Stored, normalise: bool) -> OnDisk:
    """The inputs as they are computed with, checked."""
    where = stored.where
    read = reader(stored.read(0, stored.shape[0])) if stored.whole else stored.read
    shape = (stored.shape[0], stored.shape[1])
    rows = OnDisk(lambda a, b: computable(where, read(a, b)), shape, _dtype(stored))
    checks.check_finite(where, rows)
    if not normalise:
        return rows
    checks.check_norms(where, rows)
    dtype = _unit_dtype(rows.dtype)
    return OnDisk(lambda a, b: normalised_rows(rows[a:b].astype(dtype)), shape, dtype)


def _unit_dtype(dtype: np.dtype) -> np.dtype:
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def _notice(name: str, found: dict[str, Examples], parts: dict[str, Split], seed: int) -> str:
    """What was guessed and done."""
    words = ["{}: inputs are {}, labels {}".format(name, *found["train"].names)]
    taken = [
        f"{len(parts[split].labels) or 'none'} {verb}"
        for split, verb in (("validation", "validate"), ("test", "test"))
        if split not in found
    ]
    if taken:
        n = sum(len(part.labels) for split, part in parts.items() if split not in found)
        n += len(parts["train"].labels)
        words.append(
            f"of its {n} training examples {' and '.join(taken)} (stratified, seed {seed})"
        )
    on_disk = [split for split, part in parts.items() if isinstance(part.inputs, OnDisk)]
    if on_disk:
        words.append(f"{', '.join(on_disk)} inputs stay on disk")
    return "; ".join(words)
