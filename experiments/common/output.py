"""Where a command writes, and the record that it leaves."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags

from experiments.common import records
from experiments.common.progress import Stopwatch
from linear_cifar.data import Dataset
from linear_cifar.errors import InputError

FLAGS = flags.FLAGS


def default_folder(experiment: str) -> Path:
    """--output_dir, else a folder under runs/ that no run has had, named to the microsecond.

    Raises:
      InputError: --resume, and no folder to go on with.
    """
    if "resume" in FLAGS and FLAGS.resume and not FLAGS.output_dir:
        raise InputError("--resume needs --output_dir, the folder to go on with")
    now = datetime.datetime.now()
    return Path(FLAGS.output_dir or f"runs/{experiment}-{now:%Y%m%d-%H%M%S-%f}")


@contextmanager
def output_folder(experiment: str) -> Iterator[tuple[Path, Path]]:
    """Opens the run's folder: yields where to write now, and where that will stand."""
    target = default_folder(experiment)
    with records.new_run(target, FLAGS.overwrite) as folder:
        yield folder, target


def write_result(
    folder: Path,
    experiment: str,
    dataset: Dataset,
    watch: Stopwatch,
    *,
    file: str = records.RESULT,
    **content: Any,
) -> dict[str, Any]:
    """Writes `result.json`, or another file, and returns what stands in it.

    That is what a run is of, what it gave, and how long it took.
    """
    if dataset.image_shape is None:
        content.pop("split", None)  # of the named data sets, and the default where it isn't asked
    result = {
        "experiment": experiment,
        "dataset": records.describe_dataset(dataset),
        **records.describe_machine(),
        **content,
        "seconds": watch.seconds,
    }
    records.write_json(folder / file, result)
    return result
