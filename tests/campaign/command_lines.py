"""Flags with any text: a value that the command allows, or one line of error."""

import math
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from absl import app, flags

from experiments.common.flags import SHARED
from tests import commands
from tests.campaign import small

COMMANDS = (
    *("baseline", "full_data", "step_decay", "grid_search", "loss_comparison", "gradient_check"),
    *("sweep", "lambda_path", "probe", "report", "benchmark"),
)
WORDS = (
    *("0", "1", "-1", "0.5", "1e-3", "2147483648", "18446744073709551616", "1e300", "5e-324"),
    *("nan", "inf", "-inf", "1e400", "", "a", " ", "-0", "0x10", "1_0", "λ", "١", "10", "41"),
    *("sgd", "adam", "softmax", "true", "log", "\n", "9" * 5000, "\ud800"),
)


def _launch(command: str, words: list[str], main) -> commands.Done:
    with mock.patch.object(commands.module_of(f"experiments.{command}"), "main", main):
        return commands.run(f"experiments.{command}", *words)


@cache
def flags_of(command: str) -> list[str]:
    """The names of a command's flags."""
    names: list[str] = []
    app.define_help_flags()  # absl's own, else they are the first command's
    before = set(flags.FLAGS)
    _launch(command, [], lambda _: names.extend(set(flags.FLAGS) - before))
    return sorted(names)


def parsed(rng: np.random.Generator, _: Path) -> str | None:
    """A flag of any command with any text."""
    command = str(rng.choice(COMMANDS))
    name = str(rng.choice(flags_of(command)))
    joined = str(rng.choice([",", ":", ""])).join(
        WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(1, 5))
    )
    word = f"--{name}" if rng.random() < 0.2 else f"--{name}={joined}"
    values = {}

    def main(_) -> int:
        values[name] = flags.FLAGS[name].value
        return 0

    done = _launch(command, [word], main)
    text = f"{command} {word[:200]!r}"
    if done.returncode:
        wrong = small.error_in(done)
        named = name.replace("ize", "ise") in done.stderr.replace("ize", "ise")  # an alias
        wrong = wrong or (None if named else f"doesn't name the flag: {done.stderr}")
        return f"{text}: {wrong}" if wrong else None
    value = values.get(name)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{text}: {value}"
    if name in SHARED and isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if SHARED[name].setting.admits(value) else f"{text}: {value} is out of range"
    return None


def axes(rng: np.random.Generator, place: Path) -> str | None:
    """The axis of λ with any text, in a sweep that is refused before it trains."""
    words = [WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(1, 5))]
    text = str(rng.choice([",", ":"])).join(words)
    data = place / "data.npz"
    if not data.exists():
        small.write_data(place)
    line = ("experiments.sweep", f"--features={data}", f"--output_dir={place / 'out'}")
    with mock.patch("experiments.sweep.train", side_effect=KeyboardInterrupt):
        done = small.run([*line, f"--lam={text}", "--learning_rate=0.1", "--overwrite"])
    if done.returncode in (0, 130):
        return None
    return small.error_in(done)
