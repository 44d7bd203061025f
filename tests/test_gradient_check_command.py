"""`experiments.gradient_check` passes, and fails if anything that trains is wrong."""

import json

import jax
import pandas as pd
import pytest

from experiments import gradient_check
from linear_cifar import LOSSES
from tests.commands import few, files, run
from tests.conftest import reduced

pytestmark = pytest.mark.slow


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the command on 20 examples; its exit code, and whether each case and step passed."""
    monkeypatch.setattr(gradient_check, "N_EXAMPLES", (20,))

    def check():
        words = ("--dataset=synthetic", f"--output_dir={tmp_path / 'run'}")
        done = run("experiments.gradient_check", *words)
        assert files(tmp_path / "run") == {"result.json", "cases.csv", "steps.csv"}
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert result["passed"] is (done.returncode == 0) is ("FAILED" not in done.stdout)
        tables = (pd.read_csv(tmp_path / "run" / f"{name}.csv") for name in ("cases", "steps"))
        return done.returncode, *tables

    yield check
    jax.clear_caches()  # the wrong functions have been compiled


@pytest.fixture
def few_features(monkeypatch):
    small = reduced(few())
    monkeypatch.setattr(gradient_check, "load_data", lambda: small)


def test_it_passes_in_every_coefficient_of_whole_images(check):
    code, cases, steps = check()
    assert code == 0
    for table in (cases, steps):
        assert set(zip(table.loss, table.lam, strict=True)) == {
            (loss, lam) for loss in LOSSES for lam in (0, 0.1)
        }
        assert table.passed.all()
    assert cases.numerical_error.max() <= 1e-6
    assert cases.autodiff_error.max() <= 1e-10
    assert steps.steps_error.max() <= 1e-8


@pytest.mark.usefixtures("few_features")
def test_it_fails_if_the_gradient_of_one_loss_is_wrong(monkeypatch, check):
    """In one class, by one part in 100,000."""
    right = LOSSES["multi_bce"]

    def wrong(scores, labels):
        return right.logit_gradient(scores, labels).at[:, 3].multiply(1 + 1e-5)

    monkeypatch.setitem(LOSSES, "multi_bce", right._replace(logit_gradient=wrong))
    code, cases, steps = check()
    assert code == 1
    assert (cases.passed == (cases.loss == "softmax")).all()
    assert steps.passed.all()  # they take the same wrong gradient


@pytest.mark.usefixtures("few_features")
def test_it_fails_if_several_steps_at_once_are_wrong(monkeypatch, check):
    step = gradient_check.epoch_step

    def wrong(state, *arguments, fused):
        end = step(state, *arguments, fused=fused)
        off = 1 + 1e-5 * fused
        moved = jax.tree.map(lambda a, b: a + off * (b - a), state.params, end.params)
        return end._replace(params=moved)

    monkeypatch.setattr(gradient_check, "epoch_step", wrong)
    code, cases, steps = check()
    assert code == 1
    assert cases.passed.all()
    assert not steps.passed.any()
