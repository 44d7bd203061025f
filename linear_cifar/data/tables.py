"""Tables, .parquet and .csv: the labels are a column, and the features all other ones."""

from pathlib import Path
from typing import Any

import numpy as np

from linear_cifar.data.errors import DataError
from linear_cifar.data.files import Stored, reader, refusing, too_large
from linear_cifar.settings import is_text

# By which the columns of an index go that was saved along, and which would give the order away.
_INDEX_NAMES = ("", "__index_level_", "Unnamed: 0")
_INDEX = "it is an index and no feature: leave it out"
_WHOLE = "it is a table"


def open_table(path: Path, most_bytes: float) -> Any:
    """Reads a table.

    Args:
      path: of a .parquet or .csv file.
      most_bytes: that it may have.

    Returns:
      The `pyarrow.Table`.

    Raises:
      DataError: it is damaged or larger, or pyarrow isn't there.
    """
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow, which isn't installed: pip install 'linear_cifar[tables]'"
        ) from error
    with refusing(path):
        if path.stat().st_size > most_bytes:
            raise DataError(too_large(f"{path}:", path.stat().st_size, most_bytes, _WHOLE))
        if path.suffix.lower() == ".csv":
            return pyarrow.csv.read_csv(path)
        file = pyarrow.parquet.ParquetFile(path)
        n_bytes = 8 * file.metadata.num_rows * file.metadata.num_columns
        if n_bytes > most_bytes:
            raise DataError(too_large(f"{path}:", n_bytes, most_bytes, _WHOLE))
        # A few rows at a time: all at once, they are given the memory that a damaged file claims.
        return pyarrow.Table.from_batches(file.iter_batches(), file.schema_arrow)


def features(path: Path, table: Any, label: str | None) -> Stored:
    """All columns but that of labels as an array [n, d], of the narrowest dtype that holds them.

    Raises:
      DataError: a column is not of numbers, is an index, or has a gap.
    """
    names = [name for name in table.column_names if name != label]
    columns = [table.column(i) for i, name in enumerate(table.column_names) if name != label]
    dtypes, index = [], (table.schema.pandas_metadata or {}).get("index_columns", [])
    for name, column in zip(names, columns, strict=True):
        if name in index:
            raise DataError(f"{path}, column {name!r}: {_INDEX}")
        _check_column(path, name, column)
        dtypes.append(np.dtype(column.type.to_pandas_dtype()))
    dtype = np.result_type(*dtypes) if dtypes else np.dtype(float)
    values = np.empty((table.num_rows, len(columns)), dtype)
    for i, column in enumerate(columns):
        values[:, i] = column.to_numpy()
    return Stored(f"{path}:", values.shape, dtype, reader(values), _WHOLE, tuple(names))


def _check_column(path: Path, name: str, column: Any) -> None:
    import pyarrow

    if name == "" or name.startswith(_INDEX_NAMES[1:]):
        raise DataError(f"{path}, column {name!r}: {_INDEX}")
    if not is_text(name):
        raise DataError(f"{path}, column {name!r}: a name may not hold a NUL")
    kinds = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_boolean)
    if not any(kind(column.type) for kind in kinds):
        raise DataError(f"{path}, column {name}: features have to be numbers, not {column.type}")
    _check_gaps(path, name, column)


def _check_gaps(path: Path, name: str, column: Any) -> None:
    if column.null_count:
        row = np.flatnonzero(column.is_null().to_numpy())[0]
        raise DataError(f"{path}, column {name}: row {row} has no value")


def labels(path: Path, table: Any, name: str) -> Stored:
    """The column of the labels, numbers or text.

    Raises:
      DataError: it occurs twice, or has a gap.
    """
    import pyarrow

    if table.column_names.count(name) > 1:
        raise DataError(f"{path}, column {name}: there are several of that name")
    column = table.column(name)
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    _check_gaps(path, name, column)
    text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
    values = np.array(column.to_pylist(), str) if text else column.to_numpy()
    where = f"{path}, column {name}:"
    return Stored(where, values.shape, values.dtype, reader(values), _WHOLE)
