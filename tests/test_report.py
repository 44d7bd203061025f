"""The report's commands, each run as a user runs it, in reduced form on synthetic images."""

import base64
import csv
import json
import re
import signal
import subprocess
import sys
import time

import html5lib
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close
from test_commands import ROOT, environment, files, interrupt, only_line, run

from experiments import grids, plan
from experiments.claims import CONTRADICTED, NOISE, SUPPORTED, Claim
from experiments.settings import Settings
from linear_cifar import records
from linear_cifar.evaluation import evaluate
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.statistics import Interval
from linear_cifar.training import train

RUN_FILES = {
    "result.json", "history.csv", "params.npz", "figures/curves.png", "figures/weights.png",
}  # fmt: skip


def check_every_file(folder):
    """Each file parses as what its name says."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".json":
            json.loads(path.read_text(), parse_constant=pytest.fail)
        elif path.suffix == ".csv":
            with path.open() as file:
                assert len({len(row) for row in csv.reader(file)}) == 1, path
        elif path.suffix == ".png":
            assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", path
        elif path.suffix == ".npz":
            records.read_params(path)
        else:
            assert path.suffix == ".html", path


@pytest.mark.parametrize("words", [("step_decay",), ("full_data", "--n_seeds=2")])
def test_runs_of_the_report_write_whole_records(tmp_path, words):
    name, *more = words
    out = tmp_path / "run"
    done = run(f"experiments.{name}", "--dataset=synthetic", "--n_epochs=1", *more,
               f"--output_dir={out}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    seeds = {"history_by_seed.csv"} if more else set()
    assert files(out) == RUN_FILES | seeds
    check_every_file(out)
    result = records.read_result(out)
    assert result["hyperparameters"]["lam"] == 0.1
    if name == "step_decay":
        assert result["hyperparameters"]["learning_rate"] == 0.05
        assert result["hyperparameters"]["decay_factor"] == 10
    else:
        assert result["dataset"]["sizes"] == {"train": 49000, "validation": 1000, "test": 10000}


@pytest.mark.parametrize("shuffle", [False, True])
def test_seeds_trained_at_once_equal_each_alone(tmp_path, shuffle):
    words = ["experiments.baseline", "--dataset=synthetic", "--n_epochs=2", "--lam=0.1"]
    words += ["--shuffle"] * shuffle
    done = run(*words, "--n_seeds=2", "--seed=3", f"--output_dir={tmp_path / 'both'}")
    assert done.returncode == 0, done.stderr
    assert "±" in done.stdout
    both = records.read_params(tmp_path / "both" / "params.npz")
    result = records.read_result(tmp_path / "both")
    values = result["over_seeds"]["test_accuracy"]["values"]
    assert result["test_accuracy"] == pytest.approx(np.mean(values))
    for i in range(2):
        out = tmp_path / str(i)
        run(*words, f"--seed={3 + i}", f"--output_dir={out}")
        alone = records.read_params(out / "params.npz")
        np.testing.assert_allclose(both.weights[i], alone.weights, atol=1e-6)
        assert values[i] == pytest.approx(records.read_result(out)["test_accuracy"], abs=2e-4)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_a_grid_s_cells_equal_each_configuration_alone(tmp_path, synthetic, n_seeds):
    out = tmp_path / "run"
    words = ["--batch_size=300,10000", "--learning_rate=0.001,1e30", "--lam=0,1", "--n_epochs=1"]
    done = run("experiments.grid_search", *words, f"--n_seeds={n_seeds}", "--dataset=synthetic",
               f"--output_dir={out}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_every_file(out)
    rows = grids.read(out)
    assert list(rows) == [
        f"{b}_{e}_{lam}" for b in (300, 10000) for e in (0.001, 1e30) for lam in (0.0, 1.0)
    ]
    in_json = json.loads((out / "grid.json").read_text())
    assert in_json.keys() == rows.keys()
    assert in_json["300_1e+30_1.0"] is None  # it diverged
    keys = jnp.stack([jax.random.key(seed) for seed in range(n_seeds)])
    for (batch_size, lam), key in (
        ((300, 0.0), "300_0.001_0.0"),
        ((10000, 1.0), "10000_0.001_1.0"),
    ):
        params, history = train(
            keys, Hyperparameters(lam, 0.001), synthetic, n_epochs=1, batch_size=batch_size
        )
        test = jax.vmap(lambda p: evaluate(p, synthetic.test, synthetic.standardiser, 0.0))(params)
        alone = float(history.validation_accuracy[:, -1].mean())
        assert rows[key]["validation_accuracy"] == pytest.approx(alone, abs=2e-4)
        assert rows[key]["test_accuracy"] == pytest.approx(float(test.accuracy.mean()), abs=2e-4)
        assert in_json[key] == pytest.approx(alone, abs=2e-4)
    best = records.read_result(out)["best"]
    assert best["validation_accuracy"] == max(v for v in in_json.values() if v is not None)
    assert best["key"] in done.stdout


@pytest.mark.parametrize("flag", ["--lam=0,-1", "--learning_rate=0.1,x", "--batch_size=0",
                                  "--batch_size=1.5", "--lam="])  # fmt: skip
def test_a_bad_list_is_refused_by_name(tmp_path, flag):
    done = run(
        "experiments.grid_search", "--dataset=synthetic", flag, f"--output_dir={tmp_path / 'r'}"
    )
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_grid_keeps_what_is_finished(tmp_path):
    out = tmp_path / "run"
    words = ("--dataset=synthetic", "--n_epochs=100", "--batch_size=1000,10", f"--output_dir={out}")
    code, shown, errors = interrupt("batches of 10;", "experiments.grid_search", *words)
    assert code == 130, errors
    assert "finished are written" in errors
    assert len(grids.read(out)) == 6
    assert records.read_result(out)["interrupted"] is True
    assert "1000_" in shown
    check_every_file(out)


def test_loss_comparison_holds_a_run_for_each_loss(tmp_path):
    out = tmp_path / "run"
    words = ("--dataset=synthetic", "--n_epochs=1", f"--output_dir={out}")
    done = run("experiments.loss_comparison", *words)
    assert done.returncode == 0, done.stderr
    expected = {f"{loss}/{name}" for loss in ("softmax", "multi_bce") for name in RUN_FILES}
    assert files(out) == expected | {"result.json", "figures/probabilities.png"}
    check_every_file(out)
    losses = records.read_result(out)["losses"]
    for loss, figures in losses.items():
        assert figures["test_accuracy"] == records.read_result(out / loss)["test_accuracy"]
        assert 0 < figures["true_class_probability"]["mean"] < 1


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(0.02, 0.01, 0.03, 10), SUPPORTED),
        (Interval(-0.02, -0.03, -0.01, 10), CONTRADICTED),
        (Interval(0.01, -0.01, 0.03, 10), NOISE),
        (Interval(0.01, np.nan, np.nan, 1), SUPPORTED),
        (Interval(-0.01, np.nan, np.nan, 1), CONTRADICTED),
        (Interval(np.nan, np.nan, np.nan, 10), NOISE),
    ],
)
def test_a_verdict_follows_from_the_interval(interval, verdict):
    assert Claim("s", "q", interval, 0.0, np.inf, "how").verdict == verdict
    mirrored = Interval(-interval.estimate, -interval.high, -interval.low, interval.n)
    assert Claim("s", "q", mirrored, -np.inf, 0.0, "how").verdict == verdict


def report(out, *more):
    words = ("--dataset=synthetic", "--quick", "--n_seeds=2", f"--output_dir={out}")
    return ("experiments.report", *words, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "whole"
    done = run(*report(out))
    assert done.returncode == 0, done.stderr
    return out


def test_every_part_is_there_and_every_file_what_it_claims(whole):
    parts = {path.name for path in (whole / "parts").iterdir()}
    assert parts == plan.every_run().keys() | plan.GRIDS.keys()
    check_every_file(whole)
    found = json.loads((whole / "report.json").read_text())
    assert [row["name"] for row in found["runs"]] == list(plan.RUNS)
    for row in found["runs"]:
        part = records.read_result(whole / "parts" / row["name"])
        assert_close(row["mean"], part["test_accuracy"], "float32")
        assert_close(row["difference"], row["mean"] - row["published"])
        assert row["n"] == 2
    assert len(found["claims"]) >= 18
    assert {claim["verdict"] for claim in found["claims"]} <= {SUPPORTED, CONTRADICTED, NOISE}


def test_the_page_is_valid_html_with_its_images_and_links(whole):
    text = (whole / "index.html").read_text()
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document = parser.parse(text)
    images = document.findall(".//img")
    assert len(images) >= 2 * len(plan.RUNS) + 3 + 4 + 1
    for image in images:
        assert image.get("alt")
        head, content = image.get("src").split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(content)[:4] == b"\x89PNG"
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for link in document.findall(".//a"):
        assert link.get("href")[1:] in ids
    for cell in (*document.findall(".//td"), *document.findall(".//th")):
        assert "".join(cell.itertext()).strip()
    assert "not CIFAR-10" in text
    assert "reduced run" in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)  # it opens without a network


def without_times(out):
    page = (out / "index.html").read_text().split('<h2 id="machine">')[0]
    found = json.loads((out / "report.json").read_text())
    del found["seconds"]
    return page, found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_report_goes_on_where_it_was(whole, tmp_path, how):
    out = tmp_path / "report"
    process = subprocess.Popen(
        [sys.executable, "-m", *report(out)], cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list((out / "parts").glob("[!.]*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # into the next part
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("[!.]*/result.json")}
    assert 3 <= len(kept) < len(plan.every_run())
    assert not (out / "index.html").exists()
    assert "--resume it, --overwrite it" in only_line(run(*report(out)))
    other_seeds = run(*report(out, "--resume", "--seed=9"))
    assert "begun with other seeds" in only_line(other_seeds)
    done = run(*report(out, "--resume"))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list((out / "parts").glob(".*"))
    assert without_times(out) == without_times(whole)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert "other than a report" in only_line(run(*report(tmp_path, "--overwrite")))
    assert "other than a report" in only_line(run(*report(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_page_of_one_seed_has_no_empty_spread(tmp_path):
    out = tmp_path / "one"
    words = ("--dataset=synthetic", "--quick", f"--output_dir={out}")
    done = run("experiments.report", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "report.json").read_text())
    assert {claim["how"] for claim in found["claims"]} == {"test image", "one seed, no interval"}
    assert all(row["sd"] is None for row in found["runs"])
    assert "± " not in (out / "index.html").read_text().split('<h2 id="machine">')[0]


def test_the_report_s_settings_are_those_of_the_commands():
    assert plan.RUNS["step_decay"].settings == Settings(0.1, 0.05, decay_factor=10.0)
    assert plan.RUNS["full_data"].settings == Settings(0.1, split="full")
    assert sum(len(grid.published) for grid in plan.GRIDS.values()) == 22
