"""What WORKSPACE.md promises to someone who adds the next thing."""

import jax
import jax.numpy as jnp
import optax
import pytest
from commands import QUICK, files, run

from experiments.common import records
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import OPTIMIZER_FIELDS, OPTIMIZERS, step_decay


def squared(logits, labels):
    return jnp.sum((logits - jax.nn.one_hot(labels, logits.shape[-1])) ** 2, axis=-1) / 2


def squared_gradient(logits, labels):
    return logits - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


@pytest.fixture
def with_a_new_loss(monkeypatch):
    new = Loss("squared", "squared error", squared, squared_gradient, lambda s: s.clip(0, 1), False)
    monkeypatch.setitem(LOSSES, "squared", new)


@pytest.mark.usefixtures("with_a_new_loss")
@pytest.mark.slow
def test_a_new_loss_has_its_flag_and_its_place_in_every_comparison(tmp_path):
    words = (*QUICK, "--loss=squared", "--lam=0.01")
    done = run("experiments.baseline", *words, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "squared error, λ=0.01" in done.stdout
    assert records.read_result(tmp_path / "run")["loss"] == "squared"
    out = tmp_path / "losses"
    done = run("experiments.loss_comparison", *QUICK, f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert {"softmax/result.json", "multi_bce/result.json", "squared/result.json"} <= files(out)
    swept = run(
        "experiments.sweep",
        *QUICK,
        "--loss=softmax,squared",
        "--lam=0.1",
        "--learning_rate=0.001",
        f"--output_dir={tmp_path / 'sweep'}",
    )
    assert swept.returncode == 0, swept.stderr


def test_a_new_optimiser_has_its_flag_and_its_axis(monkeypatch, tmp_path):
    def sign(hyperparameters, steps_per_epoch):
        return optax.sign_sgd(step_decay(hyperparameters, steps_per_epoch))

    monkeypatch.setitem(OPTIMIZERS, "sign", sign)
    monkeypatch.setitem(OPTIMIZER_FIELDS, "sign", ())
    words = (*QUICK, "--optimizer=sign", f"--output_dir={tmp_path / 'run'}")
    done = run("experiments.baseline", *words)
    assert done.returncode == 0, done.stderr
    assert records.read_result(tmp_path / "run")["optimizer"] == "sign"
    out = tmp_path / "sweep"
    words = ("--optimizer=sgd,sign", "--lam=0.1", "--learning_rate=0.001", f"--output_dir={out}")
    done = run("experiments.sweep", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    assert "sign" in (out / "sweep.csv").read_text()
