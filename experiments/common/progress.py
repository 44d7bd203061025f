"""What a command shows and measures while it works."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from linear_cifar.metrics import summarise

PLAIN_LINES = 10  # of progress without a terminal
T = TypeVar("T")
received: list[int] = []  # signals that end the command


class SignalError(KeyboardInterrupt):
    """Raised by a signal; Python may end by SIGINT after a plain `KeyboardInterrupt`."""


class Stopwatch:
    """Seconds by phase; the time in which JAX compiles counts as "compile" only."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("load", "compile", "train", "evaluate", "plot"), 0.0)
        self._depth = 0  # of phases inside each other

    def _on_event(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds["compile"] += duration_secs

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a phase; phases inside it keep their own time."""
        if not self._depth:
            jax.monitoring.register_event_duration_secs_listener(self._on_event)
        self._depth += 1
        start, before = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            counted = sum(self.seconds.values()) - before
            self.seconds[name] += time.perf_counter() - start - counted
            self._depth -= 1
            if not self._depth:
                jax.monitoring.unregister_event_duration_listener(self._on_event)

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())


class Progress:
    """A bar on a terminal and a few plain lines elsewhere, on stderr, by the first process."""

    def __init__(self, total: int) -> None:
        self._total, self._shown, self._first = total, 0, jax.process_index() == 0
        self._bar = tqdm(total=total, disable=not (self._first and sys.stderr.isatty()))

    def show(self, done: int, text: str) -> None:
        """Shows how much is done, with a description; the bar ends when all is done."""
        if received:  # the handler's exception is lost if it comes within a callback of Python
            raise SignalError
        tenths = done * PLAIN_LINES // self._total
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            if done == self._total:
                self._bar.close()
        elif self._first and (done == self._total or tenths > self._shown):
            print(f"[{done * 100 // self._total:3d} %] {text}", file=sys.stderr, flush=True)
            self._shown = tenths


def progress(items: Iterable[T], total: int, describe: Callable[[T], str]) -> Iterator[T]:
    """Passes items on and shows the progress, each with its description."""
    bar = Progress(total)
    for count, item in enumerate(items, 1):
        bar.show(count, describe(item))
        yield item


def print_table(rows: Sequence[tuple[str, Any]]) -> None:
    """Prints names and values in two columns; a float with four digits."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")


def with_interval(estimate: float, low: float, high: float) -> str:
    """An estimate as text, with its 95 % interval."""
    return f"{estimate:.4f} (95 % interval {low:.4f} to {high:.4f})"


def mean_and_sd(values: np.ndarray, unit: str = "seeds") -> str:
    """The mean of values as text, with their standard deviation if there are several."""
    summary = summarise(values)
    spread = f" ± {summary.sd:.4f} (sd of {summary.n} {unit})" if summary.n > 1 else ""
    return f"{summary.mean:.4f}{spread}"
