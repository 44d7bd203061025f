"""The exact optimum of the cost and its certificate, many λ at once."""

from linear_cifar.optimum.cross_validation import (
    CrossValidation as CrossValidation,
    cross_validate as cross_validate,
    fold_weights as fold_weights,
)
from linear_cifar.optimum.interval import (
    Certificate as Certificate,
    gap_at as gap_at,
    interval_gaps as interval_gaps,
)
from linear_cifar.optimum.prediction import certain_predictions as certain_predictions
from linear_cifar.optimum.solve import (
    DEFAULTS as DEFAULTS,
    LAM as LAM,
    SETTINGS as SETTINGS,
    Optimum as Optimum,
    SolveConfig as SolveConfig,
    SolveStep as SolveStep,
    certified_gap as certified_gap,
    check_lam as check_lam,
    solve as solve,
    solve_chunks as solve_chunks,
)
from linear_cifar.optimum.tasks import ExampleWeights as ExampleWeights
