"""Several processes, of one host or many, that share a sweep."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import jax
from absl import flags

from linear_cifar.training import SettingsError

FLAGS = flags.FLAGS
HEARTBEAT_SECONDS = 30  # after which a process that no longer answers counts as lost
START_SECONDS = 120  # for all processes to come


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


def start() -> None:
    """Connects this process with the others, where the flags say that there are any.

    Raises:
      SettingsError: the flags don't say enough, or the others can't be reached.
    """
    given = (FLAGS.coordinator, FLAGS.n_processes, FLAGS.process_id)
    if not FLAGS.distributed:
        if given != (None, None, None):
            raise SettingsError(
                "--coordinator, --n_processes and --process_id go with --distributed"
            )
        return
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"cannot join the other processes ({reason}): give --coordinator, --n_processes and "
            "--process_id, where JAX doesn't find them"
        ) from error


@contextmanager
def first_only(context: AbstractContextManager) -> Iterator[None]:
    """Enters a context in the first process, and nothing in the others."""
    if jax.process_index():
        yield
    else:
        with context:
            yield
