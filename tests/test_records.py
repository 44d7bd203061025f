"""Records: folders that appear whole, and files that read back as they were written."""

import csv
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import records
from experiments.common.records import RecordError
from linear_cifar.model import Params
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import TrainConfig, train


def finished(path):
    (path / records.RESULT).write_text("{}")


def test_a_run_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "run"
    with records.new_run(target) as folder:
        finished(folder)
        assert not target.exists()
    assert (target / records.RESULT).exists()
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), records.new_run(tmp_path / "run") as folder:
        finished(folder)
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_replaced_only_when_asked_and_only_by_a_whole_one(tmp_path):
    with records.new_run(tmp_path / "run") as folder:
        finished(folder)
    with pytest.raises(RecordError, match="holds a run"), records.new_run(tmp_path / "run"):
        pass
    with pytest.raises(ValueError), records.new_run(tmp_path / "run", overwrite=True):  # noqa: PT011
        raise ValueError
    assert (tmp_path / "run" / records.RESULT).read_text() == "{}"
    with records.new_run(tmp_path / "run", overwrite=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_with_anything_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(RecordError, match="other than a run"),
        records.new_run(tmp_path, overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").exists()
    with (
        pytest.raises(RecordError, match="is a file"),
        records.new_run(tmp_path / "thesis.tex"),
    ):
        pass


def test_an_unwritable_place_is_known_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RecordError, match="cannot write to"),
        records.new_run(tmp_path / "file" / "run"),
    ):
        pytest.fail("the work began")


def link_to_a_folder(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "run").symlink_to("far")
    return tmp_path / "run"


def link_to_nothing(tmp_path):
    (tmp_path / "run").symlink_to("deep/far")
    return tmp_path / "run"


def the_folder_one_stands_in(tmp_path):
    os.chdir(tmp_path)
    return "."


@pytest.mark.parametrize("place", [link_to_a_folder, link_to_nothing, the_folder_one_stands_in])
def test_a_run_can_be_written_where_a_link_leads_and_where_one_stands(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    target = place(tmp_path)
    for text in ("first", "second"):
        with records.new_run(target, overwrite=text == "second") as folder:
            (folder / records.RESULT).write_text("{}")
            (folder / records.FIGURES).mkdir()
            (folder / text).touch()
        found = {path.name for path in Path(target).iterdir()}
        assert found == {records.RESULT, records.FIGURES, text}


def test_a_mount_point_cannot_be_replaced_and_needs_not_to_be(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    replace = Path.replace

    def busy(path, target):
        if tmp_path / "run" in (path, Path(target)):
            raise OSError(16, "Device or resource busy")
        replace(path, target)

    monkeypatch.setattr(Path, "replace", busy)
    for _ in range(2):
        with records.new_run(tmp_path / "run", overwrite=True) as folder:
            finished(folder)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [records.RESULT]


def test_what_is_trained_and_cannot_be_written_is_left_and_said_where(tmp_path):
    params = Params(np.ones((2, 3)), np.zeros(2))
    with (
        pytest.raises(RecordError, match=r"cannot write .*; what is written of it is left in"),
        records.new_run(tmp_path / "run") as folder,
    ):
        records.write_params(folder / records.PARAMS, params)
        (tmp_path / "run").write_text("another one was faster")
    assert np.array_equal(records.read_params(folder / records.PARAMS).weights, params.weights)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250])
def test_a_name_that_is_too_long_is_known_before_the_work(tmp_path, name):
    with pytest.raises(RecordError, match="File name too long"), records.new_run(tmp_path / name):
        pytest.fail("the work began")


def test_json_has_no_nan_and_no_long_float32(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": jnp.float32(0.3908), "b": [np.nan, np.inf, 1], "c": np.arange(3), "d": (None,)}
    records.write_json(path, value)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read == {"a": 0.3908, "b": [None, None, 1], "c": [0, 1, 2], "d": [None]}


def test_history_and_params_read_back_as_they_were(tmp_path, small):
    params, history = train(
        jax.random.key(0), Hyperparameters(0.1, 0.01), small, TrainConfig(n_epochs=2)
    )
    history = history._replace(train_loss=history.train_loss.at[1].set(jnp.nan))
    records.write_history(tmp_path / "h.csv", history)
    records.write_params(tmp_path / "p.npz", params)
    for written, read in zip(history, records.read_history(tmp_path / "h.csv"), strict=True):
        assert np.array_equal(np.asarray(written), read.astype(np.float32), equal_nan=True)
    for written, read in zip(params, records.read_params(tmp_path / "p.npz"), strict=True):
        assert np.array_equal(written, read)
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == (
        "epoch,train_loss,train_cost,train_accuracy,"
        "validation_loss,validation_cost,validation_accuracy"
    )
    assert [row[0] for row in rows[1:]] == ["0", "1", "2"]


def test_a_folder_without_a_result_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"no readable result.json"):
        records.read_result(tmp_path)


def test_the_dataset_s_sum_tells_data_apart(small, synthetic):
    ours, other = records.describe_dataset(small), records.describe_dataset(synthetic)
    assert ours["sizes"] == {"train": 400, "validation": 150, "test": 150}
    assert len(ours["sha256"]) == 64
    assert ours["sha256"] != other["sha256"]
