"""The exact optimum over λ: solve every λ, choose one, fit it again with all data, test it once.

What `lambda_path` and `probe` share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import distributed, flags, folder
from experiments.common.folder import Chunks
from experiments.common.progress import Progress, Stopwatch
from experiments.common.training import evaluate_models
from linear_cifar import (
    LOSSES,
    Dataset,
    InputError,
    Optimum,
    Params,
    lam_from,
    lam_to,
    with_validation,
)
from linear_cifar.data import N_FOLDS, SPLITS, Standardiser, stratified_folds
from linear_cifar.metrics import accuracy_interval, fold_metrics, split_logits, summarise
from linear_cifar.optimum import (
    DEFAULTS,
    LAM,
    Certificate,
    SolveConfig,
    certain_predictions,
    check_lam,
    fold_weights,
    interval_gaps,
    solve_chunks,
)
from linear_cifar.selection import best, one_standard_error
from linear_cifar.training import device_mesh

if TYPE_CHECKING:
    import pandas as pd

FLAGS = absl_flags.FLAGS
STATE_SHARE = 0.25  # the share of --memory_gb that the states of descents may take
# Relative gap of the refit: it leaves few predictions open, and takes few more passes.
REFIT_TOLERANCE = 1e-10
METRICS = ("loss", "accuracy")
OPTIMUM = ("cost", "gap", "distance", "passes", "converged", "settled", "weights_norm")
# The mean over a split, its standard error, and the ends of its 95 % interval.
SUFFIXES = ("", "_error", "_low", "_high")
ENDS = ("", "_low", "_high")  # of the names of a mean and the ends of its interval
MEASURES = tuple(f"{split}_{name}{s}" for split in SPLITS for name in METRICS for s in SUFFIXES)
HELD_OUT = tuple(f"held_out_{name}" for name in METRICS)
CERTIFICATE = tuple(f"certificate_{name}" for name in Certificate._fields)
COLUMNS = (*OPTIMUM, *CERTIFICATE, *MEASURES, *HELD_OUT)
SETTINGS = ("loss", "tolerance", "max_passes", "n_folds", "every_lam", "seed")
# Added λ aim at this share of --every_lam, because the cost's shape changes between two λ.
AIM = 0.9
# (optimum, rows, problems, dataset, config) -> columns [rows]
Measure = Callable[[Optimum, np.ndarray, "Problems", Dataset, SolveConfig], dict[str, np.ndarray]]


def define_flags(*names: str, lam: str) -> None:
    """Defines the flags of data, of the path, whose default axis is `lam`, and some shared ones."""
    flags.define("loss", "split", "tolerance", "max_passes", "max_runs", *names)
    flags.define_features()
    flags.define_axis("lam", lam, LAM)
    flags.define_axis("C", "")
    absl_flags.DEFINE_integer(
        "n_folds",
        None,
        f"Choose λ by {N_FOLDS.help} (scikit-learn's cv), instead of validation data.",
        2,
    )
    absl_flags.DEFINE_float(
        "every_lam",
        None,
        "Add λ until every λ from the smallest to the largest has a solution with at most this "
        "certified gap over cost, at least twice --tolerance. --max_runs bounds how many. Added λ "
        "can be chosen like the others, but not with --n_folds, because they aren't fitted without "
        "each fold.",
    )
    absl_flags.DEFINE_bool(
        "one_standard_error", False, "Choose the largest λ within one standard error of the best."
    )
    folder.define_resume()
    distributed.define_flags()


def required_splits() -> tuple[str, ...]:
    """The splits that need examples."""
    return ("test",) if FLAGS.n_folds else ("validation", "test")


def config_from_flags() -> SolveConfig:
    """The settings of the solver."""
    settings = {"tolerance": FLAGS.tolerance, "max_passes": FLAGS.max_passes}
    if FLAGS.memory_gb is not None:
        settings["memory_bytes"] = int(STATE_SHARE * 1e9 * FLAGS.memory_gb)
    return DEFAULTS._replace(loss=LOSSES[FLAGS.loss], **settings)


class Problems(NamedTuple):
    """P problems, each a λ and perhaps a target: on all examples first, then without each fold."""

    lam: np.ndarray  # [P]
    fold: np.ndarray  # [P], the fold that is left out; −1 for none
    fold_of: np.ndarray  # the fold of each training example, [n]
    target: Any = None  # [P] int; None for classes

    @property
    def path(self) -> np.ndarray:
        """λ of the problems on all examples, [L], ascending; for T targets [L T]."""
        return self.lam[self.fold < 0]


def penalties_from_flags() -> tuple[str, np.ndarray]:
    """The axis that gives the penalties, "lam" or "C", and its distinct values, ascending."""
    if FLAGS.C is not None and FLAGS["lam"].present:
        raise InputError("give --lam or --C, not both")
    axis = "lam" if FLAGS.C is None else "C"
    return axis, np.unique(flags.table_of_axes([axis])[axis])


def with_folds(lam: np.ndarray, strata: np.ndarray, target: Any = None) -> Problems:
    """Problems for λ [L] and targets [L]; the folds of --n_folds are stratified by `strata` [n]."""
    n_folds = FLAGS.n_folds or 0
    flags.check_runs(len(lam) * (1 + n_folds))
    fold_of = np.zeros(len(strata), int)
    if n_folds:
        fold_of = stratified_folds(jax.random.key(FLAGS.seed), strata, n_folds)
    fold = np.repeat(np.arange(-1, n_folds), len(lam))
    target = None if target is None else np.tile(target, 1 + n_folds)
    return Problems(np.tile(lam, 1 + n_folds), fold, fold_of, target)


def problems_from_flags(dataset: Dataset) -> Problems:
    """Every λ of the flags for classes, on all examples and without each fold."""
    axis, lam = penalties_from_flags()
    if axis == "C":
        n, loss = len(dataset.train.labels), LOSSES[FLAGS.loss]
        lam = np.unique(lam_from(n, dataset.n_classes, loss, C=lam))
    check_lam(lam)
    if FLAGS.select not in (None, *METRICS):
        raise InputError(f"--select={FLAGS.select} is for targets; classes have accuracy and loss")
    if FLAGS.every_lam is not None and not 2 * FLAGS.tolerance <= FLAGS.every_lam < 1:
        line = f"at least twice --tolerance={FLAGS.tolerance:g}, and below 1"
        raise InputError(f"--every_lam={FLAGS.every_lam:g}: it has to be {line}")
    return with_folds(lam, np.asarray(dataset.train.labels))


class Solved(NamedTuple):
    """A table of problems, and their solutions."""

    problems: Problems
    chunks: Chunks  # with the parameters
    columns: dict[str, np.ndarray]  # `COLUMNS`, each [P]


class Solutions(NamedTuple):
    """The solutions of all λ on all examples, λ ascending."""

    table: "pd.DataFrame"  # a row per λ
    places: list[tuple[Chunks, int]]  # the chunks and the row that have each λ's parameters
    certificate: Certificate  # [L]

    @property
    def gap_between(self) -> float:
        """The relative gap within which every λ, from the smallest to the largest, has a solution.

        With one λ it is its own gap.
        """
        lam, gap = self.table.lam.to_numpy(), self.table.gap.to_numpy()
        return float(interval_gaps(self.certificate, lam).max() if len(lam) > 1 else gap[0])

    def params(self, index: int) -> Params:
        """The parameters of one λ, [K, d] and [K]."""
        return folder.row_params(*self.places[index])


class Fit(NamedTuple):
    """A solved path, the chosen λ, and its refit."""

    first: Solved  # the problems of the flags
    solutions: Solutions  # of all λ, with those that --every_lam added
    choice: "Choice"
    refit: "Refit"
    summary: dict[str, Any]  # of all problems

    @property
    def table(self) -> "pd.DataFrame":
        """A row per λ."""
        return self.solutions.table


def start(path: Path, experiment: str, data: Any) -> dict[str, Any]:
    """Starts or continues a run; `data` are checksums. Returns its settings."""
    axis, values = penalties_from_flags()
    settings = {name: FLAGS[name].value for name in (*SETTINGS, "memory_gb")}  # it cuts the chunks
    settings |= {axis: values, "data": data}
    distributed.check_same(folder.fingerprint(settings, flags.shared_values()))
    folder.start(path, experiment, settings)
    return settings


def fit_path(
    path: Path,
    problems: Problems,
    settings: Any,
    dataset: Dataset,
    watch: Stopwatch,
    settle: bool = False,
    part: str = "",
) -> Fit:
    """Solves the path, chooses λ, and fits it to training and validation data.

    With `settle` a λ ends early once its predictions of validation examples stay the same. `part`
    names the chunks of this data set if the run has several.
    """
    config = config_from_flags()
    result = partial(validation_predictions, dataset) if settle else None
    parts: list[Solved] = []
    while len(problems.lam):
        name = f"{part}added_{len(parts)}" if parts else part
        chunks = folder.chunks_of(path, COLUMNS, settings, problems.lam, part=name)
        columns = solve_problems(
            problems, dataset, config, chunks, watch, COLUMNS, measure_path, result
        )
        parts.append(Solved(problems, chunks, columns))
        solutions = join(parts)
        # The added λ depend only on earlier solutions, so a resumed run adds the same.
        lam = lam_to_add(solutions, sum(len(part.problems.lam) for part in parts))
        problems = problems._replace(lam=lam, fold=np.full(len(lam), -1))
    table, n, k = solutions.table, len(dataset.train.labels), dataset.n_classes
    table.insert(1, "C", lam_to(table.lam.to_numpy(), n, k, config.loss).C)
    choice = choose(table, FLAGS.select or "accuracy", FLAGS.one_standard_error)
    refitted = refit(float(table.lam[choice.chosen]), dataset, config, watch)
    summary = summarise_optima([part.columns for part in parts])
    return Fit(parts[0], solutions, choice, refitted, summary)


def solve_problems(
    problems: Problems,
    dataset: Dataset,
    config: SolveConfig,
    chunks: Chunks,
    watch: Stopwatch,
    names: Sequence[str],
    measure: Measure,
    result: Callable[[Params], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Solves every problem that the chunks don't have yet, measures it, and writes it there.

    `measure` computes the columns `names`, and a problem ends early once its `result` stays the
    same. Returns the columns, each [P].
    """
    columns, rows_finished = folder.read_columns(chunks, len(problems.lam), names)
    finished = FinishedParams(chunks, dataset, rows_finished)
    bar = Progress(max(1, len(problems.lam) - len(finished)))
    n_done, worst = 0, 0.0
    unit = "λ" if problems.target is None else "fits"
    steps = solve_chunks(
        problems.lam,
        dataset,
        config,
        weights=fold_weights(problems.fold_of, problems.fold),
        target=problems.target,
        mesh=device_mesh(),
        finished=finished,
        stop_when_unchanged=result,
    )
    with watch.phase("train"):
        for step in steps:
            rows, gap = np.array(step.rows), step.relative_gap
            if step.optimum is None:  # the λ whose estimated gap is small enough are nearly done
                n_near = min(int((gap <= config.tolerance).sum()), len(rows) - 1)
                work = f"{len(rows)} in work: pass {step.passes.max()}, gap {gap.max():.1e}"
                bar.show(n_done + n_near, f"{n_done} {unit} solved, {work}")
                continue
            with watch.phase("evaluate"):
                measured = measure(step.optimum, rows, problems, dataset, config)
            folder.write_chunk(chunks, rows, **step.optimum.params._asdict(), **measured)
            for name in names:
                columns[name][rows] = measured[name]
            n_done, worst = n_done + len(rows), max(worst, float(gap.max()))
            bar.show(n_done, f"{n_done} {unit} solved, relative gap at most {worst:.1e}")
    return columns


