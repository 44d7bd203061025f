"""`experiments.gradient_check`: it passes, and it fails where anything that trains is wrong."""

import csv

import jax
import pytest
from commands import few, files, run
from conftest import reduced

from experiments import gradient_check
from experiments.common import records
from linear_cifar.losses import LOSSES

FILES = {"result.json", "cases.csv", "steps.csv"}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs the command on few features, and on one number of examples; what it left."""
    small = reduced(few())
    monkeypatch.setattr(gradient_check, "load_data", lambda: small)
    monkeypatch.setattr(gradient_check, "N_EXAMPLES", (20,))

    def check():
        done = run("experiments.gradient_check", f"--output_dir={tmp_path / 'run'}")
        assert files(tmp_path / "run") == FILES
        return done, records.read_result(tmp_path / "run")

    return check


@pytest.fixture
def compiled_anew():
    """The steps are compiled in the test, and not kept."""
    gradient_check._moves.clear_cache()
    yield
    gradient_check._moves.clear_cache()


def passed(rows):
    return {(row["loss"], row["lam"]): row["passed"] for row in rows}


def check_rows(folder, result, n_cases):
    """Every row is within its tolerance, and the tables are those of the result."""
    assert len(result["cases"]) == n_cases
    assert len(result["steps"]) == 4
    for name in ("cases", "steps"):
        assert passed(result[name]).keys() == {(loss, lam) for loss in LOSSES for lam in (0, 0.1)}
        with (folder / f"{name}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert lines == [{k: str(v) for k, v in row.items()} for row in result[name]]
    assert result["passed"] is True
    assert all(row["passed"] for row in (*result["cases"], *result["steps"]))
    assert max(case["numerical_error"] for case in result["cases"]) <= 1e-6
    assert max(case["autodiff_error"] for case in result["cases"]) <= 1e-10
    assert max(step["steps_error"] for step in result["steps"]) <= 1e-8
    assert {(step["n_steps"], step["batch_size"]) for step in result["steps"]} == {(4, 100)}


@pytest.mark.slow
def test_it_passes_in_every_coefficient_of_whole_images(tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_check, "N_EXAMPLES", (20,))
    done = run("experiments.gradient_check", "--dataset=synthetic", f"--output_dir={tmp_path}/run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all cases pass" in done.stdout
    assert files(tmp_path / "run") == FILES
    check_rows(tmp_path / "run", records.read_result(tmp_path / "run"), n_cases=4)


@pytest.mark.slow
def test_it_fails_where_a_loss_s_gradient_is_wrong(monkeypatch, check):
    # One class's logit gradient, of one loss, is off by one part in 100,000.
    right = LOSSES["multi_bce"]

    def wrong(scores, labels):
        return right.logit_gradient(scores, labels).at[:, 3].multiply(1 + 1e-5)

    monkeypatch.setitem(LOSSES, "multi_bce", right._replace(logit_gradient=wrong))
    done, result = check()
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert result["passed"] is False
    assert passed(result["cases"]) == {
        ("softmax", 0.0): True,
        ("softmax", 0.1): True,
        ("multi_bce", 0.0): False,
        ("multi_bce", 0.1): False,
    }
    assert all(passed(result["steps"]).values())  # they take the same wrong gradient


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_it_fails_where_steps_at_once_are_wrong(monkeypatch, check):
    step = gradient_check.epoch_step

    def wrong(state, *arguments, fused):
        end = step(state, *arguments, fused=fused)
        off = 1 + 1e-5 * fused
        return end._replace(
            params=jax.tree.map(lambda a, b: a + off * (b - a), state.params, end.params)
        )

    monkeypatch.setattr(gradient_check, "epoch_step", wrong)
    done, result = check()
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert result["passed"] is False
    assert not any(passed(result["steps"]).values())
    assert all(passed(result["cases"]).values())
