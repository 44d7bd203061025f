"""The flags that commands share. What they mean, their ranges and defaults are the library's."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from experiments.common.settings import Settings
from linear_cifar import optimizers, optimum, training
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
from linear_cifar.errors import InputError
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters

FLAGS = flags.FLAGS
# How files of features are read; --seed is a flag of every command.
READING: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(load_features).parameters.items()
    if name not in ("path", "seed")
}
SETTINGS: Mapping[str, Setting] = {
    **optimizers.SETTINGS,
    **training.SETTINGS,
    **optimum.SETTINGS,
    **DATA_SETTINGS,
    **{name: Setting(text) for name, text in HELP.items()},
    "seed": Setting(
        "seed of all that is drawn: initial parameters, order, splits, folds", low=0, high=2**32 - 1
    ),
    "n_seeds": Setting(
        "seeds to train at once, from --seed on; more than one gives means with their spread",
        low=1,
    ),
}
MOST_RUNS = 100_000  # 12 GB of parameters
IMAGES_BYTES = 4 * 10 * (3072 + 1)  # of a run's parameters
CHOICES: Mapping[str, Collection[str]] = {
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "split": DIVISIONS,
    "standardise": STANDARDISE,
    "select": ("accuracy", "loss"),
}
# Of a command that trains one configuration.
RUN = (
    *Hyperparameters._fields,
    "optimizer",
    "batch_size",
    "n_epochs",
    "loss",
    "shuffle",
    "n_seeds",
)
DEFAULTS: Mapping[str, Any] = {
    **optimum.DEFAULTS._asdict(),
    **READING,
    "select": "accuracy",
    **vars(Settings()),
    **Settings().hyperparameters._asdict(),
}


def define(*names: str, **defaults: Any) -> None:
    """Defines the flags of data and output, and the training flags that a command reads.

    Args:
      *names: training flags, of `SETTINGS` and `CHOICES`, with their usual defaults.
      **defaults: further ones, with the command's own defaults.
    """
    flags.DEFINE_enum(
        "dataset",
        "auto",
        DATASET_NAMES,
        "cifar10: CIFAR-10, from --data_dir or else by download; synthetic: images drawn from a "
        "seed; auto: CIFAR-10 if it can be had, else synthetic.",
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder with cifar-10-batches-py or cifar-10-python.tar.gz, or to download into (default: "
        "$LINEAR_CIFAR_DATA, else the user's cache folder).",
    )
    flags.DEFINE_string("output_dir", None, "Folder to write (default: a new one under runs/).")
    flags.DEFINE_bool("overwrite", False, "Replace the run that --output_dir holds.")
    for name in dict.fromkeys(("seed", *names, *defaults)):
        _define(name, defaults.get(name, DEFAULTS[name]))
    if "n_seeds" in FLAGS:
        define_max_runs()
        flags.register_multi_flags_validator(["n_seeds", "max_runs"], _check_seeds)


def define_features() -> None:
    """Defines the flags of a command that takes features of one's own too."""
    flags.DEFINE_string(
        "features",
        None,
        "File or folder with features and labels of one's own, to use instead of --dataset: "
        f"{', '.join(ENDINGS)}, or a folder of such. --seed takes out the examples that its "
        "fractions say.",
    )
    for name in READING:
        if name.endswith("_name"):
            flags.DEFINE_string(name, None, explain(name))
        else:
            _define(name, DEFAULTS[name])


def define_max_runs() -> None:
    """Defines --max_runs, if it isn't yet."""
    if "max_runs" not in FLAGS:
        flags.DEFINE_integer("max_runs", MOST_RUNS, "Refuse what takes more runs than that.", 1)


def check_runs(asked: str, n: int) -> None:
    """Raises `InputError` where so many runs are more than --max_runs, before any memory goes.

    Args:
      asked: the flags that ask for them.
      n: how many they are.
    """
    most: Any = FLAGS["max_runs"].value if "max_runs" in FLAGS else MOST_RUNS
    if n > most:
        size = n * IMAGES_BYTES / 1e9
        raise InputError(
            f"{asked}: {n:,} runs, of which the parameters take {size:,.0f} GB for CIFAR-10's "
            f"images; --max_runs={most} admits no more"
        )


def _check_seeds(values: Mapping[str, Any]) -> bool:
    try:
        check_runs(f"--n_seeds={values['n_seeds']}", values["n_seeds"])
    except InputError as error:
        raise flags.ValidationError(str(error)) from error
    return True


def _define(name: str, default: Any) -> None:
    text = explain(name)
    if name in CHOICES:
        flags.DEFINE_enum(name, default, list(CHOICES[name]), text)
        return
    setting = SETTINGS[name]
    if isinstance(default, bool):
        flags.DEFINE_bool(name, default, text)
    elif isinstance(default, int):
        low, high = (None if end is None else int(end) for end in (setting.low, setting.high))
        flags.DEFINE_integer(name, default, text, low, high)
    else:
        flags.DEFINE_float(name, default, text)
        flags.register_validator(
            name,
            lambda value: value is None or setting.admits(value),
            f"{text} It has to be finite.",
        )


def explain(name: str, settings: Mapping[str, Setting] = SETTINGS) -> str:
    """A setting's help and range as a sentence."""
    if name == "loss":
        text = "; ".join(f"{name}: {loss.title}" for name, loss in LOSSES.items())
    elif name == "optimizer":
        text = "what makes updates of gradients"
    elif name == "select":
        text = "what on validation data, or on folds, makes the best"
    elif name == "split":
        text = (
            "assignment: data_batch_1 trains and data_batch_2 validates; full: 49,000 images of "
            "all five batches train and 1,000 validate"
        )
    else:
        setting = settings[name]
        text = setting.help + (f"; {setting.range}" if setting.range else "")
    # A Greek symbol at its beginning stays what it is.
    return (text[0].upper() if text[0].isascii() else text[0]) + text[1:] + "."
