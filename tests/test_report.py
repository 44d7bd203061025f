"""The report: its numbers and verdicts on planted results, and the whole command, reduced."""

import base64
import json
import signal
from unittest import mock

import html5lib
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from experiments.common import path as optimum_path, training
from experiments.report import __main__ as report, claims, optima, plan
from experiments.report.claims import (
    CLAIMS,
    CONTRADICTED,
    NOISE,
    NOT_TESTED,
    SUPPORTED,
    judge,
    roughness,
    verdict,
)
from linear_cifar import History
from linear_cifar.metrics import Interval
from tests.commands import check_every_file, only_line, run, run_process
from tests.planted import finish, result
from tests.programs.killed_report import reduced_plan, words
from tests.test_report_plan import PRINTED, lam_of
from tests.test_runs import standardised, train

RIVAL = "grid:500_0.01_0.0"  # the best cell with another η or λ than 0.001 and 0.1
# The report's statements in its order: a measure, the run with it and the run it is compared with,
# then differences that support the statement and differences that contradict it.
SAID = [
    ("roughness", "lam_0.1", "lam_0", [-0.1], [0.1]),
    ("roughness", "lam_1", "lam_0.1", [-0.1], [0.1]),
    ("overfitting", "lam_0.1", "lam_0", [-0.1], [0.1]),
    ("test_accuracy", "lam_0.1", "lam_0", [0.1], [-0.1]),
    ("train_accuracy", "lam_1", "lam_0.1", [-0.1], [0.1]),
    ("test_accuracy", "lam_1", "lam_0.1", [-0.1], [0.1]),
    ("log_noise", "eta_0.1", "lam_0", [0.1], [-0.1]),
    ("test_accuracy", "eta_0.1", "lam_0", [-0.06], [-0.04, 0.06]),
    ("late_loss", "full_data", None, [-0.009, 0.009], [-0.011, 0.011]),
    ("late_accuracy", "full_data", None, [-0.004, 0.004], [-0.006, 0.006]),
    ("test_accuracy", "full_data", "lam_0.1", [0.006, 0.014], [0.004, 0.016, -0.01]),
    ("validation_accuracy", "grid:10_0.001_0.1", "grid:50_0.001_0.1", [-0.1], [0.1]),
    ("validation_accuracy", "grid:500_0.001_0.1", "grid:50_0.001_0.1", [-0.1], [0.1]),
    ("validation_accuracy", "grid:50_0.001_0.1", RIVAL, [0.01], [-0.01]),
    ("test_accuracy", "step_decay", "lam_0.1", [0.1], [-0.1]),
    ("test_accuracy", "step_decay_full", "full_data", [0.004, -0.1], [0.006]),
    ("test_accuracy", "multi_bce", "lam_0", [-0.1], [0.1]),
    ("overfitting", "multi_bce", "lam_0", [-0.1], [0.1]),
    ("median_probability", "lam_0", "multi_bce", [-0.1], [0.1]),
    ("above_0.8", "lam_0", "multi_bce", [-0.1], [0.1]),
    ("sd_probability", "lam_0", "multi_bce", [-0.1], [0.1]),
]


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.03), (np.nan, np.nan)])
def test_an_interval_across_the_bound_or_an_unknown_one_is_noise(low, high):
    assert verdict(Interval(0.01, low, high, 10), 0.0, np.inf) == NOISE
    assert verdict(Interval(-0.01, -high, -low, 10), -np.inf, 0.0) == NOISE


def world(measure, a, b, difference):
    """Runs of five seeds with arbitrary measures, but for one difference."""
    draws = np.random.default_rng(0)
    names = list(PRINTED)
    values = pd.DataFrame({m: draws.uniform(0.2, 0.4, len(names)) for m in MEASURES}, names)
    values.loc[RIVAL, "validation_accuracy"] = 0.5  # the best cell that may be compared
    values.loc["grid_narrowed:40_0.001_0.1", "validation_accuracy"] = 0.9
    values.loc[a, measure] = difference + (values.loc[b, measure] if b else 0)
    runs = values.loc[values.index.repeat(5)].rename_axis("name").reset_index()
    runs["section"] = runs.name.str.split(":").str[0]
    noise = 1e-4 * draws.normal(size=(len(runs), len(MEASURES)))
    return runs.assign(**runs[MEASURES] + noise)


MEASURES = sorted({measure for measure, *_ in SAID})


