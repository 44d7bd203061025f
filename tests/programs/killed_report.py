"""`experiments.report` with a reduced plan, killed in the midst of writing its third chunk."""

import contextlib
import os
import signal
from unittest import mock

from tests import commands
from tests.conftest import undrawn_figures  # which has the settings of JAX, too


def words(out, *more):
    """The command line of a reduced report."""
    return ("--dataset=synthetic", "--quick", f"--output_dir={out}", *more)


@contextlib.contextmanager
def reduced_plan():
    """Fewer programs to compile, and undrawn figures."""
    from experiments.report import plan

    grid, narrowed = plan.GRIDS
    axes = narrowed["axes"] | {"batch_size": [40]}
    narrowed = narrowed | {"axes": axes, "published": [0.3875]}
    lams = ("0.1,1", "0.01", "0.1")
    paths = [path | {"lam": lam} for path, lam in zip(plan.PATHS, lams, strict=True)]
    changes = {"VARIANTS": plan.VARIANTS[:1], "GRIDS": [grid, narrowed], "PATHS": paths}
    with mock.patch.multiple(plan, **changes), undrawn_figures():
        yield


def main():
    from experiments.common import cli, folder
    from experiments.report import __main__ as report

    write, written = folder.write_chunk, []

    def write_or_die(chunks, rows, **arrays):
        if len(written) == 2:
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write(chunks, rows, **arrays)
        written.append(rows)

    folder.write_chunk = write_or_die
    with commands.few_images(), reduced_plan():
        cli.launch(report.main, report.define_flags)


if __name__ == "__main__":
    main()
