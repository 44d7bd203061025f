"""The same training by different libraries: ours, a NumPy loop, and two ways in PyTorch.

All minimise the mean softmax cross-entropy plus λ‖W‖² by plain gradient descent, with the same
batches in the same order, from the same parameters. Ours reads the images as they are stored; the
others get them standardised in float32, as such loops usually do.

A contender's function takes the problem, the number of epochs, and a function to call before
training and after every epoch. It returns the parameters, [C, K, d] and [C, K].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from linear_cifar import Hyperparameters, TrainConfig, cost_gradient, device_mesh, sweep
from linear_cifar.data import Dataset
from linear_cifar.model import Params
from linear_cifar.training import init_state


class Problem(NamedTuple):
    """A training task: C configurations that differ in λ."""

    dataset: Dataset
    key: jax.Array  # PRNG key of the initial parameters
    start: Params  # the initial parameters of every configuration, [K, d] and [K]
    inputs: np.ndarray  # standardised training inputs, [n, d], float32
    labels: np.ndarray  # [n], int64
    batch_size: int
    lam: np.ndarray  # [C]
    learning_rate: float = 0.001


class Contender(NamedTuple):
    """A function that trains, and the problem it is timed on."""

    name: str
    problem: Problem
    train: Callable[[Problem, int, Callable[[], None]], Params]


def make_problem(dataset: Dataset, seed: int, batch_size: int) -> Problem:
    """One configuration with λ = 0.1."""
    key = jax.random.key(seed)
    state = init_state(key, Hyperparameters(), dataset, TrainConfig())
    start = Params(*map(np.array, state.params))  # copies that can be written to
    inputs = standardised_inputs(dataset, np.float32)
    labels = np.asarray(dataset.train.labels, np.int64)
    return Problem(dataset, key, start, inputs, labels, batch_size, np.array([0.1]))


def standardised_inputs(dataset: Dataset, dtype: Any) -> np.ndarray:
    """The training inputs, standardised, [n, d]."""
    inputs = np.array(dataset.train.inputs, dtype)
    inputs -= np.asarray(dataset.standardiser.mean, dtype)  # in place: one copy in memory
    inputs /= np.asarray(dataset.standardiser.scale, dtype)
    return inputs


def ours(
    problem: Problem, n_epochs: int, on_epoch: Callable[[], None], gradient: Any = cost_gradient
) -> Params:
    """The library's `sweep` on all devices."""
    table = {name: getattr(problem, name) for name in ("lam", "learning_rate", "batch_size")}
    config = TrainConfig(n_epochs=n_epochs, measure=False, gradient=gradient)
    data, mesh = problem.dataset, device_mesh()
    return sweep(problem.key, table, data, config, mesh=mesh, on_epoch=lambda _: on_epoch())[0]


def numpy_loop(problem: Problem, n_epochs: int, on_epoch: Callable[[], None]) -> Params:
    """A plain NumPy training loop for one configuration.

    Weights are [d, K], the fastest layout: 29 ms an epoch, against 30 (x Wᵀ) and 34 (W xᵀ).
    """
    weights, bias = np.array(problem.start.weights.T, order="C"), problem.start.bias.copy()
    lam, rate, size = float(problem.lam[0]), problem.learning_rate, problem.batch_size
    one_hot = np.eye(len(bias), dtype=np.float32)[problem.labels]
    on_epoch()
    for _ in range(n_epochs):
        for first in range(0, len(one_hot), size):
            x, y = problem.inputs[first : first + size], one_hot[first : first + size]
            logits = x @ weights + bias
            logits -= logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            g = (p - y) / len(x)
            weights -= rate * (x.T @ g + 2 * lam * weights)
            bias -= rate * g.sum(axis=0)
        on_epoch()
    return Params(weights.T[None], bias[None])


def torch_linear(problem: Problem, n_epochs: int, on_epoch: Callable[[], None]) -> Params:
    """One configuration as in PyTorch's tutorials: `nn.Linear`, `cross_entropy`, `SGD`."""
    import torch

    inputs, labels = torch.from_numpy(problem.inputs), torch.from_numpy(problem.labels)
    weights, bias = map(torch.from_numpy, problem.start)
    model = torch.nn.Linear(weights.shape[1], len(weights))
    model.load_state_dict({"weight": weights, "bias": bias})
    decayed = {"params": [model.weight], "weight_decay": 2 * float(problem.lam[0])}
    groups: list[dict[str, Any]] = [decayed, {"params": [model.bias]}]
    optimizer = torch.optim.SGD(groups, problem.learning_rate)
    on_epoch()
    for _ in range(n_epochs):
        batches = inputs.split(problem.batch_size), labels.split(problem.batch_size)
        for x, y in zip(*batches, strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        on_epoch()
    return Params(model.weight.detach().numpy()[None], model.bias.detach().numpy()[None])


def torch_stacked(problem: Problem, n_epochs: int, on_epoch: Callable[[], None]) -> Params:
    """C configurations stacked by hand, with a hand-derived gradient: two products a step."""
    import torch

    c, rate, (n_classes, d) = len(problem.lam), problem.learning_rate, problem.start.weights.shape
    inputs, labels = torch.from_numpy(problem.inputs), torch.from_numpy(problem.labels)
    one_hot = torch.nn.functional.one_hot(labels, n_classes).float()
    weights, bias = map(torch.from_numpy, problem.start)
    weights, bias = weights.repeat(c, 1), bias.repeat(c, 1)  # [C K, d] and [C, K]
    shrinkage = torch.from_numpy(1 - 2 * rate * problem.lam).float()
    shrinkage = shrinkage.repeat_interleave(n_classes)[:, None]
    on_epoch()
    for _ in range(n_epochs):
        batches = inputs.split(problem.batch_size), one_hot.split(problem.batch_size)
        for x, y in zip(*batches, strict=True):
            logits = (weights @ x.T).T.reshape(-1, c, n_classes) + bias
            g = (logits.softmax(-1) - y[:, None]) / len(x)
            weights.mul_(shrinkage).addmm_(g.reshape(len(x), -1).T, x, alpha=-rate)
            bias.sub_(g.sum(0), alpha=rate)
        on_epoch()
    return Params(weights.reshape(c, n_classes, d).numpy(), bias.numpy())
