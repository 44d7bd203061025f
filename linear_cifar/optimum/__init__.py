"""The exact optimum of the cost, for many λ at once, each with its certificate."""

from linear_cifar.optimum.solver import (
    Optimum as Optimum,
    solve as solve,
)
