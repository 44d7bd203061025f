"""What `solve` is asked: its settings and arguments, with the checks that they pass."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from linear_cifar.data.types import Dataset
from linear_cifar.losses import SOFTMAX_CROSS_ENTROPY, Loss, check_loss
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.settings import Setting, SettingsError, numbers, settings_of

# float16 has no room for λ and squares over it.
_DTYPES = ("bfloat16", "float32", "float64")
_ROOM = 1e12  # times the least number of a dtype, of λ; and likewise below the largest


class Solver(NamedTuple):
    """How to solve; what `solve` takes as keywords."""

    loss: Loss = SOFTMAX_CROSS_ENTROPY
    tolerance: Annotated[
        float, Setting("certified gap over cost at which a λ is finished", above=0, below=1)
    ] = 1e-6
    max_passes: Annotated[int, Setting("passes over the data for a λ", low=1, high=2**31 - 1)] = (
        1000
    )
    dtype: Any = jnp.float32  # of the descent
    memory_bytes: Annotated[
        int, Setting("bytes that descents may keep, which bounds how many λ go at once", low=1)
    ] = 2**28


DEFAULTS = Solver()
# Separable classes are ever better separated.
LAM = settings_of(Hyperparameters)["lam"]
LAM = LAM._replace(help=f"{LAM.help}, without which it may have no minimum", low=None, above=0)


class Weights(NamedTuple):
    """Weights of examples of R rows, many of which have the same, as those of a fold."""

    distinct: np.ndarray  # [D, n]
    of_row: np.ndarray  # [R], below D


def check_solver(how: Solver) -> None:
    """Raises `SettingsError` unless each setting is in its range."""
    check_loss(how.loss)
    for name, setting in settings_of(Solver).items():
        value = getattr(how, name)
        (setting.check if name == "tolerance" else setting.check_integer)(name, value)
    dtype = _name_of(how.dtype)
    if dtype not in _DTYPES:
        raise SettingsError(f"dtype is {how.dtype!r}: it has to be one of {', '.join(_DTYPES)}")
    if dtype == "float64" and not jax.config.values["jax_enable_x64"]:
        raise SettingsError("dtype float64 needs JAX's x64 mode")


def _name_of(dtype: Any) -> str:
    """A dtype's name; "" of what is none. Text is none but the name itself, None none either."""
    if dtype is None or isinstance(dtype, str):
        return dtype or ""
    try:
        return jnp.dtype(dtype).name
    except TypeError:
        return ""


def check_fits(lam: np.ndarray, dtype: Any) -> None:
    """That there is room for λ, and for squares over it, within the dtype."""
    limits = jnp.finfo(dtype)
    low, high = _ROOM * float(limits.tiny), float(limits.max) / _ROOM
    fits = Setting("", low=low, high=high)
    for value in lam:
        if not fits.admits(value):
            raise SettingsError(f"lam is {value}: in {jnp.dtype(dtype)} it has to be {fits.range}")


def check_lam(lam: ArrayLike) -> np.ndarray:
    """The values of λ, [C] in float64.

    Raises:
      SettingsError: another shape, or a value that is not above 0.
    """
    lam = numbers("lam", lam).astype(np.float64)
    if lam.ndim != 1 or not lam.size:
        raise SettingsError(f"lam has to be a list of values, [C], not {list(lam.shape)}")
    for value in lam:
        if value == 0:
            raise SettingsError("lam is 0: without a penalty the cost may have no minimum")
        LAM.check("lam", value)
    return lam


def checked(
    lam: ArrayLike, weights: ArrayLike | Weights | None, n: int
) -> tuple[np.ndarray, Weights]:
    """λ [C] and the weights of examples."""
    lam = check_lam(lam)
    if not isinstance(weights, Weights):
        distinct = np.ones(n, bool) if weights is None else numbers("weights", weights, "biuf")
        if distinct.shape not in ((n,), (len(lam), n)):
            shape = list(distinct.shape)
            raise SettingsError(f"weights have to be [{n}] or [{len(lam)}, {n}], not {shape}")
        of_row = np.arange(len(lam)) if distinct.ndim == 2 else np.zeros(len(lam), int)
        weights = Weights(np.atleast_2d(distinct), of_row)
    for of in weights.distinct:
        if of.dtype.kind not in "biuf" or not np.isfinite(of).all() or (of < 0).any():
            raise SettingsError("weights have to be numbers, finite and at least 0")
        if not of.any():
            raise SettingsError("weights have to be above 0 for an example at least")
    return lam, weights


def _pair(start: Any) -> tuple[Any, Any]:
    if not isinstance(start, tuple) or len(start) != 2:
        raise SettingsError(f"start is a {type(start).__name__}: it has to be Params")
    return start


def checked_start(start: Params, c: int, dataset: Dataset) -> Params:
    """Parameters to descend from, as numpy arrays."""
    k, d = dataset.n_classes, dataset.n_features
    arrays = Params(*(numbers("start", array) for array in _pair(start)))
    if (arrays.weights.shape, arrays.bias.shape) != ((c, k, d), (c, k)):
        raise SettingsError(f"start has to be weights [{c}, {k}, {d}] and biases [{c}, {k}]")
    return arrays


def shares_of(weights: Weights, rows: np.ndarray) -> Weights:
    """The weights of some rows, with a sum of 1 over n, float64."""
    used, of_row = np.unique(weights.of_row[rows], return_inverse=True)
    largest = weights.distinct[used].max(axis=1, keepdims=True)  # a sum may overflow
    distinct = weights.distinct[used] / largest
    return Weights(distinct / distinct.sum(axis=1, keepdims=True, dtype=np.float64), of_row)
