"""`experiments.sweep` as `commands.run` runs it, in a process of its own: same images, same bits.

With `$END_AFTER_CHUNKS` the process gets the signal `$END_WITH` once so many chunks are on disk and
the next one is half written.
"""

import os
import signal

from tests import commands
from tests.conftest import jax  # noqa: F401 (its settings)


def end_after_chunks():
    from experiments.common import folder

    write, n_chunks = folder.write_chunk, int(os.environ.get("END_AFTER_CHUNKS", "-1"))
    n_written = 0

    def end(*_):
        os.kill(os.getpid(), getattr(signal, os.environ["END_WITH"]))

    def write_or_end(*arguments, **arrays):
        nonlocal n_written
        if n_written == n_chunks:
            os.fsync = end  # in the midst of writing
        write(*arguments, **arrays)
        if n_written == n_chunks:
            end()  # a process that isn't the first one writes nothing
        n_written += 1

    folder.write_chunk = write_or_end


def main():
    from experiments import sweep
    from experiments.common import cli

    end_after_chunks()
    with commands.few_images():
        cli.launch(sweep.main, sweep.define_flags)


if __name__ == "__main__":
    main()
