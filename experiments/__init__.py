"""The report's experiments as commands: `python -m experiments.NAME --helpshort`."""

import os
import signal
import sys
from typing import Any


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted: nothing written\n")
    os._exit(130)


def _before_other_imports() -> None:
    """An interrupt while modules are imported and flags read; and a place for what isn't open.

    A file would get the number of a standard stream that is closed, and what is meant for the
    terminal be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which has the lowest number that is free
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


if sys.argv[0] == "-m":  # so it is until the module of the command is found
    _before_other_imports()
