"""The flags that commands share. Their meaning, range and default come from the library.

A single value is `--lam=0.1`. An axis has several: a list `0,0.1,0.5`, or a range `LOW:HIGH:N`, or
`LOW:HIGH:N:log` for equal ratios.
"""

import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from linear_cifar import (
    LOSSES,
    OPTIMIZERS,
    Hyperparameters,
    InputError,
    TrainConfig,
    optimizers as optimizer_settings,
    optimum,
    training as training_settings,
)
from linear_cifar.checks import Setting
from linear_cifar.data import (
    DATASET_NAMES,
    DIVISIONS,
    ENDINGS,
    HELP,
    SETTINGS as DATA_SETTINGS,
    STANDARDISE,
    load_features,
)
from linear_cifar.optimizers import OPTIMIZER_FIELDS
from linear_cifar.selection import grid, random_grid

FLAGS = flags.FLAGS
AXIS_FORM = "values separated by commas, or LOW:HIGH:N, or LOW:HIGH:N:log for equal ratios"
AXIS_NOTE = "An axis."
# Flags in which processes of one run may differ.
OWN_FLAGS = (
    *("process_id", "data_dir", "features", "predict"),
    *("output_dir", "resume", "overwrite", "figure_format"),
)
MAX_RUNS = 100_000  # 12 GB of parameters
RUN_BYTES = 4 * 10 * (3072 + 1)  # of the parameters of a run on CIFAR-10


class Flag(NamedTuple):
    """A flag that several commands define."""

    default: Any
    help: str
    setting: Setting = Setting("")  # the range of a number
    choices: Collection[str] = ()


def _sentence(text: str) -> str:
    first = text[0].upper() if text[0].isascii() else text[0]  # λ stays λ
    return f"{first}{text[1:]}."


def _number(default: Any, setting: Setting) -> Flag:
    """A numeric or Boolean flag, explained by its setting."""
    allowed = f"; {setting.range}" if setting.range else ""
    return Flag(default, _sentence(setting.help + allowed), setting)


# How feature files are read: the keywords of `load_features`.
READING: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(load_features).parameters.items()
    if name not in ("path", "seed")
}
_NUMBERS: Mapping[str, Setting] = {
    **optimizer_settings.SETTINGS,
    **training_settings.SETTINGS,
    **optimum.SETTINGS,
    **DATA_SETTINGS,
    **{name: Setting(text) for name, text in HELP.items()},
    "seed": Setting("seed of everything that is drawn", low=0, high=2**31 - 1),
    "n_seeds": Setting(
        "seeds to train at once, from --seed on; more than one gives means with their spread. "
        "Without --shuffle seeds differ in the initial parameters only",
        low=1,
    ),
}
_DEFAULTS: Mapping[str, Any] = {
    **Hyperparameters()._asdict(),
    **TrainConfig()._asdict(),
    **optimum.DEFAULTS._asdict(),
    **READING,
    "seed": 0,
    "n_seeds": 1,
}
SHARED: Mapping[str, Flag] = {
    **{name: _number(_DEFAULTS[name], setting) for name, setting in _NUMBERS.items()},
    "loss": Flag(
        "softmax",
        "; ".join(f"{name}: {loss.title}" for name, loss in LOSSES.items()) + ".",
        choices=LOSSES,
    ),
    "optimizer": Flag("sgd", "How gradients become updates.", choices=OPTIMIZERS),
    "split": Flag(
        "assignment",
        "assignment: data_batch_1 trains and data_batch_2 validates; full: 49,000 images of all "
        "five batches train and 1,000 validate.",
        choices=DIVISIONS,
    ),
    "standardise": Flag(
        READING["standardise"], _sentence(HELP["standardise"]), choices=STANDARDISE
    ),
    "select": Flag(
        "accuracy",
        "What makes the best configuration, on validation data or on folds.",
        choices=("accuracy", "loss"),
    ),
}
# A run of gradient descent.
RUN = (
    *("lam", "learning_rate", "batch_size", "n_epochs", "loss", "shuffle", "n_seeds", "optimizer"),
    *(name for name in Hyperparameters._fields if name not in ("lam", "learning_rate")),
)
GROUPS: Mapping[str, Sequence[str]] = {
    "Data": ("dataset", "data_dir", "split", "features", *READING, "standardize", "normalize_rows"),
    "Output": (
        *("output_dir", "overwrite", "resume", "table", "figure_format"),
        *("predict", "model"),
    ),
    "Several processes": (
        *("distributed", "coordinator", "n_processes", "process_id", "heartbeat_seconds"),
    ),
}


