"""The same training as others write it: what `experiments.benchmark` measures ours against.

Each contender is a function that sets a training up and returns an iterator; every `next` trains
some configurations for an epoch, and gives their number. All have softmax cross-entropy with λ‖W‖²,
plain gradient descent and batches in order. Images are standardised beforehand, as these loops have
it; only ours does that while it trains.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

from linear_cifar.datasets import Dataset
from linear_cifar.devices import device_mesh, place_dataset
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.sweep import steps
from linear_cifar.training import autodiff

Contender: TypeAlias = Callable[[], Iterator[int]]
LAM, RATE = 0.1, 0.001


def ours(
    dataset: Dataset, n_configurations: int = 1, batch_size: int = 100, n_epochs: int = 40,
    **settings,
) -> Contender:  # fmt: skip
    """The engine, over all devices; an epoch is one of a chunk, and is waited for."""
    mesh = device_mesh()
    placed = dataset if n_configurations == 1 else place_dataset(dataset, mesh)
    lam = np.geomspace(1e-4, 1.0, n_configurations)

    def begin() -> Iterator[int]:
        table = Hyperparameters(lam if n_configurations > 1 else LAM, RATE)
        training = steps(
            jax.random.key(0), table, placed, batch_size=batch_size, n_epochs=n_epochs, mesh=mesh,
            measure=False, **settings,
        )  # fmt: skip
        next(training)
        return (len(step.rows) for step in training)

    return begin


def ours_by_autodiff(dataset: Dataset, n_configurations: int = 1) -> Contender:
    """The engine with gradients by `jax.grad`, a batch at a time."""
    return ours(dataset, n_configurations, gradient=autodiff)


def standardised(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Standardised training images [n, d], float32, and labels."""
    inputs = np.asarray(dataset.train.inputs, np.float32)
    inputs -= np.asarray(dataset.standardiser.mean, np.float32)
    inputs /= np.asarray(dataset.standardiser.scale, np.float32)
    return inputs, np.asarray(dataset.train.labels)


# How the plain loop may hold its weights: logits and weights' gradient of a batch.
LAYOUTS: dict[str, tuple[bool, Callable, Callable]] = {
    "x Wᵀ, Gᵀ x": (False, lambda w, x: x @ w.T, lambda g, x: g.T @ x),
    "x W, xᵀ G": (True, lambda w, x: x @ w, lambda g, x: x.T @ g),
    "W xᵀ, Gᵀ x": (False, lambda w, x: (w @ x.T).T, lambda g, x: np.ascontiguousarray(g.T) @ x),
}


def numpy_loop(
    data: tuple[np.ndarray, np.ndarray], n_classes: int, layout: str, batch_size: int = 100
) -> Contender:
    """The loop that everyone writes, in one of the `LAYOUTS`."""
    inputs, labels = data
    transposed, product, gradient = LAYOUTS[layout]

    def begin() -> Iterator[int]:
        rng = np.random.default_rng(0)
        shape = (n_classes, inputs.shape[1])
        weights = rng.normal(scale=0.01, size=shape[::-1] if transposed else shape)
        weights, bias = weights.astype(np.float32), np.zeros(n_classes, np.float32)
        one_hot = np.eye(n_classes, dtype=np.float32)[labels]
        while True:
            for start in range(0, len(inputs), batch_size):
                batch = slice(start, start + batch_size)
                scores = product(weights, inputs[batch]) + bias
                scores -= scores.max(axis=1, keepdims=True)
                p = np.exp(scores)
                p /= p.sum(axis=1, keepdims=True)
                by_score = (p - one_hot[batch]) / len(p)
                of_weights = gradient(by_score, inputs[batch]) + 2 * LAM * weights
                weights -= RATE * of_weights
                bias -= RATE * by_score.sum(axis=0)
            yield 1

    return begin


def torch_linear(data: tuple[np.ndarray, np.ndarray], n_classes: int) -> Contender:
    """PyTorch as its tutorials have it: `nn.Linear`, `cross_entropy`, `SGD`."""
    import torch

    inputs, labels = _tensors(data)

    def begin() -> Iterator[int]:
        model = torch.nn.Linear(inputs.shape[1], n_classes)
        groups: list[dict[str, Any]] = [{"params": [model.weight], "weight_decay": 2 * LAM}]
        optimizer = torch.optim.SGD([*groups, {"params": [model.bias]}], RATE)
        while True:
            for x, y in zip(inputs.split(100), labels.split(100), strict=True):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            yield 1

    return begin


def torch_stacked(
    data: tuple[np.ndarray, np.ndarray], n_classes: int, n_configurations: int
) -> Contender:
    """Configurations stacked by hand in PyTorch, with the gradient by hand: two products a step."""
    import torch

    inputs, labels = _tensors(data)
    size = (n_configurations, n_classes)

    @torch.no_grad()
    def begin() -> Iterator[int]:
        weights = 0.01 * torch.randn(n_configurations * n_classes, inputs.shape[1])
        bias, lam = torch.zeros(size), torch.logspace(-4, 0, n_configurations)
        keep = (1 - 2 * RATE * lam).repeat_interleave(n_classes)[:, None]
        one_hot = torch.nn.functional.one_hot(labels, n_classes).float()
        while True:
            for x, y in zip(inputs.split(100), one_hot.split(100), strict=True):
                scores = (weights @ x.T).T.reshape(-1, *size) + bias
                by_score = (scores.softmax(-1) - y[:, None]) / len(x)
                weights.mul_(keep).addmm_(by_score.reshape(len(x), -1).T, x, alpha=-RATE)
                bias -= RATE * by_score.sum(0)
            yield n_configurations

    return begin


def torch_vmap(
    data: tuple[np.ndarray, np.ndarray], n_classes: int, n_configurations: int
) -> Contender:
    """Configurations by `torch.func.vmap` over `torch.func.grad`."""
    import torch

    inputs, labels = _tensors(data)

    def cost(weights, bias, lam, x, y):
        loss = torch.nn.functional.cross_entropy(x @ weights.T + bias, y)
        return loss + lam * (weights**2).sum()

    gradient = torch.func.vmap(torch.func.grad(cost, argnums=(0, 1)), in_dims=(0, 0, 0, None, None))

    def begin() -> Iterator[int]:
        weights = 0.01 * torch.randn(n_configurations, n_classes, inputs.shape[1])
        bias, lam = torch.zeros(weights.shape[:2]), torch.logspace(-4, 0, n_configurations)
        while True:
            for x, y in zip(inputs.split(100), labels.split(100), strict=True):
                by_weights, by_bias = gradient(weights, bias, lam, x, y)
                weights -= RATE * by_weights
                bias -= RATE * by_bias
            yield n_configurations

    return begin


def _tensors(data: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    import torch

    inputs, labels = data
    return torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64))