@pytest.mark.parametrize(
    ("claim", "said"),
    [*zip(CLAIMS, SAID, strict=True)],
    ids=["-".join(map(str, s[:3])) for s in SAID],
)
def test_a_claim_is_supported_or_contradicted_as_the_report_means_it(claim, said):
    *operands, supported, contradicted = said
    for expected, differences in ((SUPPORTED, supported), (CONTRADICTED, contradicted)):
        for difference in differences:
            judged = judge(world(*operands, difference), {}, [claim]).iloc[0]
            assert judged.estimate == pytest.approx(difference, abs=3e-4)
            assert judged.verdict == expected
            assert ("500_0.01_0.0" in judged.quantity) == (operands[2] == RIVAL)


def test_roughness_is_high_for_noise_low_for_ramps_and_blind_to_scale():
    noise = np.random.default_rng(0).normal(size=(10, 3, 32, 32))
    ramp = np.broadcast_to(np.linspace(-1, 1, 32), noise.shape)
    images = np.stack([noise, 7 * noise, ramp]).reshape(3, 10, -1)
    assert roughness(images, (3, 32, 32)) == pytest.approx([2**0.5, 2**0.5, 1 / 16], rel=0.01)


# The command with planted results instead of trained ones.


class Planted:
    """Results of every run and path of the plan, drawn at random."""

    def __init__(self, n_seeds):
        draws = np.random.default_rng(0)
        table = plan.table()
        runs = table.loc[table.index.repeat(n_seeds)].rename_axis("configuration").reset_index()
        runs["seed"] = np.tile(np.arange(n_seeds), len(table))
        self.runs = runs.assign(
            **{name: draws.uniform(0.1, 0.5, len(runs)) for name in training.MEASURES}
        )
        self.arrays = {
            name: {"weights": draws.normal(size=(n_seeds, 10, 3072)) / 20}
            | {"bias": draws.normal(size=(n_seeds, 10))}
            | {field: draws.uniform(size=(n_seeds, 41)) for field in History._fields}
            for name in table.name[table.section == "run"]
        }
        choice = optimum_path.Choice(0, 0, 0, "validation", "accuracy")
        self.solved = {}
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

    def mean(self, name, measure):
        """A measure's mean over the seeds of a run."""
        return self.runs[self.runs.name == name][measure].mean()

    def scores(self, name):
        """The scores of the test images by seed, [S, n, K], and the labels."""
        split = "full" if "full" in name else "assignment"
        inputs, labels = standardised("test", split)
        run = self.arrays[name]
        return inputs @ run["weights"].transpose(0, 2, 1) + run["bias"][:, None], labels

    def correct(self, name):
        """Whether the first seed of a run is right about each test image, [n]."""
        scores, labels = self.scores(name)
        return scores[0].argmax(axis=1) == labels

    def measures(self, name):
        """What claims compare, by seed, in NumPy."""
        rows = self.runs[self.runs.name == name]
        columns = {m: rows[m].to_numpy() for m in MEASURES if m in rows}
        columns["overfitting"] = (rows.train_accuracy - rows.validation_accuracy).to_numpy()
        if name in self.arrays:
            run, (scores, labels) = self.arrays[name], self.scores(name)
            every = special.expit(scores) if name == "multi_bce" else special.softmax(scores, -1)
            p = every[:, np.arange(len(labels)), labels]
            columns |= {"median_probability": np.median(p, 1), "above_0.8": (p > 0.8).mean(1)}
            columns |= {"sd_probability": p.std(1), "roughness": np.full(len(p), np.sqrt(2))}
            columns["log_noise"] = np.log10(run["train_loss"][:, -10:].std(1))
            for measure in ("loss", "accuracy"):  # after 40 epochs, and after 20
                values = run[f"validation_{measure}"]
                columns[f"late_{measure}"] = values[:, 40] - values[:, 20]
        return columns


@pytest.fixture(scope="module")
def planted():
    return Planted(n_seeds=2)


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    return planted.make(tmp_path_factory.mktemp("report") / "whole")


