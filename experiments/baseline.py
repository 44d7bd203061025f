"""One configuration: training curves, weight images and accuracy on the test images.

python -m experiments.baseline --lam=0.1
python -m experiments.baseline --optimizer=adam --learning_rate=1e-4 --n_seeds=10
"""

from experiments.common import command, flags, runs


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*flags.RUN)
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains on data_batch_1, validates on data_batch_2, tests on test_batch."""
    del argv
    return runs.command("baseline")


if __name__ == "__main__":
    command.launch(main, define_flags)
