"""The report's runs as data: `plan.toml` has the numbers and statements that it prints.

`table` makes one DataFrame of all runs. `PATHS` are the exact optima beside them.
"""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.sweep_record import grid_key
from experiments.common.training import DEFAULTS, SETTINGS
from linear_cifar import grid

if TYPE_CHECKING:
    import pandas as pd

N_EPOCHS, GRID_EPOCHS = 40, 20
_PLAN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("plan.toml").read_text("utf-8"))
RUNS, VARIANTS, GRIDS, PATHS, CLAIMS = (
    _PLAN[name] for name in ("run", "variant", "grid", "path", "claim")
)
_USUAL = {
    **{"section": "run", "name": "", "title": "", "command": "", "published": None},
    **{"split": "assignment", "n_epochs": N_EPOCHS, "stable": True, "explains": "", **DEFAULTS},
}


def table() -> "pd.DataFrame":
    """Every run: its section and name, what the page says about it, and `SETTINGS`.

    Sections are "run", "variant" and one for each grid, whose cells are named `SECTION:KEY` with
    the report's key, such as 50_0.001_0.1.
    """
    import pandas as pd

    rows = [*RUNS, *(row | {"section": "variant"} for row in VARIANTS)]
    for one in GRIDS:
        cells = pd.DataFrame(grid(**one["axes"])).to_dict("records")
        for settings, published in zip(cells, one["published"], strict=True):
            key = grid_key(_USUAL | settings)
            names = {"section": one["section"], "name": f"{one['section']}:{key}", "title": key}
            cell = {"command": one["command"], "published": published, "n_epochs": GRID_EPOCHS}
            rows.append(names | cell | settings)
    columns = [*(name for name in _USUAL if name not in SETTINGS), *SETTINGS]
    return pd.DataFrame([_USUAL | row for row in rows])[columns]
