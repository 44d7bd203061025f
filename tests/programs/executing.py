"""A command that a signal ends within `exec` of text, as that of a named tuple's class is."""

import importlib
import os
import signal

from experiments.common import cli


def main(_):
    importlib.import_module("linear_cifar.plots")  # or a thread does, which executes text too
    exec("os.kill(os.getpid(), signal.SIGTERM)", {"os": os, "signal": signal})


if __name__ == "__main__":
    cli.launch(main, lambda: None)
