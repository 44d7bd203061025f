"""The flags that commands share. Their meaning, range and default come from the library.

A single value is `--lam=0.1`. An axis has several: a list `0,0.1,0.5`, or a range `LOW:HIGH:N`, or
`LOW:HIGH:N:log` for equal ratios.
"""

import inspect
import math
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
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
PROCESS_FLAGS = (
    *("process_id", "data_dir", "features", "targets", "predict"),
    *("output_dir", "resume", "overwrite", "figure_format"),
)


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
FEATURES: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(load_features).parameters.items()
    if name not in ("path", "targets", "seed")
}
_NUMBERS: Mapping[str, Setting] = {
    **optimizer_settings.SETTINGS,
    **training_settings.SETTINGS,
    **optimum.SETTINGS,
    **DATA_SETTINGS,
    **{name: Setting(text) for name, text in HELP.items()},
    "C": Setting("scikit-learn's C, instead of --lam; C = 1/(2 λ n), n training examples", above=0),
    "seed": Setting("seed of everything that is drawn", low=0, high=2**31 - 1),
    "n_seeds": Setting(
        "seeds to train at once, from --seed on; more than one gives means with their spread. "
        "Without --shuffle seeds differ in the initial parameters only",
        low=1,
    ),
    "max_runs": Setting("stop if the flags ask for more runs than this", low=1),
}
_DEFAULTS: Mapping[str, Any] = {
    **Hyperparameters()._asdict(),
    **TrainConfig()._asdict(),
    **optimum.DEFAULTS._asdict(),
    **FEATURES,
    "C": 1.0,
    "seed": 0,
    "n_seeds": 1,
    "max_runs": 100_000,  # 12 GB of parameters
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
        FEATURES["standardise"], _sentence(HELP["standardise"]), choices=STANDARDISE
    ),
    "select": Flag(
        "accuracy",
        "What makes the best configuration, on validation data or on folds.",
        choices=("accuracy", "loss"),
    ),
}
# A run of gradient descent.
RUN = (
    *("lam", "learning_rate", "batch_size", "n_epochs", "loss", "shuffle", "n_seeds", "max_runs"),
    "optimizer",
    *(name for name in Hyperparameters._fields if name not in ("lam", "learning_rate")),
)
GROUPS: Mapping[str, Sequence[str]] = {
    "Data": (
        *("dataset", "data_dir", "split", "features", "targets", *FEATURES),
        *("standardize", "normalize_rows", "predict"),
    ),
    "Output": ("output_dir", "overwrite", "resume", "table", "figure_format"),
    "Several processes": ("distributed", "coordinator", "n_processes", "process_id"),
}


def define(*names: str, **defaults: Any) -> None:
    """Defines the flags of data and output, and flags of `SHARED`; `defaults` replace theirs."""
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
    define_list("figure_format", ["png"], ("png", "pdf", "svg"), "Formats of the figures")
    for name in dict.fromkeys(("seed", *names, *defaults)):
        _define_one(name, defaults.get(name, SHARED[name].default))


def define_features() -> None:
    """Defines the flags of a command that also takes the user's own features."""
    flags.DEFINE_string(
        "features",
        None,
        "File or folder with your own features and labels, instead of --dataset: "
        f"{', '.join(ENDINGS)}, or a folder of such files. experiments.probe takes several, "
        "separated by commas, or a pattern.",
    )
    for name in FEATURES:
        _define_one(name, SHARED[name].default)
    for spelling, name in (("standardize", "standardise"), ("normalize_rows", "normalise_rows")):
        flags.DEFINE_alias(spelling, name)


def define_list(name: str, default: list[str], choices: Sequence[str], text: str) -> None:
    """Defines a flag that takes some of the choices, separated by commas."""
    form = f"{', '.join(choices)}, separated by commas"
    flags.DEFINE_list(name, default, f"{text}: {form}.")
    valid = lambda words: set(words) <= set(choices) and bool(words or not default)  # noqa: E731
    flags.register_validator(name, valid, f"give {form}")


def _define_one(name: str, default: Any) -> None:
    flag = SHARED[name]
    if flag.choices:
        flags.DEFINE_enum(name, default, list(flag.choices), flag.help)
    elif name.endswith("_name"):
        flags.DEFINE_string(name, default, flag.help)
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


