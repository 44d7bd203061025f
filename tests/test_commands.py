"""What every command has to do; a new command needs a line in `tests.tiny.COMMANDS`.

What commands have in common is tested with `baseline`, which writes its run at the end, and with
`sweep`, which resumes.
"""

import fcntl
import json
import os
import re
import shutil
import time
from functools import cache

import pytest

from experiments.__main__ import summaries
from tests import folders, tiny
from tests.commands import (
    CODES,
    check_every_file,
    files,
    only_line,
    parsing,
    result,
    run,
)

BOTH = ("baseline", "sweep")
# `test_report` runs the report; the other two are `baseline` with other defaults.
RUN = [name for name in tiny.COMMANDS if name not in ("report", "step_decay", "full_data")]
every_command = pytest.mark.parametrize("name", tiny.COMMANDS)
both = pytest.mark.parametrize("name", BOTH)
WITH_RANGE = {"seed", "n_seeds", "n_epochs", "batch_size", "lam", "learning_rate", "max_runs"}
WITH_RANGE |= {"tolerance", "max_passes", "decay_factor", "decay_every"}
each_run = pytest.mark.parametrize(
    "name", [*BOTH, *(pytest.param(n, marks=pytest.mark.slow) for n in RUN if n not in BOTH)]
)


@pytest.fixture(scope="module", autouse=True)
def _reduced():
    with tiny.reduced():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run by command; a test works on a copy."""

    @cache
    def finish(name):
        out = tmp_path_factory.mktemp(name) / "out"
        done = run(*tiny.words(name, out))
        assert done.returncode == 0, done.stderr
        return out

    return finish


def at_the_ends(text):
    """The values at the ends of a range in words, and the next ones outside."""
    inside, outside = [], []
    for word, end in re.findall(r"(from|to|at least|above|at most|below) (-?[\d.]+)", text):
        step = -1 if word in ("from", "at least", "above") else 1
        is_open = word in ("above", "below")
        inside.append(float(end) - step / 2 if is_open else end)
        outside.append(end if is_open else int(end) + step)
    return inside, outside


def test_every_module_is_a_command_of_this_suite():
    assert set(summaries()) == set(tiny.COMMANDS)


@every_command
def test_help_lists_every_flag_with_the_range_and_the_choices_that_hold(name):
    done = run(f"experiments.{name}", "--helpshort")
    assert done.returncode == 0
    help_of = dict(re.findall(r"^  --(\w+).*\n((?: {6}.*\n?)+)", done.stdout, re.MULTILINE))
    with parsing(f"experiments.{name}") as parsed:
        assert help_of.keys() == parsed.keys()
        for flag, lines in help_of.items():
            text = " ".join(lines.split())
            limits = re.search(r"; ((?:from|at least|above) [^;]*?)\.( |$)", text)
            assert limits or flag not in WITH_RANGE
            inside, outside = at_the_ends(limits[1]) if limits else ([], [])
            if choices := re.match(r"<([\w|]+)>: ", text):
                inside, outside = choices[1].split("|"), ["bogus"]
            for value in inside if flag != "max_runs" else ():  # the default runs are more
                done = run(f"experiments.{name}", f"--{flag}={value}")
                assert done.returncode == 0, done.stderr
            for value in outside:
                assert flag in only_line(run(f"experiments.{name}", f"--{flag}={value}"))


@every_command
@pytest.mark.usefixtures("offline")
def test_missing_or_damaged_data_are_one_line_and_leave_no_folder(tmp_path, name):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    for data in (tmp_path / "none", archive):
        source = ("--dataset=cifar10", f"--data_dir={data}")
        source = (f"--features={data}",) if name == "probe" else source
        words = (*source, f"--output_dir={tmp_path / 'run'}")
        assert str(data) in only_line(run(f"experiments.{name}", *words))
    assert not (tmp_path / "run").exists()


def file_of_another(out):
    (out / "thesis.txt").write_text("mine")


def file(out):
    out.rmdir()
    out.write_text("mine")


def run_of_another_command(out):
    (out / "result.json").write_text('{"experiment": "another", "files": []}')


def finished_run(out):
    record = {"experiment": out.name, "files": ["table.csv"]}
    (out / "result.json").write_text(json.dumps(record))
    (out / "table.csv").write_text("")


def unwritable(out):
    finished_run(out)
    out.chmod(0o555)


def in_unwritable(out):
    out.rmdir()
    out.parent.chmod(0o555)


def in_use(out):
    finished_run(out)
    fcntl.flock(os.open(out, os.O_RDONLY), fcntl.LOCK_EX)


REFUSED = [
    (finished_run, "", "--overwrite"),
    (file_of_another, "--overwrite", ""),
    (file, "--overwrite", "is a file"),
    (run_of_another_command, "--overwrite", "another"),
    (unwritable, "--overwrite", "Permission denied"),
    (in_unwritable, "", "Permission denied"),
    (in_use, "--overwrite", "in use"),
]


@pytest.mark.parametrize(
    ("name", "make", "words", "named"),
    [
        *((name, *REFUSED[0]) for name in tiny.COMMANDS if name not in BOTH),
        *((name, *row) for name in BOTH for row in REFUSED),
    ],
)
def test_a_folder_that_cannot_be_written_is_left_as_it_is_before_data_are_loaded(
    tmp_path, monkeypatch, name, make, words, named
):
    for load in ("load_dataset", "load_features"):
        monkeypatch.setattr(f"experiments.common.data.{load}", lambda *_, **__: pytest.fail("data"))
    out = tmp_path / "deep" / name
    out.mkdir(parents=True)
    make(out)
    before = folders.read(tmp_path)
    with folders.permissions_apply():
        line = only_line(run(*tiny.words(name, out), *words.split()))
    assert str(out) in line
    assert named in line
    assert folders.read(tmp_path) == before


@each_run
def test_a_run_is_recorded_with_its_data_settings_and_files(finished, name):
    out = finished(name)
    check_every_file(out)
    record = result(out)
    assert record["experiment"] == name
    assert {"name", "sha256", "sizes", "official"} <= set(record["dataset"])
    assert set(record["seconds"]) == {"load", "compile", "train", "evaluate", "plot"}
    assert {"python", "jax", "numpy", "linear_cifar"} <= set(record["versions"])
    assert "device" in record
    for word in tiny.COMMANDS[name]:
        flag, _, value = word.strip("-").partition("=")
        if flag in ("n_epochs", "n_folds", "n_seeds", "shuffle"):
            assert record[flag] == json.loads(value or "true")
    marks = {"result.json", "started.json"}
    written = {name for name in files(out) - marks if not name.startswith("chunks/")}
    assert set(record["files"]) == written


def test_the_seconds_of_a_run_are_those_of_its_phases(tmp_path):
    began = time.perf_counter()
    assert run(*tiny.words("baseline", tmp_path / "out")).returncode == 0
    elapsed = time.perf_counter() - began
    seconds = result(tmp_path / "out")["seconds"]
    assert sum(seconds.values()) < elapsed
    assert min(seconds[name] for name in ("load", "train", "evaluate", "plot")) > 0


def test_progress_is_ten_lines_that_tell_the_share(tmp_path):
    done = run(*tiny.words("baseline", tmp_path / "out"), "--n_epochs=25")
    shares = [int(share) for share in re.findall(r"^\[ *(\d+) %\]", done.stderr, re.MULTILINE)]
    assert shares == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]  # the first epochs past each tenth


@both
def test_overwrite_replaces_every_file_of_a_run(finished, tmp_path, name):
    out = shutil.copytree(finished(name), tmp_path / "copy")
    done = run(*tiny.words(name, out), "--overwrite", "--seed=9", "--figure_format=pdf")
    assert done.returncode == 0, done.stderr
    assert result(out)["seed"] == 9
    expected = {path.replace(".png", ".pdf") for path in files(finished(name))}
    assert files(tmp_path) == {f"copy/{path}" for path in expected}


def test_the_default_folder_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(*tiny.words("baseline", "")[:-1]).returncode == 0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 2


@pytest.mark.parametrize("number", CODES)
def test_a_signal_has_its_exit_code(tmp_path, number):
    done = run(*tiny.words("baseline", tmp_path / "out"), interrupt_at="%]", by=number)
    assert done.returncode == CODES[number], done.stderr


@each_run
def test_an_interrupt_keeps_what_is_finished_and_leaves_nothing_half_written(
    finished, tmp_path, name
):
    out, line = tmp_path / "out", tiny.words(name, tmp_path / "out")
    done = run(*line, interrupt_at="section" if name == "benchmark" else "%]")
    assert done.returncode == 130, done.stderr
    assert not [path for path in files(tmp_path) if ".partial-" in path]
    check_every_file(tmp_path)
    if name in tiny.RESUMABLE:
        assert f"--resume --output_dir={out}" in done.stderr.splitlines()[-1]
        assert run(*line, "--resume").returncode == 0
        folders.assert_same(folders.read(out), folders.read(finished(name)))
    elif name in ("baseline", "loss_comparison"):
        assert "result.json" in files(out) <= files(finished(name))
        assert result(out)["interrupted"] is True
    else:
        assert "interrupted: nothing written" in done.stderr
        assert not list(tmp_path.iterdir())