def test_every_claim_has_the_difference_of_its_measures(planted, made):
    cells = planted.runs[planted.runs.section == "grid"].groupby("name").validation_accuracy.mean()
    rival = cells[~cells.index.str.endswith("_0.001_0.1")].idxmax()
    for row, (measure, a, b, *_) in zip(made[2]["claims"], SAID, strict=True):
        other = planted.measures(rival if b == RIVAL else b)[measure] if b else 0
        values = planted.measures(a)[measure] - other
        tolerance = 0.02 if measure == "roughness" else 1e-5  # √2 for noise, about
        assert row["estimate"] == pytest.approx(values.mean(), abs=tolerance)
        if measure != "roughness":
            reach = stats.t.ppf(0.975, 1) * stats.sem(values)
            assert row["high"] - row["estimate"] == pytest.approx(reach, abs=1e-4)
    counts = pd.Series([row["verdict"] for row in made[2]["claims"]]).value_counts()
    assert {k: n for k, n in result(made[0])["claims"].items() if n} == counts.to_dict()


def test_runs_have_test_accuracies_and_grids_validation_accuracies_beside_printed_ones(
    planted, made
):
    out, _, record = made
    runs = pd.read_csv(out / "runs.csv").set_index("name")
    for row in record["runs"]:
        name, seeds = row["name"], planted.runs[planted.runs.name == row["name"]].test_accuracy
        assert (row["mean"], row["sd"], row["n"]) == pytest.approx((seeds.mean(), seeds.std(), 2))
        assert row["difference"] == pytest.approx(seeds.mean() - PRINTED[name])
        assert runs.test_accuracy[name] == pytest.approx(seeds.mean())
    for section, grid in record["grids"].items():
        cells = {cell["key"]: cell for cell in grid["rows"]}
        distances = []
        for key, cell in cells.items():
            name = f"{section}:{key}"
            validation, test = (
                planted.mean(name, f"{split}_accuracy") for split in ("validation", "test")
            )
            assert (cell["mean"], cell["test"]) == pytest.approx((validation, test))
            assert cell["difference"] == pytest.approx(validation - PRINTED[name])
            distances.append([abs(validation - PRINTED[name]), abs(test - PRINTED[name])])
        assert grid["best"] == max(cells.values(), key=lambda cell: cell["mean"])
        expected = dict(zip(("validation", "test"), np.mean(distances, axis=0), strict=True))
        assert grid["mean_distance"] == pytest.approx(expected)


def test_the_summary_counts_numbers_near_the_printed_ones_of_runs_that_converge(planted, made):
    stable = [name for name in PRINTED if ":" not in name and name != "eta_0.1"]
    off = {name: planted.mean(name, "test_accuracy") - PRINTED[name] for name in stable}
    summary = made[2]["summary"]
    largest = max(off, key=lambda name: abs(off[name]))
    assert (summary["n_numbers"], summary["largest"]["name"]) == (8, largest)
    assert summary["n_near"] == sum(abs(value) <= 0.015 for value in off.values())
    for explained, rows in made[2]["variants"].items():
        for row in rows:
            difference = planted.mean(row["name"], "test_accuracy") - PRINTED[explained]
            assert row["difference"] == pytest.approx(difference)
            assert row["distance"] == pytest.approx(abs(difference))


def test_each_run_is_compared_with_the_optimum_of_its_lam_loss_and_data(planted, made):
    expected = {"lam_0.1": 0.1, "lam_1": 1, "batch_40": 0.1, "step_decay": 0.1}
    expected |= {"full_data": 0.1, "step_decay_full": 0.1}
    assert [row["name"] for row in made[2]["optima"]["runs"]] == [
        name
        for name in PRINTED
        if name in expected  # λ = 0 has no optimum
    ]
    for row in made[2]["optima"]["runs"]:
        path = planted.solved["optimum_full" if "full" in row["name"] else "optimum"].table
        best = path[path.lam == expected[row["name"]]].iloc[0]
        cost = planted.mean(row["name"], "train_cost")
        actual = [row[name] for name in ("cost", "optimum_cost", "distance")]
        assert actual == pytest.approx([cost, best.cost, (cost - best.cost) / best.cost])
        assert row["optimum_test_accuracy"] == pytest.approx(best.test_accuracy)


