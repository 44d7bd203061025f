"""Section `path`: seconds to the optimum for every λ, alone and in five folds.

scikit-learn's solutions get our certificate, with the best bias for their weights, so the gap means
the same in every row. It is much slower, so only a few evenly spaced λ are timed and their mean
represents all. Each starts at our optimum of the next larger λ, a better start than users have; the
largest λ starts at zero.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np

from experiments.benchmark.contenders import installed, standardised_inputs
from experiments.benchmark.timing import Options, rest, timed
from experiments.common.progress import progress
from linear_cifar.data import Dataset, dataset_from_arrays, stratified_folds
from linear_cifar.model import Params
from linear_cifar.optimum import Optimum, certified_gap, fold_weights, solve
from linear_cifar.training import device_mesh

LAM, QUICK_LAM = np.geomspace(1e-4, 10, 41), np.geomspace(0.1, 10, 3)
N_FOLDS = 5
N_TIMED, N_TIMED_FOLDS = 5, 3  # λ that scikit-learn solves
TOLERANCE, MAX_ITERATIONS = 1e-4, 3000  # scikit-learn's default, and enough for small λ
Fit: TypeAlias = Callable[[float, Params], Params]  # from λ and a start, [K, d] and [K]


def path(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of 41 λ, which ours solves to a certified relative gap of 1e-6.

    Ours is timed with its compilation, as a user waits for it, and a second time without.
    """
    lam, n_timed, n_timed_folds = LAM, N_TIMED, N_TIMED_FOLDS
    if options.quick:
        lam, n_timed, n_timed_folds = QUICK_LAM, 2, 2
        inputs, labels = (np.asarray(array)[:100] for array in dataset.train)
        dataset = dataset_from_arrays((inputs[:, ::16], labels), class_names=dataset.class_names)
    job = partial(solve, lam, dataset, mesh=device_mesh())
    rest()
    optimum, cold = timed(job)
    rest()
    _, warm = timed(job)
    names = {"ours, with compilation": cold, "ours, second time": warm}
    rows = [our_row(name, optimum, seconds) for name, seconds in names.items()]
    rows += _sklearn_rows(lam, dataset, optimum.params, n_timed)
    fold_rows = _fold_rows(lam, dataset, n_timed_folds, jax.random.key(options.seed))
    n, d = dataset.train.inputs.shape
    return [
        {"n": n, "d": d, **row, "times_ours": row["seconds"] / group[0]["seconds"]}
        for group in (rows, fold_rows)
        for row in group
    ]


def sklearn_solvers(dataset: Dataset) -> dict[str, Fit]:
    """scikit-learn's solvers of one λ, if it is installed."""
    if not installed("sklearn.linear_model"):
        return {}
    fits: dict[str, Fit] = {}
    for solver, dtype in (("lbfgs", "float32"), ("lbfgs", "float64"), ("newton-cg", "float32")):
        inputs, labels = standardised_inputs(dataset, dtype), np.asarray(dataset.train.labels)
        fits[f"scikit-learn {solver}, {dtype}"] = partial(_fit_sklearn, solver, inputs, labels)
    return fits


def relative_gaps(
    params: Params, lam: np.ndarray, dataset: Dataset, weights: np.ndarray | None = None
) -> np.ndarray:
    """The certified gap over the cost, [C]; `weights` of the examples are [C, n]."""
    cost, gap = certified_gap(params, lam, dataset, weights=weights, mesh=device_mesh())
    return gap / cost


def our_row(name: str, optimum: Optimum, seconds: float) -> dict[str, Any]:
    """The row of our solver."""
    n, gaps = len(optimum.cost), optimum.gap / optimum.cost
    passes = {"passes": float(optimum.passes.mean()), "most_passes": int(optimum.passes.max())}
    return _row(name, n, [seconds / n] * n, gaps) | passes


def _row(name: str, n_configurations: int, seconds: Any, gaps: Any) -> dict[str, Any]:
    """A row, from the seconds and gaps of the fits that were timed."""
    return {
        "contender": name,
        "configurations": n_configurations,
        "timed": len(seconds),
        "seconds": n_configurations * float(np.mean(seconds)),
        "relative_gap": float(np.max(gaps)),
    }


