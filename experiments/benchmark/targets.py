"""Section `targets`: seconds to the optimum of every λ of many binary targets.

Even targets are unions of one to five classes, and odd ones are random labels. Our solver ends a λ
at a certified relative gap of 1e-6, or once its predictions of validation examples have stayed the
same for 30 passes. scikit-learn, with its default tolerance and number of iterations, fits a few
targets at a few λ; their mean represents all.
"""

import warnings
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from experiments.benchmark.contenders import standardised_inputs
from experiments.benchmark.path import fit_seconds, our_row, path_row
from experiments.benchmark.timing import Options, matmul_turn, timed
from experiments.common.path import validation_predictions
from experiments.common.progress import progress
from linear_cifar.data import Dataset, Split
from linear_cifar.model import Params
from linear_cifar.optimum import certified_gap, solve
from linear_cifar.training import device_mesh

LAM, N_TARGETS = np.geomspace(1e-5, 1, 20), 1000
N_SKLEARN, STEP = 10, 4  # scikit-learn fits ten targets at every fourth λ
DTYPES = ("float32", "float64")  # scikit-learn makes float64 of float16


def targets(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Our row and scikit-learn's, for all targets and λ together."""
    lam, n_targets, n_sklearn = LAM, N_TARGETS, N_SKLEARN
    if options.quick:
        lam, n_targets, n_sklearn = LAM[::4], 6, 2
    data = with_targets(dataset, n_targets, options.seed)
    gflops, (n, d) = matmul_turn(), data.train.inputs.shape
    before = gflops()
    stop: Any = partial(validation_predictions, data)
    job = partial(solve, lam, data, mesh=device_mesh(), stop_when_unchanged=stop)
    optimum, seconds = timed(job)
    peak = (before + gflops()) / 2
    rate = 4e-9 * n * d * optimum.passes.sum() / seconds
    flat = optimum._replace(cost=optimum.cost.ravel(), gap=optimum.gap.ravel())
    row = our_row("ours, with compilation", flat, seconds)
    row |= {"certified": int(optimum.converged.sum()), "settled": int(optimum.unchanged.sum())}
    row |= {"gflops": rate, "peak_gflops": peak, "fraction_of_peak": rate / peak}
    rows = [row]
    if find_spec("sklearn"):
        rows += [sklearn_row(dtype, data, lam[::STEP], n_sklearn, lam.size) for dtype in DTYPES]
    ratios = [{**row, "times_ours": row["seconds"] / rows[0]["seconds"]} for row in rows]
    return [{"n": n, "d": d, "n_targets": n_targets, **row} for row in ratios]


def with_targets(dataset: Dataset, n_targets: int, seed: int) -> Dataset:
    """The data with random targets instead of classes."""
    rng, n_classes = np.random.default_rng(seed), dataset.n_classes
    unions = [rng.permutation(n_classes)[: rng.integers(1, 6)] for _ in range(n_targets)]

    def split_targets(split: Split) -> Split:
        labels = np.asarray(split.labels)
        values = np.stack([np.isin(labels, union) for union in unions], axis=1).astype(np.int8)
        values[:, 1::2] = rng.integers(0, 2, values[:, 1::2].shape)
        return Split(split.inputs, values)

    train, validation, test = map(split_targets, (dataset.train, dataset.validation, dataset.test))
    names = tuple(map(str, range(n_targets)))
    return replace(dataset, train=train, validation=validation, test=test, class_names=names)


def sklearn_row(
    dtype: str, data: Dataset, lam: np.ndarray, n_targets: int, n_lam: int
) -> dict[str, Any]:
    """`LogisticRegression` on the first targets at some λ, for all targets at `n_lam` values."""
    from sklearn.linear_model import LogisticRegression

    inputs, labels = standardised_inputs(data, dtype), np.asarray(data.train.labels)
    models, seconds = [], 0.0
    fits = [(value, target) for value in lam for target in range(n_targets)]
    for value, target in progress(fits, len(fits), "λ = {0[0]:.2g}, target {0[1]}".format):
        model = LogisticRegression(C=1 / (2 * value * len(labels)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # too few iterations
            seconds += fit_seconds(model, inputs, labels[:, target])
        models.append(model)
    train = Split(data.train.inputs, labels[:, :n_targets])
    first = replace(data, train=train, class_names=data.class_names[:n_targets])
    shape = (len(lam), n_targets)
    weights = np.reshape([model.coef_ for model in models], (*shape, -1))
    bias = np.reshape([model.intercept_ for model in models], shape)
    cost, gap = certified_gap(Params(weights, bias), lam, first, mesh=device_mesh())
    name, n_fits = f"scikit-learn lbfgs, {dtype}", n_lam * data.n_classes
    return path_row(name, n_fits, seconds, cost.ravel(), gap.ravel())
