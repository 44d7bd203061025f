"""The report's plan: what it trains is what the commands beside its numbers train."""

import pytest
from commands import few, run

from experiments.common import grids, runs, solving
from experiments.common.axes import parse
from experiments.common.settings import Settings
from experiments.report import plan


@pytest.fixture
def handed_on(tmp_path, monkeypatch):
    """What a command hands on to be trained, instead of training it."""

    def handed_on(command):
        found = []

        def stop(*arguments):
            found.append(arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(runs, "train", stop)
        monkeypatch.setattr(grids, "run", stop)
        python, option, name, *words = command.split()
        assert (python, option) == ("python", "-m")
        done = run(name, *words, "--dataset=synthetic", f"--output_dir={tmp_path / 'run'}")
        assert done.returncode == 130, done.stderr
        (arguments,) = found
        return arguments

    return handed_on


@pytest.mark.parametrize("name", plan.every_run())
def test_a_run_s_command_has_its_settings(handed_on, name):
    planned = plan.every_run()[name]
    together, dataset, _ = handed_on(planned.command)
    assert together == [planned.settings]
    assert dataset.sha256 == few(planned.settings.split).sha256


@pytest.mark.parametrize("name", plan.GRIDS)
def test_a_grid_s_command_has_its_values_and_settings(handed_on, name):
    grid = plan.GRIDS[name]
    _, values, fixed, dataset, *_ = handed_on(grid.command)
    assert values == grid.values
    usual = {name: Settings().flat[name] for name in grids.COLUMNS}
    assert fixed.but(**usual) == grid.settings
    assert dataset.sha256 == few(grid.settings.split).sha256


@pytest.mark.parametrize("name", plan.PATHS)
def test_a_path_s_command_has_its_settings(name, tmp_path, monkeypatch):
    planned, found = plan.PATHS[name], []

    def stop(*arguments):
        found.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(solving, "solve_all", stop)
    words = planned.command.split()[2:]
    done = run(*words, "--dataset=synthetic", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 130, done.stderr
    ((what, dataset, how, *_),) = found
    assert what.path.tolist() == parse("lam", planned.command.split("=")[1].split()[0]).values
    assert (how.loss.name, dataset.sha256) == (planned.loss, few(planned.split).sha256)


def test_every_number_that_the_report_prints_is_in_the_plan():
    assert all(planned.published for planned in plan.RUNS.values())
    assert plan.VARIANTS.keys() <= plan.RUNS.keys()
    for grid in plan.GRIDS.values():
        sizes, rates, lams = (grid.values[name] for name in grids.COLUMNS)
        keys = {f"{b}_{e}_{lam}" for b in sizes for e in rates for lam in lams}
        assert grid.published.keys() == keys
    assert sum(len(grid.published) for grid in plan.GRIDS.values()) == 22


def test_the_report_s_runs_are_those_that_it_describes():
    assert plan.RUNS["lam_0"].settings == Settings()
    decay = Settings.of(lam=0.1, learning_rate=0.05, decay_factor=10.0, decay_every=10)
    assert plan.RUNS["step_decay"].settings == decay
    assert plan.RUNS["full_data"].settings == Settings.of(lam=0.1, split="full")
