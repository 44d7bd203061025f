"""What every experiment does around its library calls: errors, data, folder, progress, timing."""

import datetime
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
from absl import app, flags, logging
from tqdm import tqdm

from experiments import distributed
from linear_cifar.datasets import DataError, Dataset, load_dataset
from linear_cifar.records import RecordError, describe_dataset, describe_machine, new_run
from linear_cifar.sweep import Step
from linear_cifar.training import SettingsError

FLAGS = flags.FLAGS
PLAIN_LINES = 10  # of progress, where there is no terminal
MOST_CPU_DEVICES = 8
T = TypeVar("T")


def launch(main: Callable[[list[str]], int | None]) -> None:
    """Runs an experiment's `main` under absl; a foreseen error is one line and exit code 1."""

    def guarded(argv: list[str]) -> int | None:
        try:
            return distributed.leave(main(argv))
        except (DataError, RecordError, SettingsError, MemoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            return distributed.leave(1)
        except jax.errors.JaxRuntimeError as error:
            if not jax.distributed.is_initialized():
                raise
            distributed.leave_lost(error)
        except KeyboardInterrupt:
            print("interrupted: nothing written", file=sys.stderr)
            return distributed.leave(130)

    logging.set_verbosity(logging.WARNING)  # JAX tells of every backend that it doesn't find
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    use_all_cores()
    app.run(guarded)


def use_all_cores() -> None:
    """Makes a device of each core, where the user has not said how many there should be.

    On one device that has all cores, a sweep takes a fifth longer and a single run half as long
    again (`python -m experiments.benchmark`). Each device of a sweep has its copy of the data, so
    that there is a limit.
    """
    asked = jax.config.values["jax_num_cpu_devices"] > 0
    if not asked and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MOST_CPU_DEVICES))


class Stopwatch:
    """Seconds spent by phase; those in which JAX compiled go to "compile" and no other."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("load", "compile", "train", "evaluate", "plot"), 0.0)
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds["compile"] += duration_secs

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a phase."""
        start, compiled = time.perf_counter(), self.seconds["compile"]
        try:
            yield
        finally:
            compiling = self.seconds["compile"] - compiled
            self.seconds[name] += time.perf_counter() - start - compiling


def load_data(split: str = "assignment") -> Dataset:
    """Loads what --dataset names, and tells the user what there is to tell of it."""
    dataset = load_dataset(FLAGS.dataset, FLAGS.data_dir, split, progress=sys.stderr.isatty())
    if dataset.name == "synthetic" and dataset.notice:
        line = "!" * 78
        print(f"{line}\n{dataset.notice}\n{line}", file=sys.stderr)
    elif dataset.notice:
        print(f"note: {dataset.notice}", file=sys.stderr)
    return dataset


def data_title(dataset: Dataset) -> str:
    """The data's name for tables and figures, with a word on copies that are not the official."""
    if dataset.name == "synthetic":
        return "SYNTHETIC images"
    return f"{dataset.name} ({'official files' if dataset.official else 'not the official files'})"


def time_stamp() -> str:
    """The time to the microsecond, for the names of folders."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")


@contextmanager
def output_folder(experiment: str) -> Iterator[tuple[Path, Path]]:
    """Opens the run's folder: yields where to write now, and where that will stand."""
    target = Path(FLAGS.output_dir or f"runs/{experiment}-{time_stamp()}")
    with new_run(target, FLAGS.overwrite) as folder:
        yield folder, target


def describe_source(experiment: str, dataset: Dataset) -> dict[str, Any]:
    """The part of every `result.json` that says what it comes from."""
    return {
        "experiment": experiment,
        "dataset": describe_dataset(dataset),
        **describe_machine(),
    }


def progress(
    items: Iterable[T],
    total: int,
    describe: Callable[[T], str],
    position: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """Passes items on, with a bar on a terminal and a few plain lines elsewhere, on stderr.

    Of several processes only the first one shows them.

    Args:
      items: what to pass on.
      total: how much there is to do.
      describe: the text to show beside an item, once it is there.
      position: how much is done with an item; None where each is one.
    """
    first = jax.process_index() == 0
    bar = tqdm(total=total, disable=not (first and sys.stderr.isatty()))
    shown = 0
    for count, item in enumerate(items, 1):
        done = position(item) if position else count
        if not bar.disable:
            bar.set_postfix_str(describe(item), refresh=False)
            bar.update(done - bar.n)
        elif first and (done == total or done * PLAIN_LINES // total > shown):
            print(f"{done}/{total} {describe(item)}", file=sys.stderr, flush=True)
            shown = done * PLAIN_LINES // total
        yield item
    bar.close()


def timed(steps: Iterator[Step], watch: Stopwatch) -> Iterator[Step]:
    """Passes a sweep's steps on once they are measured, training and measuring timed apart."""
    while True:
        with watch.phase("train"):
            step = next(steps, None)
        if step is None:
            return
        with watch.phase("evaluate"):
            jax.block_until_ready(step.measured)
        yield step


def print_table(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns; a float in four digits."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")
