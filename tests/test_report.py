"""The report: its plan, its numbers and verdicts on planted results, and the reduced command."""

import base64
import json
import os
import shutil
from unittest import mock

import html5lib
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from experiments import baseline, sweep
from experiments.common import path as optimum_path, training
from experiments.common.flags import parse_axis
from experiments.report import __main__ as report, optima, plan
from experiments.report.claims import CONTRADICTED, NOISE, NOT_TESTED, SUPPORTED, verdict
from linear_cifar import History
from linear_cifar.metrics import Interval
from tests.commands import check_every_file, few, finish, only_line, run
from tests.conftest import undrawn_figures
from tests.test_runs import standardised, train

PRINTED = {
    "eta_0.1": 0.2571, "lam_0": 0.3906, "lam_0.1": 0.3915, "lam_1": 0.3717, "full_data": 0.4058,
    "batch_40": 0.3884, "step_decay": 0.3951, "step_decay_full": 0.3882, "multi_bce": 0.3546,
    "grid:10_0.001_0.0": 0.359, "grid:10_0.001_0.1": 0.3613, "grid:10_0.001_0.5": 0.3432,
    "grid:10_0.01_0.0": 0.2978, "grid:10_0.01_0.1": 0.27, "grid:10_0.01_0.5": 0.2212,
    "grid:50_0.001_0.0": 0.3838, "grid:50_0.001_0.1": 0.3846, "grid:50_0.001_0.5": 0.3696,
    "grid:50_0.01_0.0": 0.3389, "grid:50_0.01_0.1": 0.3414, "grid:50_0.01_0.5": 0.3228,
    "grid:500_0.001_0.0": 0.3448, "grid:500_0.001_0.1": 0.3452, "grid:500_0.001_0.5": 0.3526,
    "grid:500_0.01_0.0": 0.3796, "grid:500_0.01_0.1": 0.3784, "grid:500_0.01_0.5": 0.3728,
    "grid_narrowed:20_0.001_0.1": 0.3759, "grid_narrowed:30_0.001_0.1": 0.3829,
    "grid_narrowed:40_0.001_0.1": 0.3875, "grid_narrowed:50_0.001_0.1": 0.3849,
}  # fmt: skip
RIVAL = "the best cell of the grid with another η or λ than 0.001 and 0.1"
# The report's statements: a measure, the run with it, the run it is compared with, and bounds.
SAID = [
    ("roughness", "lam_0.1", "lam_0", None, 0),
    ("roughness", "lam_1", "lam_0.1", None, 0),
    ("overfitting", "lam_0.1", "lam_0", None, 0),
    ("test_accuracy", "lam_0.1", "lam_0", 0, None),
    ("train_accuracy", "lam_1", "lam_0.1", None, 0),
    ("test_accuracy", "lam_1", "lam_0.1", None, 0),
    ("log_noise", "eta_0.1", "lam_0", 0, None),
    ("test_accuracy", "eta_0.1", "lam_0", None, -0.05),
    ("late_loss", "full_data", None, -0.01, 0.01),
    ("late_accuracy", "full_data", None, -0.005, 0.005),
    ("test_accuracy", "full_data", "lam_0.1", 0.005, 0.015),
    ("validation_accuracy", "grid:10_0.001_0.1", "grid:50_0.001_0.1", None, 0),
    ("validation_accuracy", "grid:500_0.001_0.1", "grid:50_0.001_0.1", None, 0),
    ("validation_accuracy", "grid:50_0.001_0.1", RIVAL, 0, None),
    ("test_accuracy", "step_decay", "lam_0.1", 0, None),
    ("test_accuracy", "step_decay_full", "full_data", None, 0.005),
    ("test_accuracy", "multi_bce", "lam_0", None, 0),
    ("overfitting", "multi_bce", "lam_0", None, 0),
    ("median_probability", "lam_0", "multi_bce", None, 0),
    ("above_0.8", "lam_0", "multi_bce", None, 0),
    ("sd_probability", "lam_0", "multi_bce", None, 0),
]
TABLE = plan.table().set_index("name")


def lam_of(planned):
    return parse_axis(planned["lam"]).values


def test_the_plan_has_every_number_that_the_report_prints():
    assert TABLE.published.dropna().to_dict() == PRINTED