class FinishedParams(Mapping[int, Params]):
    """The parameters of finished problems, which the first process reads when they are needed."""

    def __init__(self, chunks: Chunks, dataset: Dataset, rows: set[int]) -> None:
        self._chunks, self._rows = chunks, rows
        k, d = 1 if dataset.has_targets else dataset.n_classes, dataset.n_features
        self._empty = Params(np.zeros((k, d)), np.zeros(k))
        self._latest: dict[int, Params] = {}  # of the chunk that was read last

    def __getitem__(self, row: int) -> Params:
        if row not in self._rows:
            raise KeyError(row)
        params = self._empty
        if jax.process_index() == 0:
            if row not in self._latest:
                self._latest = folder.chunk_params(self._chunks, row)
            params = self._latest[row]
        return Params(**distributed.from_first(params._asdict()))

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def validation_predictions(dataset: Dataset, params: Params) -> np.ndarray:
    """Predicted classes [C, n] of the validation examples, or of training examples without any.

    For targets, with parameters [C, 1, d] and [C, 1], it is whether each logit is positive.
    """
    split = dataset.validation if len(dataset.validation.labels) else dataset.train
    params = Params(*(np.asarray(a, np.float32) for a in params))
    if dataset.has_targets:
        models = Params(*(array[:, 0] for array in params))
        return (split_logits(models, split.inputs, dataset.standardiser) > 0).T
    return evaluate_models(params, split, dataset, LOSSES["softmax"]).predicted  # by any loss


