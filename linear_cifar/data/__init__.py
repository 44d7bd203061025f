"""Data: what a `Dataset` is, and where one comes from."""

from linear_cifar.data.arrays import dataset_from_arrays as dataset_from_arrays
from linear_cifar.data.errors import (
    DataError as DataError,
    UnavailableError as UnavailableError,
)
from linear_cifar.data.features import (
    load_features as load_features,
    load_inputs as load_inputs,
)
from linear_cifar.data.loading import (
    DATASET_NAMES as DATASET_NAMES,
    DIVISIONS as DIVISIONS,
    load_dataset as load_dataset,
)
from linear_cifar.data.types import (
    SPLITS as SPLITS,
    Dataset as Dataset,
    Split as Split,
    Standardiser as Standardiser,
    fit_standardiser as fit_standardiser,
    normalised_rows as normalised_rows,
    with_validation as with_validation,
)
