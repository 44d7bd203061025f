"""The exact optimum of the cost, for many λ at once, each with its certificate."""

from linear_cifar.optimum.solve import (
    Optimum as Optimum,
    solve as solve,
)
