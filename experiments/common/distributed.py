"""Several processes, of one host or many, that share a sweep."""

import atexit
import faulthandler
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn, TypeVar

import jax
from absl import flags

from experiments.common import watcher
from linear_cifar.errors import InputError, reason

FLAGS = flags.FLAGS
START_SECONDS = 120  # for all processes to come
T = TypeVar("T")


def define_flags() -> None:
    """Defines the flags of `start`."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "This is one of several processes that share the work; the first one writes. In a cluster "
        "that JAX knows (Slurm, Open MPI, Kubernetes, Cloud TPU) it finds the others by itself.",
    )
    flags.DEFINE_string(
        "coordinator", None, "Address and port of the first process, as 10.0.0.1:9876."
    )
    flags.DEFINE_integer("n_processes", None, "How many processes there are.", 1)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0 on.", 0)
    flags.DEFINE_integer(
        "heartbeat_seconds", 30, "After which a process that no longer answers counts as lost.", 1
    )


def start() -> None:
    """Connects this process with the others, where the flags say that there are any.

    Raises:
      InputError: the flags don't say enough, or the others can't be reached.
    """
    given = (FLAGS.coordinator, FLAGS.n_processes, FLAGS.process_id)
    if not FLAGS.distributed:
        if given != (None, None, None):
            raise InputError("--coordinator, --n_processes and --process_id go with --distributed")
        return
    if FLAGS.coordinator and not re.fullmatch(r".+:\d{1,5}", FLAGS.coordinator):
        raise InputError(f"--coordinator={FLAGS.coordinator}: it has to be ADDRESS:PORT")
    _watch()
    # It would take SIGTERM for itself, and do nothing about it.
    jax.config.update("jax_enable_preemption_service", False)
    failed: list[Exception] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                *given,
                initialization_timeout=START_SECONDS,
                heartbeat_timeout_seconds=FLAGS.heartbeat_seconds,
            )
        except Exception as error:  # for the thread that can answer it
            failed.append(error)

    # A signal ends the waiting for a thread, and not that of JAX for the other processes.
    print("waiting for the other processes", file=sys.stderr, flush=True)
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join()
    for error in failed:
        raise InputError(
            f"cannot join the other processes ({reason(error)}): give --coordinator, --n_processes "
            "and --process_id, where JAX doesn't find them"
        ) from error


def leave(code: int | None) -> int | None:
    """Returns the exit code; of several processes, one that fails leaves at once."""
    if code and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        _take_leave()
        os._exit(code)  # JAX would wait for the others to end, and they for this one
    return code


def leave_lost(error: Exception) -> NoReturn:
    """Ends this process over another one's end; the watcher has the last word."""
    print(f"note: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
    os._exit(1)


_watchers: list[subprocess.Popen] = []


def _watch() -> None:
    """Starts a process that says so, should JAX end this one.

    When the first process is lost, or another one no longer answers, JAX aborts this process from a
    thread of its own, with C++ frames for a message and no way to catch it.
    """
    faulthandler.disable()  # Python's frames would come on top
    words = [sys.executable, str(watcher.__file__)]
    _watchers.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
    atexit.register(_take_leave)


def _take_leave() -> None:
    while _watchers:
        _watchers.pop().communicate(b".")


@contextmanager
def first_only(context: AbstractContextManager[T]) -> Iterator[T | None]:
    """Enters a context in the first process, and gives nothing in the others."""
    if jax.process_index():
        yield None
    else:
        with context as value:
            yield value
