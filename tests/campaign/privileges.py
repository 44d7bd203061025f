"""The superuser as a user whom permissions bind, as they bind everybody else."""

import contextlib
import ctypes
from collections.abc import Iterator

_VERSION = 0x20080522
_OVERRIDE = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_DROP_FROM_BOUNDS = 24  # of prctl


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def given_up() -> Iterator[None]:
    """In this thread; nothing changes for whom permissions bind already."""
    header, data = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc = _libc()
    libc.capget(header, data)  # effective, permitted and inherited ones, twice
    before = data[0]
    data[0] = before & ~_OVERRIDE
    libc.capset(header, data)
    try:
        yield
    finally:
        data[0] = before
        libc.capset(header, data)


def give_up_for_good() -> None:
    """In what this process executes next."""
    libc = _libc()
    for capability in (1, 2):
        libc.prctl(_DROP_FROM_BOUNDS, capability, 0, 0, 0)
