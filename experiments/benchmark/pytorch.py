"""Contenders in PyTorch; imported only where that is installed."""

from collections.abc import Iterator

import numpy as np
import torch

from experiments.benchmark.contenders import (
    MAX_ITERATIONS,
    RATE,
    Contender,
    Fit,
    Task,
    Trained,
    by_epochs,
)
from linear_cifar.model import Params


def linear(task: Task) -> Contender:
    """One configuration as PyTorch's tutorials have it: `nn.Linear`, `cross_entropy`, `SGD`."""
    inputs, labels = _tensors(task)
    start, (lam,) = task.examples.start, task.lam.tolist()

    def begin() -> Iterator[Trained]:
        model = torch.nn.Linear(inputs.shape[1], len(start.bias))
        with torch.no_grad():
            model.weight.copy_(torch.tensor(start.weights))
            model.bias.copy_(torch.tensor(start.bias))
        groups = [{"params": [model.weight], "weight_decay": 2 * lam}, {"params": [model.bias]}]
        optimizer = torch.optim.SGD(groups, RATE)
        while True:
            yield Trained(1, lambda: _params(model.weight[None], model.bias[None]))
            for x, y in _batches(task, inputs, labels):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()

    return Contender("PyTorch nn.Linear", task, by_epochs(begin))


def stacked(task: Task) -> Contender:
    """Configurations stacked by hand, with the gradient by hand: two products a step."""
    inputs, labels = _tensors(task)
    size = (task.n_configurations, len(task.examples.start.bias))

    @torch.no_grad()
    def begin() -> Iterator[Trained]:
        weights, bias, lam = _start(task)
        weights = weights.flatten(0, 1)
        keep = (1 - 2 * RATE * lam).repeat_interleave(size[1])[:, None]
        one_hot = torch.nn.functional.one_hot(labels, size[1]).float()
        while True:
            yield Trained(size[0], lambda: _params(weights.reshape(*size, -1), bias))
            for x, y in _batches(task, inputs, one_hot):
                scores = (weights @ x.T).T.reshape(-1, *size) + bias
                by_score = (scores.softmax(-1) - y[:, None]) / len(x)
                weights.mul_(keep).addmm_(by_score.reshape(len(x), -1).T, x, alpha=-RATE)
                bias.sub_(by_score.sum(0), alpha=RATE)

    return Contender("PyTorch, stacked by hand", task, by_epochs(begin))


def vmap(task: Task) -> Contender:
    """Configurations by `torch.func.vmap` over `torch.func.grad`."""
    inputs, labels = _tensors(task)

    def cost(weights, bias, lam, x, y):
        loss = torch.nn.functional.cross_entropy(x @ weights.T + bias, y)
        return loss + lam * (weights**2).sum()

    gradient = torch.func.vmap(torch.func.grad(cost, argnums=(0, 1)), in_dims=(0, 0, 0, None, None))

    def begin() -> Iterator[Trained]:
        weights, bias, lam = _start(task)
        while True:
            yield Trained(len(lam), lambda: _params(weights, bias))
            for x, y in _batches(task, inputs, labels):
                by_weights, by_bias = gradient(weights, bias, lam, x, y)
                weights.sub_(by_weights, alpha=RATE)
                bias.sub_(by_bias, alpha=RATE)

    return Contender("PyTorch, torch.func.vmap", task, by_epochs(begin))


def lbfgs(inputs: np.ndarray, labels: np.ndarray) -> Fit:
    """One λ by `LBFGS` with its line search, the penalty in the closure."""
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64))

    def fit(lam: float, start: Params, tolerance: float) -> Params:
        weights, bias = (torch.tensor(a, dtype=x.dtype, requires_grad=True) for a in start)
        optimizer = torch.optim.LBFGS(
            [weights, bias],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=tolerance,
            tolerance_change=0,  # in float32 the cost stays the same before the gap is small
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(x @ weights.T + bias, y)
            cost = loss + lam * (weights**2).sum()
            cost.backward()
            return cost

        optimizer.step(closure)
        return _params(weights, bias)

    return fit


def _tensors(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised images [n, d], which share NumPy's memory, and labels [n]."""
    inputs, labels = task.examples.standardised
    return torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64))


def _start(task: Task) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights [C, K, d] and biases [C, K] of all configurations, and their λ [C]."""
    c = task.n_configurations
    weights, bias = (np.repeat(array[None], c, axis=0) for array in task.examples.start)
    return torch.from_numpy(weights), torch.from_numpy(bias), torch.tensor(task.lam).float()


def _batches(task: Task, inputs: torch.Tensor, labels: torch.Tensor):
    size = task.batch_size
    return zip(inputs.split(size), labels.split(size), strict=True)


def _params(weights: torch.Tensor, bias: torch.Tensor) -> Params:
    return Params(weights.detach().numpy(), bias.detach().numpy())
