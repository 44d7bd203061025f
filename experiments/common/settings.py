"""What one run is: everything that a command's flags say of its training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.optimizers import OPTIMIZER_FIELDS, Hyperparameters
from linear_cifar.training import TrainConfig

FLAGS = flags.FLAGS
DEFAULTS = TrainConfig()
_USUAL = Hyperparameters()


@dataclass(frozen=True)
class Settings:
    """A run of one configuration, with one seed or several."""

    hyperparameters: Hyperparameters = _USUAL
    batch_size: int = DEFAULTS.batch_size
    n_epochs: int = DEFAULTS.n_epochs
    loss: str = DEFAULTS.loss.name
    shuffle: bool = DEFAULTS.shuffle
    optimizer: str = "sgd"
    split: str = "assignment"
    seed: int = 0  # the first; the others follow
    n_seeds: int = 1

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """The default settings but for some, those of `Hyperparameters` among them."""
        return cls().but(**values)

    def but(self, **values: Any) -> "Settings":
        """The same settings but for some, those of `Hyperparameters` among them."""
        of_run = {n: values.pop(n) for n in Hyperparameters._fields if n in values}
        return replace(self, hyperparameters=self.hyperparameters._replace(**of_run), **values)

    @classmethod
    def from_flags(cls, **fixed: Any) -> "Settings":
        """The settings that the flags give, where they are not fixed.

        Raises:
          InputError: a flag is given that the optimiser doesn't read.
        """
        names = (*Hyperparameters._fields, *cls.__dataclass_fields__)
        settings = cls.of(**{name: FLAGS[name].value for name in names if name in FLAGS} | fixed)
        for name in unread(settings.optimizer):
            if name in FLAGS and name not in fixed and FLAGS[name].present:
                raise InputError(f"--{name} isn't read by --optimizer={settings.optimizer}")
        return settings

    @property
    def described(self) -> dict[str, Any]:
        """What a record says of the settings: those that the optimiser reads, apart the others."""
        read = self.hyperparameters._asdict()
        for name in unread(self.optimizer):
            del read[name]
        return asdict(self) | {"hyperparameters": read}

    @property
    def flat(self) -> dict[str, Any]:
        """`described` as one row, without an inner table."""
        described = self.described
        return described.pop("hyperparameters") | described

    @property
    def keys(self) -> jax.Array:
        """The PRNG keys of the seeds, [n_seeds]."""
        return jnp.stack([jax.random.key(self.seed + i) for i in range(self.n_seeds)])

    @property
    def loss_function(self) -> Loss:
        """The loss that the name stands for."""
        return LOSSES[self.loss]

    @property
    def decays(self) -> bool:
        """Whether the learning rate falls."""
        return bool(np.any(np.asarray(self.hyperparameters.decay_factor) > 1))

    @property
    def title(self) -> str:
        """The run in a line, for tables and figures."""
        h = self.hyperparameters
        own = OPTIMIZER_FIELDS[self.optimizer]
        of_optimizer = "".join(f", {name}={getattr(h, name):g}" for name in own)
        optimizer = f"{self.optimizer}{of_optimizer}, " if self.optimizer != "sgd" else ""
        decay = f", ÷{h.decay_factor:g} every {h.decay_every}" if self.decays else ""
        order = ", shuffled" * self.shuffle
        seeds = f"seed {self.seed}" if self.n_seeds == 1 else f"{self.n_seeds} seeds"
        return (
            f"{self.loss_function.title}, {optimizer}λ={h.lam:g}, η={h.learning_rate:g}{decay}, "
            f"batches of {self.batch_size}{order}, {seeds}"
        )


def unread(optimizer: str) -> set[str]:
    """The hyper-parameters that only other optimisers read."""
    return {n for fields in OPTIMIZER_FIELDS.values() for n in fields} - set(
        OPTIMIZER_FIELDS[optimizer]
    )


def as_table(configurations: Sequence[Settings]) -> tuple[jax.Array, dict[str, list], TrainConfig]:
    """What `training.sweep` takes, a row for each configuration and seed: keys, table and config.

    Args:
      configurations: all with the same number of seeds and epochs, and all or none shuffled.
    """
    rows = [settings for settings in configurations for _ in range(settings.n_seeds)]
    first = configurations[0]
    table = {
        name: [getattr(settings.hyperparameters, name) for settings in rows]
        for name in Hyperparameters._fields
    }
    table |= {
        name: [getattr(settings, name) for settings in rows]
        for name in ("batch_size", "loss", "optimizer")
    }
    keys = jnp.concatenate([settings.keys for settings in configurations])
    return keys, table, DEFAULTS._replace(n_epochs=first.n_epochs, shuffle=first.shuffle)
