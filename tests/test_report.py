"""The report as one page, in reduced form on synthetic images."""

import base64
import contextlib
import csv
import json
import re
import shutil
import signal

import html5lib
import numpy as np
import pytest
from commands import check_every_file, only_line, run, run_process
from conftest import assert_close, undrawn_figures

from experiments.common import records, training
from experiments.report import plan
from experiments.report.claims import CONTRADICTED, NOISE, SUPPORTED, Claim, roughness
from linear_cifar.data import SPLITS
from linear_cifar.metrics import Interval, Metrics
from linear_cifar.model import Params
from linear_cifar.training import History


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


def test_roughness_is_high_for_noise_low_for_ramps_and_blind_to_scale():
    noise = np.random.default_rng(0).normal(size=(10, 3, 32, 32))
    ramp = np.broadcast_to(np.linspace(-1, 1, 32), (10, 3, 32, 32))
    images = np.stack([noise, ramp, 7 * noise, ramp + 0.1 * noise]).reshape(4, 10, -1)
    of_noise, of_ramp, scaled, between = roughness(images, (3, 32, 32))
    assert of_noise == pytest.approx(np.sqrt(2), rel=0.02)
    assert scaled == pytest.approx(of_noise)
    assert of_ramp < 0.1
    assert of_ramp < between < of_noise


def words(out, *more, n_seeds=2):
    return ("--dataset=synthetic", "--quick", f"--n_seeds={n_seeds}", f"--output_dir={out}", *more)


def report(*arguments, interrupt_at=None, **changes):
    """Makes a report in this process."""
    asked = words(*arguments, **changes)
    return run("experiments.report", *asked, n_images=1000, interrupt_at=interrupt_at)


@contextlib.contextmanager
def reduced_plan():
    """Fewer programs to compile; the whole plan is for the slow test."""
    variants = {name: plan.VARIANTS["multi_bce"][name] for name in ("multi_bce_lam_0.05",)}
    narrowed = plan.GRIDS["grid_narrowed"]
    values, key = narrowed.values | {"batch_size": [40]}, "40_0.001_0.1"
    grid = narrowed._replace(values=values, published={key: narrowed.published[key]})
    with undrawn_figures(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.VARIANTS, "multi_bce", variants)
        patch.setitem(plan.GRIDS, "grid_narrowed", grid)
        patch.setattr(plan, "PATH_LAM", (1.0, 10.0, 2))
        yield


