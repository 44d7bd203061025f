"""Linear classifiers in JAX: losses, hand-derived gradients, training and sweeps."""

from importlib import metadata as _metadata

from linear_cifar.calibration import (
    Reliability as Reliability,
    fit_temperature as fit_temperature,
    reliability as reliability,
    scaled_probabilities as scaled_probabilities,
)
from linear_cifar.data import (
    DataError as DataError,
    Dataset as Dataset,
    Split as Split,
    Standardiser as Standardiser,
    dataset_from_arrays as dataset_from_arrays,
    fit_standardiser as fit_standardiser,
    load_dataset as load_dataset,
    load_features as load_features,
    load_inputs as load_inputs,
    normalised_rows as normalised_rows,
    with_validation as with_validation,
)
from linear_cifar.engine.devices import device_mesh as device_mesh
from linear_cifar.engine.full_batch import full_batch as full_batch
from linear_cifar.engine.state import (
    History as History,
    Training as Training,
    TrainState as TrainState,
    autodiff as autodiff,
)
from linear_cifar.engine.tables import sweep as sweep
from linear_cifar.engine.training import (
    epochs as epochs,
    train as train,
)
from linear_cifar.evaluation import (
    Metrics as Metrics,
    PerExample as PerExample,
    confusion_matrix as confusion_matrix,
    evaluate as evaluate,
    evaluate_examples as evaluate_examples,
    ground_truth_probabilities as ground_truth_probabilities,
)
from linear_cifar.gradient_check import (
    numerical_gradient as numerical_gradient,
    relative_error as relative_error,
)
from linear_cifar.losses import (
    LOSSES as LOSSES,
    MULTIPLE_BINARY_CROSS_ENTROPY as MULTIPLE_BINARY_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY as SOFTMAX_CROSS_ENTROPY,
    Loss as Loss,
    multiple_binary_cross_entropy as multiple_binary_cross_entropy,
    multiple_binary_cross_entropy_gradient as multiple_binary_cross_entropy_gradient,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_gradient as softmax_cross_entropy_gradient,
)
from linear_cifar.model import (
    Params as Params,
    init_params as init_params,
    logits as logits,
    predict as predict,
)
from linear_cifar.models import (
    Model as Model,
    read_model as read_model,
    write_model as write_model,
)
from linear_cifar.objective import (
    cost as cost,
    cost_gradient as cost_gradient,
)
from linear_cifar.optimizers import (
    OPTIMIZERS as OPTIMIZERS,
    Hyperparameters as Hyperparameters,
    adam as adam,
    momentum as momentum,
    sgd as sgd,
    step_decay as step_decay,
)
from linear_cifar.optimum import (
    CrossValidation as CrossValidation,
    Optimum as Optimum,
    cross_validate as cross_validate,
    solve as solve,
)
from linear_cifar.penalties import (
    Elsewhere as Elsewhere,
    elsewhere as elsewhere,
    lam_of as lam_of,
)
from linear_cifar.quality import (
    ClassQuality as ClassQuality,
    balanced_accuracy as balanced_accuracy,
    class_quality as class_quality,
    confusion_counts as confusion_counts,
    row_shares as row_shares,
    top_k_accuracy as top_k_accuracy,
)
from linear_cifar.search import (
    best as best,
    draw as draw,
    grid as grid,
    one_standard_error as one_standard_error,
    ranking as ranking,
)
from linear_cifar.settings import SettingsError as SettingsError
from linear_cifar.subsets import (
    few_shot as few_shot,
    stratified_subset as stratified_subset,
)

try:
    __version__ = _metadata.version("linear_cifar")
except _metadata.PackageNotFoundError:  # run from a checkout, not installed
    __version__ = "not installed"
