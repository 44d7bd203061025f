"""`experiments.probe` in a process of its own, killed once `$END_AFTER_CHUNKS` chunks are kept."""

import os

from tests.conftest import jax  # noqa: F401 (its settings)


def main():
    from experiments.common import command
    from experiments.probe import __main__ as probe
    from tests.programs.small_sweep import end_after

    if n_chunks := os.environ.get("END_AFTER_CHUNKS"):
        end_after(int(n_chunks))
    command.launch(probe.main, probe.define_flags)


if __name__ == "__main__":
    main()
