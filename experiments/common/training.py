"""Tables of runs of gradient descent: from the flags into `sweep`, and their results.

A table is a DataFrame. A configuration has the columns `SETTINGS`; a run is a configuration with a
seed, and has the columns "configuration" and "seed" as well, and `MEASURES` once it is trained.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.common.flags import SHARED, check_optimizer_flags, check_runs, unread_fields
from experiments.common.progress import Progress
from linear_cifar import (
    LOSSES,
    Dataset,
    History,
    Hyperparameters,
    Params,
    Split,
    TrainConfig,
    evaluate,
)
from linear_cifar.data import SPLITS
from linear_cifar.metrics import Metrics, evaluate_examples
from linear_cifar.optimizers import OPTIMIZER_FIELDS, step_decay
from linear_cifar.selection import ranking
from linear_cifar.training import SweepChunk, device_mesh, fetch, shard_runs

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
SETTINGS = (*Hyperparameters._fields, "batch_size", "loss", "optimizer")
DEFAULTS = {name: SHARED[name].default for name in SETTINGS}
MEASURES = tuple(f"{split}_{name}" for split in SPLITS for name in Metrics._fields)


# Tables.


def configurations(**columns: Sequence[Any] | np.ndarray) -> "pd.DataFrame":
    """Configurations with these columns; all other settings are as the flags say.

    A hyper-parameter that the optimiser doesn't read gets its default, and configurations that are
    then equal are one.
    """
    import pandas as pd

    base = {name: FLAGS[name].value if name in FLAGS else DEFAULTS[name] for name in SETTINGS}
    n = max([len(column) for column in columns.values()], default=1)
    table = pd.DataFrame({**base, **columns}, index=range(n))[list(SETTINGS)]
    for optimizer in OPTIMIZER_FIELDS:
        for name in unread_fields(optimizer):
            table.loc[table.optimizer == optimizer, name] = DEFAULTS[name]
    check_optimizer_flags(list(dict.fromkeys(table.optimizer)))
    return table.drop_duplicates(ignore_index=True)


def runs_of(table: "pd.DataFrame") -> "pd.DataFrame":
    """Every configuration with every seed of the flags: the seeds of a configuration together."""
    check_runs(len(table) * FLAGS.n_seeds)
    runs = table.loc[table.index.repeat(FLAGS.n_seeds)].rename_axis("configuration").reset_index()
    runs["seed"] = np.tile(FLAGS.seed + np.arange(FLAGS.n_seeds), len(table))
    return runs


def config_from_flags(measure: bool) -> TrainConfig:
    """The static settings that all runs share."""
    return TrainConfig(n_epochs=FLAGS.n_epochs, shuffle=FLAGS.shuffle, measure=measure)


def sweep_arguments(runs: "pd.DataFrame") -> tuple[jax.Array, dict[str, list]]:
    """The keys and the table that `sweep` takes."""
    seeds, index = np.unique(runs.seed, return_inverse=True)
    keys = jnp.stack([jax.random.key(int(seed)) for seed in seeds])[index]
    return keys, {name: runs[name].tolist() for name in SETTINGS}


def shown_settings(table: "pd.DataFrame") -> "pd.DataFrame":
    """The settings with an empty cell where the optimiser doesn't read one."""
    cells = table[list(SETTINGS)].astype(object)
    for optimizer in OPTIMIZER_FIELDS:
        for name in unread_fields(optimizer):
            cells.loc[table.optimizer == optimizer, name] = None
    return cells.dropna(axis="columns", how="all")


def title(run: Any, n_seeds: int = 1, shuffle: bool = False) -> str:
    """Describes a run, a row of a table, in one line."""
    fields = "".join(f", {name}={getattr(run, name):g}" for name in OPTIMIZER_FIELDS[run.optimizer])
    optimizer = f"{run.optimizer}{fields}, " if run.optimizer != "sgd" else ""
    decay = f", ÷{run.decay_factor:g} every {run.decay_every}" if run.decay_factor > 1 else ""
    seeds = f"seed {run.seed}" if n_seeds == 1 else f"{n_seeds} seeds"
    return (
        f"{LOSSES[run.loss].title}, {optimizer}λ={run.lam:g}, η={run.learning_rate:g}{decay}, "
        f"batches of {run.batch_size}{', shuffled' if shuffle else ''}, {seeds}"
    )


def learning_rates(run: Any, n_epochs: int) -> np.ndarray | None:
    """The learning rate after each epoch of a run, [n_epochs + 1]; None if it is constant."""
    if run.decay_factor == 1:
        return None
    hyperparameters = Hyperparameters(*(getattr(run, name) for name in Hyperparameters._fields))
    return np.asarray(step_decay(hyperparameters, 1)(np.arange(n_epochs + 1)))


# Training and its results.