@pytest.mark.parametrize("command", [*TABLE.command.unique(), *(p["command"] for p in plan.PATHS)])
def test_each_command_on_the_page_trains_or_solves_the_rows_beside_it(
    tmp_path, monkeypatch, command
):
    seen = []

    def stop(*arguments):
        seen.extend(arguments)
        raise KeyboardInterrupt

    for module, name in ((baseline, "train"), (sweep, "train"), (optimum_path, "solve_problems")):
        monkeypatch.setattr(module, name, stop)
    name, *flags = command.removeprefix("python -m experiments.").split()
    finish(name, tmp_path / "run", "--dataset=synthetic", *flags, code=130)
    if name == "lambda_path":
        problems, dataset, config, *_ = seen
        (planned,) = (planned for planned in plan.PATHS if planned["command"] == command)
        assert (problems.lam.tolist(), config.loss.name) == (lam_of(planned), planned["loss"])
        assert dataset.sha256 == few(planned["split"]).sha256
    else:
        runs, config, dataset, *_ = seen
        rows, names = TABLE[TABLE.command == command], [*training.SETTINGS]
        assert runs[names].to_numpy().tolist() == rows[names].to_numpy().tolist()
        assert {config.n_epochs} == set(rows.n_epochs)
        assert {dataset.sha256} == {few(split).sha256 for split in rows.split}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.03, SUPPORTED), (-0.03, -0.01, CONTRADICTED), (-0.01, 0.03, NOISE)],
)
def test_a_verdict_follows_from_the_whole_interval(low, high, expected):
    assert verdict(Interval((low + high) / 2, low, high, 10), 0, np.inf) == expected
    assert verdict(Interval(-(low + high) / 2, -high, -low, 10), -np.inf, 0) == expected


class PlantedResults:
    """Results of every run and path of the plan, drawn at random; λ = 0.1 has smooth weights."""

    def __init__(self, n_seeds):
        draws = np.random.default_rng(0)
        runs = TABLE.reset_index().rename_axis("configuration")
        runs = runs.loc[runs.index.repeat(n_seeds)].reset_index()
        runs["seed"] = np.tile(np.arange(n_seeds), len(TABLE))
        drawn = {name: draws.uniform(0.1, 0.5, len(runs)) for name in training.MEASURES}
        self.runs, self.arrays, self.solved = runs.assign(**drawn), {}, {}
        ramp = np.tile(np.linspace(-1, 1, 32), 96)
        for name in TABLE.index[TABLE.section == "run"]:
            weights = draws.normal(size=(n_seeds, 10, 3072)) / 20
            weights = weights[..., :1] * ramp if name == "lam_0.1" else weights
            self.arrays[name] = {"weights": weights, "bias": draws.normal(size=(n_seeds, 10))}
            self.arrays[name] |= {f: draws.uniform(size=(n_seeds, 41)) for f in History._fields}
        choice = optimum_path.Choice(0, 0, 0, "validation", "accuracy")
        for i, planned in enumerate(plan.PATHS):
            lam = lam_of(planned)
            columns = {n: draws.uniform(0.1, 0.5, len(lam)) for n in optimum_path.COLUMNS}
            path = pd.DataFrame({"lam": lam} | columns).astype({"passes": int})
            correct = draws.random(400) < 0.3 + 0.2 * i
            self.solved[planned["name"]] = optima.Solved(planned, path, choice, correct)

    def make(self, out):
        """Makes the report; returns its folder, its output and `report.json`."""
        with (
            mock.patch.object(report, "train", return_value=(self.runs, self.arrays)),
            mock.patch.object(optima, "solve", return_value=self.solved),
        ):
            n_seeds = self.runs.seed.nunique()
            done = finish("report", out, "--dataset=synthetic", f"--n_seeds={n_seeds}")
        return out, done, json.loads((out / "report.json").read_text())

    def mean(self, name, measure="test_accuracy"):
        """A measure's mean over the seeds of a run."""
        return self.runs[self.runs.name == name][measure].mean()

    def scores(self, name):
        """The scores of the test images by seed, [S, n, K], and the labels."""
        inputs, labels = standardised("test", "full" if "full" in name else "assignment")
        run = self.arrays[name]
        return inputs @ run["weights"].transpose(0, 2, 1) + run["bias"][:, None], labels

    def correct(self, name):
        """Whether the first seed of a run is right about each test image, [n]."""
        scores, labels = self.scores(name)
        return (scores[0].argmax(axis=1) == labels).astype(float)

    def measure(self, measure, name):
        """What claims compare, by seed, in NumPy."""
        rows = self.runs[self.runs.name == name]
        if measure == "overfitting":
            return (rows.train_accuracy - rows.validation_accuracy).to_numpy()
        if measure in rows:
            return rows[measure].to_numpy()
        run, (scores, labels) = self.arrays[name], self.scores(name)
        if measure == "roughness":  # of a ramp and of noise
            return np.full(len(scores), 1 / 16 if name == "lam_0.1" else 2**0.5)
        if measure.startswith("late"):  # after 40 epochs, and after 20
            values = run[measure.replace("late", "validation")]
            return values[:, 40] - values[:, 20]
        every = special.expit(scores) if name == "multi_bce" else special.softmax(scores, -1)
        p = every[:, np.arange(len(labels)), labels]
        return {
            "log_noise": np.log10(run["train_loss"][:, -10:].std(1)),
            "median_probability": np.median(p, 1),
            "above_0.8": (p > 0.8).mean(1),
            "sd_probability": p.std(1),
        }[measure]


