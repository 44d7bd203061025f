"""Properties of what comes in: what can't be used is refused, by an error of ours and no other."""

import csv
import json
import math
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from absl import flags
from hypothesis import strategies as st

import linear_cifar as lc
from experiments.common import axes, records
from experiments.common.flags import CHOICES, SETTINGS
from linear_cifar.data import INPUT_DTYPES
from linear_cifar.training import History
from tests import commands
from tests.campaign import parts, properties
from tests.campaign.properties import GENERATORS, attempt, of

N, D = 8, 3
NUMBERS = [
    "0",
    "1",
    "-1",
    "0.5",
    "1e-3",
    "2147483648",
    "18446744073709551616",
    "1e300",
    "5e-324",
    "nan",
    "inf",
    "-inf",
    "1e400",
]


@of(
    1000,
    0.002,
    rng=GENERATORS,
    dtype=st.sampled_from(["?", "u1", "i2", "u4", "i8", "f2", "f4", "f8", "c8", "U2"]),
    shape=st.sampled_from([(N, D), (N, D), (N, D), (N,), (0, D), (N, 0), (N, D, 1)]),
    spoilt=st.sampled_from([None, None, np.nan, np.inf, 1e39, 2**40, -1]),
    labels=st.sampled_from(
        ["fine", "fine", "float", "short", "gap", "negative", "square", "one", "huge"]
    ),
)
def arrays(rng, dtype, shape, spoilt, labels):
    x = rng.integers(0, 2, shape).astype(float) + rng.random(shape)
    if spoilt is not None and x.size:
        x.flat[rng.integers(x.size)] = spoilt
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
    y = np.arange(N) % 2
    y = {
        "fine": y,
        "float": y * 1.0,
        "short": y[1:],
        "gap": 2 * y,
        "negative": -y,
        "square": y.reshape(2, 4),
        "one": 0 * y,
        "huge": y * 2**62,
    }[labels]
    found = attempt(lc.dataset_from_arrays, (x, y))
    numbers = x.ndim == 2 and x.size and x.dtype.kind in "?biuf"
    with np.errstate(all="ignore"):
        usable = numbers and np.isfinite(x.astype(np.float32)).all()
        usable = usable and (x.dtype.name in INPUT_DTYPES or np.array_equal(x, x.astype(np.int32)))
    assert (found is not None) == bool(usable and len(x) == N and labels == "fine")
    if found is not None:
        assert np.array_equal(np.asarray(found.train.inputs, float), x.astype(float))
        assert np.array_equal(found.train.labels, y)


WORDS = st.one_of(
    st.sampled_from(
        [*NUMBERS, "", "a", " ", "0,1", "1e-3,x", "1e400", "-0", "0x10", "1_0", "λ", "١"]
    ),
    st.lists(
        st.sampled_from(
            ["0", "1e-4", "10", "41", "log", "nan", "inf", "-1", "1e400", "", "x", "1e9"]
        ),
        min_size=2,
        max_size=5,
    ).map(":".join),
    st.lists(st.sampled_from(["0", "1e-4", "10", "sgd", "adam", "nan", "-1", ""]), max_size=4).map(
        ",".join
    ),
    st.text(max_size=6),
)


@of(
    700,
    0.001,
    text=WORDS,
    name=st.sampled_from(["lam", "learning_rate", "batch_size", "decay_every", "optimizer"]),
)
def ranges(text, name):
    try:
        axis = axes.parse(name, text)
    except (ValueError, OverflowError):
        return
    words = text.split(":")
    if len(words) == 1:
        assert len(axis.values) == 1 + text.count(",")
        return
    low, high = float(words[0]), float(words[1])
    assert axis.distribution.support()[0] <= high
    if axis.values:
        space = np.geomspace if words[-1] == "log" else np.linspace
        np.testing.assert_allclose(axis.values, space(low, high, int(words[2])), rtol=1e-11, atol=0)


COMMANDS = (
    "baseline",
    "full_data",
    "step_decay",
    "grid_search",
    "loss_comparison",
    "gradient_check",
    "sweep",
    "lambda_path",
    "probe",
    "report",
    "benchmark",
)


@cache
def flags_of(command: str) -> list[str]:
    """The names of a command's flags."""
    seen: list[str] = []
    others = set(flags.FLAGS)
    launched(command, [], lambda _: seen.extend(set(flags.FLAGS) - others))
    return sorted(seen)


def launched(command: str, words: list[str], instead) -> commands.Done:
    """What is left by a command with something instead of its `main`."""
    name = f"experiments.{command}"
    with mock.patch.object(commands.module_of(name), "main", instead):
        return commands.run(name, *words)


@of(
    1000,
    0.015,
    command=st.sampled_from(COMMANDS),
    which=st.integers(0, 200),
    text=WORDS,
    bare=st.booleans(),
)
def command_lines(command, which, text, bare):
    names = flags_of(command)
    name = names[which % len(names)]
    found = {}

    def instead(_) -> int:
        found["value"] = flags.FLAGS[name].value
        return 0

    word = f"--{name}" if bare else f"--{name}={text}"
    done = launched(command, [word], instead)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)
    assert "value" in found or done.stderr or done.stdout
    value = found.get("value")
    if isinstance(value, float):
        assert math.isfinite(value)
    if name in SETTINGS and isinstance(value, (int, float)) and not isinstance(value, bool):
        assert SETTINGS[name].admits(value)
    if name in CHOICES and isinstance(value, str) and "," not in value:
        assert value in CHOICES[name]


FLOATS = st.floats(width=32) | st.sampled_from([0.1, -0.0, 5e-324, 1.7976931348623157e308])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def bared(value):
    """What JSON has of a value: null in place of what isn't finite."""
    if isinstance(value, dict):
        return {key: bared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bared(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@of(
    600,
    0.002,
    value=JSON,
    numbers=st.lists(FLOATS, min_size=1, max_size=4),
    rng=GENERATORS,
    kind=st.sampled_from(["npz", "safetensors"]),
    names=st.sampled_from([("a", "b"), ("λ", ""), ("\n,", "'\"")]),
    lam=st.floats(0, 1e300),
)
def written_and_read(value, numbers, rng, kind, names, lam):
    with parts.folder() as place:
        path = Path(place) / "file"
        records.write_json(path, value)
        assert json.loads(path.read_text()) == bared(value)
        history = History(*(np.array(numbers) for _ in History._fields))
        records.write_history(path, history)
        for a, b in zip(records.read_history(path), history, strict=True):
            np.testing.assert_array_equal(a, b)
        records.write_csv(path, names, [numbers])
        with path.open(newline="") as file:
            assert [*csv.reader(file)] == [list(names), [str(number) for number in numbers]]
        dtype = rng.choice(["f4", "f8"])
        params = lc.Params(rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=2).astype(dtype))
        records.write_params(path.with_suffix(".npz"), params)
        again = records.read_params(path.with_suffix(".npz"))
        assert all(
            np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(params, again, strict=True)
        )
        standardiser = lc.Standardiser(np.ones(3), np.full(3, 2.0))
        model = lc.Classifier(params, standardiser, names, "multi_bce", lam)
        model.save(path.with_suffix(f".{kind}"))
        same = lc.Classifier.load(path.with_suffix(f".{kind}"))
        assert (same.class_names, same.lam, same.loss) == (names, lam, model.loss)
        assert same.params.weights.tobytes() == params.weights.tobytes()


PARTS = properties.parts(globals())
