"""The exact optimum of the cost, for many λ at once, each with its certificate."""

from linear_cifar.optimum.folds import (
    CrossValidation as CrossValidation,
    cross_validate as cross_validate,
)
from linear_cifar.optimum.solver import (
    Optimum as Optimum,
    solve as solve,
)
