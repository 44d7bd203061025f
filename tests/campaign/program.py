"""A command as `small.run` runs it, in a process: `python -m tests.campaign.program MODULE …`."""

import importlib
import sys


def main() -> None:
    """Runs the command that the first word names."""
    sys.argv[0] = "-m"  # as Python has it while it looks for the command's module
    importlib.import_module("experiments")  # whose handler of SIGINT depends on that
    del sys.argv[0]
    from experiments.common import cli
    from tests import commands
    from tests.conftest import undrawn_figures
    from tests.programs.small_sweep import end_after_chunks

    module = commands.module_of(sys.argv[0])
    end_after_chunks()
    with undrawn_figures():
        cli.launch(module.main, module.define_flags)


if __name__ == "__main__":
    main()
