"""How a command starts and ends: its flags, the machine's cores, signals, and one-line errors."""

import difflib
import importlib
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

from experiments.common import distributed
from experiments.common.flags import flag_help
from linear_cifar import Hyperparameters, InputError
from linear_cifar.errors import reason

FLAGS = flags.FLAGS
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT  # exit code
MAX_CPU_DEVICES = 8
# What users of other libraries type first.
SYNONYMS = {
    "lambda": "lam", "alpha": "lam", "l2": "lam", "weight_decay": "lam",
    "lr": "learning_rate", "eta": "learning_rate", "rate": "learning_rate",
    "epochs": "n_epochs", "max_epochs": "n_epochs", "batch": "batch_size", "seeds": "n_seeds",
    "tol": "tolerance", "max_iter": "max_passes", "cv": "n_folds", "folds": "n_folds",
    "out": "output_dir", "output": "output_dir", "data": "data_dir",
}  # fmt: skip


class Signalled(KeyboardInterrupt):
    """Raised by a signal.

    Python remembers a plain `KeyboardInterrupt` and may end the process by SIGINT in the end, which
    would hide the exit code.
    """


class Stream:
    """A standard stream that ends no work if it can't be written to: the rest of it is lost."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream or io.StringIO()  # None if it is closed
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):  # a terminal without λ shows \u03bb
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, as far as that is possible."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flushes, as far as that is possible."""
        self._attempt(self._stream.flush)

    def _attempt(self, method: Callable[..., Any], *arguments: Any) -> None:
        try:
            method(*arguments)
        except OSError as error:
            self.error = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # from here on


def launch(
    main: Callable[[list[str]], int | None],
    define_flags: Callable[[], None],
    argv: list[str] | None = None,
) -> None:
    """Runs a command under absl. A foreseen error is one line and exit code 1.

    Ctrl-C gives 130, SIGTERM 143 and SIGHUP 129.

    Args:
      main: takes the rest of the command line and returns the exit code.
      define_flags: defines the command's flags. It is a function so that commands can import each
        other, and tests can run one after the other.
      argv: the command line; None for the process's.
    """

    def guarded(rest: list[str]) -> int | None:
        with signals_as_interrupts() as received:
            code = _run(main, rest)
            if code == INTERRUPTED and received:
                code = 128 + received[0]  # the shell's convention
            return distributed.leave(_print_rest() or code)

    logging.set_verbosity(logging.WARNING)  # JAX logs every backend that it doesn't find
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    os.environ["MPLBACKEND"] = "agg"  # figures go to files
    use_all_cores()
    others = set(FLAGS)
    define_flags()
    for name in [name for name in FLAGS if name not in others]:  # for --helpshort
        FLAGS.register_key_flag_for_module((argv or sys.argv)[0], FLAGS[name])
    with redirect_stdout(Stream(sys.stdout)), redirect_stderr(Stream(sys.stderr)):
        app.run(guarded, argv, flags_parser=_parse_flags)


def _print_rest() -> int:
    """Writes the rest of stdout; returns 1 if the disk is full, and 0 if nobody reads it."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None or isinstance(error, BrokenPipeError):  # as in `| head -1`
        return 0
    print(f"error: cannot write to stdout: {reason(error)}", file=sys.stderr)
    return 1


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a wrong flag is one line with a suggestion."""
    if any(word in ("-h", "-help", "--help", "--helpshort") for word in argv):
        sys.stdout.write(flag_help(sys.modules["__main__"].__doc__ or "", argv[0]) + "\n")
        sys.exit(_print_rest())
    try:
        return FLAGS(argv)
    except flags.Error as error:
        line = " ".join(str(error).split()).rstrip(".")
        if unknown := re.match(r"Unknown command line flag '(\w+)'", line):
            line = f"there is no flag --{unknown[1]}{_suggestion(unknown[1])}"
        elif wrong := re.match(r"flag --(\w+)=(.*): (could not convert|invalid literal)", line):
            line = f"--{wrong[1]}={wrong[2]}: it has to be one number"
            if set(wrong[2]) & {",", ":"} and wrong[1] in (*Hyperparameters._fields, "batch_size"):
                line += "; experiments.sweep takes several"
        print(f"error: {line}; --helpshort lists the flags", file=sys.stderr)
        sys.exit(1)


def _suggestion(name: str) -> str:
    synonym = SYNONYMS.get(name.lower())
    close = (
        [synonym]
        if synonym and synonym in FLAGS
        else difflib.get_close_matches(name, list(FLAGS), 1)
    )
    return f": did you mean --{close[0]}?" if close else ""


def _run(main: Callable[[list[str]], int | None], rest: list[str]) -> int | None:
    """Runs a command and returns its exit code."""
    try:
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}: flags begin with --")
        # Imports that take a second together, while the first programs compile.
        for name in ("pandas", "linear_cifar.plots"):
            threading.Thread(target=importlib.import_module, args=[name]).start()
        return main(rest)
    except (InputError, MemoryError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.distributed.is_initialized():
            distributed.leave_after_loss(error)
        if not (explanation := _missing_device()):
            raise
        print(f"error: {explanation}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {str(interrupt) or 'nothing written'}", file=sys.stderr)
        return INTERRUPTED


def _missing_device() -> str:
    """Why JAX has no device, or "" if it has one. JAX only raises when it first needs it."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        return f"JAX has no device with JAX_PLATFORMS={platforms}: {reason(error)}"
    return ""


@contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """Turns signals that end a command into interrupts, and yields the list of received ones.

    Ignored signals, as under nohup, stay ignored. Afterwards the signals end the process silently.
    """
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        received.append(number)
        raise Signalled

    ignored = (signal.SIG_IGN, None)
    handled = [number for number in ENDING if signal.getsignal(number) not in ignored]
    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def use_all_cores() -> None:
    """Makes one JAX device of each core that this process may use, unless the user chose a number.

    With one device for all cores a sweep takes a fifth longer and a single run half as long again
    (`python -m experiments.benchmark`). Every device of a sweep has its copy of the data, hence the
    limit.
    """
    chosen: Any = jax.config.values["jax_num_cpu_devices"]
    if chosen <= 0 and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", min(available_cores(), MAX_CPU_DEVICES))


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
