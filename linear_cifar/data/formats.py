"""Arrays and tables in files, and the choice of inputs and labels for each split among them."""

import functools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from numpy.lib import format as npy

from linear_cifar.data.dataset import SPLITS
from linear_cifar.errors import DataError, reason

TABLES = (".parquet", ".csv")
ENDINGS = (".npy", ".npz", ".safetensors", *TABLES)
# Columns that pandas adds for its index. As a feature, one would give away the order.
_INDEX_NAMES = ("__index_level_", "Unnamed: 0")
_SAFETENSORS_DTYPES = {
    "BOOL": "bool", "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip
USUAL = {
    "inputs": ("features", "inputs", "x", "embeddings", "data"),
    "labels": ("labels", "label", "targets", "target", "class", "y"),
}
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test",
}  # fmt: skip
_MAX_NAMES = 8  # in an error
Names = Mapping[str, str | None]  # of "inputs" and "labels", without a split; None: a usual one


class StoredArray(NamedTuple):
    """An array of a file. Its values are read when they are needed."""

    name: str
    source: str  # the name in messages: "FILE:" or "FILE, array NAME:"
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]  # rows from the first number to below the second one
    columns: tuple[str, ...] = ()  # names of a table's features
    in_blocks: bool = True  # whether `read` reads only those rows, not the entire array


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns any error of reading a file into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow: pip install 'linear_cifar[tables]'") from error
    except Exception as error:  # a damaged file can make the libraries raise a dozen types
        raise DataError(f"{path} cannot be read: {reason(error)}") from error


def too_large(source: str, n_bytes: float, max_bytes: float) -> DataError:
    """The error for an array that has to fit into memory and doesn't."""
    return DataError(
        f"{source} {n_bytes / 1e9:.3g} GB don't fit into {max_bytes / 1e9:.3g} GB of memory, and "
        "this format can't be read in blocks: save the inputs as .npy, or raise memory_gb"
    )


def npz_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an array of an .npz file, to the end, which is where its checksum is compared."""
    with archive.open(f"{name}.npy") as file:
        array = npy.read_array(file, allow_pickle=False)
        if file.read(1):  # A damaged header says that the array is smaller than it is.
            raise DataError(f"{archive.filename} cannot be read: array {name} is too long")
        return array


def open_arrays(path: Path) -> list[StoredArray]:
    """The arrays of a file. An .npy file has one, with the file's name."""
    ending = path.suffix.lower()

    @functools.cache
    def array_of_npz(name: str) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            return npz_array(archive, name)

    def read(name: str, start: int, stop: int) -> np.ndarray:
        with readable(path):
            # Files are mapped anew each time, because a map keeps the pages that it has read.
            if ending == ".npy":
                return np.array(npy.open_memmap(path, mode="r")[start:stop], order="C")
            if ending == ".npz":
                return array_of_npz(name)[start:stop]
            with safetensors.safe_open(path, framework="numpy") as file:
                return np.array(file.get_slice(name)[start:stop])

    arrays = []
    with readable(path):
        for name, (shape, dtype) in _headers(path, ending).items():
            source = f"{path}:" if ending == ".npy" else f"{path}, array {name}:"
            rows = functools.partial(read, name)
            arrays.append(StoredArray(name, source, shape, dtype, rows, in_blocks=ending != ".npz"))
    return arrays