@pytest.fixture
def less_to_do():
    with reduced_plan():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "whole"
    with reduced_plan():
        done = report(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def whole(made, less_to_do):
    """A report of the reduced plan, which goes on while a test looks at it."""
    return made


def check_parts(folder, n_seeds=2):
    """Every part is there, and the numbers are those of the parts."""
    parts = {path.name for path in (folder / "parts").iterdir()}
    assert parts == plan.every_run().keys() | plan.GRIDS.keys() | plan.PATHS.keys()
    check_every_file(folder)
    found = json.loads((folder / "report.json").read_text())
    assert [row["name"] for row in found["runs"]] == list(plan.RUNS)
    for row in found["runs"]:
        part = records.read_result(folder / "parts" / row["name"])
        assert_close(row["mean"], part["test_accuracy"], "float32")
        assert_close(row["difference"], row["mean"] - row["published"])
        assert row["n"] == n_seeds
    check_optima(folder, found["optima"])
    assert len(found["claims"]) >= 18
    assert {claim["verdict"] for claim in found["claims"]} <= {SUPPORTED, CONTRADICTED, NOISE}


def check_optima(folder, optima):
    """Distances are those between the parts, and none is below the optimum."""
    names = {("assignment", "softmax"): "optimum", ("full", "softmax"): "optimum_full"}
    for row in optima["runs"]:
        settings = plan.RUNS[row["name"]].settings
        assert_close(row["lam"], settings.hyperparameters.lam)
        if row["lam"] == 0:
            assert row["optimum_cost"] is None
            continue
        part = folder / "parts" / names[settings.split, settings.loss]
        with (part / "path.csv").open() as file:
            (own,) = (line for line in csv.DictReader(file) if float(line["lam"]) == row["lam"])
        assert_close(row["optimum_cost"], float(own["cost"]))
        run = records.read_result(folder / "parts" / row["name"])
        assert_close(row["cost"], run["train_cost"], "float32")
        assert_close(row["distance"], row["cost"] / row["optimum_cost"] - 1)
        assert row["distance"] > -1e-6
    assert [row["name"] for row in optima["paths"]] == list(plan.PATHS)
    for pair in optima["tests"]:
        assert pair["low"] <= pair["estimate"] <= pair["high"]
    losses = optima["tests"][0]
    few, binary = optima["paths"][:2]
    assert_close(losses["estimate"], binary["test_accuracy"] - few["test_accuracy"], "float32")


def check_page(folder):
    """The page is valid HTML, with its images and links, and opens without a network."""
    text = (folder / "index.html").read_text()
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document = parser.parse(text)
    images = document.findall(".//img")
    n_maps = sum(len(grid.values["batch_size"]) for grid in plan.GRIDS.values())
    assert len(images) == 2 * len(plan.RUNS) + n_maps + len(plan.PATHS) + 1
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
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


@pytest.mark.slow
def test_every_part_is_there_and_every_file_what_it_claims(whole):
    check_parts(whole)


@pytest.mark.slow
def test_the_page_is_valid_html_with_its_images_and_links(whole):
    check_page(whole)


def without_times(out):
    page = (out / "index.html").read_text().split('<h2 id="machine">')[0]
    found = json.loads((out / "report.json").read_text())
    del found["seconds"]
    return page, found


@pytest.mark.slow
def test_a_killed_and_interrupted_report_goes_on_where_it_was(whole, tmp_path):
    out = tmp_path / "report"
    assert run_process("tests.programs.killed_report", *words(out)).returncode == -signal.SIGKILL
    assert list((out / "parts").glob(".*.partial-*"))
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("[!.]*/result.json")}
    assert len(kept) == 2
    assert "--resume it, --overwrite it" in only_line(report(out))
    assert "begun with other seeds" in only_line(report(out, "--resume", "--seed=9"))
    # In the midst of runs that are trained at once, and of a grid.
    for text, n_parts in (("epoch 2 of 3, 6 runs, batches of 100", 5), ("batches of 50;", 11)):
        done = report(out, "--resume", interrupt_at=text)
        assert done.returncode == 130, done.stderr
        assert f"--resume --output_dir={out} goes on" in done.stderr
        assert len(list((out / "parts").iterdir())) == n_parts, done.stderr
        assert not (out / "index.html").exists()
    done = report(out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "begun with" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list((out / "parts").glob(".*"))
    assert without_times(out) == without_times(whole)


@pytest.mark.slow
def test_a_report_begun_on_another_machine_or_damaged_goes_on_and_says_so(whole, tmp_path):
    out = tmp_path / "report"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "parts" / "batch_40")
    history = out / "parts" / "lam_1" / "history.csv"
    history.write_text(history.read_text().replace("0.", "0.9", 1))
    begun = json.loads((out / "begun.json").read_text())
    begun["machine"] |= {"n_devices": 7, "versions": begun["machine"]["versions"] | {"jax": "0.1"}}
    (out / "begun.json").write_text(json.dumps(begun))
    done = report(out, "--resume")
    assert done.returncode == 0, done.stderr
    (note,) = (line for line in done.stderr.splitlines() if line.startswith("note: begun with"))
    assert "n_devices 7, now 2" in note
    assert "'jax': '0.1'" in note
    assert (out / "parts" / "batch_40" / "result.json").exists()
    assert "lam_1 is damaged: kept as unfit-lam_1, and made again" in done.stderr
    assert without_times(out)[1]["runs"] == without_times(whole)[1]["runs"]


def untrained(configurations, dataset, watch, keep, *, measure, finished=()):
    """What `training.train` would hand on, drawn and not trained: a tenth of the time."""
    assert not finished
    rng, n = np.random.default_rng(0), sum(settings.n_seeds for settings in configurations)
    drawn = [rng.normal(size=(n, *shape)).astype("float32") for shape in ((10, 3072), (10,))]
    history = rng.random((6, n, configurations[0].n_epochs + 1 if measure else 0))
    metrics = {split: Metrics(*rng.random((3, n))) for split in SPLITS}
    keep(training.Trained(np.arange(n), Params(*drawn), History(*history), metrics))
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("less_to_do")
def test_the_page_of_one_seed_has_no_empty_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train", untrained)
    out = tmp_path / "one"
    done = report(out, n_seeds=1)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "report.json").read_text())
    assert {claim["how"] for claim in found["claims"]} == {"test image", "one seed, no interval"}
    assert all(row["sd"] is None for row in found["runs"])
    assert "± " not in (out / "index.html").read_text().split('<h2 id="machine">')[0]
    check_page(out)


@pytest.mark.slow
def test_the_whole_plan(tmp_path):
    out = tmp_path / "report"
    with undrawn_figures():
        done = report(out)
    assert done.returncode == 0, done.stderr
    check_parts(out)
    check_page(out)
