"""A learning rate that is divided every few epochs: 0.05, by 10 every 10 epochs.

python -m experiments.step_decay
python -m experiments.step_decay --split=full
"""

from experiments.common import command, flags, runs


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*flags.RUN, "split", lam=0.1, learning_rate=0.05, decay_factor=10.0)
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains on the assignment's split or on all the data."""
    del argv
    return runs.command("step_decay")


if __name__ == "__main__":
    command.launch(main, define_flags)