def define(*names: str, **defaults: Any) -> None:
    """Defines the flags of data and output, and the flags of `SHARED` that a command reads.

    Args:
      *names: flags with their usual defaults.
      **defaults: further ones, with the command's own defaults.
    """
    flags.DEFINE_enum(
        "dataset",
        "auto",
        DATASET_NAMES,
        "cifar10: CIFAR-10, from --data_dir or by download; synthetic: images drawn from a seed; "
        "auto: CIFAR-10 if it can be had, else synthetic.",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder with cifar-10-batches-py or cifar-10-python.tar.gz, or to download into; by "
        "default $LINEAR_CIFAR_DATA, else the user's cache folder.",
    )
    flags.DEFINE_string("output_dir", None, "Folder to write; by default a new one under runs/.")
    flags.DEFINE_bool("overwrite", False, "Replace the run in --output_dir.")
    define_list("figure_format", ["png"], ("png", "pdf", "svg"), "Formats of the figures.")
    for name in dict.fromkeys(("seed", *names, *defaults)):
        _define_one(name, defaults.get(name, SHARED[name].default))
    if "n_seeds" in FLAGS:
        define_max_runs()
        flags.register_multi_flags_validator(["n_seeds", "max_runs"], _check_seeds)


def define_features() -> None:
    """Defines the flags of a command that also takes the user's own features."""
    flags.DEFINE_string(
        "features",
        None,
        "File or folder with your own features and labels, instead of --dataset: "
        f"{', '.join(ENDINGS)}, or a folder of such files.",
    )
    for name in READING:
        if name.endswith("_name"):
            flags.DEFINE_string(name, None, SHARED[name].help)
        else:
            _define_one(name, SHARED[name].default)
    for spelling, name in (("standardize", "standardise"), ("normalize_rows", "normalise_rows")):
        flags.DEFINE_alias(spelling, name)


class _ListFlag(flags.MultiFlag):
    """A flag that takes values separated by commas, or may be repeated."""

    def parse(self, arguments: Any) -> None:
        super().parse(arguments.split(",") if isinstance(arguments, str) else arguments)


def define_list(name: str, default: list[str], choices: Sequence[str], text: str) -> None:
    """Defines a flag that takes some of the choices: `--table=markdown,csv`."""
    flag = _ListFlag(flags.EnumParser(choices), flags.ArgumentSerializer(), name, default, text)
    flag.help = f"<{'|'.join(choices)}>, separated by commas: {text}"
    flags.DEFINE_flag(flag)


def define_max_runs() -> None:
    """Defines --max_runs, unless it is there."""
    if "max_runs" not in FLAGS:
        flags.DEFINE_integer(
            "max_runs", MAX_RUNS, "Stop if the flags ask for more runs than this.", 1
        )


def _define_one(name: str, default: Any) -> None:
    flag = SHARED[name]
    if flag.choices:
        flags.DEFINE_enum(name, default, list(flag.choices), flag.help)
    elif isinstance(default, bool):
        flags.DEFINE_bool(name, default, flag.help)
    elif isinstance(default, int):
        bounds = (flag.setting.low, flag.setting.high)
        low, high = (None if bound is None else int(bound) for bound in bounds)
        flags.DEFINE_integer(name, default, flag.help, low, high)
    else:
        flags.DEFINE_float(name, default, flag.help)
        message = f"it has to be {flag.setting.range or 'finite'}. {flag.help}"
        flags.register_validator(
            name, lambda value: value is None or bool(flag.setting.admits(value)), message
        )


def check_runs(request: str, n: int) -> None:
    """Raises `InputError` if n runs, which the request asks for, are more than --max_runs."""
    limit: Any = FLAGS["max_runs"].value if "max_runs" in FLAGS else MAX_RUNS
    if n > limit:
        raise InputError(
            f"{request}: {n:,} runs, whose parameters would take {n * RUN_BYTES / 1e9:,.0f} GB on "
            f"CIFAR-10; --max_runs={limit} allows fewer"
        )


def _check_seeds(values: Mapping[str, Any]) -> bool:
    try:
        check_runs(f"--n_seeds={values['n_seeds']}", values["n_seeds"])
    except InputError as error:
        raise flags.ValidationError(str(error)) from error
    return True


def given_flags() -> list[str]:
    """The command's flags that stand on the command line."""
    return [flag.name for flag in FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.present]


def shared_values() -> dict[str, Any]:
    """The command's flags that processes of one run must have in common."""
    every = FLAGS.get_key_flags_for_module(sys.argv[0])
    return {flag.name: flag.value for flag in every if flag.name not in OWN_FLAGS}


def unread_fields(optimizer: str) -> set[str]:
    """The hyper-parameters that only other optimisers read."""
    fields = {name for names in OPTIMIZER_FIELDS.values() for name in names}
    return fields - set(OPTIMIZER_FIELDS[optimizer])


def check_optimizer_flags(optimizers: Collection[str]) -> None:
    """Raises `InputError` if a flag is given that none of the optimisers reads."""
    for name in set.intersection(*map(unread_fields, optimizers)):
        if name in FLAGS and FLAGS[name].present:
            raise InputError(f"--{name} isn't read by --optimizer={','.join(optimizers)}")


# Axes.


class Axis(NamedTuple):
    """The values of one setting."""

    values: list[Any]  # empty for a range without N
    distribution: Any  # to draw from: a list, or one of scipy.stats


