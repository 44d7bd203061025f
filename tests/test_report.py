"""The report: verdicts on planted numbers, and the whole command in reduced form."""

import base64
import json
import signal

import html5lib
import numpy as np
import pandas as pd
import pytest

from experiments.report import claims
from experiments.report.claims import (
    CONTRADICTED,
    NOISE,
    NOT_TESTED,
    SUPPORTED,
    judge,
    roughness,
    verdict,
)
from linear_cifar.metrics import Interval
from tests.commands import check_every_file, only_line, run, run_process
from tests.programs.killed_report import reduced_plan, words
from tests.test_report_plan import PRINTED


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.02, 0.01, 0.03, 10), SUPPORTED),
        (Interval(-0.02, -0.03, -0.01, 10), CONTRADICTED),
        (Interval(0.01, -0.01, 0.03, 10), NOISE),
        (Interval(0.01, np.nan, np.nan, 1), NOT_TESTED),
        (Interval(np.nan, np.nan, np.nan, 10), NOISE),
    ],
)
def test_a_verdict_follows_from_the_interval(interval, expected):
    assert verdict(interval, 0.0, np.inf) == expected
    mirrored = Interval(-interval.estimate, -interval.high, -interval.low, interval.n)
    assert verdict(mirrored, -np.inf, 0.0) == expected


# Numbers by which everything that the report says is true.
TRUE = {
    "lam_0": {"roughness": 1.0, "overfitting": 0.10, "test_accuracy": 0.39, "log_noise": -3.0,
              "median_probability": 0.2, "above_0.8": 0.01, "sd_probability": 0.1},
    "lam_0.1": {"roughness": 0.8, "overfitting": 0.08, "test_accuracy": 0.395,
                "train_accuracy": 0.44},
    "lam_1": {"roughness": 0.3, "train_accuracy": 0.40, "test_accuracy": 0.37},
    "eta_0.1": {"log_noise": -1.0, "test_accuracy": 0.28},
    "full_data": {"test_accuracy": 0.405, "late_loss": 0.002, "late_accuracy": 0.001},
    "step_decay": {"test_accuracy": 0.40},
    "step_decay_full": {"test_accuracy": 0.39},
    "multi_bce": {"overfitting": 0.05, "test_accuracy": 0.35, "median_probability": 0.5,
                  "above_0.8": 0.05, "sd_probability": 0.2},
    **{f"grid:{key}": {"validation_accuracy": value} for key, value in
       (("10_0.001_0.1", 0.36), ("50_0.001_0.1", 0.385), ("500_0.001_0.1", 0.35),
        ("50_0.01_0.1", 0.34), ("500_0.01_0.0", 0.38))},
}  # fmt: skip


def planted(world, n_seeds=5):
    """The table of runs with these numbers, which differ a little between seeds."""
    rng = np.random.default_rng(0)
    rows = [
        {"name": name, "section": name.split(":")[0]}
        | {measure: value + 1e-5 * rng.normal() for measure, value in values.items()}
        for name, values in world.items()
        for _ in range(n_seeds)
    ]
    return pd.DataFrame(rows)


def test_a_world_as_the_report_describes_it_supports_every_claim():
    judged = judge(planted(TRUE), {})
    assert set(judged.verdict) == {SUPPORTED}
    assert judged.quantity.str.contains("(500_0.01_0.0)", regex=False).sum() == 1


def test_swapped_operands_contradict_every_claim():
    late = TRUE["full_data"] | {"late_loss": 0.02, "late_accuracy": -0.02}
    swapped = [c._replace(a=c.b, b=c.a) if c.b and c.b != claims.BEST_OTHER_CELL else c
               for c in claims.CLAIMS]  # fmt: skip
    better = TRUE | {"full_data": late, "grid:500_0.01_0.0": {"validation_accuracy": 0.39}}
    assert set(judge(planted(better), {}, swapped).verdict) == {CONTRADICTED}


