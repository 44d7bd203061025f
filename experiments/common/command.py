"""How a command starts and ends: its flags, the machine's cores, and errors as one line."""

import importlib
import os
import sys
import threading
import warnings
from collections.abc import Callable

import jax
from absl import app, flags, logging

from experiments.common import distributed, terminal
from linear_cifar.errors import InputError, reason

FLAGS = flags.FLAGS
MOST_CPU_DEVICES = 8


def launch(
    main: Callable[[list[str]], int | None],
    define_flags: Callable[[], None],
    argv: list[str] | None = None,
) -> None:
    """Runs a command under absl; a foreseen error is one line and exit code 1.

    An interrupt has 130, SIGTERM 143 and SIGHUP 129, and keeps what is finished.

    Args:
      main: takes what is left of the command line, and returns the exit code.
      define_flags: defines the command's flags. They don't stand at the top of its module, so that
        commands can import each other and tests can run one after the other.
      argv: the command line; None for that of the process.
    """

    def guarded(rest: list[str]) -> int | None:
        with terminal.interrupts() as came:
            code = _run(main, rest)
            if code == terminal.INTERRUPTED and came:
                code = 128 + came[0]  # as a shell tells of the signal
            if not code and (error := terminal.stdout_error()):
                print(f"error: cannot write to stdout: {reason(error)}", file=sys.stderr)
                code = 1
            return distributed.leave(code)

    logging.set_verbosity(logging.WARNING)  # JAX tells of every backend that it doesn't find
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    os.environ["MPLBACKEND"] = "agg"  # figures are files, and a name that isn't known is an error
    use_all_cores()
    others = set(FLAGS)
    define_flags()
    for name in set(FLAGS) - others:
        FLAGS.register_key_flag_for_module((argv or sys.argv)[0], FLAGS[name])  # for --helpshort
    with terminal.streams():
        app.run(guarded, argv)


def _run(main: Callable[[list[str]], int | None], rest: list[str]) -> int | None:
    """Runs a command and returns its exit code."""
    try:
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}: a flag begins with --")
        # Half a second of imports, while the first programs compile; most commands plot.
        threading.Thread(target=importlib.import_module, args=["linear_cifar.plots"]).start()
        return main(rest)
    except (InputError, MemoryError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.distributed.is_initialized():
            distributed.leave_lost(error)
        if not (why := _no_device()):
            raise
        print(f"error: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {str(interrupt) or 'nothing written'}", file=sys.stderr)
        return terminal.INTERRUPTED


def _no_device() -> str:
    """Why JAX has no device, "" if it has: it says so in the midst of whatever needs the first."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        return f"JAX has no device with JAX_PLATFORMS={platforms}: {reason(error)}"
    return ""


def use_all_cores() -> None:
    """Makes a device of each core, where the user has not said how many there should be.

    On one device that has all cores, a sweep takes a fifth longer and a single run half as long
    again (`python -m experiments.benchmark`). Each device of a sweep has its copy of the data, so
    that there is a limit.
    """
    asked = jax.config.values["jax_num_cpu_devices"] > 0
    if not asked and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MOST_CPU_DEVICES))