def define_axes(*names: str, setting: Setting | None = None, **defaults: str) -> None:
    """Defines flags with several values.

    Args:
      *names: flags of `SHARED`, with their usual default.
      setting: the range of the values, if it isn't the usual one.
      **defaults: further flags, with the command's own defaults.
    """
    define_max_runs()
    for name in (*names, *defaults):
        flag = _number(SHARED[name].default, setting) if setting else SHARED[name]
        text = f"<{'|'.join(flag.choices)}>: {flag.help}" if flag.choices else flag.help
        flags.DEFINE_string(name, defaults.get(name, str(flag.default)), f"{text} {AXIS_NOTE}")
        flags.register_validator(name, _axis_validator(name, flag._replace(help=text)))


def _axis_validator(name: str, flag: Flag) -> Callable[[str], bool]:
    def valid(text: str) -> bool:
        try:
            axis = parse_axis(text, flag.default)
        except InputError as error:
            raise flags.ValidationError(str(error)) from error
        except (ValueError, OverflowError) as error:
            raise flags.ValidationError(f"give {AXIS_FORM}; {flag.help}") from error
        for value in axis.values or axis.distribution.support():
            allowed = value in flag.choices if flag.choices else flag.setting.admits(float(value))
            if not allowed:
                raise flags.ValidationError(f"{name} can't be {value}. {flag.help}")
        return True

    return valid


def parse_axis(text: str, example: Any = 0.0) -> Axis:
    """Reads an axis whose values have the type of the example.

    Raises:
      ValueError: it has another form; `InputError` if it has more values than --max_runs.
    """
    from scipy import stats

    kind = type(example)
    if ":" not in text:
        values = [kind(word) for word in text.split(",")]
        return Axis(values, values)
    words = text.split(":")
    log = words[-1] == "log"
    low, high, *count = words[: len(words) - log]
    first, last = float(low), float(high)
    n = int(count[0]) if count else None
    if kind not in (int, float) or len(count) > 1 or not first < last < np.inf:
        raise ValueError(text)
    if (log and first <= 0) or (n is not None and n < 1):
        raise ValueError(text)
    distribution = stats.loguniform(first, last) if log else stats.uniform(first, last - first)
    if n is None:
        if kind is int:
            raise ValueError(text)  # there is no such distribution of integers
        return Axis([], distribution)
    check_runs(f"N of {text}", n)
    spaced = (np.geomspace if log else np.linspace)(first, last, n)
    if kind is int:
        whole = list(dict.fromkeys(spaced.round().astype(int).tolist()))
        return Axis(whole, whole)
    # In twelve digits: 0.01, and not 0.010000000000000002.
    return Axis([float(f"{value:.12g}") for value in spaced], distribution)


def axis(name: str) -> Axis:
    """The values of an axis flag."""
    return parse_axis(str(FLAGS[name].value), SHARED[name].default)


def table_of_axes(names: Sequence[str], n_random: int | None = None) -> dict[str, np.ndarray]:
    """The columns of the table that the axis flags describe.

    Args:
      names: of the flags.
      n_random: how many combinations to draw, from --seed; None for all combinations.

    Raises:
      InputError: too many runs, a range without N unless combinations are drawn, or an axis that
        no optimiser of the table reads.
    """
    axes = {name: axis(name) for name in names}
    n_seeds = FLAGS.n_seeds if "n_seeds" in FLAGS else 1
    if n_random:
        check_runs(f"--n_random={n_random} and {n_seeds} seeds", n_random * n_seeds)
        drawn = {name: axis.distribution for name, axis in axes.items()}
        return random_grid(FLAGS.seed, n_random, **drawn)
    for name, one in axes.items():
        if not one.values:
            advice = ", or --n_random" if "n_random" in FLAGS else ""
            raise InputError(f"--{name}={FLAGS[name].value}: a range needs N, LOW:HIGH:N{advice}")
    n = math.prod(len(one.values) for one in axes.values())
    check_runs(f"all {n:,} combinations and {n_seeds} seeds", n * n_seeds)
    return grid(**{name: list(dict.fromkeys(one.values)) for name, one in axes.items()})


# Help.


def flag_help(description: str, command: str) -> str:
    """The help of a command: its description, and its flags by group with their defaults."""
    names = [flag.name for flag in FLAGS.get_key_flags_for_module(command)]
    groups: dict[str, list[str]] = {group: [] for group in ("This command", *GROUPS)}
    for name in names:
        group = next((g for g, members in GROUPS.items() if name in members), "This command")
        groups[group].append(name)
    lines = [description.strip()]
    for group, members in groups.items():
        if members:
            lines += ["", f"{group}:"]
            lines += [line for name in members for line in _help_lines(name)]
    if any(FLAGS[name].help.endswith(AXIS_NOTE) for name in names):
        lines += ["", f"An axis takes {AXIS_FORM}."]
    return "\n".join(lines)


def _help_lines(name: str) -> list[str]:
    flag: Any = FLAGS[name]
    default = flag.default
    value = ",".join(default) if isinstance(default, list) else default
    text_of_default = (
        "" if value is None else f"={str(value).lower() if value in (True, False) else value}"
    )
    indent = "      "
    return [
        f"  --{name}{text_of_default}",
        *textwrap.wrap(flag.help, 96, initial_indent=indent, subsequent_indent=indent),
    ]
