"""A short, seeded part of the campaign (tests/campaign), and what it ever found in files."""

import contextlib
import json
import time

import numpy as np
import pytest

from tests.campaign import figures, loaders, parts, refusals, samples
from tests.campaign.__main__ import main
from tests.campaign.parts import Part

PROPERTIES = {
    f"{module.__name__.rpartition('.')[2]}.{name}": getattr(module, name)
    for module in (figures, refusals, samples)
    for name in module.PARTS
}


def mutated(rng: np.random.Generator, honest: list[bytes]) -> bytes:
    """An honest file with a few changes."""
    content = bytearray(honest[rng.integers(len(honest))])
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(content) + 1, 2))
        stop = min(stop, start + int(rng.choice([0, 1, 4, 40])))
        new = rng.choice([rng.bytes(stop - start), bytes(stop - start), b"\xff" * (stop - start)])
        content[start:stop] = rng.choice([new, b"", bytes(content[start:stop]) * 2])
    return bytes(content[: rng.integers(len(content))] if rng.random() < 0.1 else content)


@pytest.mark.parametrize("name", loaders.LOADERS)
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path, name):
    honest, rng = loaders.LOADERS[name].honest(), np.random.default_rng(0)
    with loaders.LOADERS[name].reader(tmp_path) as read:
        for content in [*honest, b"", *(mutated(rng, honest) for _ in range(80))]:
            read(content)


FOUND = {
    "an error of two lines": ("parquet", b"\x15\x00", b"\xff\xff"),
    "letters beyond Unicode": ("labels", b"0\0\0\0", b"\xff\xff\xff\xff"),
    "half a pair of surrogates": ("labels", b"0\0\0\0", b"\0\xd8\0\0"),
    "a header that ends too soon": ("model_npz", b"), }", b"(, {"),
}


@pytest.mark.parametrize(("name", "old", "new"), FOUND.values(), ids=FOUND)
def test_what_was_found_is_refused(tmp_path, name, old, new):
    with loaders.LOADERS[name].reader(tmp_path) as read:
        for content in loaders.LOADERS[name].honest():
            read(content.replace(old, new))


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_holds(name):
    PROPERTIES[name].check(20, 0)


def test_a_case_is_repeated_by_its_seed_and_number():
    def case(rng, folder):
        assert folder.is_dir()
        return str(rng.random())

    def tried(numbers):
        return list(parts.trials(Part("numbers", 1, case), 3, numbers, 10))

    assert tried(range(3))[2:] == tried([2])
    assert len({failure for _, failure in tried(range(9))}) == 9


def test_what_a_case_raises_is_its_failure():
    def case(*_):
        raise RuntimeError("that is how it is")

    ((_, failure),) = parts.trials(Part("cases", 1, case), 0, [0], 10)
    assert failure.endswith("RuntimeError: that is how it is\n")


@pytest.mark.slow
def test_a_campaign_tells_what_it_tried(tmp_path):
    from commands import run_process

    words = ("--minutes=0.02", "--only=samples.unit_rows", f"--output={tmp_path / 'table.json'}")
    done = run_process("tests.campaign", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert row["tried"] >= 50
    assert not row["failed"]


def test_a_case_is_repeated_however_long_its_setting_takes(monkeypatch, capsys):
    @contextlib.contextmanager
    def slowly(place):
        time.sleep(1.1)
        yield place

    part = Part("cases", 1, lambda rng, made: None, slowly)
    monkeypatch.setattr(parts, "every", lambda *_: {"some.part": part})
    assert main(["--only=some.part", "--case=0"]) == 0
    assert capsys.readouterr().out == "nothing failed\n"
