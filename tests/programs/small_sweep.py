"""`experiments.sweep` as `commands.run` runs it, in a process of its own: same images, same bits.

With `$END_AFTER_CHUNKS` it gets the signal `$END_WITH` once so many chunks are on disk and the next
one is half written.
"""

import os
import signal

from tests import commands
from tests.conftest import jax  # noqa: F401 (its settings)


def end_after(n_chunks):
    from experiments.common import store

    write, n_written = store.write, 0

    def end(*_):
        os.kill(os.getpid(), getattr(signal, os.environ["END_WITH"]))

    def write_or_end(*arguments, **arrays):
        nonlocal n_written
        if n_written == n_chunks:
            os.fsync = end  # where the first process is then; others don't write
        write(*arguments, **arrays)
        if n_written == n_chunks:
            end()
        n_written += 1

    store.write = write_or_end


def main():
    from experiments.common import command
    from experiments.sweep import __main__ as sweep

    if n_chunks := os.environ.get("END_AFTER_CHUNKS"):
        end_after(int(n_chunks))
    with commands.few_images():
        command.launch(sweep.main, sweep.define_flags)


if __name__ == "__main__":
    main()
