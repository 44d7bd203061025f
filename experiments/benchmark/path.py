"""Section `path`: seconds to the optimum for every λ, alone and in five folds.

scikit-learn's solutions get our certificate, with the best bias for their weights, so the gap means
the same in every row. It is much slower, so only a few evenly spaced λ are timed and their mean
represents all. Each starts at zero, as a user's would.
"""

import warnings
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from experiments.benchmark.contenders import standardised_inputs
from experiments.benchmark.timing import Options, timed
from experiments.common.progress import progress
from linear_cifar.data import Dataset, dataset_from_arrays, stratified_folds
from linear_cifar.model import Params
from linear_cifar.optimum import Optimum, certified_gap, fold_weights, solve
from linear_cifar.training import device_mesh

LAM, QUICK_LAM = np.geomspace(1e-4, 10, 41), np.geomspace(0.1, 10, 3)
N_FOLDS = 5
STEP, FOLDS_STEP = 10, 20  # scikit-learn solves every tenth λ, or every twentieth
SOLVERS = (("lbfgs", "float32"), ("lbfgs", "float64"), ("newton-cg", "float32"))
TOLERANCE, MAX_ITERATIONS = 1e-4, 3000  # scikit-learn's default, and enough for small λ


def path(dataset: Dataset, options: Options) -> list[dict[str, Any]]:
    """Rows of 41 λ, which ours solves to a certified relative gap of 1e-6.

    Ours is timed with its compilation, as a user waits for it, and a second time without.
    """
    lam, step, folds_step = LAM, STEP, FOLDS_STEP
    if options.quick:
        lam, step, folds_step = QUICK_LAM, 2, 2
        inputs, labels = (np.asarray(array)[:100] for array in dataset.train)
        dataset = dataset_from_arrays((inputs[:, ::16], labels), class_names=dataset.class_names)
    mesh = device_mesh()
    job = partial(solve, lam, dataset, mesh=mesh)
    optimum, seconds = timed(job)
    alone = [our_row("ours, with compilation", optimum, seconds)]
    alone.append(our_row("ours, second time", *timed(job)))
    folds = stratified_folds(jax.random.key(options.seed), dataset.train.labels, N_FOLDS)
    weights = fold_weights(folds, np.repeat(np.arange(N_FOLDS), len(lam)))
    job = partial(solve, np.tile(lam, N_FOLDS), dataset, weights=weights, mesh=mesh)
    in_folds = [our_row(f"ours, {N_FOLDS} folds", *timed(job))]
    if find_spec("sklearn"):
        indices = range(0, len(lam), step)
        for solver, dtype in progress(SOLVERS, len(SOLVERS), "scikit-learn {0[0]}, {0[1]}".format):
            alone.append(_sklearn_row(solver, dtype, dataset, lam, indices))
        in_folds.append(_sklearn_folds_row(dataset, lam, folds, folds_step))
    n, d = dataset.train.inputs.shape
    return [
        {"n": n, "d": d, **row, "times_ours": row["seconds"] / rows[0]["seconds"]}
        for rows in (alone, in_folds)
        for row in rows
    ]


def our_row(name: str, optimum: Optimum, seconds: float) -> dict[str, Any]:
    """The row of our solver, which took `seconds` for all λ."""
    passes = {"passes": float(optimum.passes.mean()), "most_passes": int(optimum.passes.max())}
    return path_row(name, len(optimum.cost), seconds, optimum.cost, optimum.gap) | passes


def path_row(
    name: str, n_configurations: int, seconds: float, cost: np.ndarray, gap: np.ndarray
) -> dict[str, Any]:
    """A row, from the seconds, costs and gaps, both [C], of the C configurations timed."""
    return {
        "contender": name,
        "configurations": n_configurations,
        "timed": len(cost),
        "seconds": seconds * n_configurations / len(cost),
        "relative_gap": float(np.max(gap / cost)),
    }


def _sklearn_row(
    solver: str, dtype: str, dataset: Dataset, lam: np.ndarray, indices: range
) -> dict[str, Any]:
    """`LogisticRegression` at some of the λ, [C]."""
    from sklearn.linear_model import LogisticRegression

    inputs, labels = standardised_inputs(dataset, dtype), np.asarray(dataset.train.labels)
    settings: dict[str, Any] = {"solver": solver, "tol": TOLERANCE, "max_iter": MAX_ITERATIONS}
    models, seconds = [], 0.0
    for i in indices:
        model = LogisticRegression(C=1 / (2 * lam[i] * len(labels)), **settings)
        seconds += fit_seconds(model, inputs, labels)
        models.append(model)
    weights = np.stack([model.coef_ for model in models])
    params = Params(weights, np.stack([model.intercept_ for model in models]))
    certificate = certified_gap(params, lam[indices], dataset, mesh=device_mesh())
    return path_row(f"scikit-learn {solver}, {dtype}", len(lam), seconds, *certificate)


def _sklearn_folds_row(
    dataset: Dataset, lam: np.ndarray, folds: np.ndarray, step: int
) -> dict[str, Any]:
    """`LogisticRegressionCV` at every `step`-th λ, with its default tolerance and iterations.

    `folds` [n] has the fold of each training example. The held-out examples are predicted too,
    which takes little.
    """
    from sklearn.linear_model import LogisticRegressionCV

    inputs, labels = standardised_inputs(dataset, np.float64), np.asarray(dataset.train.labels)
    timed_lam = lam[::-step]
    fitted = folds != np.arange(N_FOLDS)[:, None]
    strengths = 1 / (2 * timed_lam * fitted.sum() / N_FOLDS)
    splits = [(np.flatnonzero(row), np.flatnonzero(~row)) for row in fitted]
    model = LogisticRegressionCV(Cs=strengths, cv=splits, refit=False)
    seconds = fit_seconds(model, inputs, labels)
    paths = np.stack(list(model.coefs_paths_.values()), axis=2)  # [folds, C, K, d + 1]
    paths = paths.reshape(-1, *paths.shape[2:])
    params, weights = Params(paths[..., :-1], paths[..., -1]), fitted.repeat(len(timed_lam), axis=0)
    every = np.tile(timed_lam, N_FOLDS)
    certificate = certified_gap(params, every, dataset, weights=weights, mesh=device_mesh())
    name = f"scikit-learn LogisticRegressionCV, {N_FOLDS} folds"
    return path_row(name, N_FOLDS * len(lam), seconds, *certificate)


def fit_seconds(model: Any, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Fits a model without warnings and returns its seconds; SciPy's OpenBLAS gets one thread.

    NumPy and SciPy each bring an OpenBLAS, and their threads wait for each other. An iteration of
    lbfgs on two cores and [10000, 3072] takes 31 ms this way, and 89 ms otherwise.
    """
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController()
    paths = [library.filepath for library in libraries.lib_controllers]
    selected = libraries.select(filepath=[path for path in paths if "scipy.libs" in path])
    with selected.limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few iterations, and future defaults
        return timed(lambda: model.fit(inputs, labels))[1]
