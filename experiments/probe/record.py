"""What a probe leaves on disk beside its chunks, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.common import paths, records, solving
from experiments.common.data import data_title
from experiments.common.output import write_result
from experiments.common.progress import Stopwatch, print_table
from experiments.probe import prediction
from experiments.probe.learning import Point
from experiments.probe.measures import TOP_K, Chosen, Tested
from linear_cifar.data import SPLITS, LazyRows
from linear_cifar.losses import LOSSES
from linear_cifar.penalties import lam_to

FLAGS = flags.FLAGS
RESULT = "probe.json"


def write(
    chosen: Chosen,
    refit: solving.Refit,
    tested: Tested,
    curve: Sequence[Point],
    further: LazyRows | None,
    folder: Path,
    watch: Stopwatch,
) -> None:
    """Writes the table, figures, model and `probe.json`; prints the answer.

    Args:
      chosen: the path and its choice.
      refit: of the chosen λ.
      tested: the refit's figures.
      curve: points of the learning curve.
      further: features to predict.
      folder: to write into.
      watch: takes the times.
    """
    dataset = chosen.dataset
    title = f"{LOSSES[FLAGS.loss].title} · {data_title(dataset)}"
    content = _content(chosen, refit, tested, curve)
    try:
        with watch.phase("plot"):
            records.write_figures(folder, _figures(chosen, tested, curve, title))
        paths.write_table(folder, chosen.path)
        for ending in (".npz", ".safetensors"):
            tested.model.save(folder / f"model{ending}")
        if further is not None:
            prediction.write(folder, tested.model, further)
        write_result(folder, "probe", dataset, watch, file=RESULT, **content)
    except OSError as error:
        raise records.RecordError(
            f"cannot write {folder}: {error.strerror or error}; all optima are kept, for --resume"
        ) from error
    _print(chosen, refit, tested, curve, title, folder, watch)


def _content(
    chosen: Chosen, refit: solving.Refit, tested: Tested, curve: Sequence[Point]
) -> dict[str, Any]:
    path, choice, _, dataset, _ = chosen
    names = dataset.class_names
    flags_of = ("loss", "tolerance", "max_passes", "n_folds", "select", "seed")
    by_class = {
        name: {field: float(values[k]) for field, values in tested.by_class._asdict().items()}
        for k, name in enumerate(names)
    }
    return {
        **{name: FLAGS[name].value for name in flags_of},
        "standardise": dataset.standardise,
        "normalise_rows": dataset.normalise_rows,
        "notice": dataset.notice,
        "n_lam": len(path.lam),
        "optima": path.all_optima,
        "chosen_by": f"{choice.source}_{choice.select}",
        "best": paths.row(path, choice.best),
        "one_standard_error": paths.row(path, choice.one_standard_error),
        "refit": {
            "lam": refit.lam,
            "C": _c(refit, chosen),
            **{name: getattr(refit.optimum, name)[0] for name in ("cost", "gap", "converged")},
        },
        "test": {
            "accuracy": tested.accuracy._asdict(),
            "accuracy_at_optimum": refit.at_optimum,
            "balanced_accuracy": tested.balanced_accuracy,
            f"top_{TOP_K}_accuracy": tested.top_k and tested.top_k._asdict(),
            "loss": float(refit.columns["test_loss"][0]),
            "by_class": by_class,
            "confusions": tested.counts,
        },
        "calibration": {
            "temperature": tested.model.temperature,
            "uncalibrated": tested.uncalibrated,
            "before": tested.before._asdict(),
            "after": tested.after._asdict(),
        },
        "learning_curve": [
            {**point.size._asdict(), "lam": point.lam, "accuracy": point.accuracy}
            | {"over_draws": point.over_draws._asdict()}
            for point in curve
        ],
    }


def _c(refit: solving.Refit, chosen: Chosen) -> float:
    """scikit-learn's C of the refit."""
    dataset = chosen.dataset
    n = len(dataset.train.labels) + len(dataset.validation.labels)
    return float(lam_to(refit.lam, n, dataset.n_classes, LOSSES[FLAGS.loss]).C)


def _figures(chosen: Chosen, tested: Tested, curve: Sequence[Point], title: str) -> dict[str, Any]:
    from experiments.probe.figures import plot_learning_curve
    from linear_cifar import plots  # matplotlib takes half a second

    path, names = chosen.path, chosen.dataset.class_names
    drawn = {
        "path": paths.plot(path, chosen.choice, title),
        "passes": paths.plot_passes(path, f"Passes over λ, {title}"),
        "confusions": plots.plot_confusion(tested.counts, names, f"Test examples, {title}"),
        "per_class": plots.plot_per_class(tested.by_class, names, f"Test accuracy, {title}"),
        "reliability": plots.plot_reliability(
            tested.before, tested.after, f"Test examples, {title}"
        ),
    }
    kinds = {"learning_curve": False, "few_shot": True}
    for name, few_shot in kinds.items():
        points = [point for point in curve if (point.size.per_class is not None) == few_shot]
        points.sort(key=lambda point: point.size.n)
        if points:
            over = [point.over_draws for point in points]
            drawn[name] = plot_learning_curve(
                np.array([point.size.n for point in points]),
                plots.Curve(*(np.array([getattr(s, end) for s in over]) for end in _ENDS)),
                np.array([point.accuracy for point in points]),
                f"Test accuracy over training examples, {title}",
            )
    return drawn


_ENDS = ("mean", "low", "high")


def _print(
    chosen: Chosen,
    refit: solving.Refit,
    tested: Tested,
    curve: Sequence[Point],
    title: str,
    folder: Path,
    watch: Stopwatch,
) -> None:
    path, choice, _, dataset, _ = chosen
    accuracy = tested.accuracy
    sizes = (len(getattr(dataset, name).labels) for name in SPLITS)
    counts = "{} training, {} validation and {} test examples".format(*sizes)
    rows: list[tuple[str, Any]] = [
        ("probe", f"{title}, {len(path.lam)} λ from {path.lam[0]:g} to {path.lam[-1]:g}"),
        ("data", f"{counts} of {dataset.n_features} features, {dataset.n_classes} classes"),
        ("optima", paths.summary(path)),
        (
            "chosen",
            f"λ = {refit.lam:.4g} (C = {_c(refit, chosen):.4g}) by {choice.source} {choice.select}",
        ),
        ("test accuracy", f"{accuracy.estimate:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f})"),
        ("balanced accuracy", tested.balanced_accuracy),
    ]
    if tested.top_k is not None:
        rows.append((f"top-{TOP_K} accuracy", tested.top_k.estimate))
    errors = f"{tested.before.error:.4f}"
    if tested.uncalibrated:
        rows.append(("not calibrated", tested.uncalibrated))
    else:
        errors += f", with temperature {tested.after.error:.4f}"
    rows.append(("expected calibration error", errors))
    for point in curve:
        each = "" if point.size.per_class is None else f", {point.size.per_class} a class"
        over = point.over_draws
        spread = f" ± {over.sd:.4f} (sd of {over.n} draws)" if over.n > 1 else ""
        rows.append((f"with {point.size.n} examples{each}", f"{over.mean:.4f}{spread}"))
    print_table([*rows, ("seconds", watch), ("written to", folder)])
    paths.note_an_end(path, choice)