def progress_hook(
    runs: "pd.DataFrame", config: TrainConfig, finished: Collection[int] = ()
) -> Callable[[SweepChunk], None]:
    """The hook `on_epoch` of a `sweep` that shows its progress; `finished` rows are left out."""
    n_before, n_left = 0, len(runs) - len(finished)
    bar = Progress(max(1, n_left * config.n_epochs))

    def describe(chunk: SweepChunk) -> str:
        words = [f"epoch {chunk.epoch} of {config.n_epochs}"]
        if len(runs) > 1:
            words.append(f"{len(chunk.rows)} runs with batches of {runs.batch_size[chunk.rows[0]]}")
        if chunk.history.train_cost.size:
            words.append(f"cost {np.mean(chunk.history.train_cost[:, -1]):.4f}")
            accuracy = np.mean(chunk.history.validation_accuracy[:, -1])
            words += [f"validation accuracy {accuracy:.4f}"] if np.isfinite(accuracy) else []
        if len(runs) > len(chunk.rows):
            words.append(f"{len(finished) + n_before} of {len(runs)} runs finished")
        return ", ".join(words)

    def show(chunk: SweepChunk) -> None:
        nonlocal n_before
        n = len(set(chunk.rows.tolist()).difference(finished))
        n_epochs_done = n_before * config.n_epochs + n * chunk.epoch
        n_before += n if chunk.epoch == config.n_epochs else 0
        bar.show(n_epochs_done, describe(chunk))

    return show


def join_chunks(chunks: Sequence[SweepChunk]) -> SweepChunk:
    """The runs of several chunks in the order of the table, in NumPy arrays."""
    parts = []
    for chunk in chunks:  # its parameters may be on the devices, followed by copies
        params = Params(*(array[: len(chunk.rows)] for array in fetch(chunk.params)))
        parts.append((chunk.rows, params, chunk.history))
    order = np.argsort(np.concatenate([chunk.rows for chunk in chunks]))
    rows, params, history = jax.tree.map(lambda *a: np.concatenate(a)[order], *parts)
    return SweepChunk(rows, params, history, chunks[-1].epoch)


def measure_runs(chunk: SweepChunk, runs: "pd.DataFrame", dataset: Dataset) -> dict[str, Any]:
    """`MEASURES` of a chunk's runs, each [c]; they all have one loss.

    Training and validation metrics come from the history if there is one.
    """
    rows = runs.iloc[chunk.rows]
    loss = LOSSES[rows.loss.iloc[0]]
    metrics = {}
    if chunk.history.train_cost.shape[1]:
        last = [column[:, -1] for column in chunk.history]
        metrics = {"train": Metrics(*last[:3]), "validation": Metrics(*last[3:])}
    for split in SPLITS:
        if split not in metrics:
            lam = rows.lam.to_numpy(float)
            metrics[split] = evaluate_runs(chunk.params, lam, split, dataset, loss)
    return {
        f"{split}_{name}": _as_float(name, getattr(metrics[split], name))
        for split in SPLITS
        for name in Metrics._fields
    }


def _as_float(name: str, values: Any) -> np.ndarray:
    """Metrics in float64. Seven digits make a float32 accuracy the fraction of counts again."""
    return np.asarray(values, float).round(7) if name == "accuracy" else np.asarray(values, float)


def evaluate_runs(
    params: Params, lam: np.ndarray, split: str, dataset: Dataset, loss: Any
) -> Metrics:
    """`evaluate` of C runs, [C, K, d], [C, K] and λ [C], in one pass on all devices; NumPy, [C]."""
    mesh, n_runs = device_mesh(), len(lam)
    # Copies of the last run make their number a multiple of the devices'.
    padded = np.minimum(np.arange(-(-n_runs // mesh.size) * mesh.size), n_runs - 1)
    runs = shard_runs(jax.tree.map(lambda a: np.asarray(a)[padded], (params, lam)), mesh)
    measure = jax.vmap(partial(evaluate, loss=loss), in_axes=(0, None, None, 0))
    metrics = measure(runs[0], getattr(dataset, split), dataset.standardiser, runs[1])
    return jax.tree.map(lambda a: a[:n_runs], fetch(metrics))


def evaluate_models(params: Params, split: Split, dataset: Dataset, loss: Any) -> Any:
    """`evaluate_examples` of C models, [C, K, d] and [C, K], in one pass over a split; [C, n]."""
    measure = jax.vmap(partial(evaluate_examples, loss=loss), in_axes=(0, None, None))
    return jax.tree.map(np.asarray, measure(params, split, dataset.standardiser))


def by_configuration(runs: "pd.DataFrame", select: str = "accuracy") -> "pd.DataFrame":
    """A row per configuration, the best on validation data first, diverged ones last.

    It has the settings, each measure's mean over seeds, with several seeds its standard deviation
    as `NAME_sd`, and "diverged"; the index is the configuration.
    """
    measures = list(MEASURES)
    # `skipna` off: a configuration is only as good as its worst seed, and NaN means divergence.
    groups = runs.groupby("configuration")[measures]
    table = groups.agg(lambda column: column.mean(skipna=False)).round(9)
    if runs.seed.nunique() > 1:
        deviations = groups.agg(lambda column: column.std(skipna=False))
        table = table.join(deviations.add_suffix("_sd"))
    table["diverged"] = ~np.isfinite(table[measures]).all(axis="columns")
    settings = runs.groupby("configuration").first()[list(SETTINGS)]
    table = settings.loc[table.index].join(table)
    scores = table[["validation_accuracy", "validation_loss"]].mask(table.diverged)
    order = ranking(scores.validation_accuracy, scores.validation_loss, select)
    return table.iloc[order]


def history_table(history: History, seeds: Sequence[int]) -> "pd.DataFrame":
    """The history of runs, fields [S, n_epochs + 1], as rows of seed, epoch and the fields."""
    import pandas as pd

    n_seeds, n_rows = np.shape(history.train_cost)
    columns = {name: np.ravel(values) for name, values in history._asdict().items()}
    epochs = np.tile(np.arange(n_rows), n_seeds)
    return pd.DataFrame({"seed": np.repeat(seeds, n_rows), "epoch": epochs, **columns})
