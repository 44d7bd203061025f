"""Whoever adds a loss or an optimiser to the library can sweep over it."""

import jax
import optax
import pandas as pd

from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import OPTIMIZER_FIELDS, OPTIMIZERS
from tests.commands import finish
from tests.planted import save


def gradient(logits, labels):
    return logits - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


def squared(logits, labels):
    return (gradient(logits, labels) ** 2).sum(axis=-1) / 2


def test_a_new_loss_and_a_new_optimiser_are_values_of_their_axes(tmp_path, monkeypatch):
    new = Loss("squared", "squared error", squared, gradient, lambda s: s.clip(0, 1), False)
    monkeypatch.setitem(LOSSES, "squared", new)
    monkeypatch.setitem(OPTIMIZERS, "sign", lambda h, steps: optax.sign_sgd(h.learning_rate))
    monkeypatch.setitem(OPTIMIZER_FIELDS, "sign", ())
    words = ("--loss=squared", "--optimizer=sgd,sign", "--lam=0.1", "--learning_rate=0.001")
    finish("sweep", tmp_path / "run", f"--features={save(tmp_path)}", "--n_epochs=1", *words)
    table = pd.read_csv(tmp_path / "run" / "sweep.csv")
    assert set(table.loss + table.optimizer) == {"squaredsgd", "squaredsign"}
