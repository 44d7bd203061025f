"""What the library's functions are given by mistake: each refuses it, by an error of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

import linear_cifar as lc
from linear_cifar.data.features import DEFAULTS as READING, Reading
from linear_cifar.optimizers import check_hyperparameters
from linear_cifar.optimum.folds import stratified_folds
from linear_cifar.settings import settings_of
from linear_cifar.statistics import paired_difference, summarise
from tests.campaign import parts, properties
from tests.campaign.properties import attempt, of

N, D = 8, 3
X, Y = np.random.default_rng(0).normal(size=(N, D)), np.arange(N) % 2
DATA = lc.dataset_from_arrays((X, Y))
KEY, SOFTMAX = jax.random.key(0), lc.LOSSES["softmax"]
PARAMS, STANDARDISER = (
    lc.Params(np.eye(2, D), np.zeros(2)),
    lc.Standardiser(np.zeros(D), np.ones(D)),
)
JUNK = [
    None, True, "", "a", "0.1", b"a", 1j, 0, 1, -1, 0.5, 2**31, 2**63, 10**400, 1e300, 5e-324,
    np.nan, np.inf, -np.inf, [], [[]], [1, "a"], [[1], [1, 2]], {}, {"a": 1}, {1}, object(),
    np.zeros(0), np.zeros(N), np.ones(N), np.zeros((N, D)), np.ones((2, 2)), np.ones((3, 3), int),
    np.arange(N), Y, Y[1:], -Y, np.full(N, np.nan), np.full((N, 2), np.inf), np.ones(N) * 1j,
    np.ones(N, object), np.array(["a"] * N), np.ma.array(np.ones(N), mask=Y), np.zeros((2, 3, 4)),
    np.float32(0.1), np.array(0.1), np.array([0.1]), np.array([0.1, 10]), np.datetime64("2020"),
    np.zeros(N, [("a", "f4")]), np.array(2**63, np.uint64), np.eye(2), -np.eye(2), KEY, SOFTMAX,
    (X, Y), (X, Y, Y), DATA,
]  # fmt: skip


def _model(weights: Any, bias: Any, mean: Any, scale: Any, *rest: Any) -> lc.Model:
    return lc.Model(lc.Params(weights, bias), lc.Standardiser(mean, scale), *rest)


def _solve(lam: Any, data: Any, weights: Any, loss: Any, *numbers: Any) -> lc.Optimum:
    keywords = zip(("tolerance", "max_passes", "memory_bytes", "start"), numbers, strict=True)
    return lc.solve(lam, data, weights=weights, loss=loss, **dict(keywords))


def _train(
    key: Any, lam: Any, rate: Any, data: Any, n_epochs: Any, batch_size: Any, loss: Any
) -> Any:
    how = {"n_epochs": n_epochs, "batch_size": batch_size, "loss": loss}
    return lc.train(key, lc.Hyperparameters(lam, rate), data, **how)


def _sweep(key: Any, lam: Any, data: Any, batch_size: Any, loss: Any, *more: Any) -> Any:
    keywords = dict(zip(("optimizer", "memory_bytes", "mesh"), more, strict=True))
    how = {"batch_size": batch_size, "loss": loss, "n_epochs": 1, **keywords}
    return lc.sweep(key, lc.Hyperparameters(lam, 0.1), data, **how)


def _load_features(*settings: Any) -> lc.Dataset:
    names = (*Reading._fields, "seed")
    with parts.folder() as place:
        path = Path(place) / "features.npz"
        np.savez(path, x=np.tile(X, (4, 1)), y=np.tile(Y, 4))
        return lc.load_features(path, **dict(zip(names, settings, strict=True)))


# Each with arguments that it takes, some of which are replaced.
FUNCTIONS: dict[Callable, tuple] = {
    _model: (*PARAMS, *STANDARDISER, ("a", "b"), SOFTMAX, 0.1, False, 1.0),
    _solve: ([0.1], DATA, None, SOFTMAX, 1e-6, 100, 2**20, None),
    _sweep: (KEY, [0.1], DATA, 4, SOFTMAX, lc.sgd, 2**20, None),
    _load_features: (*READING, 0),
    lc.with_validation: (DATA,),
    _train: (KEY, 0.1, 0.1, DATA, 1, 4, SOFTMAX),
    lc.balanced_accuracy: (np.eye(2),),
    lc.best: (np.ones(N), np.ones(N), "accuracy"),
    lc.class_quality: (np.eye(2),),
    lc.confusion_counts: (X, Y),
    lc.cross_validate: (KEY, [0.1], DATA, 2),
    lc.dataset_from_arrays: ((X, Y), (X, Y), (X, Y)),
    lc.elsewhere: (0.1, 10, 2, SOFTMAX),
    lc.few_shot: (KEY, Y, 2),
    lc.fit_temperature: (X, Y, SOFTMAX),
    lc.one_standard_error: (np.ones(N), np.ones(N), np.ones(N), "loss"),
    lc.ranking: (np.ones(N), np.ones(N), "loss"),
    lc.reliability: (np.full((N, 2), 0.5), Y, 5),
    lc.row_shares: (np.eye(2),),
    lc.scaled_probabilities: (X, SOFTMAX, 1.0),
    lc.stratified_subset: (KEY, Y, 4),
    lc.top_k_accuracy: (X, Y, 1),
    paired_difference: (np.ones(N), np.ones(N)),
    stratified_folds: (KEY, Y, 2),
    summarise: (np.ones(N),),
    lambda x, y, names, shape: lc.dataset_from_arrays(
        (x, y), class_names=names, image_shape=shape
    ): (X, Y, ("a", "b"), (1, 1, 3)),
    lambda n, k, c: lc.lam_of(n, k, C=c): (10, 2, 0.1),
}  # fmt: skip
PLACES = [(function, i) for function, given in FUNCTIONS.items() for i in range(len(given))]


@of(
    2000,
    0.005,
    place=st.sampled_from(PLACES),
    junk=st.sampled_from(JUNK),
    more=st.none() | st.sampled_from(JUNK),
    other=st.integers(0, 8),
)
def misuse(place, junk, more, other):
    function, i = place
    given = list(FUNCTIONS[function])
    given[i] = junk
    if more is not None:
        given[other % len(given)] = more
    with np.errstate(all="ignore"):
        attempt(function, *given)


@of(500, 0.001, name=st.sampled_from(lc.Hyperparameters._fields), value=st.sampled_from(JUNK))
def hyperparameters(name, value):
    found = attempt(check_hyperparameters, lc.Hyperparameters(**{name: value}))
    if found is not None:
        setting = settings_of(lc.Hyperparameters)[name]
        assert all(setting.admits(v) for v in np.asarray(getattr(found, name), float).ravel())


PARTS = properties.parts(globals())
