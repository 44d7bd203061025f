"""`experiments.gradient_check` passes, and fails if anything that trains is wrong."""

import json

import jax
import pandas as pd
import pytest

from experiments import gradient_check
from linear_cifar import LOSSES
from tests.commands import few, run
from tests.conftest import reduced

pytestmark = pytest.mark.slow


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the command on 20 examples; its exit code, and the tables of cases and of steps."""

    def check(dataset=None):
        monkeypatch.setattr(gradient_check, "N_EXAMPLES", (20,))
        if dataset:
            monkeypatch.setattr(gradient_check, "load_data", lambda: dataset)
        words = ("--dataset=synthetic", f"--output_dir={tmp_path / 'run'}")
        done = run("experiments.gradient_check", *words)
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert result["passed"] is (done.returncode == 0) is ("FAILED" not in done.stdout)
        tables = (pd.read_csv(tmp_path / "run" / f"{name}.csv") for name in ("cases", "steps"))
        return done.returncode, *tables

    yield check
    jax.clear_caches()  # the wrong functions have been compiled


def test_it_passes_in_every_coefficient_of_whole_images(check):
    code, cases, steps = check()
    assert code == 0
    for table in (cases, steps):
        assert len(table) == 2 * len(LOSSES) == len(table[["loss", "lam"]].drop_duplicates())
        assert table.passed.all()
    assert cases.numerical_error.max() <= 1e-6
    assert cases.autodiff_error.max() <= 1e-10
    assert steps.steps_error.max() <= 1e-8


def test_it_fails_if_one_class_of_one_gradient_is_off_by_a_part_in_100000(monkeypatch, check):
    right = LOSSES["multi_bce"]

    def wrong(scores, labels):
        return right.logit_gradient(scores, labels).at[:, 3].multiply(1 + 1e-5)

    monkeypatch.setitem(LOSSES, "multi_bce", right._replace(logit_gradient=wrong))
    code, cases, steps = check(reduced(few()))
    assert code == 1
    assert (cases.passed == (cases.loss == "softmax")).all()
    assert steps.passed.all()  # they take the same wrong gradient


def test_it_fails_if_several_steps_at_once_are_wrong(monkeypatch, check):
    step = gradient_check.epoch_step

    def wrong(state, *arguments, fused):
        end = step(state, *arguments, fused=fused)
        off = 1 + 1e-5 * fused
        moved = jax.tree.map(lambda a, b: a + off * (b - a), state.params, end.params)
        return end._replace(params=moved)

    monkeypatch.setattr(gradient_check, "epoch_step", wrong)
    code, cases, steps = check(reduced(few()))
    assert code == 1
    assert cases.passed.all()
    assert not steps.passed.any()
