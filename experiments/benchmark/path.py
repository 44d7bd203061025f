"""Section `path`: seconds to the optimum for every λ, alone and in five folds.

The contenders are scikit-learn, its acceleration by oneDAL (scikit-learn-intelex), and cyanure, the
only one besides ours that stops at a duality gap; each takes part if it is installed. Their
solutions get our certificate, with the best bias for their weights, so the gap means the same in
every row. They are much slower, so only a few evenly spaced λ are timed and their mean represents
all. Each starts at zero, as a user's would.
"""

import warnings
from functools import partial
from importlib import import_module
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
STEP, FOLDS_STEP = 10, 20  # contenders solve every tenth λ, or every twentieth
# Package and solver, with the default tolerance; all get float32.
SOLVERS = (
    ("sklearn", "lbfgs"),
    ("sklearn", "newton-cg"),
    ("sklearnex", "lbfgs"),
    ("cyanure", "auto"),
)
MAX_ITERATIONS = 3000  # enough for small λ


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
    solvers = [pair for pair in SOLVERS if find_spec(pair[0])]
    for package, solver in progress(solvers, len(solvers), "{0[0]} {0[1]}".format):
        alone.append(_their_row(package, solver, dataset, lam, range(0, len(lam), step)))
    if find_spec("sklearn"):
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


def _their_row(
    package: str, solver: str, dataset: Dataset, lam: np.ndarray, indices: range
) -> dict[str, Any]:
    """A contender's solutions at some of the λ, [C]."""
    inputs, labels = standardised_inputs(dataset, np.float32), np.asarray(dataset.train.labels)
    models, seconds = [], 0.0
    for i in indices:
        model = _their_model(package, solver, lam[i], len(labels))
        seconds += fit_seconds(model, inputs, labels)
        models.append(model)
    weights = np.stack([model.coef_ for model in models])
    if package == "cyanure":  # whose weights are [d, K]
        weights = np.swapaxes(weights, 1, 2)
    params = Params(weights, np.stack([np.ravel(model.intercept_) for model in models]))
    certificate = certified_gap(params, lam[indices], dataset, mesh=device_mesh())
    return path_row(f"{package} {solver}", len(lam), seconds, *certificate)


def _their_model(package: str, solver: str, lam: float, n: int) -> Any:
    """A contender's model for λ and n examples, which has scikit-learn's interface."""
    settings: dict[str, Any] = {"solver": solver, "max_iter": MAX_ITERATIONS}
    if package == "cyanure":
        from cyanure.estimators import Classifier

        # Its penalty is lambda_1/2 ‖W‖².
        return Classifier("multiclass-logistic", "l2", lambda_1=2 * lam, verbose=False, **settings)
    linear_model = import_module(f"{package}.linear_model")
    return linear_model.LogisticRegression(C=1 / (2 * lam * n), **settings)


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