def test_losses_data_and_step_decay_are_compared_at_the_optimum(planted, made):
    paths = planted.solved.values()
    softmax, binary, full = (path.correct for path in paths)
    decay, decay_full = map(planted.correct, ("step_decay", "step_decay_full"))
    pairs = [(binary, softmax), (full, softmax), (softmax, decay), (full, decay_full)]
    for row, (a, b) in zip(made[2]["optima"]["tests"], pairs, strict=True):
        interval = stats.ttest_rel(a.astype(float), b.astype(float)).confidence_interval()
        actual = (row["estimate"], row["low"], row["high"])
        assert actual == pytest.approx((a.mean() - b.mean(), *interval), abs=1e-6)
    runs = [("lam_0.1", "full_data"), ("step_decay", "step_decay_full")]
    expected = [[planted.mean(name, "test_accuracy") for name in pair] for pair in runs]
    tables = [path.table for name, path in planted.solved.items() if name != "optimum_multi_bce"]
    expected.append([table[table.lam == 0.1].test_accuracy.item() for table in tables])
    expected.append([table.test_accuracy[0] for table in tables])  # the best λ
    for row, (few, all_data) in zip(made[2]["optima"]["stack"], expected, strict=True):
        actual = (row["few"], row["full"], row["difference"])
        assert actual == pytest.approx((few, all_data, all_data - few))


def test_the_page_is_valid_html_with_every_published_number(made):
    text = (made[0] / "index.html").read_text()
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document = parser.parse(text)
    for value in PRINTED.values():
        assert f'<td class="number">{value:.4f}</td>' in text
    for image in document.findall(".//img"):
        assert image.get("alt")
        assert base64.b64decode(image.get("src").split(",", 1)[1])[:4] == b"\x89PNG"
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {link.get("href")[1:] for link in document.findall(".//a")} <= set(ids)
    for cell in (*document.findall(".//td"), *document.findall(".//th")):
        assert "".join(cell.itertext()).strip()
    assert "not CIFAR-10" in text
    assert "https://" not in text
    check_every_file(made[0])


def test_one_seed_tests_test_accuracies_by_image_and_shows_no_spread(tmp_path):
    planted = Planted(n_seeds=1)
    out, done, record = planted.make(tmp_path / "one")
    for row, (measure, a, b, *_) in zip(record["claims"], SAID, strict=True):
        if measure != "test_accuracy":
            assert (row["verdict"], row["low"]) == (NOT_TESTED, None)
            continue
        correct = [planted.correct(name).astype(float) for name in (a, b)]
        interval = stats.ttest_rel(*correct).confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx(tuple(interval), abs=1e-6)
        assert (row["paired_by"], row["n"]) == (claims.BY_IMAGE, 400)
    assert "nan" not in done.stdout
    assert " sd" not in done.stdout
    assert "± " not in (out / "index.html").read_text()


# The whole command, with fewer programs to compile.


def reduced(out, *more, interrupt_at=None):
    with reduced_plan():
        return run("experiments.report", *words(out, *more), interrupt_at=interrupt_at)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "whole"
    done = reduced(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_every_run_is_what_numpy_trains(trained):
    record = json.loads((trained / "report.json").read_text())
    rows = plan.table().set_index("name")
    for actual in record["runs"]:
        names = ("lam", "learning_rate", "batch_size", "loss", "split", "decay_factor")
        settings = rows.loc[actual["name"], list(names)].to_dict()
        _, history, accuracy = train(n_epochs=3, **settings)
        assert actual["mean"] == pytest.approx(accuracy, abs=1.1 / 400), actual["name"]
        assert actual["train_accuracy"] == pytest.approx(history[-1, 2], abs=1.1 / 400)
    costs = pd.read_csv(trained / "runs.csv").set_index("name").train_cost
    for row in record["optima"]["runs"]:
        assert row["optimum_cost"] < costs[row["name"]]


def content(out):
    return [(out / name).read_bytes() for name in ("report.json", "index.html", "runs.csv")]


@pytest.mark.slow
def test_a_killed_and_interrupted_report_resumes_to_the_same_bytes(trained, tmp_path):
    out = tmp_path / "report"
    done = run_process("tests.programs.killed_report", *words(out))
    assert done.returncode == -signal.SIGKILL, done.stderr
    written = {path: path.stat().st_mtime_ns for path in out.glob("chunks/*/[0-9]*.npz")}
    assert len(written) == 2
    assert "--resume" in only_line(reduced(out))
    assert "seed" in only_line(reduced(out, "--resume", "--seed=9"))
    for text in ("batches of 500", "in work"):
        done = reduced(out, "--resume", interrupt_at=text)
        assert done.returncode == 130, done.stderr
        assert not (out / "index.html").exists()
    done = reduced(out, "--resume")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert content(out) == content(trained)
