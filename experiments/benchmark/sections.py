"""The sections of `experiments.benchmark`: those that time training, and all of them by name.

A section is a function of a `Setup` that returns `Measured` rows, with its line in `SECTIONS`. What
trains by gradient descent goes through `measure_training`; what has seconds of its own, to an
accuracy say, through `measure_seconds`.
"""

from collections.abc import Callable

import numpy as np

from experiments.benchmark.accuracy import accuracy
from experiments.benchmark.contenders import (
    LAYOUTS,
    Contender,
    Task,
    installed,
    numpy_loop,
    ours,
    ours_by_autodiff,
)
from experiments.benchmark.measuring import Measured, Setup, measure_training
from experiments.benchmark.path import path
from experiments.benchmark.processes import end_to_end, memory, path_sizes
from linear_cifar.data import Dataset, dataset_from_arrays, load_dataset

COST_SIZES = (  # n and d
    *((10_000, d) for d in (256, 768, 1536, 3072)),
    *((n, 3072) for n in (2_500, 5_000, 20_000, 40_000)),
)
ROUNDS = 5  # at most, where only ours takes turns


def single(setup: Setup) -> Measured:
    """One configuration, batches of 100."""
    task = Task(setup.examples())
    contenders = [ours(task), ours_by_autodiff(task), *_numpy_loops(task)]
    if installed("torch"):
        from experiments.benchmark import pytorch

        contenders.append(pytorch.linear(task))
    return measure_training(contenders, setup)


def sweep(setup: Setup) -> Measured:
    """From one configuration to 256, batches of 100."""
    examples = setup.examples()
    sizes, several = ((1, 4), 4) if setup.quick else ((1, 2, 4, 8, 16, 32, 64, 128, 256), 32)
    tasks = {c: Task(examples, c) for c in sizes}
    contenders = [*map(ours, tasks.values()), *_numpy_loops(tasks[1])]
    contenders.append(ours_by_autodiff(tasks[several]))
    if installed("torch"):
        from experiments.benchmark import pytorch

        contenders += [pytorch.stacked(tasks[several]), pytorch.vmap(tasks[several])]
    return measure_training(contenders, setup)


def batch_size(setup: Setup) -> Measured:
    """Batches of 10 to 500, alone and as many configurations as a grid and a sweep have."""
    examples, contenders = setup.examples(), []
    for size in (100,) if setup.quick else (10, 50, 100, 500):
        alone = Task(examples, 1, size)
        contenders += [ours(alone), numpy_loop(alone, "W xᵀ, Gᵀ x")]
        contenders += [ours(Task(examples, c, size)) for c in ((6,) if setup.quick else (6, 64))]
    return measure_training(contenders, setup)


def full_data(setup: Setup) -> Measured:
    """All the training images, batches of 100."""
    full = setup.examples(load_dataset(setup.dataset.name, setup.data_dir, "full"))
    contenders = [ours(Task(full, c)) for c in ((1,) if setup.quick else (1, 32))]
    return measure_training(contenders, _few_rounds(setup))


def cost(setup: Setup) -> Measured:
    """Random features of several n and d, 32 configurations, batches of 100."""
    sizes = COST_SIZES[:1] if setup.quick else COST_SIZES
    datasets = [_features(n, d, setup.dataset.n_classes) for n, d in sizes]
    contenders = [ours(Task(setup.examples(dataset), 32)) for dataset in datasets]
    return measure_training(contenders, _few_rounds(setup))


def _numpy_loops(task: Task) -> list[Contender]:
    return [numpy_loop(task, layout) for layout in LAYOUTS]


def _few_rounds(setup: Setup) -> Setup:
    return setup._replace(n_rounds=min(ROUNDS, setup.n_rounds))


def _features(n: int, d: int, n_classes: int) -> Dataset:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (n, d), dtype=np.uint8)
    labels = rng.integers(0, n_classes, n, dtype=np.int32)
    return dataset_from_arrays((inputs, labels), class_names=[str(k) for k in range(n_classes)])


SECTIONS: dict[str, Callable[[Setup], Measured]] = {
    "single": single,
    "sweep": sweep,
    "batch_size": batch_size,
    "full_data": full_data,
    "cost": cost,
    "accuracy": accuracy,
    "end_to_end": end_to_end,
    "memory": memory,
    "path": path,
    "path_sizes": path_sizes,
}
