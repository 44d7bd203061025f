"""How a command starts and ends: its flags, the machine's cores, signals, and one-line errors."""

import contextlib
import difflib
import hashlib
import importlib
import os
import platform
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

from experiments.common import progress
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


def launch(
    main: Callable[[list[str]], int | None],
    define_flags: Callable[[], None],
    argv: list[str] | None = None,
) -> None:
    """Runs a command under absl. A foreseen error is one line and exit code 1.

    Ctrl-C gives 130, SIGTERM 143 and SIGHUP 129. `define_flags` is a function so that commands can
    import each other, and tests can run one after the other.
    """

    def guarded(arguments: list[str]) -> int | None:
        try:
            with signals_as_interrupts() as received:
                code = _run(main, arguments)
                if code == INTERRUPTED and received:
                    _end(128 + received[0])  # the shell's convention
                if code and jax.distributed.is_initialized():
                    _end(code)  # JAX would wait for the others, and they for this process
                return code
        except progress.SignalError:  # just before or after `_run`
            print("interrupted", file=sys.stderr)
            _end(128 + progress.received[0])

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or Path(os.devnull).open("w")  # noqa: SIM115, open to the end
        setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):  # a terminal without λ shows \u03bb
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.WARNING)  # JAX logs every backend that it doesn't find
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    os.environ["MPLBACKEND"] = "agg"  # figures go to files
    use_all_cores()
    earlier = set(FLAGS)
    define_flags()
    for name in [name for name in FLAGS if name not in earlier]:  # for --helpshort
        FLAGS.register_key_flag_for_module((argv or sys.argv)[0], FLAGS[name])
    app.run(guarded, argv, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a wrong flag is one line with a suggestion."""
    if any(word in ("-h", "-help", "--help", "--helpshort") for word in argv):
        with contextlib.suppress(BrokenPipeError):  # as after `| head -3`
            print(flag_help(sys.modules["__main__"].__doc__ or "", argv[0]), flush=True)
            sys.exit()
        os._exit(0)  # or Python fails when it flushes in the end
    try:
        return FLAGS(argv)
    except flags.Error as error:
        line = " ".join(str(error).split()).rstrip(".")
        if unknown := re.match(r"Unknown command line flag '([\w-]+)'", line):
            line = f"there is no flag --{unknown[1]}{_suggestion(unknown[1])}"
        elif wrong := re.match(r"flag --(\w+)=(.*): (could not convert|invalid literal)", line):
            line = f"--{wrong[1]}={wrong[2]}: it has to be one number"
            if set(wrong[2]) & {",", ":"} and wrong[1] in (*Hyperparameters._fields, "batch_size"):
                line += "; experiments.sweep takes several"
        print(f"error: {line}; --helpshort lists the flags", file=sys.stderr)
        sys.exit(1)


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, list(FLAGS), 1)
    synonym = SYNONYMS.get(name.lower().replace("-", "_"), "")
    close = [synonym] if synonym in FLAGS else close
    return f": did you mean --{close[0]}?" if close else ""


def _run(main: Callable[[list[str]], int | None], arguments: list[str]) -> int | None:
    """Runs a command and returns its exit code."""
    try:
        if len(arguments) > 1:
            raise InputError(f"unexpected argument {arguments[1]!r}: flags begin with --")
        # Imports that take a second together, while the first programs compile.
        for name in ("pandas", "linear_cifar.plots"):
            threading.Thread(target=importlib.import_module, args=[name]).start()
        keep_programs()
        code = main(arguments)
        print(end="", flush=True)
        return code
    except (InputError, MemoryError) as error:
        return _fail(reason(error))
    except OSError as error:  # of stdout; an error of a file has become an `InputError`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails when it flushes in the end
        lost = isinstance(error, BrokenPipeError)  # as after `| head -1`
        return 0 if lost else _fail(f"cannot write to stdout: {reason(error)}")
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):  # too little memory, or a lost process
            return _fail(reason(error))
        if _has_devices():
            raise
        return _fail(f"JAX has no device with JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS')}")
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {str(interrupt) or 'nothing written'}", file=sys.stderr)
        return INTERRUPTED


def _end(code: int) -> NoReturn:
    """Ends the process at once, because Python's usual end can crash while XLA still works."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _has_devices() -> bool:
    with contextlib.suppress(RuntimeError, AssertionError):  # it depends on the platform
        return bool(jax.devices())
    return False


def _fail(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """Turns signals that end a command into interrupts, and yields the list of received ones.

    Ignored signals, as under nohup, stay ignored. Afterwards the signals end the process silently.
    """
    received = progress.received
    received.clear()

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        received.append(number)
        raise progress.SignalError

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
        affinity = getattr(os, "sched_getaffinity", None)  # Linux only
        n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", min(n_cores, MAX_CPU_DEVICES))


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, unless the user chose one for JAX.

    Every kind of processor has its own folder, because a program may use instructions that others
    lack. What can't be read or written is compiled again.
    """
    warnings.filterwarnings("ignore", "Error (read|writ)ing persistent compilation cache")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if not jax.config.values["jax_compilation_cache_dir"]:
        import pooch

        folder = pooch.os_cache("linear_cifar") / "programs" / _processor()
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name for this kind of processor."""
    lines = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Linux only
        lines += Path("/proc/cpuinfo").read_text().splitlines()
    kind = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU"))}
    return hashlib.sha256("\n".join(sorted({*lines[:2], *kind})).encode()).hexdigest()[:16]
