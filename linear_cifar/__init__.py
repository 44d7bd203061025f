"""Linear classifiers in JAX: losses, hand-derived gradients, training, sweeps and exact optima.

The mathematics: `losses`, `model`, `objective`, `gradient_check`, `penalties`. Data: `data`.
Gradient descent: `training`. The exact optimum: `optimum`. Evaluation: `metrics`, `selection`,
`classifier`. scikit-learn's interface: `estimators`. Figures: `plots`.
"""

from importlib import metadata as _metadata

from linear_cifar.classifier import Classifier
from linear_cifar.data import (
    DataError,
    Dataset,
    Split,
    Standardiser,
    dataset_from_arrays,
    load_dataset,
    load_features,
    with_validation,
)
from linear_cifar.errors import InputError
from linear_cifar.gradient_check import numerical_gradient, relative_error
from linear_cifar.losses import (
    BINARY_CROSS_ENTROPY,
    LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY,
    Loss,
    binary_cross_entropy,
    binary_cross_entropy_gradient,
    multiple_binary_cross_entropy,
    multiple_binary_cross_entropy_gradient,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
)
from linear_cifar.metrics import Metrics, evaluate
from linear_cifar.model import Params, init_params, logits, predict
from linear_cifar.objective import autodiff_gradient, cost, cost_gradient
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters, adam, momentum, sgd
from linear_cifar.optimum import CrossValidation, Optimum, cross_validate, solve
from linear_cifar.penalties import lam_from, lam_to
from linear_cifar.selection import best, grid, random_grid
from linear_cifar.training import History, TrainConfig, device_mesh, epochs, sweep, train

try:
    __version__ = _metadata.version("linear_cifar")
except _metadata.PackageNotFoundError:  # a checkout that isn't installed
    __version__ = "not installed"

__all__ = [
    "BINARY_CROSS_ENTROPY", "LOSSES", "MULTIPLE_BINARY_CROSS_ENTROPY", "OPTIMIZERS",
    "SOFTMAX_CROSS_ENTROPY", "Classifier", "CrossValidation", "DataError", "Dataset", "History",
    "Hyperparameters", "InputError", "Loss", "Metrics", "Optimum", "Params", "Split",
    "Standardiser", "TrainConfig", "adam", "autodiff_gradient", "best", "binary_cross_entropy",
    "binary_cross_entropy_gradient", "cost", "cost_gradient", "cross_validate",
    "dataset_from_arrays", "device_mesh", "epochs", "evaluate", "grid", "init_params",
    "lam_from", "lam_to", "load_dataset", "load_features", "logits", "momentum",
    "multiple_binary_cross_entropy", "multiple_binary_cross_entropy_gradient",
    "numerical_gradient", "predict", "random_grid", "relative_error", "sgd",
    "softmax_cross_entropy", "softmax_cross_entropy_gradient", "solve", "sweep", "train",
    "with_validation",
]  # fmt: skip
