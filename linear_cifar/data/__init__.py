"""Data: what a `Dataset` is, and where one comes from."""

from linear_cifar.data.blocks import LazyRows as LazyRows, blocks as blocks
from linear_cifar.data.cifar10 import (
    DATASET_NAMES as DATASET_NAMES,
    DIVISIONS as DIVISIONS,
    default_data_dir as default_data_dir,
    load_dataset as load_dataset,
)
from linear_cifar.data.dataset import (
    INPUT_DTYPES as INPUT_DTYPES,
    SPLITS as SPLITS,
    STANDARDISE as STANDARDISE,
    Dataset as Dataset,
    Split as Split,
    Standardiser as Standardiser,
    dataset_from_arrays as dataset_from_arrays,
    fit_standardiser as fit_standardiser,
    normalised_rows as normalised_rows,
    take_rows as take_rows,
    with_validation as with_validation,
)
from linear_cifar.data.features import (
    HELP as HELP,
    SETTINGS as SETTINGS,
    load_features as load_features,
    load_inputs as load_inputs,
)
from linear_cifar.data.formats import (
    ENDINGS as ENDINGS,
    USUAL as USUAL,
    is_labels_file as is_labels_file,
)
from linear_cifar.data.stratify import (
    N_FOLDS as N_FOLDS,
    few_shot as few_shot,
    stratified_folds as stratified_folds,
    stratified_subset as stratified_subset,
)
from linear_cifar.errors import DataError as DataError, UnavailableError as UnavailableError
