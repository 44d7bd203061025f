"""What a command shows and measures while it works."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import jax
from tqdm import tqdm

PLAIN_LINES = 10  # of progress, where there is no terminal
T = TypeVar("T")


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
        """Adds the time of the block to a phase; phases within it keep their own time."""
        start, before = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            elsewhere = sum(self.seconds.values()) - before
            self.seconds[name] += time.perf_counter() - start - elsewhere

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())


class Progress:
    """A bar on a terminal and a few plain lines elsewhere, on stderr.

    Of several processes only the first one shows them.
    """

    def __init__(self, total: int) -> None:
        self._total, self._shown, self._first = total, 0, jax.process_index() == 0
        self._bar = tqdm(total=total, disable=not (self._first and sys.stderr.isatty()))

    def show(self, done: int, text: Callable[[], str]) -> None:
        """Shows the progress with a text beside it; the bar ends when all is done."""
        if not self._bar.disable:
            self._bar.set_postfix_str(text(), refresh=False)
            self._bar.update(done - self._bar.n)
            if done == self._total:
                self._bar.close()
        elif self._first and (
            done == self._total or done * PLAIN_LINES // self._total > self._shown
        ):
            print(f"{done}/{self._total} {text()}", file=sys.stderr, flush=True)
            self._shown = done * PLAIN_LINES // self._total


def progress(
    items: Iterable[T],
    total: int,
    describe: Callable[[T], str],
    position: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """Passes items on, and shows the progress.

    Args:
      items: what to pass on.
      total: how much there is to do.
      describe: the text to show beside an item, once it is there.
      position: how much is done with an item; None where each is one.
    """
    shown = Progress(total)
    for count, item in enumerate(items, 1):
        shown.show(position(item) if position else count, partial(describe, item))
        yield item


def print_table(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns; a float in four digits."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")