def _headers(path: Path, ending: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and dtypes of the arrays of a file by name."""
    headers = {}
    if ending == ".npy":
        array = npy.open_memmap(path, mode="r")
        if path.stat().st_size != array.offset + array.nbytes:  # its header may be damaged
            raise DataError(f"{path} cannot be read: it is longer than {list(array.shape)} needs")
        headers[path.stem] = array.shape, array.dtype
    elif ending == ".npz":
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        old = npy.read_magic(file) == (1, 0)
                        read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
                        shape, _, dtype = read(file)
                        headers[member.removesuffix(".npy")] = shape, dtype
    else:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                tensor = file.get_slice(name)
                dtype = np.dtype(_SAFETENSORS_DTYPES.get(tensor.get_dtype(), "V1"))
                headers[name] = tuple(tensor.get_shape()), dtype
    return headers


def read_table(path: Path, max_bytes: float) -> Any:
    """Reads a .parquet or .csv file of at most `max_bytes` as a `pyarrow.Table`."""
    with readable(path):
        import pyarrow.csv
        import pyarrow.parquet

        n_bytes, is_csv = path.stat().st_size, path.suffix.lower() == ".csv"
        if not is_csv:
            file = pyarrow.parquet.ParquetFile(path)
            n_bytes = max(n_bytes, 8 * file.metadata.num_rows * file.metadata.num_columns)
        if n_bytes > max_bytes:
            raise too_large(f"{path}:", n_bytes, max_bytes)
        if is_csv:
            return pyarrow.csv.read_csv(path)
        # In batches, because otherwise pyarrow allocates as much as a damaged file claims to have.
        return pyarrow.Table.from_batches(file.iter_batches(), file.schema_arrow)


def table_features(path: Path, table: Any, labels: Sequence[str]) -> StoredArray:
    """All columns but the labels as an array [n, d], of the narrowest dtype that holds them all."""
    from pyarrow.types import is_boolean, is_floating, is_integer

    pairs = zip(table.column_names, table.columns, strict=True)
    columns = [(name, column) for name, column in pairs if name not in labels]
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    for name, column in columns:
        if not name or name in index or name.startswith(_INDEX_NAMES):
            raise DataError(f"{path}, column {name!r}: it is an index and no feature: leave it out")
        if not any(is_kind(column.type) for is_kind in (is_integer, is_floating, is_boolean)):
            problem = f"features have to be numbers, not {column.type}"
            raise DataError(f"{path}, column {name}: {problem}")
    dtypes = [column.type.to_pandas_dtype() for _, column in columns]
    values = np.empty((table.num_rows, len(columns)), np.result_type(*dtypes or [float]))
    for i, (name, column) in enumerate(columns):
        values[:, i] = _numpy(path, name, column)

    def read(start: int, stop: int) -> np.ndarray:
        return values[start:stop]

    name, names = f"the other columns of {path.name}", tuple(name for name, _ in columns)
    return StoredArray(name, f"{path}:", values.shape, values.dtype, read, names, in_blocks=False)


def table_column(path: Path, table: Any, name: str) -> StoredArray:
    """A column that may be the labels, numbers or text."""

    def read(start: int, stop: int) -> np.ndarray:
        values = _numpy(path, name, table.column(name))[start:stop]
        return values.astype(str) if set(map(type, values)) == {str} else values

    return StoredArray(name, f"{path}, column {name}:", (table.num_rows,), np.dtype(object), read)


def _numpy(path: Path, name: str, column: Any) -> np.ndarray:
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        raise DataError(f"{path}, column {name}: row {row} has no value")
    return column.to_numpy()


class _Entry(NamedTuple):
    """An array of a file, and what the file and its name say about it."""

    array: StoredArray
    split: str
    roles: Sequence[str]  # "inputs", "labels", or neither


def find_examples(
    path: Path, names: Names, max_bytes: float, with_labels: bool = True
) -> dict[str, tuple[StoredArray, StoredArray]]:
    """The inputs and labels of each split of a file or folder, "train" among them.

    If not `with_labels`, the second array of each pair is the inputs, too.
    """
    with readable(path):
        files: list[tuple[Path, str | None]] = [(path, None)]
        if path.is_dir():
            files = list(_files(path))
        elif path.suffix.lower() == ".npy" and not with_labels:
            names = {"inputs": path.stem, "labels": None}
        elif path.suffix.lower() == ".npy":
            labels = _labels_beside(_checked(path), names)
            files = [(path, "train"), (labels, "train")]
            names = {"inputs": path.stem, "labels": labels.stem}
        entries = [e for file, split in files for e in _entries(file, split, names, max_bytes)]

    def array(split: str, role: str) -> StoredArray:
        matches = [e.array for e in entries if e.split == split and role in e.roles]
        choices = [e.array for e in entries]
        return _only(path, f"{split} {role}", _words(role, names), matches, choices)

    splits = sorted({"train"} | {e.split for e in entries if e.roles}, key=SPLITS.index)
    role = "labels" if with_labels else "inputs"
    return {split: (array(split, "inputs"), array(split, role)) for split in splits}


def read_targets(path: Path, max_bytes: float) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The names [T] and values [n, T] of the targets of each split of a file or folder.

    Each column of a table is a target, and so is each array [n] of another file. The targets of a
    matrix [n, T] are called 0, 1, …, or as an array `names` [T] of text beside it says.
    """
    columns: dict[str, dict[str, np.ndarray]] = {}
    with readable(path):
        for file, split in list(_files(path)) if path.is_dir() else [(path, None)]:
            for array_split, name, values in _target_arrays(file, split, max_bytes):
                if name in columns.setdefault(array_split, {}):
                    raise DataError(f"{file} repeats the target {name}")
                columns[array_split][name] = values
        train = columns.get("train", {})
        has_names = "names" in train and train["names"].dtype.kind == "U"  # numbers are a target
        names = train.pop("names") if has_names else None
        if not train:
            raise DataError(f"{path} has no targets of training examples")
        return {split: _target_matrix(path, arrays, names) for split, arrays in columns.items()}


def _target_arrays(
    file: Path, split: str | None, max_bytes: float
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Split, name and values of the columns or arrays of a file."""
    if _checked(file).suffix.lower() in TABLES:
        table = read_table(file, max_bytes)
        for name, column in zip(table.column_names, table.columns, strict=True):
            try:
                values = column.cast("float64").to_numpy()  # null becomes NaN
            except Exception as error:  # pyarrow raises several types
                raise DataError(f"{file}, column {name}: {reason(error)}") from error
            yield split or "train", name, values
        return
    for array in open_arrays(file):
        name_split, name = split_of(array.name)
        if file.suffix.lower() == ".npy" or name.lower() in SPLIT_WORDS:
            name_split, name = SPLIT_WORDS.get(name.lower(), name_split), "targets"
        yield split or name_split, name, array.read(0, array.shape[0])


def _target_matrix(
    path: Path, arrays: Mapping[str, np.ndarray], names: np.ndarray | None
) -> tuple[tuple[str, ...], np.ndarray]:
    if len(arrays) == 1 and (matrix := next(iter(arrays.values()))).ndim == 2:
        names = np.arange(matrix.shape[1]) if names is None else names
        return tuple(map(str, names.tolist())), matrix
    if len({values.shape for values in arrays.values()}) != 1:
        shapes = [f"{name} {list(values.shape)}" for name, values in arrays.items()][:_MAX_NAMES]
        problem = "targets have to be one matrix [n, T], or all [n]"
        raise DataError(f"{path}: {problem}: it has {', '.join(shapes)}")
    return tuple(arrays), np.column_stack(list(arrays.values()))


def find_inputs(
    path: Path, names: Names, max_bytes: float, feature_names: Sequence[str]
) -> StoredArray:
    """The inputs of a file, which needn't have labels; their name may include a split."""
    with readable(path):
        entries = _entries(path, None, names, max_bytes, feature_names)
    arrays = [entry.array for entry in entries]
    if len(arrays) == 1 and (names["inputs"] is None or path.suffix.lower() == ".npy"):
        return arrays[0]
    matches = [entry.array for entry in entries if "inputs" in entry.roles]
    return _only(path, "inputs", _words("inputs", names), matches, arrays)


def _files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """A folder's files of arrays, with the split that their name or folder says."""
    for path in sorted(folder.iterdir()):
        split = SPLIT_WORDS.get(path.stem.lower())
        if split or path.suffix.lower() == ".npy":  # others may hold anything
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if file.is_file() and file.suffix.lower() in ENDINGS:
                    yield file, split


def _checked(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_file() or path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path} is no file that ends in one of {', '.join(ENDINGS)}")
    return path


def _entries(
    file: Path, split: str | None, names: Names, max_bytes: float, feature_names: Sequence[str] = ()
) -> list[_Entry]:
    """The arrays of a file, or the columns of a table and its features."""
    entries: list[_Entry] = []
    if _checked(file).suffix.lower() in TABLES:
        if names["inputs"] is not None:
            raise DataError(f"{file}: a table's inputs are all columns but the labels")
        table = read_table(file, max_bytes)
        columns = [name for name in table.column_names if name not in feature_names]
        labels = [name for name in columns if _is_usual(name, "labels", names)]
        for name in table.column_names:
            roles = ["labels"] if name in labels else []
            entries.append(_Entry(table_column(file, table, name), split or "train", roles))
        return [*entries, _Entry(table_features(file, table, labels), split or "train", ["inputs"])]
    for array in open_arrays(file):
        array_split, base = split_of(array.name)
        roles = [r for r in names if _is_usual(base, r, names) or array.name == names[r]]
        entries.append(_Entry(array, split or array_split, roles))
    return entries


def split_of(name: str) -> tuple[str, str]:
    """The split that an array's name says, "train" if it says none, and the rest of the name."""
    words = re.split(r"[_./\- ]+", name)
    for word, others in ((words[0], words[1:]), (words[-1], words[:-1])):
        if others and word.lower() in SPLIT_WORDS:
            return SPLIT_WORDS[word.lower()], "_".join(others)
    return "train", name


def _labels_beside(path: Path, names: Names) -> Path:
    """The .npy file of labels beside one of inputs, with the same name except for one word.

    If there is none, `labels.npy` in the folder has the labels for all files of inputs there.
    """
    stems = [names["labels"]] if names["labels"] else []
    for word in _words("inputs", names):
        pattern = rf"(?<![^_.-]){re.escape(word)}(?![^_.-])"
        for label in _words("labels", names):
            stems.append(re.sub(pattern, label, path.stem, flags=re.IGNORECASE))
    siblings = [path.with_name(f"{s}.npy") for s in dict.fromkeys(stems) if s != path.stem]
    present = [sibling for sibling in siblings if sibling.is_file()]
    if not present:  # of all files in the folder
        shared = [path.with_name(f"{word}.npy") for word in _words("labels", names)]
        present = [sibling for sibling in shared if sibling.is_file()]
    wanted = [sibling.name for sibling in siblings] or ["NAME_labels.npy", "labels.npy"]
    return _only(path, "labels beside it", wanted, present, [path])


def _words(role: str, names: Names) -> Sequence[str]:
    name = names[role]
    return USUAL[role] if name is None else (name,)


def _is_usual(word: str, role: str, names: Names) -> bool:
    return word.lower() in USUAL[role] if names[role] is None else word == names[role]


def _only(path: Path, role: str, wanted: Sequence[str], matches: Sequence, choices: Any) -> Any:
    """The only array, column or file that has a role; `DataError` if none has it or several."""
    setting = "labels_name" if "labels" in role else "inputs_name"
    if len(matches) > 1:
        raise DataError(f"{path}: {role} could be any of {_quoted(matches)}: give {setting}")
    if not matches:
        problem = f"no {role} called {_quoted(wanted)}: it has {_quoted(choices)}"
        raise DataError(f"{path} has {problem}; give {setting}")
    return matches[0]


def _quoted(items: Sequence) -> str:
    names = [repr(getattr(item, "name", item)) for item in items]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return (", ".join(names[:_MAX_NAMES]) or "no arrays") + more


def is_labels_file(path: Path) -> bool:
    """Whether a file's name says that it has labels."""
    return any(word in USUAL["labels"] for word in re.split(r"[_.\- ]+", path.stem.lower()))
