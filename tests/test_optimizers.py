"""The schedule of the learning rate, and that optimisers are optax transformations."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters, step_decay
from tests.conftest import assert_close


def test_step_decay_divides_after_every_so_many_epochs():
    schedule = step_decay(Hyperparameters(0.0, 0.05, 10.0, 10), steps_per_epoch=7)
    assert_close(schedule(jnp.array([0, 69, 70, 139, 140])), [0.05, 0.05, 0.005, 0.005, 0.0005])
    constant = step_decay(Hyperparameters(0.0, 0.05), 7)(jnp.array([0, 10_000]))
    assert constant.tolist() == [0.05, 0.05]


def test_a_decay_after_more_steps_than_an_int32_holds_never_comes():
    schedule = step_decay(Hyperparameters(0.0, 0.05, 2.0, 2**31 - 1), steps_per_epoch=10_000)
    assert schedule(jnp.int32(2**31 - 1)) == 0.05


@pytest.mark.parametrize("factor", [2, 10, np.int32(3)])
def test_an_integer_divides_the_learning_rate_as_its_float_does(factor):
    schedule = step_decay(Hyperparameters(0.0, 0.1, factor, 1), steps_per_epoch=1)
    assert float(schedule(jnp.int32(40))) == pytest.approx(0.1 / float(factor) ** 40, rel=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimiser_makes_an_optax_transformation(optimizer):
    assert isinstance(optimizer(Hyperparameters(0.0, 0.1), 1), optax.GradientTransformation)
