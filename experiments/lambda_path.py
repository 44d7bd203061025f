"""The exact optimum for every λ, each with its certificate; the best by validation is tested.

python -m experiments.lambda_path --lam=1e-4:10:41:log
python -m experiments.lambda_path --split=full --loss=multi_bce
python -m experiments.lambda_path --n_folds=5 --one_standard_error
python -m experiments.lambda_path --lam=1e-4:10:9:log --every_lam=0.01

The cost is convex, so it has a minimum that no learning rate, batch size or number of epochs
changes. path.csv has a row per λ: the cost, how far it can be above its minimum (gap, relative to
the cost), and loss and accuracy with 95 % intervals over the examples. The chosen λ is fitted again
to training and validation data, and tested once. The solutions also bound the gap at every λ
between them; --every_lam adds λ until that bound is small enough. Every finished chunk of λ is on
disk before the next one starts, and --resume continues after any interruption.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.common import cli, distributed, folder, path, path_record
from experiments.common.data import load_data
from experiments.common.progress import Stopwatch, print_table
from linear_cifar import Dataset
from linear_cifar.optimum import gap_at

FLAGS = absl_flags.FLAGS
N_WEIGHTS = 5  # λ whose weights are drawn
N_POINTS = 2000  # at which the gap between λ is drawn


def define_flags() -> None:
    """Defines the command's flags."""
    path.define_flags("select", lam="1e-4:10:41:log")


def main(argv: list[str]) -> int:
    """Solves the path that the flags describe and writes the record."""
    del argv
    distributed.start()
    watch = Stopwatch()
    with folder.resumable_run("lambda_path") as target:
        with watch.phase("load"):
            dataset = load_data(FLAGS.split, path.required_splits())
        problems = path.problems_from_flags(dataset)
        settings = path.start(target, "lambda_path", dataset.sha256)
        fit = path.fit_path(target, problems, settings, dataset, watch)
        if jax.process_index():
            return 0
        write(fit, dataset, target, watch)
    low, high = fit.refit.test_accuracy_at_optimum
    proven = ("test accuracy of the exact optimum", f"{low:.4f} to {high:.4f}, proven")
    lines = [*path_record.answer_lines(fit, dataset), proven]
    print_table([*lines, ("seconds", watch), ("written to", target)])
    path_record.note_edge(fit)
    return 0


def write(fit: path.Fit, dataset: Dataset, target: Path, watch: Stopwatch) -> None:
    """Writes the table, figures, parameters and `result.json`."""
    title = path_record.title(dataset)
    with watch.phase("plot"):
        figures = {
            "path": path_record.plot_choice(fit.table, fit.choice, title),
            "cost": plot_cost(fit, title),
        }
        if dataset.image_shape is not None:
            figures["weights"] = plot_weights_over_lam(fit, dataset, title)
        folder.write_figures(target, figures)
    folder.write_table(target / "path.csv", fit.table)
    folder.write_params(target / "params.npz", fit.solutions.params(fit.choice.chosen))
    folder.write_params(target / "params_refit.npz", fit.refit.params)
    content = path_record.answer(fit) | {"split": FLAGS.split}
    folder.write_result(target, "lambda_path", dataset, watch, **content)


def plot_cost(fit: path.Fit, title: str) -> Any:
    """The least cost over λ, and the certified bound on how far each λ can be from its minimum."""
    from linear_cifar import plots  # matplotlib takes half a second

    figure, lam = plots.new_figure(f"The optimum over λ, {title}"), fit.table.lam.to_numpy()
    costs, gaps = figure.subplots(1, 2)
    costs.plot(lam, fit.table.cost, marker=".")
    every_lam = np.unique([*lam, *np.geomspace(lam[0], lam[-1], N_POINTS)])
    cost, gap = gap_at(fit.solutions.certificate, every_lam[:, None])
    least = np.fmin.reduce(gap / np.where(cost > 0, cost, 1), axis=1)  # a cost may vanish
    gaps.plot(every_lam, least, color="C0", lw=1, label="at every λ")
    gaps.plot(lam, fit.table.gap, color="C0", marker=".", ls="", label="at the λ that are solved")
    gaps.axhline(fit.solutions.gap_between, color="C1", ls=":", label="largest between them")
    gaps.axhline(FLAGS.tolerance, color="0.4", ls="--", label="--tolerance")
    gaps.set_yscale("log")
    for ax, name in ((costs, "cost (nats)"), (gaps, "relative gap, at most")):
        plots.scale_lam(ax, lam)
        plots.label_axes(ax, "λ", name, legend="best" if ax is gaps else None)
    return figure


def plot_weights_over_lam(fit: path.Fit, dataset: Dataset, title: str) -> Any:
    """The weights of each class as images, a row per λ, each row with its own colour scale."""
    from linear_cifar import plots

    assert dataset.image_shape is not None
    places = np.unique(np.linspace(0, len(fit.table) - 1, N_WEIGHTS).round().astype(int))
    heading = f"Weights at the optimum, {title}; mid-grey is 0, each row has its own scale"
    size = (1.25 * dataset.n_classes + 1.2, 1.3 * len(places) + 0.8)
    figure = plots.new_figure(heading, size)
    panels = figure.subplots(len(places), dataset.n_classes, squeeze=False)
    for panel_row, place in zip(panels, places, strict=True):
        weights = fit.solutions.params(place).weights
        images, largest = plots.weight_images(weights, dataset.image_shape)
        for ax, image in zip(panel_row, images, strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        lam = fit.table.lam[place]
        panel_row[0].set_ylabel(f"λ = {lam:.3g}\nfrom −{largest:.2g}\nto {largest:.2g}")
    for ax, name in zip(panels[0], dataset.class_names, strict=True):
        ax.set_title(name, fontsize=10, parse_math=False)
    return figure


if __name__ == "__main__":
    cli.launch(main, define_flags)