def measure_path(
    optimum: Optimum, rows: np.ndarray, problems: Problems, dataset: Dataset, config: SolveConfig
) -> dict[str, np.ndarray]:
    """`COLUMNS` of some problems."""
    columns = optimum_columns(optimum)
    for split in SPLITS:
        columns |= measure_split(split, optimum.params, dataset, config)
    columns |= {name: np.full(len(rows), np.nan) for name in HELD_OUT}
    if (problems.fold[rows] >= 0).any():
        left_out, index = np.unique(problems.fold[rows], return_inverse=True)
        in_fold = problems.fold_of == left_out[:, None]
        held_out = fold_metrics(optimum.params, in_fold, index, dataset, config.loss)
        columns |= zip(HELD_OUT, held_out, strict=True)
    return columns


def measure_split(
    split: str, params: Params, dataset: Dataset, config: SolveConfig
) -> dict[str, np.ndarray]:
    """`MEASURES` of one split, each [C], of parameters [C, K, d] and [C, K]."""
    examples = evaluate_models(params, getattr(dataset, split), dataset, config.loss)
    columns: dict[str, np.ndarray] = {}
    for name, values in zip(METRICS, (examples.loss, examples.correct), strict=True):
        s = summarise(values)
        low, high = accuracy_interval(s.mean, s.n) if name == "accuracy" else (s.low, s.high)
        ends = (s.mean, s.sd / np.sqrt(max(s.n, 1)), low, high)
        for suffix, value in zip(SUFFIXES, ends, strict=True):
            columns[f"{split}_{name}{suffix}"] = np.asarray(value)
    return columns


