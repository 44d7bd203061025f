"""Figures, from arrays; each function returns a matplotlib `Figure` for the caller to save."""

from linear_cifar.plots.paths import (
    Curve as Curve,
    Stopped as Stopped,
    plot_costs as plot_costs,
    plot_passes as plot_passes,
    plot_path as plot_path,
    plot_weights_over_lam as plot_weights_over_lam,
)
from linear_cifar.plots.quality import (
    plot_confusion as plot_confusion,
    plot_learning_curve as plot_learning_curve,
    plot_per_class as plot_per_class,
    plot_reliability as plot_reliability,
)
from linear_cifar.plots.runs import (
    plot_history as plot_history,
    plot_probabilities as plot_probabilities,
    plot_weights as plot_weights,
)
from linear_cifar.plots.sweeps import (
    plot_drawn as plot_drawn,
    plot_grid as plot_grid,
    plot_over_lam as plot_over_lam,
    plot_validation_and_test as plot_validation_and_test,
)
