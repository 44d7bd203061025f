"""What a processor can check of the programs that GPUs run."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar import LOSSES, Params, dataset_from_arrays, device_mesh, solve
from linear_cifar.optimum import SolveConfig, solve_chunks
from linear_cifar.optimum.data_pass import loss_and_gradient
from linear_cifar.optimum.descent import COMPILE_COST
from linear_cifar.optimum.tasks import RunTask

LAM = np.geomspace(1e-3, 1, 20)
M, D, K, C = 512, 256, 10, 4
PASS = jax.jit(loss_and_gradient, static_argnums=0)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(3000) % 3)
    inputs = rng.normal(size=(3, 8))[labels] + rng.normal(size=(3000, 8))
    return dataset_from_arrays((inputs, labels))


def pass_arguments(loss):
    """The arguments of a pass of C runs over a block of M examples."""
    params = Params(jnp.zeros((C, K, D)), jnp.zeros((C, K)))
    task = RunTask(jnp.zeros(C, int), jnp.zeros(C, int), None)
    labels, weights = jnp.zeros((1, M), int), jnp.ones((1, M))
    return loss, jnp.zeros((M, D)), labels, weights, (params, task)


def test_blocks_and_chunks_as_large_as_on_a_gpu_give_the_same_optima(data, monkeypatch):
    expected = solve(LAM, data, tolerance=1e-8, dtype=np.float32, memory_bytes=1)  # one by one
    for name in ("data_pass", "plan"):
        module = importlib.import_module(f"linear_cifar.optimum.{name}")
        monkeypatch.setattr(module, "on_cpu", lambda _: False)
    monkeypatch.setitem(COMPILE_COST, False, 0.0)  # or a small problem is one chunk anyway
    steps = solve_chunks(LAM, data, SolveConfig(tolerance=1e-8))
    (optimum,) = [step.optimum for step in steps if step.optimum]  # all λ at once
    order = np.argsort(-LAM)
    assert np.all(optimum.cost - expected.cost[order] <= optimum.gap)
    assert np.all(expected.cost[order] - optimum.cost <= expected.gap[order])
    assert np.all(optimum.gap <= 1e-8 * optimum.cost)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_products_of_a_pass_have_full_precision(loss):
    program = PASS.lower(*pass_arguments(loss)).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_pass_costs_little_more_than_its_two_products():
    compiled = PASS.lower(*pass_arguments(LOSSES["softmax"])).compile()
    products = 4 * M * D * K * C
    assert products < compiled.cost_analysis()["flops"] < 1.1 * products


def test_between_two_passes_only_a_few_numbers_of_each_run_are_transferred(data, monkeypatch):
    fetched = []
    device_get = jax.device_get

    def spy(tree):
        fetched.extend(np.size(array) for array in jax.tree.leaves(tree))
        return device_get(tree)

    steps = solve_chunks(LAM[:4], data, SolveConfig(), mesh=device_mesh(jax.devices()[:1]))
    next(steps)
    next(steps)
    monkeypatch.setattr(jax, "device_get", spy)
    with jax.transfer_guard_host_to_device("disallow"):  # that no line asks for
        assert next(steps).optimum is None
    assert fetched
    assert max(fetched) <= 4
