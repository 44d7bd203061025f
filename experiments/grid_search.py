"""Every combination of batch size, learning rate and λ; the best by validation is tested.

python -m experiments.grid_search
python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 --lam=0.1

A sweep with these three axes, resumable like any other. grid.json has the validation accuracies,
which the report prints. For other axes use `experiments.sweep`.
"""

from experiments import sweep
from experiments.common import cli, flags

AXES = ("batch_size", "learning_rate", "lam")


def define_flags() -> None:
    """Defines the command's flags."""
    settings = [name for name in sweep.AXES if name not in AXES]
    defaults = {"batch_size": "10,50,500", "learning_rate": "0.001,0.01", "lam": "0,0.1,0.5"}
    sweep.define_sweep(*settings, **defaults)


def main(argv: list[str]) -> int:
    """Trains the grid that the flags describe."""
    del argv
    return sweep.run("grid_search", flags.table_of_axes(AXES))


if __name__ == "__main__":
    cli.launch(main, define_flags)
