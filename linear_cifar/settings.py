"""What a setting is: its range and its help, said once for the library and for the commands."""

import math
from numbers import Integral
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from linear_cifar.errors import OneLineError


class SettingsError(OneLineError, ValueError):
    """A setting out of its range; one line says which, and what the range is."""


class Setting(NamedTuple):
    """What a setting is and which values it may have; bounds that are None don't bind.

    It stands beside the field that it describes, as `name: Annotated[type, Setting(…)] = default`.
    """

    help: str  # one sentence without its full stop, with the unit
    low: float | None = None  # at least this
    above: float | None = None
    high: float | None = None  # at most this
    below: float | None = None

    @property
    def range(self) -> str:
        """The values that it may have, in words: "at least 0 and below 1"; "" for any."""
        if self.low is not None and self.high is not None:
            return f"from {self.low:.12g} to {self.high:.12g}"
        bounds = (
            ("at least", self.low),
            ("above", self.above),
            ("at most", self.high),
            ("below", self.below),
        )
        return " and ".join(f"{word} {bound:.12g}" for word, bound in bounds if bound is not None)

    def admits(self, value: Any) -> bool:
        """Whether a value is a number, finite and within the range."""
        try:
            finite = math.isfinite(value)
        except (TypeError, ValueError, OverflowError):  # text, many numbers, beyond every float
            return False
        return (
            finite
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def check(self, name: str, value: Any) -> None:
        """Raises `SettingsError` where a number is out of the range."""
        if not self.admits(value):
            raise SettingsError(f"{name} is {value}: it has to be {self.range or 'finite'}")

    def check_integer(self, name: str, value: Any) -> None:
        """Raises `SettingsError` where it is no integer, or one out of the range."""
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise SettingsError(f"{name} is {value!r}: it has to be an integer")
        self.check(name, value)


def as_array(values: Any) -> np.ndarray:
    """Values as an array, or None as one where they make none: ragged ones, and keys of JAX."""
    try:
        return np.asanyarray(values)
    except (TypeError, ValueError):
        return np.asarray(None)


def numbers(name: str, values: Any, kinds: str = "iuf") -> np.ndarray:
    """Real numbers as an array.

    Args:
      name: of the argument, for the error.
      values: an array, or what makes one.
      kinds: of numpy's dtypes, those that will do.

    Raises:
      SettingsError: they are text, complex, masked, ragged or no numbers at all.
    """
    array = as_array(values)
    real = array.dtype.kind in kinds or array.dtype.name == "bfloat16"
    if not real or isinstance(values, np.ma.MaskedArray):
        kind = getattr(values, "dtype", type(values).__name__)
        kind = "a masked array" if isinstance(values, np.ma.MaskedArray) else kind
        raise SettingsError(f"{name} is {kind}: it has to be real numbers")
    return array


def is_text(value: Any) -> bool:
    """Whether it is a string that files can hold.

    Half a pair of surrogates is none in UTF-8, and numpy takes a NUL for the end.
    """
    if not isinstance(value, str):
        return False
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value)


def settings_of(owner: type) -> dict[str, Setting]:
    """The settings that the fields of a class are annotated with, by name."""
    hints = get_type_hints(owner, include_extras=True)
    found = {
        name: [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Setting)]
        for name, hint in hints.items()
    }
    return {name: settings[0] for name, settings in found.items() if settings}
