"""Cross-validation in the same passes: a fold is a row of weights, 0 and 1, of the same inputs."""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from linear_cifar.data.dataset import Dataset
from linear_cifar.data.stratify import stratified_folds
from linear_cifar.losses import Loss, as_loss
from linear_cifar.metrics.evaluate import fold_metrics, fold_target_metrics
from linear_cifar.model import Params
from linear_cifar.optimum.solve import (
    DEFAULTS,
    SolveConfig,
    check_lam,
    every_target,
    solve_chunks,
)
from linear_cifar.optimum.tasks import ExampleWeights


class CrossValidation(NamedTuple):
    """Metrics of each λ on the left-out fold; NumPy. For T targets all are [folds, C, T]."""

    loss: np.ndarray  # [folds, C], in nats, on the examples of the fold
    accuracy: np.ndarray  # [folds, C]
    converged: np.ndarray  # [folds, C], of the optima without the fold
    auroc: np.ndarray | None = None  # None for classes; NaN if the fold's labels are all equal
    average_precision: np.ndarray | None = None  # likewise


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
    class_weight: ArrayLike | str | None = None,
    tolerance: float = DEFAULTS.tolerance,
    max_passes: int = DEFAULTS.max_passes,
    mesh: Mesh | None = None,
) -> CrossValidation:
    """Stratified cross-validation of the training examples, all folds and λ at once.

    λ > 0, [C] or for targets also [C, T], is per example, so it means the same for a fold's
    examples and for all. Inputs are standardised with all training examples. The PRNG key draws 2
    to n folds; targets share them, so they aren't stratified. The keywords and the errors are as
    for `solve`. Choose the λ with the best mean over folds.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.arange(8.0)[:, None], np.arange(8) // 4))
      >>> cross_validate(jax.random.key(0), [0.1, 10.0], data, 4).accuracy.shape
      (4, 2)
    """
    lam, _, target = every_target(lam, None, dataset)
    lam, labels = check_lam(lam), np.asarray(dataset.train.labels)
    strata = np.zeros(len(labels), int) if dataset.has_targets else labels
    folds = stratified_folds(key, strata, n_folds)
    fold_index = np.repeat(np.arange(n_folds), len(lam))
    target = None if target is None else np.tile(target, n_folds)
    left_out = folds == np.arange(n_folds)[:, None]
    config = SolveConfig(as_loss(loss), tolerance, max_passes)
    columns: dict[str, np.ndarray] = {}
    for step in solve_chunks(
        np.tile(lam, n_folds),
        dataset,
        config,
        weights=fold_weights(folds, fold_index),
        target=target,
        class_weight=class_weight,
        mesh=mesh,
    ):
        if step.optimum:
            rows, params = np.array(step.rows), step.optimum.params
            measured = {"converged": step.optimum.converged}
            if target is None:
                pair = fold_metrics(params, left_out, fold_index[rows], dataset, config.loss)
                measured |= zip(("loss", "accuracy"), pair, strict=True)
            else:
                models = Params(*(array[:, 0] for array in params))
                held_out = (target[rows], folds, fold_index[rows], dataset)
                measured |= fold_target_metrics(models, *held_out)
            for name, values in measured.items():
                columns.setdefault(name, np.empty(len(fold_index), values.dtype))[rows] = values
    shape = (n_folds, -1, dataset.n_classes) if dataset.has_targets else (n_folds, -1)
    return CrossValidation(**{name: column.reshape(shape) for name, column in columns.items()})
