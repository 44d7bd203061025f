"""Metrics of runs, classes, probabilities and binary targets, with intervals and comparisons."""

from linear_cifar.metrics.binary import (
    BinaryMetrics as BinaryMetrics,
    binary_metrics as binary_metrics,
    binary_scores as binary_scores,
    pseudo_values as pseudo_values,
)
from linear_cifar.metrics.calibration import (
    Reliability as Reliability,
    fit_temperature as fit_temperature,
    reliability as reliability,
    scaled_probabilities as scaled_probabilities,
)
from linear_cifar.metrics.classification import (
    ClassReport as ClassReport,
    balanced_accuracy as balanced_accuracy,
    class_report as class_report,
    confusion_matrix as confusion_matrix,
    row_shares as row_shares,
    top_k_accuracy as top_k_accuracy,
)
from linear_cifar.metrics.comparison import (
    Difference as Difference,
    holm as holm,
    mcnemar as mcnemar,
    paired_test as paired_test,
)
from linear_cifar.metrics.evaluate import (
    Metrics as Metrics,
    evaluate as evaluate,
    evaluate_examples as evaluate_examples,
    fold_metrics as fold_metrics,
    fold_target_metrics as fold_target_metrics,
    split_logits as split_logits,
    target_metrics as target_metrics,
)
from linear_cifar.metrics.intervals import (
    Interval as Interval,
    Summary as Summary,
    accuracy_interval as accuracy_interval,
    summarise as summarise,
)
