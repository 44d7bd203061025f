"""A command as `honest.run` runs it, in a process: `python -m tests.campaign.program MODULE …`."""

import importlib
import sys


def main() -> None:
    """Runs the command that the first word names."""
    sys.argv[0] = "-m"  # as it is when Python looks for the command's own module
    importlib.import_module("experiments")  # which takes signals from here on
    del sys.argv[0]
    from experiments.common import command, distributed
    from tests import commands
    from tests.campaign import honest

    module = commands.module_of(sys.argv[0])
    distributed.START_SECONDS = int(honest.LONGEST)
    with commands.few_images(honest.N_IMAGES), honest.reduced():
        command.launch(module.main, module.define_flags)


if __name__ == "__main__":
    main()
