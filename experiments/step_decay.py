"""A learning rate that falls in steps: 0.05, divided by 10 every 10 epochs.

python -m experiments.step_decay
python -m experiments.step_decay --split=full
"""

from absl import flags as absl_flags

from experiments import baseline
from experiments.common import cli, flags


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*flags.RUN, "split", lam=0.1, learning_rate=0.05, decay_factor=10.0)
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains on the assignment's split or on all the data."""
    del argv
    return baseline.run("step_decay", absl_flags.FLAGS.split)


if __name__ == "__main__":
    cli.launch(main, define_flags)
