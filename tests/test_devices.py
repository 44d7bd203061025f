"""Devices: what lies where, and that the results are those of one."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from commands import ROOT, run_process
from conftest import assert_close, reduced

from linear_cifar.engine.devices import Data, device_mesh, layout, splits_features
from linear_cifar.engine.training import train
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.settings import SettingsError

KEY = jax.random.key(0)


def shards(tree):
    """The shape of each array on a device."""
    return [array.sharding.shard_shape(array.shape) for array in jax.tree.leaves(tree)]


def test_many_runs_are_split_and_each_device_has_all_the_data(small):
    where = layout(device_mesh(), 4, 192)
    weights, lam = np.zeros((4, 10, 192)), np.zeros(4)
    assert shards(where.runs([weights, lam])) == [(2, 10, 192), (2,)]
    assert shards(Data(small, where).train) == [(400, 192), (400,)]
    assert shards(where.whole(lam)) == [(4,)]


def test_a_single_run_is_split_by_features_and_the_data_with_it(small):
    where, data = layout(device_mesh(), 1, 192), Data(small, layout(device_mesh(), 1, 192))
    weights, count = np.zeros((1, 10, 192)), np.zeros(1, int)
    assert shards(where.runs([weights, count])) == [(1, 10, 96), (1,)]
    assert shards(data.train) == [(400, 96), (400,)]
    assert shards(data.standardiser) == [(96,), (96,)]
    assert data.train is data.train  # placed once


def test_without_a_mesh_all_is_on_the_default_device(small):
    where = layout(None, 3, 192)
    placed = jax.tree.leaves((where.runs(np.zeros((3, 10, 192))), Data(small, where).train))
    assert {frozenset(array.devices()) for array in placed} == {frozenset(jax.devices()[:1])}


def test_runs_that_devices_cannot_share_evenly_are_refused():
    with pytest.raises(SettingsError, match="3 runs can't be split evenly over 2 devices"):
        layout(device_mesh(), 3, 192)


def test_a_single_run_is_split_on_a_processor_alone():
    """Not where each sum over features would go through a network, or from GPU to GPU."""
    cpu, gpu = (np.array([SimpleNamespace(platform=name)] * 2) for name in ("cpu", "gpu"))
    for devices, several, split in ((cpu, False, True), (cpu, True, False), (gpu, False, False)):
        mesh = SimpleNamespace(devices=devices, is_multi_process=several, size=2)
        assert splits_features(mesh) is split
    assert splits_features(None) is False
    with pytest.raises(SettingsError, match="1 runs can't be split evenly over 2 devices"):
        layout(mesh, 1, 192)


def test_a_single_run_whose_features_cannot_be_shared_evenly_is_whole_on_both(synthetic):
    data = reduced(synthetic, 99)
    settings = {"n_epochs": 2, "measure": False, "dtype": np.float64}
    one, two = (
        train(KEY, Hyperparameters(0.1, 0.01), data, mesh=mesh, **settings)[0]
        for mesh in (None, device_mesh())
    )
    assert shards(two) == [(10, 99), (10,)]
    assert len(two.weights.devices()) == 2
    for ours, expected in zip(two, one, strict=True):
        assert_close(ours, expected)


@pytest.mark.slow
def test_four_devices_give_the_results_of_one():
    done = run_process("tests.programs.four_devices", PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert done.stdout.strip() == "equal", done.stderr
