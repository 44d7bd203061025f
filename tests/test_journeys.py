"""A new loss or optimiser in the library has its flag, its axis and its place in comparisons."""

import json

import jax
import jax.numpy as jnp
import optax
import pandas as pd
import pytest

from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import OPTIMIZER_FIELDS, OPTIMIZERS, step_decay
from tests.commands import QUICK, run

pytestmark = pytest.mark.usefixtures("undrawn")
AXES = ("--lam=0.1", "--learning_rate=0.001")


def squared(logits, labels):
    return jnp.sum((logits - jax.nn.one_hot(labels, logits.shape[-1])) ** 2, axis=-1) / 2


def squared_gradient(logits, labels):
    return logits - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


def finish(out, command, *words):
    done = run(f"experiments.{command}", *QUICK, *words, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())


@pytest.mark.slow
def test_a_new_loss_has_its_flag_and_its_place_in_every_comparison(tmp_path, monkeypatch):
    new = Loss("squared", "squared error", squared, squared_gradient, lambda s: s.clip(0, 1), False)
    monkeypatch.setitem(LOSSES, "squared", new)
    assert finish(tmp_path / "run", "baseline", "--loss=squared")["loss"] == "squared"
    assert "squared" in finish(tmp_path / "losses", "loss_comparison")["losses"]
    finish(tmp_path / "sweep", "sweep", "--loss=softmax,squared", *AXES)
    assert set(pd.read_csv(tmp_path / "sweep" / "sweep.csv").loss) == {"softmax", "squared"}


def test_a_new_optimiser_has_its_flag_and_its_axis(tmp_path, monkeypatch):
    def sign(hyperparameters, steps_per_epoch):
        return optax.sign_sgd(step_decay(hyperparameters, steps_per_epoch))

    monkeypatch.setitem(OPTIMIZERS, "sign", sign)
    monkeypatch.setitem(OPTIMIZER_FIELDS, "sign", ())
    assert finish(tmp_path / "run", "baseline", "--optimizer=sign")["optimizer"] == "sign"
    finish(tmp_path / "sweep", "sweep", "--optimizer=sgd,sign", *AXES)
    assert set(pd.read_csv(tmp_path / "sweep" / "sweep.csv").optimizer) == {"sgd", "sign"}
