"""Gradient descent: one run as a pure function, tables of runs, and devices."""

from linear_cifar.training.devices import (
    await_others as await_others,
    device_mesh as device_mesh,
    fetch as fetch,
    replicate as replicate,
    shard_runs as shard_runs,
)
from linear_cifar.training.fused_batches import BATCHES_PER_BLOCK as BATCHES_PER_BLOCK
from linear_cifar.training.sweep import SweepChunk as SweepChunk, sweep as sweep
from linear_cifar.training.train import (
    SETTINGS as SETTINGS,
    History as History,
    TrainConfig as TrainConfig,
    TrainState as TrainState,
    epoch_step as epoch_step,
    epochs as epochs,
    fuses_batches as fuses_batches,
    init_state as init_state,
    train as train,
)
