"""What the refitted probe does on the test examples, and its calibration."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.common import folder, path
from linear_cifar import Classifier, Dataset, InputError, Loss, Params
from linear_cifar.data import take_rows
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

if TYPE_CHECKING:
    import pandas as pd

TOP_K, TOP_K_CLASSES = 5, 20  # the top five are reported from so many classes on
MAX_PRINTED_CLASSES = 30


class TestReport(NamedTuple):
    """The model and its measures on the test examples."""

    model: Classifier
    not_calibrated: str  # why there is no temperature; "" if there is one
    top_k: Interval | None
    balanced_accuracy: float
    counts: np.ndarray  # [K, K], by true and predicted class
    by_class: ClassReport
    before: Reliability  # at temperature 1
    after: Reliability


def test_refit(fit: path.Fit, dataset: Dataset, loss: Loss) -> TestReport:
    """Tests the refitted probe, with a temperature from examples that it wasn't fitted to."""
    temperature, not_calibrated = _temperature(fit, dataset, loss)
    refitted = replace(dataset, standardiser=fit.refit.standardiser)
    model = _model(fit.refit.params, refitted, loss, fit.refit.lam, temperature)
    scores, labels = model.logits(dataset.test.inputs), np.asarray(dataset.test.labels)
    counts = confusion_matrix(labels, scores.argmax(axis=1), dataset.n_classes)
    has_many_classes = dataset.n_classes >= TOP_K_CLASSES
    return TestReport(
        model,
        not_calibrated,
        top_k_accuracy(scores, labels, TOP_K) if has_many_classes else None,
        balanced_accuracy(counts),
        counts,
        class_report(counts),
        reliability(scaled_probabilities(scores, loss=loss), labels),
        reliability(scaled_probabilities(scores, temperature, loss), labels),
    )


def _model(
    params: Params, dataset: Dataset, loss: Loss, lam: float, temperature: float
) -> Classifier:
    """The model for features as they are stored."""
    stored = (dataset.normalise_rows, temperature, dataset.feature_names)
    return Classifier(params, dataset.standardiser, dataset.class_names, loss, lam, *stored)


def _temperature(fit: path.Fit, dataset: Dataset, loss: Loss) -> tuple[float, str]:
    """The best temperature, or 1 and the reason that there is none.

    The chosen λ before its refit is measured on the validation examples; or with folds, its fit
    without each fold on that fold.
    """
    splits_and_params = [(dataset.validation, fit.solutions.params(fit.choice.chosen))]
    if fit.choice.source == "folds":
        problems, chunks, _ = fit.first
        rows = np.flatnonzero((problems.lam == fit.refit.lam) & (problems.fold >= 0)).tolist()
        folds = [np.flatnonzero(problems.fold_of == problems.fold[row]) for row in rows]
        splits_and_params = [
            (take_rows(dataset.train, fold), folder.row_params(chunks, row))
            for fold, row in zip(folds, rows, strict=True)
        ]
    scores, labels = [], []
    for split, params in splits_and_params:
        scores.append(_model(params, dataset, loss, fit.refit.lam, 1.0).logits(split.inputs))
        labels.append(np.asarray(split.labels))
    try:
        return fit_temperature(np.concatenate(scores), np.concatenate(labels), loss), ""
    except InputError as error:
        return 1.0, str(error)


def class_table(test: TestReport, class_names: Sequence[str]) -> "pd.DataFrame":
    """A row per class: its test examples, accuracy with 95 % interval, precision and F1."""
    import pandas as pd

    columns = test.by_class._asdict() | {"support": test.by_class.support.astype(int)}
    return pd.DataFrame({"class": class_names, **columns})
