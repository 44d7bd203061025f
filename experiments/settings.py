"""What one run is: everything that a command's flags say of its training."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import Hyperparameters

FLAGS = flags.FLAGS


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
        return Hyperparameters(self.lam, self.learning_rate, self.decay_factor, self.decay_every)

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
    def keywords(self) -> dict[str, Any]:
        """What `training.epochs` takes by keyword."""
        return {
            "loss": self.loss_function,
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
        }

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
