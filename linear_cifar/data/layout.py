"""Which of the arrays that a file or folder holds are inputs and labels, and of which split."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from linear_cifar.data import tables
from linear_cifar.data.errors import DataError
from linear_cifar.data.files import Stored, npy, npz, refusing, safetensors

USUAL = {
    "inputs": ("features", "inputs", "x", "embeddings", "data"),
    "labels": ("labels", "label", "targets", "target", "class", "y"),
}
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test",
}  # fmt: skip
ARCHIVES = {".npz": npz, ".safetensors": safetensors}
TABLES = (".parquet", ".csv")
ENDINGS = (".npy", *ARCHIVES, *TABLES)
_SEPARATORS = re.compile(r"[_./\- ]+")
_SHOWN = 8  # names in an error


class Examples(NamedTuple):
    """Inputs with their labels, and what they are called."""

    inputs: Stored
    labels: Stored
    names: tuple[str, str]


class _Named(NamedTuple):
    """An array that is not opened yet."""

    name: str
    split: str | None  # by where it stands; None: its name may say
    open: Callable[[], Stored]

    def parsed(self) -> tuple[str, str]:
        """The split that the name begins or ends with, and the rest of the name."""
        words = _SEPARATORS.split(self.name)
        for place, rest in ((0, words[1:]), (-1, words[:-1])):
            if rest and words[place].lower() in SPLIT_WORDS:
                return self.split or SPLIT_WORDS[words[place].lower()], "_".join(rest)
        return self.split or "train", self.name


def find_examples(
    path: Path, given: Mapping[str, str | None], most_bytes: float
) -> dict[str, Examples]:
    """Finds and opens the examples of each split.

    Args:
      path: a file, or a folder with a file, several or a folder for each split.
      given: the names of "inputs" and "labels", without their split; None for a usual one.
      most_bytes: that a table may have.

    Returns:
      Examples by split; those of a file that names no splits are "train".

    Raises:
      DataError: a file is missing or damaged, or no array or several could be meant.
    """
    with refusing(path):
        if path.is_dir():
            return _of_folder(path, given, most_bytes)
        _check_file(path)
        if path.suffix.lower() == ".npy":
            return {"train": _pair(path, given)}
        return _of_files([(path, None)], path, given, most_bytes)


def find_inputs(
    path: Path, given: Mapping[str, str | None], most_bytes: float, features: Sequence[str]
) -> Stored:
    """Finds and opens the inputs of a file, which need not have labels.

    Args:
      path: a file.
      given: as for `find_examples`; an array may also be named as it is, with its split.
      most_bytes: that a table may have.
      features: names of a table's columns that are none of the labels.

    Raises:
      DataError: as `find_examples`.
    """
    with refusing(path):
        _check_file(path)
        ending = path.suffix.lower()
        if ending == ".npy":
            return npy(path)
        if ending in TABLES:
            table = tables.open_table(path, most_bytes)
            columns = [name for name in table.column_names if name not in features]
            labels = _columns_of_labels(columns, given["labels"])
            return tables.features(path, table, labels[0] if labels else None)
        named = [_Named(name, None, o) for name, o in ARCHIVES[ending](path).items()]
        meant = dict(_of_role(named, "inputs", given["inputs"], path))
        if len(named) == 1 and given["inputs"] is None:
            meant = {"train": named[0]}
        if len(meant) != 1:
            names = _list([array.name for array in list(meant.values()) or named])
            raise DataError(f"{path}: inputs could be any of {names}: give inputs_name in full")
        return next(iter(meant.values())).open()


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_dir():
        raise DataError(f"{path} is a folder, where one file is wanted")
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path} has another ending than {', '.join(ENDINGS)}")


def _of_folder(
    folder: Path, given: Mapping[str, str | None], most_bytes: float
) -> dict[str, Examples]:
    files: list[tuple[Path, str | None]] = []
    for path in sorted(folder.iterdir()):
        split = SPLIT_WORDS.get(path.stem.lower())
        if path.is_dir():
            files += [(child, split) for child in sorted(path.iterdir()) if split]
        elif split or path.suffix.lower() == ".npy":  # others may hold anything
            files.append((path, split))
    return _of_files([f for f in files if f[0].is_file()], folder, given, most_bytes)


def _of_files(
    files: list[tuple[Path, str | None]],
    path: Path,
    given: Mapping[str, str | None],
    most_bytes: float,
) -> dict[str, Examples]:
    """Examples by split, of files with the split that each stands for."""
    named: list[_Named] = []
    found: dict[str, Examples] = {}
    for file, split in files:
        ending = file.suffix.lower()
        if ending == ".npy":
            named.append(_Named(file.stem, split, partial(npy, file)))
        elif ending in ARCHIVES:
            named += [_Named(name, split, o) for name, o in ARCHIVES[ending](file).items()]
        elif ending in TABLES:
            where = split or "train"
            if where in found:
                raise DataError(f"{file}: {path} has {where} examples in another table too")
            found[where] = _of_table(file, given, most_bytes)
    if named or not found:
        of_arrays = _of_arrays(named, path, given)
        if twice := found.keys() & of_arrays.keys():
            raise DataError(f"{path} has {min(twice)} examples both in a table and in arrays")
        found |= of_arrays
    if "train" not in found:
        raise DataError(f"{path} has {' and '.join(found)} but no training examples")
    return found


def _of_arrays(
    named: list[_Named], path: Path, given: Mapping[str, str | None]
) -> dict[str, Examples]:
    roles = {role: dict(_of_role(named, role, given[role], path)) for role in USUAL}
    for role, other in (("inputs", "labels"), ("labels", "inputs")):
        of_role = roles[role]
        if not of_role or of_role.keys() < roles[other].keys():
            split = next(iter(roles[other].keys() - of_role.keys()), "train")
            raise DataError(
                f"{path} has no {split} {role} {_called(role, given[role])}: it has "
                f"{_list([array.name for array in named])}; give {role}_name"
            )
    return {
        split: Examples(
            inputs.open(), roles["labels"][split].open(), (inputs.name, roles["labels"][split].name)
        )
        for split, inputs in roles["inputs"].items()
    }


def _of_role(
    named: list[_Named], role: str, given: str | None, path: Path
) -> Iterator[tuple[str, _Named]]:
    """The array of each split that is meant by a role."""
    meant: dict[str, list[_Named]] = {}
    for array in named:
        split, base = array.parsed()
        if base.lower() in USUAL[role] if given is None else given in (base, array.name):
            meant.setdefault(split, []).append(array)
    for split, arrays in meant.items():
        if len(arrays) > 1:
            names = _list([array.name for array in arrays])
            raise DataError(f"{path}: {split} {role} could be any of {names}: give {role}_name")
        yield split, arrays[0]


def _pair(path: Path, given: Mapping[str, str | None]) -> Examples:
    """The inputs of an .npy file, with the labels of the file that stands beside it."""
    stems = [given["labels"]] if given["labels"] else []
    for word in [given["inputs"]] if given["inputs"] else USUAL["inputs"]:
        parts = re.fullmatch(rf"(.*[_.\-])?{re.escape(word)}([_.\-].*)?", path.stem, re.IGNORECASE)
        if parts:
            words = [given["labels"]] if given["labels"] else USUAL["labels"]
            stems += [f"{parts[1] or ''}{word}{parts[2] or ''}" for word in words]
    siblings = [path.with_name(f"{stem}.npy") for stem in dict.fromkeys(stems)]
    there = [sibling for sibling in siblings if sibling.is_file() and sibling != path]
    if len(there) > 1:
        names = _list([sibling.name for sibling in there])
        raise DataError(f"{path}: its labels could be any of {names}: give labels_name")
    if not there:
        wanted = _list([sibling.name for sibling in siblings]) or "NAME_labels.npy"
        raise DataError(f"{path} has no labels beside it, in {wanted}: give labels_name")
    return Examples(npy(path), npy(there[0]), (path.name, there[0].name))


def _of_table(path: Path, given: Mapping[str, str | None], most_bytes: float) -> Examples:
    if given["inputs"] is not None:
        raise DataError(f"{path}: a table's inputs are all columns but the labels': no inputs_name")
    table = tables.open_table(path, most_bytes)
    names, wanted = table.column_names, given["labels"]
    usual = _columns_of_labels(names, wanted)
    if not usual:
        called = _called("labels", wanted)
        raise DataError(f"{path} has no column {called}: it has {_list(names)}; give labels_name")
    if len(set(usual)) > 1:
        raise DataError(f"{path}: labels could be any of {_list(usual)}: give labels_name")
    stored = (tables.features(path, table, usual[0]), tables.labels(path, table, usual[0]))
    return Examples(*stored, ("the other columns", usual[0]))


def _columns_of_labels(names: list[str], given: str | None) -> list[str]:
    """Those of a table that may be the labels."""
    return [n for n in names if (n.lower() in USUAL["labels"] if given is None else n == given)]


def _called(role: str, given: str | None) -> str:
    return f"called {given!r}" if given else f"by a usual name ({', '.join(USUAL[role])})"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(map(repr, names[:_SHOWN])) or "no arrays") + more
