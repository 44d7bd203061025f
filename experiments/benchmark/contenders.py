"""The same training as others write it: what `experiments.benchmark` measures ours against.

All minimise softmax cross-entropy with λ‖W‖² by plain gradient descent, with batches in order, from
the same parameters; `agreement` checks that. NumPy's loops are here, PyTorch's in `pytorch`. Images
are standardised beforehand, as such loops have it; only ours does that while it trains.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from linear_cifar.data import Dataset
from linear_cifar.model import Params
from linear_cifar.objective import autodiff_gradient
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import SweepChunk, TrainConfig, device_mesh, fetch, init_state, sweep

LAM, RATE = 0.1, 0.001
MAX_ITERATIONS = 3000  # of a fit of one λ
N_EPOCHS = 40  # of a training, over which what is done once counts
CONFIG = TrainConfig(n_epochs=N_EPOCHS, measure=False)
OPTIONAL = {"torch": "PyTorch", "sklearn": "scikit-learn"}


@dataclass(frozen=True, eq=False)
class Examples:
    """What contenders learn from and where they begin; what only some of them need is lazy."""

    dataset: Dataset
    key: jax.Array

    @cached_property
    def start(self) -> Params:
        """Our initial parameters, [K, d] and [K], as numpy arrays."""
        return fetch(init_state(self.key, Hyperparameters(), self.dataset, CONFIG).params)

    @cached_property
    def standardised(self) -> tuple[np.ndarray, np.ndarray]:
        """Standardised training images [n, d], float32, and labels [n]."""
        train = self.dataset.train
        return self.standardise(train.inputs), np.asarray(train.labels)

    def standardise(self, inputs) -> np.ndarray:
        """Images as they are stored, standardised in float32."""
        result = np.array(inputs, np.float32)
        result -= np.asarray(self.dataset.standardiser.mean, np.float32)
        result /= np.asarray(self.dataset.standardiser.scale, np.float32)
        return result


@dataclass(frozen=True, eq=False)
class Task:
    """What contenders that are compared all do, from `examples.start` on."""

    examples: Examples
    n_configurations: int = 1
    batch_size: int = 100

    @property
    def lam(self) -> np.ndarray:
        """λ of each configuration, [C]."""
        if self.n_configurations == 1:
            return np.array([LAM])
        return np.geomspace(1e-4, 1.0, self.n_configurations)


class Trained(NamedTuple):
    """Where a training stands before its first epoch, or after one."""

    n_configurations: int  # trained in that epoch: the task's first ones
    params: Callable[[], Params]  # fetches theirs, [c, K, d] and [c, K], as numpy arrays


Fit: TypeAlias = Callable[[float, Params, float], Params]  # λ, where to begin, tolerance
# Trains until the function returns True; it is called before the first epoch and after each.
Train: TypeAlias = Callable[[Callable[[Trained], bool]], None]


class Contender(NamedTuple):
    """Someone who does a task."""

    name: str
    task: Task
    train: Train


class _EnoughError(Exception):
    """Ends a `sweep` from within."""


def installed(package: str) -> bool:
    """Whether a package can be imported; it isn't."""
    return importlib.util.find_spec(package) is not None


def ours(task: Task, name: str = "ours", config: TrainConfig = CONFIG) -> Contender:
    """The library, over all devices; an epoch is one of a chunk."""

    def train(enough: Callable[[Trained], bool]) -> None:
        def on_epoch(step: SweepChunk) -> None:
            n = len(step.rows)
            if enough(Trained(n, lambda: jax.tree.map(lambda a: a[:n], fetch(step.params)))):
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            train_ours(task, config, on_epoch)

    return Contender(name, task, train)


def train_ours(
    task: Task, config: TrainConfig, on_epoch: Callable[[SweepChunk], None] | None = None
) -> Params:
    """Does a task by `sweep`, over all devices; returns the parameters, [C, K, d] and [C, K]."""
    table = {"lam": task.lam, "learning_rate": RATE, "batch_size": task.batch_size}
    dataset, mesh = task.examples.dataset, device_mesh()
    params, _ = sweep(task.examples.key, table, dataset, config, mesh=mesh, on_epoch=on_epoch)
    return params


def ours_by_autodiff(task: Task) -> Contender:
    """The library with gradients by `jax.grad`, a batch at a time."""
    return ours(task, "ours, autodiff", CONFIG._replace(gradient=autodiff_gradient))


def by_epochs(begin: Callable[[], Iterator[Trained]]) -> Train:
    """A training of an iterator: each `next` trains for an epoch, and the first for none."""

    def train(enough: Callable[[Trained], bool]) -> None:
        for trained in begin():
            if enough(trained):
                return

    return train


class Layout(NamedTuple):
    """How the plain loop may hold its weights and form its products."""

    transposed: bool  # weights [d, K]
    scores: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of weights and a batch: [B, K]
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of G [B, K] and a batch


LAYOUTS: dict[str, Layout] = {
    "x Wᵀ, Gᵀ x": Layout(False, lambda w, x: x @ w.T, lambda g, x: g.T @ x),
    "x W, xᵀ G": Layout(True, lambda w, x: x @ w, lambda g, x: x.T @ g),
    "W xᵀ, Gᵀ x": Layout(
        False, lambda w, x: (w @ x.T).T, lambda g, x: np.ascontiguousarray(g.T) @ x
    ),
}


def numpy_loop(task: Task, layout: str) -> Contender:
    """The loop that everyone writes, for one configuration, in one of the `LAYOUTS`."""
    inputs, labels = task.examples.standardised
    start, (lam,), size = task.examples.start, task.lam.tolist(), task.batch_size
    transposed, scores_of, gradient_of = LAYOUTS[layout]
    one_hot = np.eye(len(start.bias), dtype=np.float32)[labels]

    def begin() -> Iterator[Trained]:
        weights: Any = np.array(start.weights.T if transposed else start.weights, order="C")
        bias: Any = np.array(start.bias)

        def params() -> Params:
            return Params((weights.T if transposed else weights)[None], bias[None])

        while True:
            yield Trained(1, params)
            for first in range(0, len(inputs), size):
                batch = slice(first, first + size)
                scores = scores_of(weights, inputs[batch]) + bias
                scores -= scores.max(axis=1, keepdims=True)
                p = np.exp(scores)
                p /= p.sum(axis=1, keepdims=True)
                by_score = (p - one_hot[batch]) / len(p)
                weights -= RATE * (gradient_of(by_score, inputs[batch]) + 2 * lam * weights)
                bias -= RATE * by_score.sum(axis=0)

    return Contender(f"NumPy, {layout}", task, by_epochs(begin))


def is_numpy(contender: Contender) -> bool:
    """Whether it is one of the plain loops, which ratios are taken to."""
    return contender.name.startswith("NumPy")