def optimum_columns(optimum: Optimum) -> dict[str, np.ndarray]:
    """The columns of `OPTIMUM` and `CERTIFICATE`, each [C]."""
    relative_gap = optimum.gap / np.where(optimum.cost > 0, optimum.cost, 1)
    norm = np.linalg.norm(optimum.params.weights, axis=(1, 2))
    fields = optimum._asdict()
    fields |= {"gap": relative_gap, "settled": optimum.unchanged, "weights_norm": norm}
    fields |= zip(CERTIFICATE, optimum.certificate, strict=True)
    return {name: np.asarray(fields[name], float) for name in (*OPTIMUM, *CERTIFICATE)}


# Every λ of an interval.


def join(parts: list[Solved]) -> Solutions:
    """The solutions on all examples from several tables of problems."""
    import pandas as pd

    tables = [path_table(part.problems, part.columns) for part in parts]
    table = pd.concat(tables, ignore_index=True).sort_values("lam")
    places = [(part.chunks, row) for part in parts for row in range(len(part.problems.path))]
    fields = [
        np.concatenate([part.columns[name][part.problems.fold < 0] for part in parts])[table.index]
        for name in CERTIFICATE
    ]
    places = [places[row] for row in table.index]
    return Solutions(table.reset_index(drop=True), places, Certificate(*fields))


def lam_to_add(solutions: Solutions, n_solved: int) -> np.ndarray:
    """λ between neighbours whose interval misses --every_lam; none if --max_runs doesn't allow it.

    Between two exact solutions at a distance h in log λ, the relative gap is 4 sinh²(h/4) times the
    penalty's share of the cost. No λ are added between solutions whose own gaps exceed half of
    --every_lam, because many would help little.
    """
    table, goal = solutions.table, FLAGS.every_lam
    if goal is None or len(table) == 1:
        return np.array([])
    lam, enough = table.lam.to_numpy(), table.gap.to_numpy() <= goal / 2
    gaps = interval_gaps(solutions.certificate, lam)
    added: list[float] = []
    for i in np.flatnonzero((gaps > goal) & enough[:-1] & enough[1:]):
        distance = np.log(lam[i + 1] / lam[i])
        share = gaps[i] / (4 * np.sinh(distance / 4) ** 2)
        n_parts = np.ceil(distance / (4 * np.arcsinh(np.sqrt(AIM * goal / share / 4))))
        n_parts = int(min(max(n_parts, 2), FLAGS.max_runs + 2))
        added += np.geomspace(lam[i], lam[i + 1], n_parts + 1)[1:-1].tolist()
        if n_solved + len(added) > FLAGS.max_runs:
            return np.array([])
    return np.array([float(f"{value:.12g}") for value in added])  # as the flag of a range


# The table, the choice and the refit.


