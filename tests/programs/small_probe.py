"""`experiments.probe` in a process of its own, with the signals of `small_sweep`."""

from tests.conftest import jax  # noqa: F401 (its settings)


def main():
    from experiments.common import cli
    from experiments.probe import __main__ as probe
    from tests.programs.small_sweep import end_after_chunks

    end_after_chunks()
    cli.launch(probe.main, probe.define_flags)


if __name__ == "__main__":
    main()