def check_runs(n: int) -> None:
    """Raises `InputError` if n runs are more than --max_runs."""
    limit: Any = FLAGS["max_runs"].value if "max_runs" in FLAGS else n
    if n > limit:
        raise InputError(f"the flags ask for {n:,} runs, more than --max_runs={limit}")


def shared_values() -> dict[str, Any]:
    """The command's flags that processes of one run must have in common."""
    every = FLAGS.get_key_flags_for_module(sys.argv[0])
    return {flag.name: flag.value for flag in every if flag.name not in PROCESS_FLAGS}


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
    """The values of one setting: a list, or a range with its ends."""

    values: list[Any]  # empty for a range without N
    ends: tuple[float, float] | None = None
    log: bool = False

    @property
    def distribution(self) -> Any:
        """To draw from: the values of a list, or a distribution of `scipy.stats` for a range."""
        if self.ends is None:
            return self.values
        from scipy import stats  # it takes half a second

        low, high = self.ends
        return stats.loguniform(low, high) if self.log else stats.uniform(low, high - low)


def define_axis(name: str, default: str | None = None, setting: Setting | None = None) -> None:
    """Defines a flag of `SHARED` that takes several values.

    `default` None takes that of `SHARED`, "" means none. `setting` replaces the range of values.
    """
    flag = _number(SHARED[name].default, setting) if setting else SHARED[name]
    choices = f"<{'|'.join(flag.choices)}>: " if flag.choices else ""
    text = f"{choices}{flag.help}"

    def valid(value: str | None) -> bool:
        if value is None:
            return True
        try:
            axis = parse_axis(value, flag.default)
        except (ValueError, OverflowError) as error:
            line = str(error) if isinstance(error, InputError) else f"give {AXIS_FORM}; {text}"
            raise flags.ValidationError(line) from error
        for one in axis.values or axis.ends or ():
            if not (one in flag.choices if flag.choices else flag.setting.admits(float(one))):
                raise flags.ValidationError(f"{name} can't be {one}. {text}")
        return True

    usual = str(flag.default) if default is None else default
    flags.DEFINE_string(name, usual or None, f"{text} {AXIS_NOTE}")
    flags.register_validator(name, valid)


def parse_axis(text: str, example: Any = 0.0) -> Axis:
    """Reads an axis whose values have the type of the example; `ValueError` for another form."""
    kind = type(example)
    if ":" not in text:
        return Axis([kind(word) for word in text.split(",")])
    words = text.split(":")
    log = words[-1] == "log"
    low, high, *count = words[: len(words) - log]
    first, last = float(low), float(high)
    if kind not in (int, float) or len(count) > 1 or not first < last < np.inf:
        raise ValueError(text)
    if kind is int and (not count or last >= 2**31):  # integers are drawn from values
        raise ValueError(text)
    if log and first <= 0:
        raise ValueError(text)
    if not count:
        return Axis([], (first, last), log)
    if (n := int(count[0])) < 1:
        raise ValueError(text)
    check_runs(n)
    spaced = (np.geomspace if log else np.linspace)(first, last, n)
    if kind is int:
        return Axis(list(dict.fromkeys(spaced.round().astype(int).tolist())))
    # In twelve digits: 0.01, and not 0.010000000000000002.
    return Axis([float(f"{value:.12g}") for value in spaced], (first, last), log)


def table_of_axes(names: Sequence[str], n_random: int | None = None) -> dict[str, np.ndarray]:
    """The columns of the table that axis flags describe, all combinations or `n_random` draws."""
    axes = {name: parse_axis(str(FLAGS[name].value), SHARED[name].default) for name in names}
    if n_random:
        check_runs(n_random)
        drawn = {name: axis.distribution for name, axis in axes.items()}
        return random_grid(FLAGS.seed, n_random, **drawn)
    for name, axis in axes.items():
        if not axis.values:
            advice = ", or --n_random" if "n_random" in FLAGS else ""
            raise InputError(f"--{name}={FLAGS[name].value}: a range needs N, LOW:HIGH:N{advice}")
    check_runs(math.prod(len(axis.values) for axis in axes.values()))
    return grid(**{name: list(dict.fromkeys(axis.values)) for name, axis in axes.items()})


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
    value = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
    default = "" if value is None else f"={str(value).lower() if flag.boolean else value}"
    indent = " " * 6
    wrapped = textwrap.wrap(flag.help, 96, initial_indent=indent, subsequent_indent=indent)
    return [f"  --{name}{default}", *wrapped]
