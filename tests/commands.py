"""Commands as a user runs them: in this process (`run`), or in another where that matters.

In this process a command starts within a tenth of a second instead of two, shares compiled programs
with the others, and its synthetic data set has 400 images a batch instead of 10,000.
"""

import atexit
import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from absl import app, flags
from hypothesis import Phase, settings
from matplotlib import image

from experiments.common import cli
from experiments.common.progress import received
from linear_cifar.classifier import Classifier
from linear_cifar.data import Dataset, load_dataset, synthetic
from tests.conftest import NO_NETWORK, undrawn_figures

ROOT = Path(__file__).parent.parent
SCRATCH = tempfile.TemporaryDirectory()  # of this process and those that it starts
atexit.register(SCRATCH.cleanup)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
QUICK = ("--dataset=synthetic", "--n_epochs=2")
RUN_FILES = {"result.json", "history.csv", "params.npz"}
RUN_FILES |= {"figures/curves.png", "figures/weights.png"}


def few_examples(n: float):
    """Hypothesis's settings for a slow test: n examples drawn, and n/20 of a thorough search's.

    With n below 1 the usual run has the listed examples only.
    """
    n_drawn = int(n * settings().max_examples / 20)
    phases = settings().phases if n_drawn else [Phase.explicit]
    return settings(max_examples=max(1, n_drawn), phases=phases)


def module_of(name: str):
    """The module that `python -m NAME` runs."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


class Outcome(NamedTuple):
    """What a command left on the terminal, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@cache
def _few(name, seed=0, n_images=400, batch=synthetic.batch):
    images, labels = batch(name, seed)
    return images[:n_images].copy(), labels[:n_images].copy()


@contextlib.contextmanager
def few_images(n_images=400):
    """The synthetic data set, each batch cut to its first images."""
    with mock.patch.object(synthetic, "batch", partial(_few, n_images=n_images)):
        yield


@cache
def few(split="assignment") -> Dataset:
    """What commands in this process train on with --dataset=synthetic."""
    with few_images():
        return load_dataset("synthetic", split=split)


class _Errors(io.StringIO):
    """A stderr that can be a terminal's, and that sends a signal once a text is written."""

    def __init__(self, text, number, is_terminal):
        super().__init__()
        self._text, self._number, self._is_terminal = text, number, is_terminal

    def isatty(self):
        return self._is_terminal

    def write(self, written):
        super().write(written)
        if self._text and self._text in written:
            self._text = None
            signal.raise_signal(self._number)


def run(name, *words, n_images=400, interrupt_at=None, by=signal.SIGINT, is_terminal=False):
    """Runs a command in this process; it gets a signal at the text `interrupt_at` on stderr."""
    module = module_of(name)
    app.define_help_flags()  # absl's own, or the first command's clean-up would remove them
    others = set(flags.FLAGS)
    argv = [name, *map(str, words)]
    out, errors = io.StringIO(), _Errors(interrupt_at, by, is_terminal)
    code, formatwarning = 0, warnings.formatwarning
    handlers = {number: signal.getsignal(number) for number in cli.ENDING}
    if interrupt_at and by == signal.SIGINT:  # a shell's background jobs ignore it
        signal.signal(by, signal.default_int_handler)
    with (
        few_images(n_images),
        mock.patch.object(sys, "argv", argv),  # whose flags --helpshort shows
        mock.patch.object(cli, "_end", sys.exit),  # this process goes on
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.launch(module.main, module.define_flags, argv)
        except SystemExit as end:
            code = end.code or 0
        finally:
            received.clear()
            warnings.formatwarning = formatwarning
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for flag in set(flags.FLAGS) - others:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()
    return Outcome(code, out.getvalue(), errors.getvalue())


def finish(command, out, *words, code=0, **settings):
    """Runs a command into a folder without drawing its figures, and checks the exit code."""
    with undrawn_figures():
        done = run(f"experiments.{command}", *words, f"--output_dir={out}", **settings)
    assert done.returncode == code, done.stderr
    return done


@contextlib.contextmanager
def parsing(name):
    """Makes a command parse its flags and do nothing else; yields the latest values by name."""
    app.define_help_flags()
    others, parsed = set(flags.FLAGS), {}

    def main(_):
        parsed.update({flag: flags.FLAGS[flag].value for flag in set(flags.FLAGS) - others})

    with mock.patch.object(module_of(name), "main", main):
        assert run(name).returncode == 0
        yield parsed


def environment(**changes):
    """The environment of a process: no network, and programs that compile fast and are shared."""
    without = {k: v for k, v in os.environ.items() if k != "LINEAR_CIFAR_DATA"}
    ours = {
        "PYTHONWARNINGS": "error",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": f"{SCRATCH.name}/compiled",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return without | NO_NETWORK | ours | changes


@contextlib.contextmanager
def start(*words, **changes):
    """A module in a process of its own, which ends with the block or after five minutes."""
    line = [sys.executable, "-m", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=ROOT, env=environment(**changes), **pipes) as process:
        timer = threading.Timer(300, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def run_process(*words, **changes):
    """Runs a module in a process of its own."""
    with start(*words, **changes) as process:
        printed, errors = process.communicate()
    return Outcome(process.returncode, printed, errors)


def interrupt(text, *words, by=signal.SIGINT, **changes):
    """Runs a module in a process, and sends it a signal once `text` is in its progress."""
    seen = ""
    with start(*words, **changes) as process:
        while text not in seen and (line := process.stderr.readline()):
            seen += line
        process.send_signal(by)
        printed, errors = process.communicate()
    return Outcome(process.returncode, printed, seen + errors)


def files(folder):
    """The files below a folder, as relative paths."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def arrays(path):
    """What an .npz file holds."""
    with np.load(path) as file:
        return dict(file)


def result(out):
    """What `result.json` says."""
    return json.loads((out / "result.json").read_text())


def only_line(done):
    """The one line of an error, after which the exit code is 1."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def check_every_file(folder):
    """Each file parses as what its name says."""
    readers = {
        ".json": lambda path: json.loads(path.read_text(), parse_constant=pytest.fail),
        ".csv": pd.read_csv,
        ".npz": lambda path: np.load(path, allow_pickle=False).close(),
        ".safetensors": Classifier.load,
        ".png": image.imread,
        ".html": Path.read_text,
    }
    for name in files(folder):
        readers[Path(name).suffix](folder / name)
