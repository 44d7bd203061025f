"""What a command shows and measures while it works."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
        """Adds the time of the block to a phase."""
        start, compiled = time.perf_counter(), self.seconds["compile"]
        try:
            yield
        finally:
            compiling = self.seconds["compile"] - compiled
            self.seconds[name] += time.perf_counter() - start - compiling

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())


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


def print_table(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns; a float in four digits."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")