@pytest.fixture(scope="module")
def planted():
    return PlantedResults(n_seeds=2)


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    return planted.make(tmp_path_factory.mktemp("report") / "whole")


def test_every_claim_compares_its_measures_with_its_bounds(planted, made):
    cells = planted.runs[planted.runs.section == "grid"].groupby("name").validation_accuracy.mean()
    rival = cells[~cells.index.str.endswith("_0.001_0.1")].idxmax()
    for row, (measure, a, b, *bounds) in zip(made[2]["claims"], SAID, strict=True):
        other = planted.measure(measure, rival if b == RIVAL else b) if b else 0
        difference = (planted.measure(measure, a) - other).mean()
        tolerance = 0.02 if measure == "roughness" else 1e-5
        assert row["estimate"] == pytest.approx(difference, abs=tolerance), row["quantity"]
        assert [row["claimed_low"], row["claimed_high"]] == bounds, row["quantity"]
    verdicts = [row["verdict"] for row in made[2]["claims"][:2]]
    assert verdicts == [SUPPORTED, CONTRADICTED]  # λ = 0.1 has the smoothest weights


def test_runs_have_test_accuracies_and_grids_validation_accuracies(planted, made):
    for row in made[2]["runs"]:
        seeds = planted.runs[planted.runs.name == row["name"]].test_accuracy
        assert (row["mean"], row["sd"], row["n"]) == pytest.approx((seeds.mean(), seeds.std(), 2))
        assert row["difference"] == pytest.approx(seeds.mean() - PRINTED[row["name"]])
    for section, grid in made[2]["grids"].items():
        for cell in grid["rows"]:
            name = f"{section}:{cell['key']}"
            validation, test = planted.mean(name, "validation_accuracy"), planted.mean(name)
            assert (cell["mean"], cell["test"]) == pytest.approx((validation, test))
            assert cell["difference"] == pytest.approx(validation - PRINTED[name])
        assert grid["best"] == max(grid["rows"], key=lambda cell: cell["mean"])


def test_the_summary_counts_numbers_near_the_printed_ones_of_runs_that_converge(planted, made):
    stable = [name for name in PRINTED if ":" not in name and name != "eta_0.1"]
    off = {name: abs(planted.mean(name) - PRINTED[name]) for name in stable}
    summary = made[2]["summary"]
    assert (summary["n_numbers"], summary["largest"]["name"]) == (8, max(off, key=off.get))
    assert summary["n_near"] == sum(value <= 0.015 for value in off.values())


def test_each_run_is_compared_with_the_optimum_of_its_lam_loss_and_data(planted, made):
    lam = {"lam_0.1": 0.1, "lam_1": 1, "full_data": 0.1, "batch_40": 0.1, "step_decay": 0.1}
    lam |= {"step_decay_full": 0.1}  # λ = 0 has no optimum
    for row, name in zip(made[2]["optima"]["runs"], lam, strict=True):
        path = planted.solved["optimum_full" if "full" in name else "optimum"].table
        best, cost = path[path.lam == lam[name]].iloc[0], planted.mean(name, "train_cost")
        actual = [row[key] for key in ("cost", "distance", "optimum_test_accuracy")]
        assert actual == pytest.approx([cost, cost / best.cost - 1, best.test_accuracy]), name


def test_losses_data_and_step_decay_are_compared_at_the_optimum(planted, made):
    softmax, binary, full = (path.correct.astype(float) for path in planted.solved.values())
    decay, decay_full = map(planted.correct, ("step_decay", "step_decay_full"))
    pairs = [(binary, softmax), (full, softmax), (softmax, decay), (full, decay_full)]
    for row, (a, b) in zip(made[2]["optima"]["tests"], pairs, strict=True):
        expected = (a.mean() - b.mean(), *stats.ttest_rel(a, b).confidence_interval())
        assert [row[k] for k in ("estimate", "low", "high")] == pytest.approx(expected, abs=1e-6)
    runs = [("lam_0.1", "full_data"), ("step_decay", "step_decay_full")]
    expected = [[planted.mean(name) for name in pair] for pair in runs]
    tables = [planted.solved[name].table for name in ("optimum", "optimum_full")]
    expected.append([table[table.lam == 0.1].test_accuracy.item() for table in tables])
    expected.append([table.test_accuracy[0] for table in tables])  # the best λ
    actual = [[row["few"], row["full"]] for row in made[2]["optima"]["stack"]]
    np.testing.assert_allclose(actual, expected)


