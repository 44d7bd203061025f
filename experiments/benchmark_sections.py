"""The sections of `experiments.benchmark`: each measures and returns rows."""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import numpy as np
from absl import flags

from experiments import contenders
from experiments.contenders import Contender
from experiments.timing import seconds_an_epoch
from linear_cifar.datasets import Dataset, Split, fit_standardiser, load_dataset
from linear_cifar.devices import device_mesh
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.sweep import steps

FLAGS = flags.FLAGS
Rows: TypeAlias = list[dict[str, Any]]
TORCH, SKLEARN = (importlib.util.find_spec(name) is not None for name in ("torch", "sklearn"))


def _rows(measured: Mapping[tuple[str, int], Contender], n_rounds: int, **columns: Any) -> Rows:
    """Rows of contenders by name and number of configurations."""
    named = {f"{name}, {c} at once": contender for (name, c), contender in measured.items()}
    seconds = seconds_an_epoch(named, n_rounds)
    return [
        {
            "contender": name,
            "configurations": c,
            "milliseconds": 1e3 * seconds[f"{name}, {c} at once"],
            **columns,
        }
        for name, c in measured
    ]


def single(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """One configuration, batches of 100."""
    del quick
    data, n_classes = contenders.standardised(dataset), dataset.n_classes
    measured: dict[tuple[str, int], Contender] = {
        ("ours", 1): contenders.ours(dataset),
        ("ours, autodiff", 1): contenders.ours_by_autodiff(dataset),
    }
    for layout in contenders.LAYOUTS:
        measured[f"NumPy, {layout}", 1] = contenders.numpy_loop(data, n_classes, layout)
    if TORCH:
        measured["PyTorch nn.Linear", 1] = contenders.torch_linear(data, n_classes)
    return _rows(measured, n_rounds, batch_size=100)


def sweep(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """From one configuration to 256, batches of 100."""
    data, n_classes = contenders.standardised(dataset), dataset.n_classes
    measured: dict[tuple[str, int], Contender] = {}
    for layout in contenders.LAYOUTS:
        measured[f"NumPy, {layout}", 1] = contenders.numpy_loop(data, n_classes, layout)
    for c in (1, 4) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256):
        measured["ours", c] = contenders.ours(dataset, c)
    for c in (4,) if quick else (32,):
        measured["ours, autodiff", c] = contenders.ours_by_autodiff(dataset, c)
        if TORCH:
            measured["PyTorch, stacked by hand", c] = contenders.torch_stacked(data, n_classes, c)
            measured["PyTorch, torch.func.vmap", c] = contenders.torch_vmap(data, n_classes, c)
    return _rows(measured, n_rounds, batch_size=100)


def batch_size(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """Batches of 10 to 500, alone and as many configurations as a grid and a sweep have."""
    data, n_classes = contenders.standardised(dataset), dataset.n_classes
    rows = []
    for size in (100,) if quick else (10, 50, 100, 500):
        measured: dict[tuple[str, int], Contender] = {
            ("NumPy, W xᵀ, Gᵀ x", 1): contenders.numpy_loop(data, n_classes, "W xᵀ, Gᵀ x", size)
        }
        for c in (1, 6) if quick else (1, 6, 64):
            measured["ours", c] = contenders.ours(dataset, c, size)
        rows += _rows(measured, n_rounds, batch_size=size)
    return rows


def full_data(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """All the training images, batches of 100."""
    full = load_dataset(dataset.name, FLAGS.data_dir, "full")
    measured: dict[tuple[str, int], Contender] = {
        ("ours", c): contenders.ours(full, c) for c in ((1,) if quick else (1, 32))
    }
    return _rows(measured, min(3, n_rounds), batch_size=100, n=len(full.train.labels))


def cost(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """Random features of several n and d, 32 configurations, batches of 100."""
    rows = []
    sizes = ((10_000, 256), (10_000, 768), (10_000, 1536), (10_000, 3072), (2_500, 3072),
             (5_000, 3072), (20_000, 3072), (40_000, 3072))  # fmt: skip
    for n, d in sizes[:1] if quick else sizes:
        measured: dict[tuple[str, int], Contender] = {
            ("ours", 32): contenders.ours(_features(dataset, n, d), 32)
        }
        rows += _rows(measured, min(3, n_rounds), batch_size=100, n=n, d=d)
    return rows


def _features(dataset: Dataset, n: int, d: int) -> Dataset:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
    split = Split(inputs, rng.integers(0, dataset.n_classes, n, dtype=np.int32))
    few = Split(inputs[:1], split.labels[:1])
    return replace(
        dataset, train=split, validation=few, test=few, standardiser=fit_standardiser(inputs)
    )


def accuracy(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """Seconds to the validation accuracy of ten epochs of ours, everyone on their own terms.

    scikit-learn's classifiers take standardised images and their own defaults, with the same λ.
    """
    del n_rounds
    inputs, labels = contenders.standardised(dataset)
    mean, scale = (np.asarray(s, np.float32) for s in dataset.standardiser)
    unseen = (np.asarray(dataset.validation.inputs, np.float32) - mean) / scale
    right = np.asarray(dataset.validation.labels)
    n_epochs, lam = 1 if quick else 10, contenders.LAM

    table = Hyperparameters(lam, contenders.RATE)
    for _ in range(2):  # once to compile, then for the time
        start = time.perf_counter()
        *_, last = steps(jax.random.key(0), table, dataset, n_epochs=n_epochs, mesh=device_mesh(),
                         measure=False)  # fmt: skip
        ours_seconds = time.perf_counter() - start
    params = last.params
    target = np.mean(np.argmax(unseen @ params.weights[0].T + params.bias[0], axis=1) == right)
    rows: Rows = [
        {"contender": f"ours: {target:.4f} in {n_epochs} epochs", "seconds": ours_seconds}
    ]

    if not SKLEARN:
        return rows
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    def sgd() -> Iterator[Any]:
        model = SGDClassifier(loss="log_loss", alpha=2 * lam, random_state=0)
        while True:
            yield model.partial_fit(inputs, labels, classes=np.unique(labels))

    def logistic() -> Iterator[Any]:
        n_iterations = 1
        while True:
            model = LogisticRegression(C=1 / (2 * lam * len(labels)), max_iter=n_iterations)
            yield model.fit(inputs, labels)
            n_iterations *= 2

    for name, fits, most in (("SGDClassifier", sgd, 20), ("LogisticRegression", logistic, 7)):
        rows.append(_time_to(name, fits, 1 if quick else most, target, unseen, right))
    return rows


def _time_to(name: str, fits: Callable, most: int, target: float, unseen, right) -> dict[str, Any]:
    """Seconds of fitting until a target is met; those of LogisticRegression's last fit alone."""
    import warnings

    spent = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few iterations to converge, on purpose
        training = fits()
        for _ in range(most):
            start = time.perf_counter()
            model = next(training)
            seconds = time.perf_counter() - start
            spent = spent + seconds if name == "SGDClassifier" else seconds
            reached = model.score(unseen, right)
            if reached >= target:
                return {"contender": f"scikit-learn {name}", "seconds": spent}
    return {"contender": f"{name}: {reached:.4f} after {most} tries", "seconds": spent}


def end_to_end(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """Whole commands, from the start of the process to the figures."""
    rows = []
    words = [f"--dataset={dataset.name}"]
    words += [f"--data_dir={FLAGS.data_dir}"] if FLAGS.data_dir else []
    for name, runs in (("baseline", 1), ("grid_search", 18)):
        times = []
        for _ in range(1 if quick else min(3, n_rounds)):
            with tempfile.TemporaryDirectory() as scratch:
                epochs = ["--n_epochs=1"] if quick else []
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", f"experiments.{name}", *words, *epochs,
                     f"--output_dir={scratch}/run"],
                    check=True, capture_output=True,
                )  # fmt: skip
                times.append(time.perf_counter() - start)
        seconds = sorted(times)[len(times) // 2]
        rows.append(
            {"contender": f"experiments.{name}", "configurations": runs, "seconds": seconds}
        )
    return rows


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
n, d, n_classes, c = map(int, sys.argv[1:])
from experiments import runner
runner.use_all_cores()
from experiments.contenders import ours
from linear_cifar.datasets import Dataset, Split, fit_standardiser
rng = np.random.default_rng(0)
inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
labels = rng.integers(0, n_classes, n, dtype=np.int32)
few = Split(inputs[:1], labels[:1])
names = tuple(map(str, range(n_classes)))
data = Dataset("random", Split(inputs, labels), few, few, fit_standardiser(inputs), names)
training = ours(data, c)()
next(training), next(training)
# Not getrusage's, which counts what the parent had when it began this process.
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000)
"""


def memory(dataset: Dataset, n_rounds: int, quick: bool) -> Rows:
    """Peak resident memory of a process that trains, for several n, d, K and configurations.

    Read from /proc, so that it is for Linux.
    """
    del dataset, n_rounds
    base = (10_000, 3072, 10, 1)
    sizes = [base] if quick else [
        base, (49_000, 3072, 10, 1), (49_000, 3072, 10, 64), (10_000, 6144, 10, 1),
        (10_000, 3072, 100, 1), (10_000, 3072, 10, 64), (10_000, 3072, 10, 128),
        (10_000, 3072, 100, 64),
    ]  # fmt: skip
    rows = []
    for n, d, n_classes, c in sizes:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, (n, d, n_classes, c))],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        rows.append({"contender": f"ours, {n_classes} classes", "configurations": c, "n": n,
                     "d": d, "batch_size": 100, "peak_mb": float(done.stdout)})  # fmt: skip
    return rows


SECTIONS: dict[str, Callable[[Dataset, int, bool], Rows]] = {
    "single": single,
    "sweep": sweep,
    "batch_size": batch_size,
    "full_data": full_data,
    "cost": cost,
    "accuracy": accuracy,
    "end_to_end": end_to_end,
    "memory": memory,
}
