"""Several processes, on one host or many, that share the work of a command."""

import re
import sys
import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from linear_cifar import InputError
from linear_cifar.errors import reason

FLAGS = flags.FLAGS
START_SECONDS = 120  # to wait for all processes


def define_flags() -> None:
    """Defines the flags of `start`."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "This is one of several processes that share the work; the first one writes. In a cluster "
        "that JAX knows (Slurm, Open MPI, Kubernetes, Cloud TPU) it finds the others by itself.",
    )
    flags.DEFINE_string(
        "coordinator", None, "Address and port of the first process, such as 10.0.0.1:9876."
    )
    flags.DEFINE_integer("n_processes", None, "Number of processes.", 1)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", 0)


def start() -> None:
    """Connects this process with the others, if the flags say that there are any."""
    address = (FLAGS.coordinator, FLAGS.n_processes, FLAGS.process_id)
    if not FLAGS.distributed:
        if address != (None, None, None):
            raise InputError("--coordinator, --n_processes and --process_id need --distributed")
        return
    if FLAGS.coordinator and not re.fullmatch(r".+:\d{1,5}", FLAGS.coordinator):
        raise InputError(f"--coordinator={FLAGS.coordinator}: it has to be ADDRESS:PORT")
    # JAX would catch SIGTERM and ignore it.
    jax.config.update("jax_enable_preemption_service", False)
    errors: list[Exception] = []

    def join() -> None:
        try:
            jax.distributed.initialize(*address, initialization_timeout=START_SECONDS)
        except Exception as error:  # raised again below, in the main thread
            errors.append(error)

    print("waiting for the other processes", file=sys.stderr, flush=True)
    # In a thread, because a signal can interrupt `Thread.join` but not JAX's waiting.
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join()
    for error in errors:
        raise InputError(
            f"cannot join the other processes ({reason(error)}): give --coordinator, --n_processes "
            "and --process_id if JAX doesn't find them"
        ) from error


def check_same(fingerprint: str) -> None:
    """Raises `InputError` in every process unless all have this fingerprint of data and flags."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(bytes.fromhex(fingerprint), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(digest))
    different = np.flatnonzero((digests != digests[0]).any(axis=1))
    if different.size:
        numbers = ", ".join(map(str, different))
        raise InputError(f"other data or other flags than process 0: process {numbers}")


def from_first(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The first process's NumPy arrays in every process, which has arrays of the same shapes."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    if jax.process_count() == 1:
        return arrays
    # As bytes, because JAX would round a float64 on the way.
    sent = {name: np.frombuffer(array.tobytes(), np.uint8) for name, array in arrays.items()}
    received = multihost_utils.broadcast_one_to_all(sent)
    return {
        name: np.frombuffer(np.asarray(received[name]).tobytes(), array.dtype)
        .reshape(array.shape)
        .copy()
        for name, array in arrays.items()
    }
