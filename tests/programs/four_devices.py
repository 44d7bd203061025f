"""A sweep on four devices is as NumPy trains it; a program, because tests have two devices."""

import jax


def main():
    from tests import conftest

    jax.config.update("jax_num_cpu_devices", 4)
    from linear_cifar import device_mesh, load_dataset, sweep
    from tests.test_sweep import CONFIG, KEY, expected

    small, mesh = conftest.reduced(load_dataset("synthetic")), device_mesh()
    assert mesh.size == 4
    rows = [{"lam": lam, "batch_size": size} for lam in (0.0, 0.1, 1.0) for size in (100, 100, 30)]
    table = {name: [row[name] for row in rows] for name in rows[0]} | {"learning_rate": 0.01}
    params, _ = sweep(KEY, table, small, CONFIG, mesh=mesh)
    for weights, row in zip(params.weights, rows, strict=True):
        conftest.assert_close(weights, expected(small, **row)[0])
    print("equal")


if __name__ == "__main__":
    main()
