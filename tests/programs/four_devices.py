"""Four devices give the results of one; a program, for `conftest` has settled on two."""

import jax


def main():
    import conftest

    jax.config.update("jax_num_cpu_devices", 4)
    from test_tables import SEEDS, keys, mixed_table

    from linear_cifar.data import load_dataset
    from linear_cifar.engine.devices import device_mesh
    from linear_cifar.engine.tables import sweep

    mesh, small = device_mesh(), conftest.reduced(load_dataset("synthetic"))
    assert mesh.size == 4
    # Two rows of a group, fewer than devices; and one that is alone, split by features.
    table, columns = mixed_table(3)
    settings = {**columns, "n_epochs": 2, "measure": False, "dtype": jax.numpy.float64}
    one, four = (sweep(keys(SEEDS[:3]), table, small, mesh=of, **settings) for of in (None, mesh))
    for ours, expected in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        conftest.assert_close(ours, expected)
    print("equal")


if __name__ == "__main__":
    main()
