"""One configuration: training curves, weight images and accuracy on the test images.

python -m experiments.baseline --lam=0.1
"""

from experiments import flags, runner, runs


def main(argv: list[str]) -> int:
    """Trains on data_batch_1, validates on data_batch_2, tests on test_batch."""
    del argv
    return runs.command("baseline")


if __name__ == "__main__":
    flags.define(*flags.RUN)
    runner.launch(main)
