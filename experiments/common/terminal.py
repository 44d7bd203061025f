"""What surrounds a command: the streams that it writes to, and the signals that end it."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.05
INTERRUPTED = 128 + signal.SIGINT


class Signalled(KeyboardInterrupt):
    """What a signal raises.

    Of `KeyboardInterrupt` itself, raised within `exec` of text, Python remembers that it came: the
    process ends by SIGINT in the end, whatever its exit code was to be.
    """


class Stream:
    """A standard stream that ends nothing when it can't be written to: the work goes on."""

    def __init__(self, stream: Any) -> None:
        self.error: Exception | None = None
        self._stream = io.StringIO() if stream is None else stream  # None: it is closed
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")  # λ is \u03bb where there is no λ

    def write(self, text: str) -> int:
        """Writes, if nothing has failed."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flushes, if nothing has failed."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, do: Any, *arguments: Any) -> None:
        if self.error is None:
            try:
                do(*arguments)
            except (OSError, ValueError) as error:  # ValueError of one that is closed
                self.error = error
                nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is in its buffer
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def streams() -> Iterator[None]:
    """The standard streams as `Stream`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Stream, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def stdout_error() -> Exception | None:
    """Why not all was written to the standard output; None where it was, or nobody reads it."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    return None if isinstance(error, BrokenPipeError) else error


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Signals that end a command are interrupts, as Ctrl-C is; yields those that came.

    Those that are ignored, as by nohup, stay so. Afterwards they end the process without a word,
    for all that there is to say of the command has been said.
    """
    came: list[int] = []
    again: list[threading.Timer] = []

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        came.append(number)
        raise Signalled

    def lost(what: "sys.UnraisableHookArgs") -> None:
        """An interrupt in a callback, as of the garbage collector, ends nothing: it comes again."""
        if not (came and issubclass(what.exc_type, KeyboardInterrupt)):
            sys.__unraisablehook__(what)
            return
        again.append(threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), came[-1])))
        again[-1].start()

    ignored = (signal.SIG_IGN, None)
    taken = [number for number in ENDING if signal.getsignal(number) not in ignored]
    for number in taken:
        signal.signal(number, interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield came
    finally:
        sys.unraisablehook = hook
        for timer in again:
            timer.cancel()
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
