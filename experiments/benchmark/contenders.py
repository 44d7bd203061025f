"""The same training by different libraries: ours, a NumPy loop, and two ways in PyTorch.

All minimise the mean softmax cross-entropy plus λ‖W‖² by plain gradient descent, with the same
batches in the same order, from the same parameters. Ours reads the images as they are stored; the
others get them standardised in float32, as such loops usually do.

A contender's function takes the problem, the number of epochs, and a function to call before
training and after every epoch. It returns the parameters, [C, K, d] and [C, K].
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from linear_cifar import Hyperparameters, TrainConfig, autodiff_gradient, device_mesh, sweep
from linear_cifar.data import Dataset
from linear_cifar.model import Params
from linear_cifar.training import init_state

CONFIG = TrainConfig(measure=False)


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
    start = Params(*map(np.asarray, init_state(key, Hyperparameters(), dataset, CONFIG).params))
    inputs = standardised_inputs(dataset, np.float32)
    labels = np.asarray(dataset.train.labels, np.int64)
    return Problem(dataset, key, start, inputs, labels, batch_size, np.array([0.1]))


def standardised_inputs(dataset: Dataset, dtype: Any) -> np.ndarray:
    """The training inputs, standardised, [n, d]."""
    inputs = np.array(dataset.train.inputs, dtype)
    inputs -= np.asarray(dataset.standardiser.mean, dtype)  # in place: one copy in memory
    inputs /= np.asarray(dataset.standardiser.scale, dtype)
    return inputs


def installed(package: str) -> bool:
    """Imports a package, so that no timing includes that, and returns whether it is there."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def ours(
    problem: Problem, n_epochs: int, on_epoch: Callable[[], None], config: TrainConfig = CONFIG
) -> Params:
    """The library's `sweep` on all devices."""
    table = {name: getattr(problem, name) for name in ("lam", "learning_rate", "batch_size")}
    config = config._replace(n_epochs=n_epochs)
    data, mesh = problem.dataset, device_mesh()
    return sweep(problem.key, table, data, config, mesh=mesh, on_epoch=lambda _: on_epoch())[0]


ours_autodiff = partial(ours, config=CONFIG._replace(gradient=autodiff_gradient))


def numpy_loop(problem: Problem, n_epochs: int, on_epoch: Callable[[], None]) -> Params:
    """The loop that everyone writes, of one configuration.

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

    weights, bias, lam = _torch_start(problem)
    model = torch.nn.Linear(*reversed(weights[0].shape))
    model.load_state_dict({"weight": weights[0], "bias": bias[0]})
    decayed = {"params": [model.weight], "weight_decay": 2 * lam.item()}
    groups: Any = [decayed, {"params": [model.bias]}]
    optimizer = torch.optim.SGD(groups, problem.learning_rate)
    on_epoch()
    for _ in range(n_epochs):
        for x, y in _torch_batches(problem, problem.labels):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        on_epoch()
    return Params(model.weight.detach().numpy()[None], model.bias.detach().numpy()[None])


def torch_stacked(problem: Problem, n_epochs: int, on_epoch: Callable[[], None]) -> Params:
    """C configurations stacked by hand, with a hand-derived gradient: two products a step."""
    weights, bias, lam = _torch_start(problem)
    (c, n_classes, _), weights = weights.shape, weights.flatten(0, 1)
    one_hot = np.eye(n_classes, dtype=np.float32)[problem.labels]
    rate = problem.learning_rate
    shrinkage = (1 - 2 * rate * lam).repeat_interleave(n_classes)[:, None]
    on_epoch()
    for _ in range(n_epochs):
        for x, y in _torch_batches(problem, one_hot):
            logits = (weights @ x.T).T.reshape(-1, c, n_classes) + bias
            g = (logits.softmax(-1) - y[:, None]) / len(x)
            weights.mul_(shrinkage).addmm_(g.reshape(len(x), -1).T, x, alpha=-rate)
            bias.sub_(g.sum(0), alpha=rate)
        on_epoch()
    return Params(weights.reshape(c, n_classes, -1).numpy(), bias.numpy())


def _torch_start(problem: Problem) -> tuple[Any, Any, Any]:
    """Weights [C, K, d], biases [C, K] and λ [C], as tensors."""
    from torch import from_numpy

    weights, bias = (np.repeat(array[None], len(problem.lam), axis=0) for array in problem.start)
    return from_numpy(weights), from_numpy(bias), from_numpy(problem.lam).float()


def _torch_batches(problem: Problem, labels: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """The batches of an epoch; the tensors share NumPy's memory."""
    import torch

    arrays = (problem.inputs, labels)
    return zip(*(torch.from_numpy(a).split(problem.batch_size) for a in arrays), strict=True)
