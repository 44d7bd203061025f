"""The gradient check and its command: right gradients pass, and wrong ones are caught."""

import json
from unittest import mock

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import linear_cifar as lc
from experiments import gradient_check
from linear_cifar import LOSSES, Params, relative_error
from tests import oracle
from tests.commands import few, run
from tests.conftest import each_loss, reduced

BINARY = LOSSES["multi_bce"]


def problem():
    """Parameters, inputs and labels of 20 digits, among which some features are 0 throughout."""
    inputs, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    params = Params(0.01 * rng.normal(size=(10, 64)), 0.01 * rng.normal(size=10))
    return params, inputs[:20] / 4, labels[:20]


def gradients(*arguments):
    """The numerical gradient and the one derived by hand."""
    numerical = jax.jit(lc.numerical_gradient, static_argnames="loss")(*arguments)
    return numerical, lc.cost_gradient(*arguments)


@each_loss
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_differences_match_numpy_and_the_right_gradients_pass(loss, lam):
    numerical, by_hand = gradients(*problem(), lam, loss)
    params, *data = problem()
    expected = oracle.cost_gradient(*params, *data, lam, loss.name)
    for result, array in zip(numerical, expected, strict=True):
        np.testing.assert_allclose(result, array, atol=1e-12)
    assert relative_error(by_hand, numerical) <= 1e-6


@each_loss
def test_one_coefficient_off_by_a_part_in_100000_is_caught(loss):
    numerical, by_hand = gradients(*problem(), 0.1, loss)
    flat, unflatten = jax.flatten_util.ravel_pytree(by_hand)
    order = np.argsort(np.abs(flat))
    for entry in (order[0], order[len(order) // 2], order[-1], len(flat) - 3):  # this is a bias
        wrong = unflatten(flat.at[entry].multiply(1 + 1e-5))
        assert relative_error(wrong, numerical) > 1e-6


def test_printed_bce_derivative_fails_the_check():
    def printed(scores, labels):
        y, p = jax.nn.one_hot(labels, 10, dtype=scores.dtype), jax.nn.sigmoid(scores)
        return -((1 - y) * (1 / (1 - p) - 1) + y * (1 - p)) / 10

    numerical, wrong = gradients(*problem(), 0.1, BINARY._replace(logit_gradient=printed))
    assert relative_error(wrong, numerical) > 0.1


@pytest.mark.parametrize(
    "bug",
    [
        lambda _, right: Params(10 * right.weights, right.bias),  # 1/K in the bias alone
        lambda params, right: right._replace(weights=right.weights - 0.1 * params.weights),  # ½λ
        lambda _, right: jax.tree.map(lambda g: 2 * g, right),  # differences over h, not 2h
        lambda params, right: right._replace(bias=right.bias + 0.2 * params.bias),  # penalised
        lambda _, right: right._replace(weights=right.weights.at[0, 0].set(np.nan)),
    ],
)
def test_known_bugs_fail_the_check(bug):
    numerical, right = gradients(*problem(), 0.1, BINARY)
    assert not relative_error(bug(problem()[0], right), numerical) <= 1e-3


def test_float32_is_refused():
    params, inputs, labels = problem()
    with pytest.raises(lc.InputError, match="float64"):
        lc.numerical_gradient(params, inputs.astype(np.float32), labels, 0.0)


def check(out):
    """Runs the command on 20 examples; its exit code, and the tables of cases and of steps."""
    jax.config.update("jax_enable_x64", False)  # as for a user; the command switches it on
    with mock.patch.object(gradient_check, "N_EXAMPLES", (20,)):
        done = run("experiments.gradient_check", "--dataset=synthetic", f"--output_dir={out}")
    assert jax.config.values["jax_enable_x64"]
    assert json.loads((out / "result.json").read_text())["passed"] is (done.returncode == 0)
    return done.returncode, pd.read_csv(out / "cases.csv"), pd.read_csv(out / "steps.csv")


@pytest.mark.slow
def test_the_command_passes_in_every_coefficient_of_whole_images(tmp_path):
    code, cases, steps = check(tmp_path / "run")
    assert code == 0
    for table in (cases, steps):
        assert len(table) == 2 * len(LOSSES) == len(table[["loss", "lam"]].drop_duplicates())
        assert table.passed.all()
    assert (cases.numerical_error <= 1e-6).all()
    assert (cases.autodiff_error <= 1e-10).all()
    assert (steps.steps_error <= 1e-8).all()


@pytest.mark.slow
def test_the_command_fails_if_one_class_is_off_by_a_part_in_100000(tmp_path, monkeypatch):
    def wrong(scores, labels):
        return BINARY.logit_gradient(scores, labels).at[:, 3].multiply(1 + 1e-5)

    monkeypatch.setitem(LOSSES, "multi_bce", BINARY._replace(logit_gradient=wrong))
    monkeypatch.setattr(gradient_check, "load_data", lambda: reduced(few()))
    code, cases, steps = check(tmp_path / "run")
    assert code == 1
    assert (cases.passed == (cases.loss == "softmax")).all()
    assert steps.passed.all()  # they take the same wrong gradient