def path_table(problems: Problems, columns: Mapping[str, np.ndarray]) -> "pd.DataFrame":
    """A row per λ of the path, with means over folds if there are any."""
    import pandas as pd

    in_path = problems.fold < 0
    names = (*OPTIMUM, *MEASURES)
    table = pd.DataFrame({"lam": problems.path, **{n: columns[n][in_path] for n in names}})
    table = table.astype({"passes": int, "converged": bool, "settled": bool})
    for name in METRICS if not in_path.all() else ():
        by_fold = columns[f"held_out_{name}"][~in_path].reshape(-1, len(table))
        table[f"folds_{name}"] = by_fold.mean(axis=0)
        table[f"folds_{name}_error"] = by_fold.std(axis=0, ddof=1) / np.sqrt(len(by_fold))
    return table


def summarise_optima(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """How well all problems were solved, with the folds' among them."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in OPTIMUM}
    n = len(columns["cost"])
    n_converged, n_settled = (int(columns[name].sum()) for name in ("converged", "settled"))
    return {
        "n": n,
        "n_converged": n_converged,
        "n_settled": n_settled,
        "n_unfinished": n - n_converged - n_settled,
        "worst_gap": columns["gap"].max(),
        "mean_passes": columns["passes"].mean(),
    }


class Choice(NamedTuple):
    """Rows of the path's table."""

    best: int
    one_standard_error: int  # the largest λ within one standard error of the best
    chosen: int  # one of the two
    source: str  # "folds" or "validation"
    select: str  # "accuracy" or "loss"

    @property
    def criterion(self) -> str:
        """The column that was compared."""
        return f"{self.source}_{self.select}"


def choose(table: "pd.DataFrame", select: str, within_error: bool) -> Choice:
    """Chooses λ by the accuracy or loss of the folds if there are any, else of validation data.

    `within_error` asks for the rule of one standard error.
    """
    source = "folds" if "folds_loss" in table else "validation"
    first = best(table[f"{source}_accuracy"], table[f"{source}_loss"], select)
    values, errors = table[f"{source}_{select}"], table[f"{source}_{select}_error"]
    second = one_standard_error(table.lam, values, errors, select)
    return Choice(first, second, second if within_error else first, source, select)


class Refit(NamedTuple):
    """The chosen λ, fitted to training and validation data."""

    lam: float
    C: float  # scikit-learn's, with the same examples
    optimum: Optimum  # [1]
    params: Params  # [K, d] and [K]
    standardiser: Standardiser  # of the examples that it was fitted to
    test: dict[str, float]  # `MEASURES` of the test examples
    test_accuracy_at_optimum: tuple[float, float]  # proven bounds for the exact optimum


def solve_with_validation(
    lam: np.ndarray, both: Dataset, config: SolveConfig, watch: Stopwatch, target: Any = None
) -> Optimum:
    """The optimum of each λ [C] on training and validation data; targets have a `target` [C]."""
    rows: list[int] = []
    optima: list[Optimum] = []
    bar = Progress(len(lam))
    with watch.phase("train"):
        for step in solve_chunks(lam, both, config, target=target, mesh=device_mesh()):
            if step.optimum:
                rows, optima = [*rows, *step.rows], [*optima, step.optimum]
            work = f"pass {step.passes.max()}, gap {step.relative_gap.max():.1e}"
            bar.show(len(rows), f"fit with validation data: {work}")
    order = np.argsort(rows)
    optimum: Any = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *optima)
    return optimum


def refit(lam: float, dataset: Dataset, config: SolveConfig, watch: Stopwatch) -> Refit:
    """Fits one λ to training and validation data, more precisely than the path, and tests it."""
    both = with_validation(dataset)
    config = config._replace(tolerance=min(config.tolerance, REFIT_TOLERANCE))
    optimum = solve_with_validation(np.array([lam]), both, config, watch)
    with watch.phase("evaluate"):
        test = measure_split("test", optimum.params, both, config)
        params = Params(*(array[0] for array in optimum.params))
        distance = float(optimum.distance[0])
        certain = certain_predictions(params, distance, lam, both, both.test, config.loss)
        correct = evaluate_models(optimum.params, both.test, both, config.loss).correct[0]
    low = float(np.mean(certain & (correct == 1)))
    c = lam_to(lam, len(both.train.labels), dataset.n_classes, config.loss).C
    measures = {name: float(values[0]) for name, values in test.items()}
    bounds = (low, low + float(np.mean(~certain)))
    return Refit(lam, float(c), optimum, params, both.standardiser, measures, bounds)
