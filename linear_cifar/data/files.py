"""Arrays in .npy, .npz and .safetensors files: opened by their headers, read in blocks."""

import math
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from linear_cifar.data.errors import DataError
from linear_cifar.errors import reason

Reader = Callable[[int, int], np.ndarray]
# Of a zip archive's local header, which the names and further fields follow.
_ZIP_HEADER_BYTES, _ZIP_LENGTHS = 30, slice(26, 30)
_ENCRYPTED = 1


class Stored(NamedTuple):
    """An array of a file, of which only the header has been read."""

    where: str  # the file and the array, for errors: "FILE:" or "FILE, array NAME:"
    shape: tuple[int, ...]
    dtype: np.dtype  # what `read` gives, in the machine's byte order
    read: Reader  # the rows from the first number to below the second one, an array of its own
    whole: str = ""  # why it is read as a whole or not at all; "": it is read in blocks
    columns: tuple[str, ...] = ()  # names of a table's columns; () where it is none

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


def too_large(where: str, n_bytes: float, most_bytes: float, why: str) -> str:
    """The line that says that what is read as a whole doesn't fit, and the way out."""
    return (
        f"{where} inputs of {n_bytes / 1e9:.3g} GB don't fit into {most_bytes / 1e9:.3g} GB of "
        f"memory, and {why}: save them as .npy in C order, which is read in blocks"
    )


def reader(values: np.ndarray) -> Reader:
    """The `Stored.read` of an array that is in memory."""
    return lambda start, stop: values[start:stop]


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns what a missing or damaged file raises into a `DataError` of one line."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory") from error
    except Exception as error:  # a damaged file can make the readers raise any of a dozen types
        raise DataError(f"{path} cannot be read: {reason(error)}") from error


def npy(path: Path) -> Stored:
    """Opens an .npy file.

    Raises:
      DataError: it is damaged, or holds Python objects.
    """
    with refusing(path), path.open("rb") as file:
        return _opened(f"{path}:", path, file, path.stat().st_size)


def npz(path: Path) -> dict[str, Callable[[], Stored]]:
    """What opens each array of an .npz archive, by name."""
    with refusing(path), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    return {info.filename.removesuffix(".npy"): partial(_member, path, info) for info in members}


def safetensors(path: Path) -> dict[str, Callable[[], Stored]]:
    """What opens each array of a .safetensors file, by name."""
    from safetensors import safe_open

    with refusing(path), safe_open(path, framework="numpy") as file:
        names = list(file.keys())
    return {name: partial(_tensor, path, name) for name in names}


def _member(path: Path, info: zipfile.ZipInfo) -> Stored:
    where = f"{path}, array {info.filename.removesuffix('.npy')}:"
    with refusing(path), zipfile.ZipFile(path) as archive:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            return _compressed(where, path, archive, info)
        _check_sum(archive, info)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            lengths = np.frombuffer(file.read(_ZIP_HEADER_BYTES)[_ZIP_LENGTHS], "<u2")
            start = info.header_offset + _ZIP_HEADER_BYTES + int(lengths.sum())
            file.seek(start)
            return _opened(where, path, file, start + info.file_size)


def _check_sum(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Reads a member to its end, where its checksum is compared; blocks are read without it."""
    with archive.open(info) as member:
        while member.read(2**24):
            pass


def _compressed(where: str, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Stored:
    with archive.open(info) as member:
        shape, _, dtype = _header(where, member)

    def read(start: int, stop: int) -> np.ndarray:
        with refusing(path), zipfile.ZipFile(path) as whole, whole.open(info) as member:
            rows = np.lib.format.read_array(member, allow_pickle=False)
            while member.read(2**16):  # up to the checksum, as above
                pass
        return _native(rows[start:stop])

    return Stored(where, shape, dtype.newbyteorder("="), read, "it is compressed")


def _opened(where: str, path: Path, file: BinaryIO, end: int) -> Stored:
    """The array whose header begins where the file is; its last byte is before `end`."""
    shape, fortran, dtype = _header(where, file)
    offset, row = file.tell(), math.prod(shape[1:])
    if offset + math.prod(shape) * dtype.itemsize > end:
        raise DataError(f"{where} the file is truncated: it lacks values of {list(shape)} {dtype}")

    # Not through a memory map, which would keep what it has read within the process's memory.
    def read(start: int, stop: int) -> np.ndarray:
        with refusing(path), path.open("rb") as own:
            own.seek(offset + start * row * dtype.itemsize)
            values = np.fromfile(own, dtype, (stop - start) * row)
            return _native(values.reshape(stop - start, *shape[1:]))

    def read_columns(start: int, stop: int) -> np.ndarray:
        with refusing(path), path.open("rb") as own:
            own.seek(offset)
            values = np.fromfile(own, dtype, math.prod(shape))
            return _native(values.reshape(shape, order="F")[start:stop])

    strided = fortran and len(shape) > 1
    reads = (read_columns, "it is in Fortran order") if strided else (read, "")
    return Stored(where, shape, dtype.newbyteorder("="), *reads)


def _header(where: str, file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array in numpy's format; what can't be data is refused."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DataError(f"{where} version {version} of the format is for structured arrays only")
    shape, fortran, dtype = read(file)
    if any(length < 0 for length in shape):
        raise DataError(f"{where} the file is damaged: it says that its shape is {shape}")
    if dtype.hasobject:
        raise DataError(
            f"{where} it holds Python objects, which are not read: save numbers or text"
        )
    if dtype == np.dtype("V2"):
        raise DataError(f"{where} numpy can't tell bfloat16 in its files: save it as .safetensors")
    return shape, fortran, dtype


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), order="C", copy=False)


def _tensor(path: Path, name: str) -> Stored:
    from safetensors import safe_open

    where = f"{path}, array {name}:"
    with refusing(path), safe_open(path, framework="numpy") as file:
        tensor = file.get_slice(name)
        shape, code = tuple(tensor.get_shape()), tensor.get_dtype()

    # Opened for each block, for an open file stays mapped.
    def read(start: int, stop: int) -> np.ndarray:
        with refusing(path), safe_open(path, framework="numpy") as file:
            return np.array(file.get_slice(name)[start:stop])

    return Stored(where, shape, _dtype(where, code), read)


def _dtype(where: str, code: str) -> np.dtype:
    """The dtype that safetensors calls BF16, I64 or the like."""
    if code == "BF16":
        return jnp.dtype("bfloat16")
    if code == "BOOL":
        return np.dtype(bool)
    parts = re.fullmatch(r"([FIU])(8|16|32|64)", code)
    if parts is None or code == "F8":
        raise DataError(f"{where} values of type {code} can't be read")
    return np.dtype(f"{parts[1].lower()}{int(parts[2]) // 8}")
