"""The report's runs as data, with the numbers that it prints, and variants of some runs.

`table` makes one DataFrame of all runs. `PATHS` are the exact optima beside them.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.common import flags
from experiments.common.sweep_record import grid_key
from experiments.common.training import SETTINGS
from linear_cifar import Hyperparameters, grid

if TYPE_CHECKING:
    import pandas as pd

DEFAULTS = {**Hyperparameters()._asdict(), "batch_size": 100, "loss": "softmax", "optimizer": "sgd"}
DECAY = {"lam": 0.1, "learning_rate": 0.05, "decay_factor": 10.0}
BASELINE, STEP_DECAY = "python -m experiments.baseline", "python -m experiments.step_decay"
N_EPOCHS, GRID_EPOCHS = 40, 20


def _run(name: str, title: str, command: str, published: float | None, **columns: Any) -> dict:
    """A row of the table; `columns` are its settings, split and epochs if they aren't the usual."""
    usual = {"section": "run", "split": "assignment", "n_epochs": N_EPOCHS, "stable": True}
    names = {"name": name, "title": title, "command": command, "published": published}
    return {**names, **usual, "explains": "", **DEFAULTS, **columns}


# Published: accuracy on test images. A run that isn't stable doesn't converge, so its accuracy
# depends on the epoch at which it ends.
RUNS = [
    _run("eta_0.1", "λ = 0, η = 0.1", f"{BASELINE} --learning_rate=0.1", 0.2571,
         learning_rate=0.1, stable=False),
    _run("lam_0", "λ = 0, η = 0.001", f"{BASELINE} --lam=0", 0.3906),
    _run("lam_0.1", "λ = 0.1, η = 0.001", f"{BASELINE} --lam=0.1", 0.3915, lam=0.1),
    _run("lam_1", "λ = 1, η = 0.001", f"{BASELINE} --lam=1", 0.3717, lam=1.0),
    _run("full_data", "all the data, λ = 0.1", "python -m experiments.full_data", 0.4058,
         lam=0.1, split="full"),
    _run("batch_40", "the grid's choice: batches of 40, λ = 0.1",
         f"{BASELINE} --lam=0.1 --batch_size=40", 0.3884, lam=0.1, batch_size=40),
    _run("step_decay", "step decay from η = 0.05, λ = 0.1", STEP_DECAY, 0.3951, **DECAY),
    _run("step_decay_full", "step decay on all the data, λ = 0.1",
         f"{STEP_DECAY} --split=full", 0.3882, **DECAY, split="full"),
    _run("multi_bce", "multiple binary cross-entropy, λ = 0, η = 0.001",
         f"{BASELINE} --loss=multi_bce", 0.3546, loss="multi_bce"),
]  # fmt: skip

# One change each to the settings of a run whose printed number ours doesn't give.
_BINARY = {"section": "variant", "explains": "multi_bce", "loss": "multi_bce"}
VARIANTS = [
    _run("step_decay_full_lam_0", "λ = 0", f"{STEP_DECAY} --split=full --lam=0", None,
         **DECAY | {"lam": 0.0}, split="full", section="variant", explains="step_decay_full"),
    _run("multi_bce_batch_50", "batches of 50: twice the steps",
         f"{BASELINE} --loss=multi_bce --batch_size=50", None, **_BINARY, batch_size=50),
    _run("multi_bce_60_epochs", "60 epochs: 1.5 times the steps",
         f"{BASELINE} --loss=multi_bce --n_epochs=60", None, **_BINARY, n_epochs=60),
    _run("multi_bce_lam_0.05", "λ = 0.05", f"{BASELINE} --loss=multi_bce --lam=0.05", None,
         **_BINARY, lam=0.05),
    _run("multi_bce_eta_0.01", "η = 0.01, as if the loss were a sum over classes, not a mean",
         f"{BASELINE} --loss=multi_bce --learning_rate=0.01", None, **_BINARY, learning_rate=0.01),
]  # fmt: skip


class Grid(NamedTuple):
    """One of the report's grids; each cell is a run of `GRID_EPOCHS`."""

    section: str
    title: str
    command: str
    axes: dict[str, list]
    published: tuple[float, ...]  # validation accuracies of the cells, the last axis fastest


GRIDS = [
    Grid(
        "grid",
        "Batch size × learning rate × λ, 20 epochs",
        "python -m experiments.grid_search",
        {"batch_size": [10, 50, 500], "learning_rate": [0.001, 0.01], "lam": [0.0, 0.1, 0.5]},
        (
            *(0.359, 0.3613, 0.3432, 0.2978, 0.27, 0.2212),
            *(0.3838, 0.3846, 0.3696, 0.3389, 0.3414, 0.3228),
            *(0.3448, 0.3452, 0.3526, 0.3796, 0.3784, 0.3728),
        ),
    ),
    Grid(
        "grid_narrowed",
        "Batch sizes from 20 to 50, 20 epochs",
        "python -m experiments.grid_search --batch_size=20,30,40,50 --learning_rate=0.001 "
        "--lam=0.1",
        {"batch_size": [20, 30, 40, 50], "learning_rate": [0.001], "lam": [0.1]},
        (0.3759, 0.3829, 0.3875, 0.3849),
    ),
]


class Path(NamedTuple):
    """Exact optima over λ, of one loss on one split."""

    name: str
    title: str
    split: str
    loss: str
    lam: str  # an axis, as `experiments.lambda_path` takes it

    @property
    def command(self) -> str:
        """What a user would type for the same optima."""
        words = [f"python -m experiments.lambda_path --lam={self.lam}"]
        words += ["--split=full"] if self.split == "full" else []
        return " ".join([*words, f"--loss={self.loss}"] if self.loss != "softmax" else words)

    @property
    def values(self) -> list[float]:
        """λ, [L]."""
        return flags.parse_axis(self.lam).values


# Each has its best λ inside, and every λ > 0 of the report's runs. Smaller λ take most of the time.
PATHS = [
    Path("optimum", "softmax, 10,000 images", "assignment", "softmax", "0.01:1:9:log"),
    Path("optimum_multi_bce", "multiple binary cross-entropy, 10,000 images", "assignment",
         "multi_bce", "0.001:0.1:9:log"),
    Path("optimum_full", "softmax, 49,000 images", "full", "softmax", "0.01:1:9:log"),
]  # fmt: skip


def table() -> "pd.DataFrame":
    """Every run: its section and name, what the page says about it, and `SETTINGS`.

    Sections are "run", "variant" and one for each grid, whose cells are named `SECTION:KEY` with
    the report's key, such as 50_0.001_0.1.
    """
    import pandas as pd

    runs = pd.DataFrame([*RUNS, *VARIANTS])
    cells = []
    for one in GRIDS:
        axes = pd.DataFrame(grid(**one.axes)).to_dict("records")
        for settings, published in zip(axes, one.published, strict=True):
            row = _run("", "", one.command, published, section=one.section, **settings)
            cells.append(row | {"n_epochs": GRID_EPOCHS})
    rows = pd.DataFrame(cells)
    rows["title"] = [grid_key(row) for row in rows.itertuples()]
    rows["name"] = rows.section + ":" + rows.title
    runs = pd.concat([runs, rows], ignore_index=True)
    return runs[[name for name in runs if name not in SETTINGS] + list(SETTINGS)]