def _sklearn_rows(
    lam: np.ndarray, dataset: Dataset, optima: Params, n_timed: int
) -> list[dict[str, Any]]:
    """scikit-learn's rows; λ ascends, and the optima are ours, [C, K, d] and [C, K]."""
    starts = Params(*(np.concatenate([array[1:], np.zeros_like(array[:1])]) for array in optima))
    rows, indices, fits = [], _evenly(len(lam), n_timed), sklearn_solvers(dataset)
    for name, fit in progress(fits.items(), len(fits), lambda item: item[0]):
        results = []
        for i in indices:
            rest()
            start = Params(*(array[i] for array in starts))
            results.append(timed(partial(fit, float(lam[i]), start)))
        solutions, seconds = zip(*results, strict=True)
        params = Params(*map(np.stack, zip(*solutions, strict=True)))
        rows.append(_row(name, len(lam), seconds, relative_gaps(params, lam[indices], dataset)))
    return rows


def _fold_rows(
    lam: np.ndarray, dataset: Dataset, n_timed: int, key: jax.Array
) -> list[dict[str, Any]]:
    """The rows of a path in each of five stratified folds."""
    folds = stratified_folds(key, dataset.train.labels, N_FOLDS)
    every = np.tile(lam, N_FOLDS)
    weights = fold_weights(folds, np.repeat(np.arange(N_FOLDS), len(lam)))
    rest()
    optimum, seconds = timed(partial(solve, every, dataset, weights=weights, mesh=device_mesh()))
    rows = [our_row(f"ours, {N_FOLDS} folds", optimum, seconds)]
    if installed("sklearn.linear_model"):
        gaps, seconds = fit_sklearn_folds(lam[_evenly(len(lam), n_timed)][::-1], dataset, folds)
        name = f"scikit-learn LogisticRegressionCV, {N_FOLDS} folds"
        rows.append(_row(name, len(every), [seconds / len(gaps)] * len(gaps), gaps))
    return rows


def fit_sklearn_folds(
    lam: np.ndarray, dataset: Dataset, folds: np.ndarray
) -> tuple[np.ndarray, float]:
    """Relative gaps of `LogisticRegressionCV`, per fold and λ, and its seconds.

    Its tolerance and number of iterations are the defaults. λ, [C], descends; `folds` [n] has the
    fold of each training example. It also predicts the held-out examples, which takes little.
    """
    from sklearn.linear_model import LogisticRegressionCV

    inputs, labels = standardised_inputs(dataset, np.float64), np.asarray(dataset.train.labels)
    weights = folds[None] != np.arange(N_FOLDS)[:, None]
    strengths = 1 / (2 * lam * weights.sum() / N_FOLDS)
    splits = [(np.flatnonzero(fitted), np.flatnonzero(~fitted)) for fitted in weights]
    model = LogisticRegressionCV(Cs=strengths, cv=splits, refit=False)
    rest()
    with _sklearn_settings():
        _, seconds = timed(lambda: model.fit(inputs, labels))
    paths = np.stack(list(model.coefs_paths_.values()), axis=2)  # [folds, C, K, d + 1]
    paths = paths.reshape(-1, *paths.shape[2:])
    params = Params(paths[..., :-1], paths[..., -1])
    weights = np.repeat(weights, len(lam), axis=0)
    return relative_gaps(params, np.tile(lam, N_FOLDS), dataset, weights), seconds


@contextmanager
def _sklearn_settings() -> Iterator[None]:
    """scikit-learn at its fastest, and without warnings: SciPy's OpenBLAS has one thread.

    NumPy and SciPy each bring an OpenBLAS, and their threads wait for each other. An iteration of
    lbfgs on two cores and [10000, 3072] takes 31 ms this way, and 89 ms otherwise.
    """
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController()
    paths = [library.filepath for library in libraries.lib_controllers]
    selected = libraries.select(filepath=[path for path in paths if "scipy.libs" in path])
    with selected.limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few iterations, and future defaults
        yield


def _fit_sklearn(
    solver: str, inputs: np.ndarray, labels: np.ndarray, lam: float, start: Params
) -> Params:
    from sklearn.linear_model import LogisticRegression

    settings: dict[str, Any] = {"solver": solver, "tol": TOLERANCE, "max_iter": MAX_ITERATIONS}
    model = LogisticRegression(C=1 / (2 * lam * len(labels)), warm_start=True, **settings)
    model.coef_, model.intercept_ = start
    with _sklearn_settings():
        model.fit(inputs, labels)
    return Params(model.coef_, model.intercept_)


def _evenly(n: int, n_some: int) -> np.ndarray:
    """Evenly spaced indices from 0 to n − 1."""
    return np.linspace(0, n - 1, n_some).round().astype(int)
