"""One configuration trained, measured and recorded: the work of several experiments."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import runner
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.evaluation import confusion_matrix, evaluate
from linear_cifar.losses import LOSSES
from linear_cifar.training import History, TrainState, epochs, stack_history

FLAGS = flags.FLAGS
TRAINING_FLAGS = (
    "lam", "learning_rate", "batch_size", "n_epochs", "loss", "decay_factor", "decay_every",
    "shuffle",
)  # fmt: skip


def main(experiment: str, split: str = "assignment") -> int:
    """Trains what the flags describe and writes the record; returns the exit code."""
    watch = runner.Stopwatch()
    with runner.output_folder(experiment) as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data(split)
        state, history, interrupted = _train(dataset, watch)
        with watch.phase("evaluate"):
            figures = _final_figures(state, history, dataset)
        with watch.phase("plot"):
            _plot(experiment, folder, state, history, dataset)
        records.write_params(folder / records.PARAMS, state.params)
        records.write_history(folder / records.HISTORY, history)
        result = {
            **runner.describe_run(experiment, dataset),
            **figures,
            "interrupted": interrupted,
            "seconds": watch.seconds,
        }
        records.write_json(folder / records.RESULT, result)
    _report(result, runner.data_title(dataset), target)
    return 130 if interrupted else 0


def _train(dataset: Dataset, watch: runner.Stopwatch) -> tuple[TrainState, History, bool]:
    """Trains epoch by epoch; an interrupt ends it with what the finished epochs gave."""
    steps = epochs(
        jax.random.key(FLAGS.seed),
        runner.hyperparameters(),
        dataset,
        loss=LOSSES[FLAGS.loss],
        n_epochs=FLAGS.n_epochs,
        batch_size=FLAGS.batch_size,
        shuffle=FLAGS.shuffle,
    )
    measured, interrupted = [], False
    try:
        for step in runner.progress(_timed(steps, watch), FLAGS.n_epochs + 1, _describe):
            state, metrics = step
            measured.append(metrics)
    except KeyboardInterrupt:
        if not measured:
            raise
        interrupted = True
        print(f"interrupted after epoch {len(measured) - 1}", file=sys.stderr)
    return state, jax.device_get(stack_history(measured)), interrupted


def _timed(steps, watch: runner.Stopwatch):
    """Passes epochs on once they are done; what is dispatched together is timed apart."""
    while True:
        with watch.phase("train"):
            state, metrics = next(steps, (None, None))
            jax.block_until_ready(state)
        with watch.phase("evaluate"):
            jax.block_until_ready(metrics)
        if state is None:
            return
        yield state, metrics


def _describe(epoch: tuple[TrainState, History]) -> str:
    metrics = epoch[1]
    return f"cost {metrics.train_cost:.4f}, validation accuracy {metrics.validation_accuracy:.4f}"


def _final_figures(state: TrainState, history: History, dataset: Dataset) -> dict[str, Any]:
    """The figures of the trained model, for the record."""
    test = evaluate(
        state.params, dataset.test, dataset.standardiser, np.float32(FLAGS.lam), LOSSES[FLAGS.loss]
    )
    counts = jax.device_get(confusion_matrix(state.params, dataset.test, dataset.standardiser))
    class_accuracy = counts.diagonal() / counts.sum(axis=1)
    final = {name: column[-1] for name, column in history._asdict().items()}
    return {
        "train_accuracy": final["train_accuracy"],
        "validation_accuracy": final["validation_accuracy"],
        "test_accuracy": test.accuracy,
        "test_accuracy_by_class": dict(zip(dataset.class_names, class_accuracy, strict=True)),
        "train_cost": final["train_cost"],
        "validation_cost": final["validation_cost"],
        "diverged": not np.isfinite(final["train_cost"]),
    }


def _plot(experiment, folder, state, history, dataset) -> None:
    from linear_cifar import plots  # matplotlib takes half a second

    title = f"{experiment}: {_title()} · {runner.data_title(dataset)}"
    figures = {"curves": plots.plot_history(history, title)}
    if dataset.image_shape is not None:
        figures["weights"] = plots.plot_weights(
            state.params, dataset.class_names, dataset.image_shape, title
        )
    records.write_figures(folder, figures)


def _title() -> str:
    decay = f", ÷{FLAGS.decay_factor:g} every {FLAGS.decay_every}" if FLAGS.decay_factor > 1 else ""
    return (
        f"{LOSSES[FLAGS.loss].title}, λ={FLAGS.lam:g}, η={FLAGS.learning_rate:g}{decay}, "
        f"batches of {FLAGS.batch_size}, seed {FLAGS.seed}"
    )


def _report(result: dict[str, Any], data: str, target: Path) -> None:
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
    rows = [(name.replace("_", " "), float(result[name])) for name in (
        "train_cost", "validation_cost", "train_accuracy", "validation_accuracy", "test_accuracy",
    )]  # fmt: skip
    runner.print_table([
        ("run", _title()),
        ("data", data),
        *rows,
        *([("diverged", "yes: the cost is not finite")] if result["diverged"] else []),
        ("seconds", seconds),
        ("written to", target),
    ])  # fmt: skip
