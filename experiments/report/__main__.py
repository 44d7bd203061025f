"""All of the report's runs, and its numbers beside ours, as one page.

python -m experiments.report --n_seeds=10

Writes index.html, which holds its images and opens from disk, report.json, and each run's record
under parts/. What an interruption leaves is used again with --resume.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments.common import command, flags, grids, records, resumable, runs, seals
from experiments.common.data import load_data
from experiments.common.output import default_folder
from experiments.common.progress import Stopwatch
from experiments.common.settings import Settings
from experiments.report import optima, page, plan
from linear_cifar.data import Dataset, Split, load_dataset
from linear_cifar.optimizers import Hyperparameters

FLAGS = absl_flags.FLAGS
QUICK_EPOCHS, QUICK_IMAGES = 3, 1000


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define("n_seeds")
    resumable.define_flags()
    absl_flags.DEFINE_bool("quick", False, "A few epochs on a few images: to see that it works.")


def main(argv: list[str]) -> int:
    """Makes every part that is not there yet, then the page of them all."""
    del argv
    folder = default_folder("report")
    with resumable.open_folder(folder, "a report") as held:
        assignment = load_data()
        # By its name, so that what "auto" came to is not looked for and told of again.
        full = load_dataset(assignment.name, FLAGS.data_dir, "full")
        datasets = {"assignment": _reduced(assignment), "full": _reduced(full)}
        asked = {
            "seeds": [FLAGS.seed, FLAGS.n_seeds],
            "quick": FLAGS.quick,
            "data": {name: dataset.sha256 for name, dataset in datasets.items()},
        }
        held.begin(asked)
        _make_parts(folder / "parts", datasets, asked)
        print("page", file=sys.stderr, flush=True)
        report = page.write(folder, datasets, FLAGS.n_seeds, FLAGS.quick)
    page.print_summary(report, folder)
    return 0


def _make_parts(parts: Path, datasets: dict[str, Dataset], asked: dict[str, Any]) -> None:
    seals.make_folder(parts)
    groups = _groups()
    for done, (names, make) in enumerate(groups.items(), 1):
        of = {name: seals.fingerprint(name, asked) for name in names}
        for name in names:
            path = parts / name
            if os.path.lexists(path) and (why := seals.unfit(path, of[name])):
                seals.put_aside(path, why)
        if not all((parts / name).exists() for name in names):
            print(f"[{done}/{len(groups)}] {', '.join(names)}", file=sys.stderr, flush=True)
            # All of the group again: a run trained in other company may round differently.
            make(names, datasets, parts, of)


@contextmanager
def _part(path: Path, of: str) -> Iterator[Path]:
    """A part to write, which is sealed once it is whole."""
    with records.new_run(path) as folder:
        yield folder
        seals.seal(folder, of)


def _groups() -> dict[tuple[str, ...], Callable]:
    """Runs that can be trained at once, each grid and each path, with what makes them."""
    by_shape: dict[Settings, list[str]] = {}
    for name, run in plan.every_run().items():
        # What is left when the hyper-parameters are the same: what fixes shapes.
        shape = replace(run.settings, hyperparameters=Hyperparameters())
        by_shape.setdefault(shape, []).append(name)
    groups: dict[tuple[str, ...], Callable] = {tuple(n): _make_runs for n in by_shape.values()}
    groups |= {(name,): _make_grid for name in plan.GRIDS}
    return groups | {(name,): _make_path for name in plan.PATHS}


def _with_flags(settings: Settings) -> Settings:
    n_epochs = min(settings.n_epochs, QUICK_EPOCHS) if FLAGS.quick else settings.n_epochs
    return replace(settings, seed=FLAGS.seed, n_seeds=FLAGS.n_seeds, n_epochs=n_epochs)


def _make_runs(
    names: Sequence[str], datasets: dict[str, Dataset], parts: Path, of: dict[str, str]
) -> None:
    watch = Stopwatch()
    together = [_with_flags(plan.every_run()[name].settings) for name in names]
    dataset = datasets[together[0].split]
    outcomes = runs.train(together, dataset, watch)
    for name, outcome in zip(names, outcomes, strict=True):
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not (parts / name).exists():
            with _part(parts / name, of[name]) as folder:
                figures = name in plan.RUNS  # the page shows no others
                runs.write(name, dataset, outcome, folder, watch, figures)


def _make_grid(
    names: Sequence[str], datasets: dict[str, Dataset], parts: Path, of: dict[str, str]
) -> None:
    watch = Stopwatch()
    (name,) = names
    settings, values = _with_flags(plan.GRIDS[name].settings), plan.GRIDS[name].values
    dataset = datasets[settings.split]
    with _part(parts / name, of[name]) as folder:
        result, _ = grids.run(name, values, settings, dataset, folder, watch)
        if result["interrupted"]:
            raise KeyboardInterrupt


def _make_path(
    names: Sequence[str], datasets: dict[str, Dataset], parts: Path, of: dict[str, str]
) -> None:
    (name,) = names
    dataset = datasets[plan.PATHS[name].split]
    with _part(parts / name, of[name]) as folder:
        optima.make(name, dataset, folder, Stopwatch())


def _reduced(dataset: Dataset) -> Dataset:
    """The first images only, with --quick."""
    if not FLAGS.quick:
        return dataset
    train, validation, test = (
        Split(split.inputs[:QUICK_IMAGES], split.labels[:QUICK_IMAGES])
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, train=train, validation=validation, test=test)


if __name__ == "__main__":
    command.launch(main, define_flags)
