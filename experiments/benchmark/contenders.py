"""The same training as others write it: what `experiments.benchmark` measures ours against.

All minimise softmax cross-entropy with λ‖W‖² by plain gradient descent, with batches in order, from
the same parameters; `agreement` checks that. NumPy's loops are here, PyTorch's in `pytorch`. Images
are standardised beforehand, as such loops have it; only ours does that while it trains.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from linear_cifar.data import Dataset
from linear_cifar.engine.devices import device_mesh, fetch
from linear_cifar.engine.plan import make_table
from linear_cifar.engine.state import DEFAULTS, Gradient, autodiff
from linear_cifar.engine.tables import ChunkEpoch, sweep_epochs
from linear_cifar.engine.training import epochs
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters

LAM, RATE = 0.1, 0.001
MAX_ITERATIONS = 3000  # of a fit of one λ
N_EPOCHS = 40  # of a training, over which what is done once counts
OPTIONAL = {"torch": "PyTorch", "sklearn": "scikit-learn"}


@dataclass(frozen=True, eq=False)
class Examples:
    """What contenders learn from and where they begin; what only some of them need is lazy."""

    dataset: Dataset
    key: jax.Array

    @cached_property
    def start(self) -> Params:
        """The engine's initial parameters, [K, d] and [K], as numpy arrays."""
        training = epochs(
            self.key, Hyperparameters(), self.dataset, DEFAULTS._replace(measure=False)
        )
        state, _ = next(training)
        return jax.tree.map(lambda array: array[0], fetch(state.params))

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
    """Where a training stands after an epoch."""

    n_configurations: int  # trained in that epoch: the task's first ones
    params: Callable[[], Params]  # fetches theirs, [c, K, d] and [c, K], as numpy arrays


Fit: TypeAlias = Callable[[float, Params, float], Params]  # λ, where to begin, tolerance
Training: TypeAlias = Iterator[Trained]  # each `next` trains for an epoch, and waits for its end


class Contender(NamedTuple):
    """Someone who does a task."""

    name: str
    task: Task
    begin: Callable[[], Training]


def installed(package: str) -> bool:
    """Whether a package can be imported; it isn't."""
    return importlib.util.find_spec(package) is not None


def ours(
    task: Task,
    name: str = "ours",
    gradient: Gradient = DEFAULTS.gradient,
    n_epochs: int = N_EPOCHS,
) -> Contender:
    """The engine, over all devices; an epoch is one of a chunk."""
    table = make_table(
        task.examples.key,
        Hyperparameters(task.lam, RATE),
        task.batch_size,
        DEFAULTS.loss,
        DEFAULTS.optimizer,
    )
    how = DEFAULTS._replace(n_epochs=n_epochs, measure=False, gradient=gradient)

    def begin() -> Training:
        training = sweep_epochs(table, task.examples.dataset, how, mesh=device_mesh())
        next(training)  # before training: places the data
        return map(_trained, training)

    return Contender(name, task, begin)


def ours_by_autodiff(task: Task) -> Contender:
    """The engine with gradients by `jax.grad`, a batch at a time."""
    return ours(task, "ours, autodiff", autodiff)


def _trained(step: ChunkEpoch) -> Trained:
    return Trained(len(step.rows), lambda: step.params)


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

    def begin() -> Training:
        weights: Any = np.array(start.weights.T if transposed else start.weights, order="C")
        bias: Any = np.array(start.bias)

        def params() -> Params:
            return Params((weights.T if transposed else weights)[None], bias[None])

        while True:
            for first in range(0, len(inputs), size):
                batch = slice(first, first + size)
                scores = scores_of(weights, inputs[batch]) + bias
                scores -= scores.max(axis=1, keepdims=True)
                p = np.exp(scores)
                p /= p.sum(axis=1, keepdims=True)
                by_score = (p - one_hot[batch]) / len(p)
                weights -= RATE * (gradient_of(by_score, inputs[batch]) + 2 * lam * weights)
                bias -= RATE * by_score.sum(axis=0)
            yield Trained(1, params)

    return Contender(f"NumPy, {layout}", task, begin)


def is_numpy(contender: Contender) -> bool:
    """Whether it is one of the plain loops, which ratios are taken to."""
    return contender.name.startswith("NumPy")
