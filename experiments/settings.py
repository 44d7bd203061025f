"""What one run is: everything that a command's flags say of its training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters

FLAGS = flags.FLAGS
# The hyper-parameters that one optimiser reads and the others don't.
OPTIMIZER_FIELDS = {"sgd": (), "momentum": ("momentum",), "adam": ("b1", "b2", "eps")}


@dataclass(frozen=True)
class Settings:
    """A run of one configuration, with one seed or several."""

    lam: float = 0.0
    learning_rate: float = 0.001
    batch_size: int = 100
    n_epochs: int = 40
    loss: str = "softmax"
    decay_factor: float = 1.0
    decay_every: int = 10
    shuffle: bool = False
    optimizer: str = "sgd"
    momentum: float = 0.9
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    split: str = "assignment"
    seed: int = 0  # the first; the others follow
    n_seeds: int = 1

    @classmethod
    def from_flags(cls, **fixed: Any) -> "Settings":
        """The settings that the flags give, where they are not fixed."""
        given: dict[str, Any] = {
            name: FLAGS[name].value for name in cls.__dataclass_fields__ if name in FLAGS
        }
        return cls(**given | fixed)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Those of the one configuration."""
        return Hyperparameters(*(getattr(self, name) for name in Hyperparameters._fields))

    @property
    def described(self) -> dict[str, Any]:
        """What a record says of the settings: those that the optimiser reads, apart the others."""
        every = asdict(self)
        unread = {n for names in OPTIMIZER_FIELDS.values() for n in names}
        unread -= set(OPTIMIZER_FIELDS[self.optimizer])
        names = Hyperparameters._fields
        return {
            "hyperparameters": {name: every[name] for name in names if name not in unread},
            **{name: value for name, value in every.items() if name not in names},
        }

    @property
    def keys(self) -> jax.Array:
        """The PRNG keys of the seeds, [n_seeds]."""
        seeds = range(self.seed, self.seed + self.n_seeds)
        return jnp.stack([jax.random.key(seed) for seed in seeds])

    @property
    def loss_function(self) -> Loss:
        """The loss that the name stands for."""
        return LOSSES[self.loss]

    @property
    def title(self) -> str:
        """The run in a line, for tables and figures."""
        decay = f", ÷{self.decay_factor:g} every {self.decay_every}" * (self.decay_factor > 1)
        order = ", shuffled" * self.shuffle
        seeds = f"seed {self.seed}" if self.n_seeds == 1 else f"{self.n_seeds} seeds"
        return (
            f"{self.loss_function.title}, λ={self.lam:g}, η={self.learning_rate:g}{decay}, "
            f"batches of {self.batch_size}{order}, {seeds}"
        )


def as_table(configurations: Sequence[Settings]) -> tuple[jax.Array, Hyperparameters, dict]:
    """What `sweep.steps` takes: keys, hyper-parameters and keywords; a row a run and seed.

    Args:
      configurations: all with the same number of seeds and epochs, and all or none shuffled.
    """
    rows = [settings for settings in configurations for _ in range(settings.n_seeds)]
    first = configurations[0]
    columns = zip(*(settings.hyperparameters for settings in rows), strict=True)
    return (
        jnp.concatenate([settings.keys for settings in configurations]),
        Hyperparameters(*(np.array(column) for column in columns)),
        {
            "batch_size": [settings.batch_size for settings in rows],
            "loss": [settings.loss_function for settings in rows],
            "optimizer": [OPTIMIZERS[settings.optimizer] for settings in rows],
            "n_epochs": first.n_epochs,
            "shuffle": first.shuffle,
        },
    )
