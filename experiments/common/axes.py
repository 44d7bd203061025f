"""Axes of a table as flags: lists of values and ranges, `0,0.1,1` or `1e-5:1:13:log`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.common.flags import (
    CHOICES,
    DEFAULTS,
    SETTINGS,
    check_runs,
    define_max_runs,
    explain,
)
from experiments.common.settings import unread
from linear_cifar import selection
from linear_cifar.checks import Setting
from linear_cifar.errors import InputError

FLAGS = flags.FLAGS
FORM = "values separated by commas, or LOW:HIGH:N, or LOW:HIGH:N:log for equal ratios"


class AxisFlag(NamedTuple):
    """The values of one setting."""

    values: Sequence[Any]  # of a grid; none of a range without N
    distribution: Any  # to draw from, as `selection.random_grid` takes it


def define(*names: str, settings: Mapping[str, Setting] = SETTINGS, **defaults: str) -> None:
    """Defines axis flags, of which every value has to be one that the setting may have.

    Args:
      *names: of the settings and `CHOICES`, with the usual value as their default.
      settings: with the ranges of this command.
      **defaults: further ones, with the command's own defaults.
    """
    define_max_runs()
    for name in (*names, *defaults):
        text = explain(name, settings)
        default = defaults.get(name, f"{DEFAULTS[name]}")
        flags.DEFINE_string(name, default, f"{text} An axis: {FORM}.")
        flags.register_validator(name, _validator(name, text, settings))


def _validator(name: str, help_text: str, settings: Mapping[str, Setting]):
    def valid(text: str) -> bool:
        try:
            axis = parse(name, text)
            ends = axis.values or axis.distribution.support()
        except InputError as error:
            raise flags.ValidationError(str(error)) from error
        except (ValueError, OverflowError):
            ends = []
        if not ends:
            raise flags.ValidationError(f"{text!r} has another form. {help_text} Give {FORM}.")
        for value in ends:
            if not _admits(name, value, settings):
                raise flags.ValidationError(f"it can't have the value {value}. {help_text}")
        return True

    return valid


def _admits(name: str, value: Any, settings: Mapping[str, Setting]) -> bool:
    if name in CHOICES:
        return value in CHOICES[name]
    try:
        return bool(settings[name].admits(float(value)))
    except OverflowError:  # an integer beyond every float
        return False


def columns(names: Sequence[str], n_random: int | None = None) -> dict[str, list]:
    """The columns of the table that the axis flags describe.

    Args:
      names: of the flags.
      n_random: how many combinations to draw, from --seed; None for all of them.

    Raises:
      InputError: a range that has no N, where all combinations are asked for; or an axis is
        given that no optimiser of the table reads.
    """
    axes = {name: parse(name, str(FLAGS[name].value)) for name in names}
    if "optimizer" in axes:
        for name in set.intersection(*map(unread, axes["optimizer"].values)):
            if FLAGS[name].present:
                optimizers = FLAGS["optimizer"].value
                raise InputError(f"--{name} isn't read by --optimizer={optimizers}")
    seeds = FLAGS.n_seeds if "n_seeds" in FLAGS else 1
    if n_random:
        check_runs(f"--n_random={n_random} from {seeds} seeds", n_random * seeds)
        drawn = {name: axis.distribution for name, axis in axes.items()}
        table = selection.random_grid(FLAGS.seed, n_random, **drawn)
    else:
        for name, axis in axes.items():
            if not axis.values:
                or_drawn = ", or --n_random" if "n_random" in FLAGS else ""
                raise InputError(
                    f"--{name}={FLAGS[name].value}: a range needs N, LOW:HIGH:N{or_drawn}"
                )
        n = math.prod(len(axis.values) for axis in axes.values())
        check_runs(f"all {n:,} combinations from {seeds} seeds", n * seeds)
        table = selection.grid(**{name: axis.values for name, axis in axes.items()})
    return {name: column.tolist() for name, column in table.items()}


def parse(name: str, text: str) -> AxisFlag:
    """Reads the axis of a setting.

    Raises:
      ValueError: it has another form; `InputError` if it has more values than --max_runs.
    """
    from scipy import stats

    of = type(DEFAULTS[name])
    if ":" not in text:
        values = [of(word) for word in text.split(",")]
        return AxisFlag(values, values)
    words = text.split(":")
    log = words[-1] == "log"
    first, second, *n = words[: len(words) - log]
    low, high = float(first), float(second)
    if of is not float or len(n) > 1 or not low < high < np.inf or (log and low <= 0):
        raise ValueError(text)
    if any(int(count) < 1 for count in n):
        raise ValueError(text)
    if n:
        check_runs(f"N of {text}", int(n[0]))
    drawn = stats.loguniform(low, high) if log else stats.uniform(low, high - low)
    space: Any = np.geomspace if log else np.linspace
    spaced = space(low, high, int(n[0])) if n else []
    # In twelve digits: 0.01, and not 0.010000000000000002.
    return AxisFlag([float(f"{value:.12g}") for value in spaced], drawn)
