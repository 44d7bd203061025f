"""What the refitted probe is worth on test examples."""

import pathlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from experiments.common import store
from experiments.common.paths import Choice, Path
from experiments.common.solving import Problems, Refit
from linear_cifar.classifier import Classifier
from linear_cifar.data import Dataset, LazyRows, Split
from linear_cifar.errors import InputError
from linear_cifar.losses import Loss
from linear_cifar.metrics import (
    ClassReport,
    Interval,
    Reliability,
    balanced_accuracy,
    class_report,
    confusion_matrix,
    fit_temperature,
    reliability,
    scaled_probabilities,
    top_k_accuracy,
)
from linear_cifar.model import Params

TOP_K, TOP_K_CLASSES = 5, 20  # from so many classes on the top five are told


class Chosen(NamedTuple):
    """A path, and the λ that was chosen."""

    path: Path
    choice: Choice
    what: Problems  # was solved
    dataset: Dataset
    chunks: pathlib.Path  # the folder that holds the parameters


class Tested(NamedTuple):
    """Figures of the test examples."""

    model: Classifier
    uncalibrated: str  # why there is no temperature; "" where there is one
    accuracy: Interval
    top_k: Interval | None
    balanced_accuracy: float
    counts: np.ndarray  # [K, K], by true and predicted class
    by_class: ClassReport
    before: Reliability  # at temperature 1
    after: Reliability


def test(refit: Refit, chosen: Chosen, loss: Loss) -> Tested:
    """Tests the refitted probe, and calibrates it by examples that its λ was not fitted to."""
    dataset = chosen.dataset
    temperature, why = _temperature(chosen, loss)
    model = _model(
        Params(*(array[0] for array in refit.optimum.params)),
        replace(dataset, standardiser=refit.standardiser),
        loss,
        refit.lam,
        temperature,
    )
    scores, labels = model.logits(dataset.test.inputs), np.asarray(dataset.test.labels)
    counts = confusion_matrix(labels, scores.argmax(axis=1), dataset.n_classes)
    many = dataset.n_classes >= TOP_K_CLASSES
    return Tested(
        model,
        why,
        top_k_accuracy(scores, labels),
        top_k_accuracy(scores, labels, TOP_K) if many else None,
        balanced_accuracy(counts),
        counts,
        class_report(counts),
        reliability(scaled_probabilities(scores, loss=loss), labels),
        reliability(scaled_probabilities(scores, temperature, loss), labels),
    )


def _model(
    params: Params, dataset: Dataset, loss: Loss, lam: float, temperature: float
) -> Classifier:
    """The model of features as they are stored."""
    return Classifier(
        params,
        dataset.standardiser,
        dataset.class_names,
        loss,
        lam,
        dataset.normalise_rows,
        temperature,
        dataset.feature_names,
    )


def _temperature(chosen: Chosen, loss: Loss) -> tuple[float, str]:
    """The best temperature, or 1 and why there is none.

    It is that of the chosen λ before it was fitted again, on the validation examples; or of its
    fits without each fold, on the fold.
    """
    path, choice, what, dataset, chunks = chosen
    by_folds = choice.source == "folds"
    lam = float(path.lam[choice.chosen])
    scores, labels = [], []
    for row in np.flatnonzero((what.lam == lam) & ((what.fold >= 0) == by_folds)):
        split = dataset.train if by_folds else dataset.validation
        if by_folds:
            split = _taken(split, np.flatnonzero(what.folds == what.fold[row]))
        of_row = store.read_row(chunks, int(row))
        model = _model(Params(of_row["weights"], of_row["bias"]), dataset, loss, lam, 1.0)
        scores.append(model.logits(split.inputs))
        labels.append(np.asarray(split.labels))
    try:
        return fit_temperature(np.concatenate(scores), np.concatenate(labels), loss), ""
    except InputError as error:
        return 1.0, str(error)


def _taken(split: Split, rows: np.ndarray) -> Split:
    inputs = split.inputs
    return Split(
        inputs.take(rows) if isinstance(inputs, LazyRows) else inputs[rows], split.labels[rows]
    )
