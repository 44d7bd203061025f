"""Axes of a table as flags: lists of values and ranges, `0,0.1,1` or `1e-5:1:13:log`."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from linear_cifar import search
from linear_cifar.training import SettingsError

FLAGS = flags.FLAGS
FORM = "values separated by commas, or LOW:HIGH:N, or LOW:HIGH:N:log for equal ratios"


class Axis(NamedTuple):
    """The values of one setting."""

    values: Sequence[Any]  # of a grid; none of a range without N
    distribution: Any  # to draw from, as `search.draw` takes it


def define(
    name: str, default: str, of: type, help_text: str, admits: Callable[[Any], bool]
) -> None:
    """Defines an axis flag, of which every value has to be admitted."""

    def valid(text: str) -> bool:
        try:
            axis = _parse(text, of)
            ends = axis.values or axis.distribution.support()
        except ValueError:
            ends = []
        if not ends:
            raise flags.ValidationError(f"{text!r} has another form. {help_text} Give {FORM}.")
        for value in ends:
            if not (isinstance(value, str) or math.isfinite(value)) or not admits(value):
                raise flags.ValidationError(f"it can't have the value {value}. {help_text}")
        return True

    flags.DEFINE_string(name, default, f"{help_text} An axis: {FORM}.")
    flags.register_validator(name, valid)
    FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    _TYPES[name] = of


_TYPES: dict[str, type] = {}


def columns(names: Sequence[str], n_random: int | None = None) -> dict[str, list]:
    """The columns of the table that the axis flags describe.

    Args:
      names: of the flags.
      n_random: how many combinations to draw, from --seed; None for all of them.

    Raises:
      SettingsError: a range that has no N, where all combinations are asked for.
    """
    axes = {name: _parse(str(FLAGS[name].value), _TYPES[name]) for name in names}
    if n_random:
        drawn = {name: axis.distribution for name, axis in axes.items()}
        table = search.draw(FLAGS.seed, n_random, **drawn)
    else:
        for name, axis in axes.items():
            if not axis.values:
                raise SettingsError(
                    f"--{name}={FLAGS[name].value}: a range needs N, LOW:HIGH:N, or --n_random"
                )
        table = search.grid(**{name: axis.values for name, axis in axes.items()})
    return {name: column.tolist() for name, column in table.items()}


def _parse(text: str, of: type) -> Axis:
    """Reads an axis; ValueError if it has another form."""
    from scipy import stats

    if ":" not in text:
        values = [of(word) for word in text.split(",")]
        return Axis(values, values)
    words = text.split(":")
    log = words[-1] == "log"
    low, high, *n = map(float, words[: len(words) - log])
    if of is not float or len(n) > 1 or not low < high or (log and low <= 0):
        raise ValueError(text)
    drawn = stats.loguniform(low, high) if log else stats.uniform(low, high - low)
    space: Any = np.geomspace if log else np.linspace
    spaced = space(low, high, int(n[0])) if n else []
    # In twelve digits: 0.01, and not 0.010000000000000002.
    return Axis([float(f"{value:.12g}") for value in spaced], drawn)
