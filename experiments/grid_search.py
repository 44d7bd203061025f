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
    sweep.define_sweep(*(name for name in sweep.AXES if name not in AXES))
    flags.define_axis("batch_size", "10,50,500")
    flags.define_axis("learning_rate", "0.001,0.01")
    flags.define_axis("lam", "0,0.1,0.5")


def main(argv: list[str]) -> int:
    """Trains the grid that the flags describe."""
    del argv
    return sweep.run("grid_search", flags.table_of_axes(AXES))


if __name__ == "__main__":
    cli.launch(main, define_flags)
