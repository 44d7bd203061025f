"""A sweep on four devices gives the results of one; a program, because tests have two devices."""

import jax


def main():
    from tests import conftest

    jax.config.update("jax_num_cpu_devices", 4)
    from linear_cifar import device_mesh, load_dataset, sweep
    from tests.test_sweep import CONFIG, KEY

    small, mesh = conftest.reduced(load_dataset("synthetic")), device_mesh()
    assert mesh.size == 4
    table = {"lam": [0.0, 0.1, 0.2, 0.3, 1.0, 0.1], "batch_size": [100] * 5 + [30]}
    one, four = (sweep(KEY, table, small, CONFIG, mesh=mesh) for mesh in (None, mesh))
    for ours, expected in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        conftest.assert_close(ours, expected)
    print("equal")


if __name__ == "__main__":
    main()
