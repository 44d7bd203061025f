"""Properties of the library by hypothesis: an error of ours, or what an independent oracle says."""

import linecache
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from linear_cifar.errors import InputError
from tests.campaign.parts import Part

EXAMPLES = 50  # of a case
LIBRARY = Path(__file__).parent.parent.parent / "linear_cifar"
GENERATORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def of(
    goal: int, seconds: float, **strategies: st.SearchStrategy
) -> Callable[[Callable], Callable]:
    """Makes a property of a function that raises where it doesn't hold.

    Args:
      goal: examples that an hour's campaign wants.
      seconds: that an example takes, about.
      **strategies: for its arguments.
    """

    def decorate(function: Callable) -> Callable:
        tried = partial(_case, function, strategies)
        function.part = Part("examples", goal, tried, per_case=EXAMPLES, seconds=EXAMPLES * seconds)
        function.check = partial(_check, function, strategies)
        return function

    return decorate


def parts(module: dict[str, Any]) -> dict[str, Part]:
    """The parts that a module's properties are."""
    return {name: value.part for name, value in module.items() if hasattr(value, "part")}


def _case(function: Callable, strategies: dict, rng: np.random.Generator, _: Any) -> None:
    _check(function, strategies, EXAMPLES, int(rng.integers(2**63)))


def _check(function: Callable, strategies: dict, n_examples: int, seed: int) -> None:
    how = hypothesis.settings(
        max_examples=n_examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.seed(seed)(how(hypothesis.given(**strategies)(function)))()


def attempt(function: Callable, *args: Any, **settings: Any) -> Any:
    """What a function gives; None if it refuses what it is given, by an error of ours."""
    try:
        return function(*args, **settings)
    except InputError as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error), f"more than one line: {error}"
    except ValueError as error:
        assert raised_here(error), f"{type(error).__name__}, which isn't ours: {error}"
    return None


def raised_here(error: Exception) -> bool:
    """Whether the library itself raised it: not what it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno).strip()
    return Path(last.filename).is_relative_to(LIBRARY) and line.startswith("raise ")
