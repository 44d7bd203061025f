"""Checks of arguments at the public door: ranges of settings, real numbers, PRNG keys."""

import re
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.errors import InputError


class Setting(NamedTuple):
    """A numeric setting: its help text and its range. Bounds of None don't bind."""

    help: str  # one sentence without its full stop, with the unit
    low: float | None = None  # at least this
    above: float | None = None
    high: float | None = None  # at most this
    below: float | None = None
    integer: bool = False

    @property
    def range(self) -> str:
        """The range in words, as "at least 0 and below 1"; "" if every number is allowed."""
        if self.low is not None and self.high is not None:
            return f"from {self.low:.12g} to {self.high:.12g}"
        words = ("at least", "above", "at most", "below")
        bounds = zip(words, (self.low, self.above, self.high, self.below), strict=True)
        return " and ".join(f"{word} {bound:.12g}" for word, bound in bounds if bound is not None)

    def admits(self, values: Any) -> Any:
        """Whether each value is finite and within the range, in the shape of the values."""
        return (
            np.isfinite(values)
            & (self.low is None or values >= self.low)
            & (self.above is None or values > self.above)
            & (self.high is None or values <= self.high)
            & (self.below is None or values < self.below)
        )

    def check(self, name: str, values: Any) -> None:
        """Raises `InputError` unless every value is a number in the range; traced values pass."""
        if isinstance(values, jax.core.Tracer):
            return
        array = real_numbers(name, values)
        if self.integer and array.dtype.kind not in "iu":
            raise InputError(f"{name} is {values!r}: it has to be an integer")
        valid = self.admits(array)
        if not np.all(valid):
            value = array.flat[np.argmin(valid)]
            raise InputError(f"{name} is {value}: it has to be {self.range or 'finite'}")


def real_numbers(name: str, values: Any, kinds: str = "iuf") -> np.ndarray:
    """The values as a NumPy array of one of the dtype `kinds`, or bfloat16; else `InputError`."""
    array = np.asarray(None)
    with suppress(TypeError, ValueError):  # ragged lists, PRNG keys
        array = np.asarray(values)
    is_real = array.dtype.kind in kinds or array.dtype.name == "bfloat16"
    if isinstance(values, np.ma.MaskedArray) or not is_real:
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputError(f"{name} is {kind}: it has to be real numbers, not masked or traced")
    return array


def as_dtype(dtype: Any) -> np.dtype:
    """A dtype to compute in; `InputError` unless JAX can, with room for squares."""
    wide = ("float64",) if jax.config.values["jax_enable_x64"] else ()
    if jnp.dtype(dtype).name not in ("bfloat16", "float32", *wide):
        choices = "bfloat16, float32, or in JAX's x64 mode float64"
        raise InputError(f"dtype is {jnp.dtype(dtype)}: it has to be {choices}")
    return jnp.dtype(dtype)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raises `InputError` unless the value is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is {value!r}: it has to be one of {', '.join(choices)}")


def is_text(value: Any) -> bool:
    """Whether a value is a string that files can hold: valid UTF-8 without a NUL."""
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def as_key(key: Any) -> jax.Array:
    """A typed PRNG key, or keys [C], also from old-style ones of uint32; else `InputError`."""
    try:
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        return key if typed else jax.random.wrap_key_data(key)
    except (AttributeError, TypeError) as error:
        raise InputError(f"key is {key!r}: give a PRNG key, as jax.random.key(0)") from error