def test_with_one_seed_only_test_accuracies_are_tested_by_image():
    rng, n = np.random.default_rng(0), 100_000
    correct = {name: rng.random((1, n)) < values.get("test_accuracy", 0.4)
               for name, values in TRUE.items()}  # fmt: skip
    judged = judge(planted(TRUE, 1), correct)
    by_image = judged.paired_by == claims.BY_IMAGE
    assert set(judged.verdict[~by_image]) == {NOT_TESTED}
    assert set(judged.verdict[by_image]) <= {SUPPORTED, NOISE}
    assert (judged.verdict[by_image] == SUPPORTED).sum() >= 5
    assert (judged.n[by_image] == n).all()
    assert by_image.sum() == sum(c.measure == "test_accuracy" for c in claims.CLAIMS)


def test_roughness_is_high_for_noise_low_for_ramps_and_blind_to_scale():
    noise = np.random.default_rng(0).normal(size=(10, 3, 32, 32))
    ramp = np.broadcast_to(np.linspace(-1, 1, 32), (10, 3, 32, 32))
    images = np.stack([noise, ramp, 7 * noise, ramp + 0.1 * noise]).reshape(4, 10, -1)
    of_noise, of_ramp, scaled, between = roughness(images, (3, 32, 32))
    assert of_noise == pytest.approx(np.sqrt(2), rel=0.02)
    assert scaled == pytest.approx(of_noise)
    assert of_ramp < 0.1
    assert of_ramp < between < of_noise


def report(out, *more, n_seeds=2, interrupt_at=None):
    """Makes a reduced report in this process."""
    with reduced_plan():
        arguments = words(out, *more, n_seeds=n_seeds)
        return run("experiments.report", *arguments, interrupt_at=interrupt_at)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "whole"
    done = report(out)
    assert done.returncode == 0, done.stderr
    return out


def content(out):
    return [(out / name).read_bytes() for name in ("report.json", "index.html", "runs.csv")]


@pytest.mark.slow
def test_the_tables_and_report_json_agree(made):
    check_every_file(made)
    record = json.loads((made / "report.json").read_text())
    runs = pd.read_csv(made / "runs.csv").set_index("name")
    for row in record["runs"]:
        assert runs.test_accuracy[row["name"]] == pytest.approx(row["mean"])
        assert row["difference"] == pytest.approx(row["mean"] - PRINTED[row["name"]])
        assert row["n"] == 2
    counts = json.loads((made / "result.json").read_text())["claims"]
    assert sum(counts.values()) == len(record["claims"]) == len(claims.CLAIMS)
    optima = pd.read_csv(made / "optimum.csv")
    for row in record["optima"]["runs"]:
        assert row["distance"] > -1e-6
        assert row["cost"] == pytest.approx(runs.train_cost[row["name"]])
        assert row["optimum_cost"] in optima.cost.to_numpy()


@pytest.mark.slow
def test_the_page_is_valid_html_with_every_published_number(made):
    text = (made / "index.html").read_text()
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document = parser.parse(text)
    for name, value in PRINTED.items():
        if not name.startswith("grid_narrowed") or "40_" in name:
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


@pytest.mark.slow
def test_a_killed_and_interrupted_report_resumes_to_the_same_bytes(made, tmp_path):
    out = tmp_path / "report"
    done = run_process("tests.programs.killed_report", *words(out))
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = {path: path.stat().st_mtime_ns for path in out.glob("chunks/*/[0-9]*.npz")}
    assert len(kept) == 2
    assert "--resume it, --overwrite it" in only_line(report(out))
    assert "was started with seed=0" in only_line(report(out, "--resume", "--seed=9"))
    for text in ("batches of 500", "in work"):
        done = report(out, "--resume", interrupt_at=text)
        assert done.returncode == 130, done.stderr
        assert "the same command with --resume" in done.stderr
        assert not (out / "index.html").exists()
    done = report(out, "--resume")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert content(out) == content(made)


@pytest.mark.slow
def test_a_report_of_one_seed_shows_no_spread_and_no_untested_verdict(tmp_path):
    out = tmp_path / "one"
    done = report(out, n_seeds=1)
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout
    assert " sd" not in done.stdout
    record = json.loads((out / "report.json").read_text())
    for claim in record["claims"]:
        assert (claim["low"] is None) == (claim["verdict"] == NOT_TESTED)
    assert "± " not in (out / "index.html").read_text()
