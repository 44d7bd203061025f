"""The losses against each other: curves, weights, probability histograms.

python -m experiments.loss_comparison

The folder holds a record for each loss, and the histograms of all beside each other.
"""

from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import baseline
from experiments.common import cli, flags, folder, run_record, training
from experiments.common.data import load_data
from experiments.common.histograms import probability_histograms
from experiments.common.progress import Stopwatch
from linear_cifar import LOSSES, Params
from linear_cifar.training import SweepChunk

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define(*(name for name in flags.RUN if name != "loss"))
    flags.define_features()


def main(argv: list[str]) -> int:
    """Trains all losses with the same settings and compares them on the test images."""
    del argv
    watch = Stopwatch()
    table = training.configurations(loss=list(LOSSES))
    runs = training.runs_of(table, FLAGS.seed, FLAGS.n_seeds)
    results: dict[str, dict[str, Any]] = {}
    params: dict[str, Params] = {}
    with folder.new_run("loss_comparison") as (path, target):
        with watch.phase("load"):
            dataset = load_data(required=["test"])
        config = training.config_from_flags(measure=True)
        trained, interrupted = baseline.train(runs, config, dataset, watch)
        losses = runs.loss.to_numpy()[trained.rows]
        for name in dict.fromkeys(losses):
            chunk: SweepChunk = _rows(trained, losses == name)
            (path / name).mkdir()
            results[name] = run_record.write(
                path / name, "loss_comparison", runs, chunk, dataset, watch, split="assignment"
            )
            params[name] = jax.tree.map(lambda a: a[0], chunk.params)
        with watch.phase("plot"):
            figure, summary = probability_histograms(params, dataset, f"seed {FLAGS.seed}")
            folder.write_figures(path, {"probabilities": figure})
        compared = {
            name: {key: result.get(key) for key in (*run_record.REPORTED, "diverged")}
            | {"true_class_probability": summary[name]}
            for name, result in results.items()
        }
        content: dict[str, Any] = {"losses": compared, "interrupted": interrupted}
        folder.write_result(path, "loss_comparison", dataset, watch, **content)
    for name, result in results.items():
        run_record.print_result(result, dataset, target / name)
        print()
    print(f"histograms in {target / folder.FIGURES}")
    return cli.INTERRUPTED if interrupted else 0


def _rows(chunk: SweepChunk, mask: np.ndarray) -> SweepChunk:
    """Some runs of a chunk."""
    rows, params, history = jax.tree.map(lambda a: a[mask], chunk[:3])
    return SweepChunk(rows, params, history, chunk.epoch)


if __name__ == "__main__":
    cli.launch(main, define_flags)
