"""Cross-validation in the same passes: a fold is weights of zero and one over the same inputs."""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from linear_cifar.data.dataset import Dataset, check_dataset
from linear_cifar.data.stratify import stratified_folds
from linear_cifar.losses import Loss, as_loss
from linear_cifar.metrics.evaluate import fold_metrics
from linear_cifar.optimum.solve import DEFAULTS, check_lam, solve
from linear_cifar.optimum.tasks import ExampleWeights


class CrossValidation(NamedTuple):
    """Metrics of each λ on examples that it wasn't fitted to; NumPy."""

    loss: np.ndarray  # [folds, C], in nats, on the examples of the fold
    accuracy: np.ndarray  # [folds, C]
    converged: np.ndarray  # [folds, C], of the optima without the fold


def fold_weights(folds: np.ndarray, fold_index: np.ndarray) -> ExampleWeights:
    """Weights for `solve`, from the fold of each example [n] and the one that each row leaves out.

    A row [R] with −1 leaves none out.
    """
    left_out, index = np.unique(fold_index, return_inverse=True)
    return ExampleWeights(folds[None] != left_out[:, None], index)


def cross_validate(
    key: jax.Array,
    lam: ArrayLike,
    dataset: Dataset,
    n_folds: int = 5,
    *,
    loss: Loss = DEFAULTS.loss,
    tolerance: float = DEFAULTS.tolerance,
    max_passes: int = DEFAULTS.max_passes,
    mesh: Mesh | None = None,
) -> CrossValidation:
    """Stratified cross-validation of the training examples, all folds and λ at once.

    λ > 0, [C], is per example, so it means the same for a fold's examples and for all. Inputs are
    standardised as all training examples are. The PRNG key draws the folds, 2 to n of them. The
    keywords and the errors are as for `solve`. The mean over folds of the result chooses λ.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.arange(8.0)[:, None], np.arange(8) // 4))
      >>> cross_validate(jax.random.key(0), [0.1, 10.0], data, 4).accuracy.shape
      (4, 2)
    """
    check_dataset(dataset)
    lam, loss = check_lam(lam), as_loss(loss)
    folds = stratified_folds(key, dataset.train.labels, n_folds)
    fold_index = np.repeat(np.arange(n_folds), len(lam))
    optimum = solve(
        np.tile(lam, n_folds),
        dataset,
        loss=loss,
        weights=fold_weights(folds, fold_index),
        tolerance=tolerance,
        max_passes=max_passes,
        mesh=mesh,
    )
    left_out = folds == np.arange(n_folds)[:, None]
    metrics = fold_metrics(optimum.params, left_out, fold_index, dataset, loss)
    shape = (n_folds, len(lam))
    return CrossValidation(*(array.reshape(shape) for array in (*metrics, optimum.converged)))
