"""The report's runs with the numbers that it prints, and further ones that explain differences."""

from typing import NamedTuple

import numpy as np

from experiments.common.settings import Settings


class Run(NamedTuple):
    """One configuration of the plan."""

    title: str
    settings: Settings
    command: str  # that a user would type; the report's run is the same work
    published: float | None = None  # test accuracy in the report
    stable: bool = True  # False where training doesn't converge, and the number is one of many

    @property
    def lam(self) -> float:
        """λ, of its hyper-parameters."""
        return float(np.asarray(self.settings.hyperparameters.lam))


class Grid(NamedTuple):
    """One grid of the plan."""

    title: str
    values: dict[str, list]  # of each column of a grid
    settings: Settings
    command: str
    published: dict[str, float]  # accuracy in the report, by its key


class OptimumPath(NamedTuple):
    """The exact optimum over λ, of a loss on some data."""

    title: str
    split: str
    loss: str
    command: str


_BASELINE = "python -m experiments.baseline"
_DECAY = Settings.of(lam=0.1, learning_rate=0.05, decay_factor=10.0)

RUNS = {
    "eta_0.1": Run(
        "λ = 0, η = 0.1",
        Settings.of(learning_rate=0.1),
        f"{_BASELINE} --learning_rate=0.1",
        0.2571,
        stable=False,
    ),
    "lam_0": Run("λ = 0, η = 0.001", Settings(), f"{_BASELINE} --lam=0", 0.3906),
    "lam_0.1": Run("λ = 0.1, η = 0.001", Settings.of(lam=0.1), f"{_BASELINE} --lam=0.1", 0.3915),
    "lam_1": Run("λ = 1, η = 0.001", Settings.of(lam=1.0), f"{_BASELINE} --lam=1", 0.3717),
    "full_data": Run(
        "all the data, λ = 0.1",
        Settings.of(lam=0.1, split="full"),
        "python -m experiments.full_data",
        0.4058,
    ),
    "batch_40": Run(
        "the grid's choice: batches of 40, λ = 0.1",
        Settings.of(lam=0.1, batch_size=40),
        f"{_BASELINE} --lam=0.1 --batch_size=40",
        0.3884,
    ),
    "step_decay": Run(
        "step decay from η = 0.05, λ = 0.1",
        _DECAY,
        "python -m experiments.step_decay",
        0.3951,
    ),
    "step_decay_full": Run(
        "step decay on all the data, λ = 0.1",
        _DECAY.but(split="full"),
        "python -m experiments.step_decay --split=full",
        0.3882,
    ),
    "multi_bce": Run(
        "multiple binary cross-entropy, λ = 0, η = 0.001",
        Settings.of(loss="multi_bce"),
        f"{_BASELINE} --loss=multi_bce",
        0.3546,
    ),
}

# What else could have given a printed number that our run of the same settings doesn't give.
VARIANTS = {
    "step_decay_full": {
        "step_decay_full_lam_0": Run(
            "λ = 0",
            _DECAY.but(lam=0.0, split="full"),
            "python -m experiments.step_decay --split=full --lam=0",
        ),
    },
    "multi_bce": {
        "multi_bce_batch_50": Run(
            "batches of 50: twice the steps",
            Settings.of(loss="multi_bce", batch_size=50),
            f"{_BASELINE} --loss=multi_bce --batch_size=50",
        ),
        "multi_bce_60_epochs": Run(
            "60 epochs: 1.5 times the steps",
            Settings.of(loss="multi_bce", n_epochs=60),
            f"{_BASELINE} --loss=multi_bce --n_epochs=60",
        ),
        "multi_bce_lam_0.05": Run(
            "λ = 0.05",
            Settings.of(loss="multi_bce", lam=0.05),
            f"{_BASELINE} --loss=multi_bce --lam=0.05",
        ),
        "multi_bce_eta_0.01": Run(
            "η = 0.01, as with a sum over classes where the loss has a mean",
            Settings.of(loss="multi_bce", learning_rate=0.01),
            f"{_BASELINE} --loss=multi_bce --learning_rate=0.01",
        ),
    },
}

GRIDS = {
    "grid": Grid(
        "Batch size × learning rate × λ, 20 epochs",
        {"batch_size": [10, 50, 500], "learning_rate": [0.001, 0.01], "lam": [0.0, 0.1, 0.5]},
        Settings.of(n_epochs=20),
        "python -m experiments.grid_search",
        {
            "10_0.001_0.0": 0.359, "10_0.001_0.1": 0.3613, "10_0.001_0.5": 0.3432,
            "10_0.01_0.0": 0.2978, "10_0.01_0.1": 0.27, "10_0.01_0.5": 0.2212,
            "50_0.001_0.0": 0.3838, "50_0.001_0.1": 0.3846, "50_0.001_0.5": 0.3696,
            "50_0.01_0.0": 0.3389, "50_0.01_0.1": 0.3414, "50_0.01_0.5": 0.3228,
            "500_0.001_0.0": 0.3448, "500_0.001_0.1": 0.3452, "500_0.001_0.5": 0.3526,
            "500_0.01_0.0": 0.3796, "500_0.01_0.1": 0.3784, "500_0.01_0.5": 0.3728,
        },
    ),
    "grid_narrowed": Grid(
        "Batch sizes from 20 to 50, 20 epochs",
        {"batch_size": [20, 30, 40, 50], "learning_rate": [0.001], "lam": [0.1]},
        Settings.of(n_epochs=20),
        "python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 "
        "--lam=0.1",
        {
            "20_0.001_0.1": 0.3759, "30_0.001_0.1": 0.3829, "40_0.001_0.1": 0.3875,
            "50_0.001_0.1": 0.3849,
        },
    ),
}  # fmt: skip


# λ of all paths, at equal ratios; those of the report's runs are among them.
PATH_LAM = (1e-4, 10.0, 21)
_PATH = "python -m experiments.lambda_path --lam={:g}:{:g}:{}:log".format(*PATH_LAM)
PATHS = {
    "optimum": OptimumPath("softmax, the assignment's split", "assignment", "softmax", _PATH),
    "optimum_multi_bce": OptimumPath(
        "multiple binary cross-entropy, the assignment's split",
        "assignment",
        "multi_bce",
        f"{_PATH} --loss=multi_bce",
    ),
    "optimum_full": OptimumPath(
        "softmax, all the data", "full", "softmax", f"{_PATH} --split=full"
    ),
}


def every_run() -> dict[str, Run]:
    """All runs of the plan by name, those that explain differences after the report's own."""
    return RUNS | {name: run for runs in VARIANTS.values() for name, run in runs.items()}
