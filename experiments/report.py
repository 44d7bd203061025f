"""All of the report's runs, and its numbers beside ours, as one page.

python -m experiments.report --n_seeds=10

Writes index.html, which holds its images and opens from disk, report.json, and each run's record
under parts/. What an interruption leaves is used again with --resume.
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from absl import flags as absl_flags

from experiments import flags, grids, page, plan, runner, runs
from experiments.settings import Settings
from linear_cifar import records
from linear_cifar.datasets import Dataset, Split, load_dataset

FLAGS = absl_flags.FLAGS
BEGUN = "begun.json"  # what a report was begun with; a resumed one has to agree
QUICK_EPOCHS, QUICK_IMAGES = 3, 1000


def main(argv: list[str]) -> int:
    """Makes every part that is not there yet, then the page of them all."""
    del argv
    watch = runner.Stopwatch()
    with watch.phase("load"):
        assignment = runner.load_data()
        # By its name, so that what "auto" came to is not looked for and told of again.
        full = load_dataset(assignment.name, FLAGS.data_dir, "full")
        datasets = {"assignment": _reduced(assignment), "full": _reduced(full)}
    folder = Path(FLAGS.output_dir or f"runs/report-{runner.time_stamp()}")
    _begin(folder, datasets)
    groups = _groups()
    for done, (names, make) in enumerate(groups.items(), 1):
        missing = [name for name in names if not (folder / "parts" / name).exists()]
        if missing:
            print(f"[{done}/{len(groups)}] {', '.join(names)}", file=sys.stderr, flush=True)
            try:
                # All of the group again: a run trained in other company may round differently.
                make(names, datasets, folder / "parts")
            except KeyboardInterrupt:
                print(f"interrupted: --resume --output_dir={folder} goes on", file=sys.stderr)
                return 130
    print("page", file=sys.stderr, flush=True)
    report = page.write(folder, datasets, FLAGS.n_seeds, FLAGS.quick)
    page.print_summary(report, folder)
    return 0


def _groups() -> dict[tuple[str, ...], Callable]:
    """Runs that can be trained at once, and each grid, with what makes them."""
    by_shape: dict[Settings, list[str]] = {}
    for name, run in plan.every_run().items():
        # What is left when the hyper-parameters are the same: what fixes shapes.
        shape = replace(run.settings, **Settings().hyperparameters._asdict())
        by_shape.setdefault(shape, []).append(name)
    groups: dict[tuple[str, ...], Callable] = {tuple(n): _make_runs for n in by_shape.values()}
    return groups | {(name,): _make_grid for name in plan.GRIDS}


def _with_flags(settings: Settings) -> Settings:
    n_epochs = min(settings.n_epochs, QUICK_EPOCHS) if FLAGS.quick else settings.n_epochs
    return replace(settings, seed=FLAGS.seed, n_seeds=FLAGS.n_seeds, n_epochs=n_epochs)


def _make_runs(names: Sequence[str], datasets: dict[str, Dataset], parts: Path) -> None:
    watch = runner.Stopwatch()
    together = [_with_flags(plan.every_run()[name].settings) for name in names]
    dataset = datasets[together[0].split]
    outcomes = runs.train(together, dataset, watch)
    for name, settings, outcome in zip(names, together, outcomes, strict=True):
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not (parts / name).exists():
            with records.new_run(parts / name) as folder:
                figures = name in plan.RUNS  # the page shows no others
                runs.write(name, settings, dataset, outcome, folder, watch, figures)


def _make_grid(names: Sequence[str], datasets: dict[str, Dataset], parts: Path) -> None:
    watch = runner.Stopwatch()
    (name,) = names
    settings, axes = _with_flags(plan.GRIDS[name].settings), plan.GRIDS[name].axes
    dataset = datasets[settings.split]
    with records.new_run(parts / name) as folder:
        rows, params = grids.train(axes, settings, dataset, watch)
        result = grids.write(name, axes, settings, dataset, rows, params, folder, watch)
        if result["interrupted"]:
            raise KeyboardInterrupt


def _reduced(dataset: Dataset) -> Dataset:
    """The first images only, with --quick."""
    if not FLAGS.quick:
        return dataset
    train, validation, test = (
        Split(split.inputs[:QUICK_IMAGES], split.labels[:QUICK_IMAGES])
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, train=train, validation=validation, test=test)


def _begin(folder: Path, datasets: dict[str, Dataset]) -> None:
    """Makes the report's folder, or sees that what is there may be gone on with."""
    asked = {
        "n_seeds": FLAGS.n_seeds,
        "seed": FLAGS.seed,
        "quick": FLAGS.quick,
        "data": {name: dataset.sha256 for name, dataset in datasets.items()},
    }
    begun = folder / BEGUN
    try:
        if begun.exists() and FLAGS.overwrite:
            shutil.rmtree(folder)
        if begun.exists():
            if not FLAGS.resume:
                raise records.RecordError(
                    f"{folder} holds a report: --resume it, --overwrite it, or choose another"
                )
            if json.loads(begun.read_text()) != asked:
                raise records.RecordError(
                    f"{folder} was begun with other seeds, data or --quick: choose another folder"
                )
            for left_over in (folder / "parts").glob(".*.partial-*"):
                shutil.rmtree(left_over)
        elif folder.exists() and any(folder.iterdir()):
            raise records.RecordError(
                f"{folder} holds something other than a report: choose another folder"
            )
        else:
            (folder / "parts").mkdir(parents=True)
            records.write_json(begun, asked)
    except OSError as error:
        raise records.RecordError(f"cannot write to {folder}: {error.strerror}") from error


if __name__ == "__main__":
    flags.define("n_seeds")
    absl_flags.DEFINE_bool("resume", False, "Go on with the report that --output_dir holds.")
    absl_flags.mark_bool_flags_as_mutual_exclusive(["resume", "overwrite"])
    absl_flags.DEFINE_bool("quick", False, "A few epochs on a few images: to see that it works.")
    runner.launch(main)