def test_the_page_is_valid_html_with_every_published_number(made):
    text = (made[0] / "index.html").read_text()
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document = parser.parse(text)
    for value in PRINTED.values():
        assert f'<td class="number">{value:.4f}</td>' in text
    images = document.findall(".//img")
    assert len(images) == 2 * 9 + 6  # curves and weights of each run, and the comparisons
    for image in images:
        assert base64.b64decode(image.get("src").split(",", 1)[1])[:4] == b"\x89PNG"
    for cell in (*document.findall(".//td"), *document.findall(".//th")):
        assert "".join(cell.itertext()).strip()
    assert "not CIFAR-10" in text
    assert "https://" not in text
    check_every_file(made[0])


def test_one_seed_tests_test_accuracies_by_image_and_shows_no_spread(tmp_path):
    planted = PlantedResults(n_seeds=1)
    out, done, record = planted.make(tmp_path / "one")
    for row, (measure, a, b, *_) in zip(record["claims"], SAID, strict=True):
        if measure != "test_accuracy":
            assert (row["verdict"], row["low"]) == (NOT_TESTED, None)
            continue
        interval = stats.ttest_rel(planted.correct(a), planted.correct(b)).confidence_interval()
        expected = (*interval, 400)
        assert (row["low"], row["high"], row["n"]) == pytest.approx(expected, abs=1e-6)
    assert "nan" not in done.stdout
    assert " sd" not in done.stdout
    assert "± " not in (out / "index.html").read_text()


def run_reduced(out, *more, interrupt_at=None):
    """Runs the command with fewer programs to compile, and undrawn figures."""
    grid, narrowed = plan.GRIDS
    axes = narrowed["axes"] | {"batch_size": [40]}
    lams = ("0.1,1", "0.01", "0.1")
    changes = {
        "VARIANTS": plan.VARIANTS[:1],
        "GRIDS": [grid, narrowed | {"axes": axes, "published": [0.3875]}],
        "PATHS": [path | {"lam": lam} for path, lam in zip(plan.PATHS, lams, strict=True)],
    }
    words = ("--dataset=synthetic", "--quick", f"--output_dir={out}", *more)
    with mock.patch.multiple(plan, **changes), undrawn_figures():
        return run("experiments.report", *words, interrupt_at=interrupt_at)


def chunks(out):
    return {
        path.relative_to(out): path.stat().st_mtime_ns for path in out.glob("chunks/*/[0-9]*.npz")
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A report, and its folder as a kill would have left it while the third chunk was written."""
    out, killed = (tmp_path_factory.mktemp("report") / name for name in ("whole", "killed"))
    fsync = os.fsync

    def copying(file):
        if len(chunks(out)) == 2 and not killed.exists():
            shutil.copytree(out, killed)
        fsync(file)

    with mock.patch.object(os, "fsync", copying):
        done = run_reduced(out)
    assert done.returncode == 0, done.stderr
    return out, killed


@pytest.mark.slow
def test_every_run_is_what_numpy_trains(trained):
    record = json.loads((trained[0] / "report.json").read_text())
    names = ["lam", "learning_rate", "batch_size", "loss", "split", "decay_factor"]
    for actual in record["runs"]:
        settings = TABLE.loc[actual["name"], names].to_dict()
        _, history, accuracy = train(n_epochs=3, **settings)
        assert actual["mean"] == pytest.approx(accuracy, abs=1.1 / 400), actual["name"]
        assert actual["train_accuracy"] == pytest.approx(history[-1, 2], abs=1.1 / 400)
    assert all(row["distance"] > 0 for row in record["optima"]["runs"])


@pytest.mark.slow
def test_a_killed_and_interrupted_report_resumes_to_the_same_bytes(trained):
    uninterrupted, out = trained
    written = chunks(out)
    assert len(written) == 2
    assert "seed" in only_line(run_reduced(out, "--resume", "--seed=9"))
    done = run_reduced(out, "--resume", interrupt_at="in work")  # of a path
    assert done.returncode == 130, done.stderr
    assert not (out / "index.html").exists()
    done = run_reduced(out, "--resume")
    assert done.returncode == 0, done.stderr
    assert written.items() <= chunks(out).items()
    for name in ("report.json", "index.html", "runs.csv"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()
