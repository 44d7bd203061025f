"""Training with all the data: 49,000 images train, 1,000 validate.

python -m experiments.full_data
"""

from experiments import baseline
from experiments.common import cli, flags


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*flags.RUN, lam=0.1)


def main(argv: list[str]) -> int:
    """Trains on all five batches but their last 1,000 images, and tests on test_batch."""
    del argv
    return baseline.run("full_data", split="full")


if __name__ == "__main__":
    cli.launch(main, define_flags)
