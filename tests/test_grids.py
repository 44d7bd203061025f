"""What a grid leaves: each cell as its configuration alone, and the best one tested."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from commands import check_every_file, few, run

from experiments.common import grids, records
from linear_cifar.model import init_params


@pytest.mark.slow
def test_a_grid_s_cells_equal_each_configuration_alone(tmp_path):
    out, dataset = tmp_path / "run", few()
    words = ["--batch_size=30,400", "--learning_rate=0.01,1e30", "--lam=0,1", "--n_epochs=1"]
    done = run(
        "experiments.grid_search",
        *words,
        "--n_seeds=2",
        "--dataset=synthetic",
        f"--output_dir={out}",
    )
    assert done.returncode == 0, done.stderr
    check_every_file(out)
    cells = grids.read(out)
    keys = [f"{b}_{e}_{lam}" for b in (30, 400) for e in (0.01, 1e30) for lam in (0.0, 1.0)]
    assert list(cells) == keys
    in_json = json.loads((out / "grid.json").read_text())
    assert in_json.keys() == cells.keys()
    assert in_json["30_1e+30_1.0"] is None  # it diverged
    test = np.asarray(dataset.standardiser(dataset.test.inputs, jnp.float32))
    for batch_size, lam in ((30, 0.0), (30, 1.0), (400, 0.0), (400, 1.0)):
        cell = cells[f"{batch_size}_0.01_{lam}"]
        for seed in range(2):
            initial = init_params(jax.random.fold_in(jax.random.key(seed), 0), 3072, 10)
            weights, bias, rows = oracle.train(
                *initial,
                dataset,
                lam=lam,
                learning_rate=0.01,
                n_epochs=1,
                batch_size=batch_size,
                loss="softmax",
            )
            right = (test @ weights.T + bias).argmax(axis=1) == dataset.test.labels
            # Up to one image, which rounding may move from one class to another.
            alone = {"validation_accuracy": rows[-1, -1], "test_accuracy": right.mean()}
            for name, value in alone.items():
                assert cell.by_seed[name][seed] == pytest.approx(value, abs=1.1 / 400)
    for key, cell in cells.items():
        if not cell.diverged:
            assert in_json[key] == pytest.approx(cell.by_seed["validation_accuracy"].mean())
    best = records.read_result(out)["best"]
    assert best["validation_accuracy"] == max(v for v in in_json.values() if v is not None)
    assert best["key"] in done.stdout


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_grid_keeps_what_is_finished(tmp_path):
    out = tmp_path / "run"
    words = ("--batch_size=100,10", "--learning_rate=0.01", "--lam=0,1", "--n_epochs=10")
    done = run(
        "experiments.grid_search",
        "--dataset=synthetic",
        *words,
        f"--output_dir={out}",
        interrupt_at="batches of 10;",
    )
    assert done.returncode == 130, done.stderr
    assert "finished are written" in done.stderr
    cells, in_json = grids.read(out), json.loads((out / "grid.json").read_text())
    assert [key.split("_")[0] for key in cells] == ["100", "100"]
    assert {key: cell.mean("validation_accuracy") for key, cell in cells.items()} == in_json
    assert records.read_result(out)["interrupted"] is True
    assert "100_" in done.stdout
    check_every_file(out)
