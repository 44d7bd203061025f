"""The report's plan: the numbers that the report prints, and commands that train the same runs."""

import numpy as np
import pytest

from experiments import baseline, sweep
from experiments.common import path
from experiments.common.flags import parse_axis
from experiments.common.training import SETTINGS
from experiments.report import plan
from tests.commands import few
from tests.planted import finish

PRINTED = {
    "eta_0.1": 0.2571, "lam_0": 0.3906, "lam_0.1": 0.3915, "lam_1": 0.3717, "full_data": 0.4058,
    "batch_40": 0.3884, "step_decay": 0.3951, "step_decay_full": 0.3882, "multi_bce": 0.3546,
    "grid:10_0.001_0.0": 0.359, "grid:10_0.001_0.1": 0.3613, "grid:10_0.001_0.5": 0.3432,
    "grid:10_0.01_0.0": 0.2978, "grid:10_0.01_0.1": 0.27, "grid:10_0.01_0.5": 0.2212,
    "grid:50_0.001_0.0": 0.3838, "grid:50_0.001_0.1": 0.3846, "grid:50_0.001_0.5": 0.3696,
    "grid:50_0.01_0.0": 0.3389, "grid:50_0.01_0.1": 0.3414, "grid:50_0.01_0.5": 0.3228,
    "grid:500_0.001_0.0": 0.3448, "grid:500_0.001_0.1": 0.3452, "grid:500_0.001_0.5": 0.3526,
    "grid:500_0.01_0.0": 0.3796, "grid:500_0.01_0.1": 0.3784, "grid:500_0.01_0.5": 0.3728,
    "grid_narrowed:20_0.001_0.1": 0.3759, "grid_narrowed:30_0.001_0.1": 0.3829,
    "grid_narrowed:40_0.001_0.1": 0.3875, "grid_narrowed:50_0.001_0.1": 0.3849,
}  # fmt: skip
TABLE = plan.table().set_index("name")
NAMES = [*SETTINGS]


def lam_of(planned):
    return parse_axis(planned["lam"]).values


def test_the_plan_has_every_number_that_the_report_prints():
    assert TABLE.published.dropna().to_dict() == PRINTED


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """The arguments with which a command starts to train or solve, instead of doing so."""

    def arguments(command):
        seen = []

        def stop(*arguments):
            seen.extend(arguments)
            raise KeyboardInterrupt

        for module, name in ((baseline, "train"), (sweep, "train"), (path, "solve_problems")):
            monkeypatch.setattr(module, name, stop)
        name, *words = command.removeprefix("python -m experiments.").split()
        finish(name, tmp_path / "run", "--dataset=synthetic", *words, code=130)
        return seen

    return arguments


@pytest.mark.parametrize("command", TABLE.command.unique())
def test_a_command_trains_the_runs_beside_which_it_stands(arguments, command):
    rows = TABLE[TABLE.command == command]
    runs, config, dataset, *_ = arguments(command)
    assert runs[NAMES].to_numpy().tolist() == rows[NAMES].to_numpy().tolist()
    assert {config.n_epochs} == set(rows.n_epochs)
    assert {dataset.sha256} == {few(split).sha256 for split in rows.split}


@pytest.mark.parametrize("planned", plan.PATHS, ids=lambda planned: planned["name"])
def test_the_command_of_a_path_solves_its_lam(arguments, planned):
    problems, dataset, config, *_ = arguments(planned["command"])
    np.testing.assert_array_equal(problems.lam, lam_of(planned))
    assert (config.loss.name, dataset.sha256) == (planned["loss"], few(planned["split"]).sha256)
