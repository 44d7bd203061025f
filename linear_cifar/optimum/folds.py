"""Cross-validation in the same batch: a fold is weights of zero and one over the same inputs."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from linear_cifar.data.types import Dataset, check_dataset
from linear_cifar.engine.training import as_key
from linear_cifar.evaluation import evaluate_examples, in_blocks
from linear_cifar.losses import Loss
from linear_cifar.model import Params
from linear_cifar.optimum.settings import DEFAULTS, Weights, check_lam
from linear_cifar.optimum.solver import Optimum, solve
from linear_cifar.settings import Setting, SettingsError, numbers

N_FOLDS = Setting("folds of a stratified cross-validation of the training examples", low=2)


class CrossValidation(NamedTuple):
    """What every λ is worth on examples that it was not fitted to; numpy arrays."""

    loss: np.ndarray  # [folds, C], in nats, of the examples of the fold
    accuracy: np.ndarray  # [folds, C]
    converged: np.ndarray  # [folds, C], of the optima without the fold


def stratified_folds(key: jax.Array, labels: ArrayLike, n_folds: int) -> np.ndarray:
    """Deals examples out to folds at random, those of each class evenly.

    Args:
      key: PRNG key.
      labels: class ids [n].
      n_folds: from 2 to n.

    Returns:
      The fold of each example, [n] int, 0 … n_folds − 1; the sizes of folds, and the numbers of a
      class in them, differ by one at most.

    Raises:
      SettingsError: `n_folds` out of its range, or labels that aren't integers [n].
    """
    labels = numbers("labels", labels, "iu")
    if labels.ndim != 1:
        raise SettingsError(f"labels have to be [n], not {list(labels.shape)}")
    N_FOLDS._replace(high=len(labels)).check_integer("n_folds", n_folds)
    order = np.asarray(jax.random.permutation(as_key(key), len(labels)))
    by_class = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), int)
    folds[by_class] = np.arange(len(labels)) % n_folds
    return folds


def fitted_to(folds: np.ndarray, of_row: np.ndarray) -> Weights:
    """The examples that rows are fitted to, as weights of `solve`: those of all other folds.

    Args:
      folds: of examples, [n].
      of_row: the fold that a row leaves out, [R]; −1 leaves none out.

    Returns:
      `Weights` of true and false.
    """
    left_out, place = np.unique(of_row, return_inverse=True)
    return Weights(folds[None] != left_out[:, None], place)


def held_out(
    params: Params, of_row: np.ndarray, folds: np.ndarray, dataset: Dataset, loss: Loss
) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss and the accuracy of rows, [R] each, on the examples of their folds.

    Args:
      params: [R, K, d] and [R, K].
      of_row: the fold that a row leaves out, [R]; −1 for none, which gives NaN.
      folds: of examples, [n].
      dataset: whose training examples these are.
      loss: the loss per example.
    """
    total = np.zeros((3, len(of_row)))
    for where, block in in_blocks(dataset.train):
        left_out = folds[where] == of_row[:, None]
        measured: Any = evaluate_examples(params, block, dataset.standardiser, loss)
        sums = [np.sum(np.asarray(a, float), axis=1, where=left_out) for a in measured]
        total += [*sums, left_out.sum(axis=1)]
    loss_of_rows, accuracy = total[:2] / np.where(total[2], total[2], np.nan)
    return loss_of_rows, accuracy


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

    λ is per example, so that it means the same for a fold's examples and for all of them. Inputs
    are standardised as all training examples are.

    Args:
      key: PRNG key of the folds.
      lam: λ > 0, [C].
      dataset: whose training examples are divided.
      n_folds: from 2 to n.
      loss: as for `solve`, like the other keywords.
      tolerance: as for `solve`.
      max_passes: as for `solve`.
      mesh: as for `solve`.

    Returns:
      `CrossValidation`; its mean over folds is what chooses λ.

    Raises:
      SettingsError: as for `solve` and `stratified_folds`.

    Examples:
      >>> from linear_cifar.data import dataset_from_arrays
      >>> data = dataset_from_arrays((np.arange(8.0)[:, None], np.arange(8) // 4))
      >>> cross_validate(jax.random.key(0), [0.1, 10.0], data, 4).accuracy.shape
      (4, 2)
    """
    lam = check_lam(lam)
    check_dataset(dataset)
    folds = stratified_folds(key, dataset.train.labels, n_folds)
    of_row = np.repeat(np.arange(n_folds), len(lam))
    optimum: Optimum = solve(
        np.tile(lam, n_folds),
        dataset,
        loss=loss,
        weights=fitted_to(folds, of_row),
        tolerance=tolerance,
        max_passes=max_passes,
        mesh=mesh,
    )
    measured = held_out(optimum.params, of_row, folds, dataset, loss)
    shape = (n_folds, len(lam))
    return CrossValidation(*(a.reshape(shape) for a in (*measured, optimum.converged)))
