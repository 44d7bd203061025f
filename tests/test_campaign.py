"""A short, seeded part of the campaign (tests/campaign), and what it once found in files."""

import numpy as np
import pytest

from tests.campaign import __main__ as campaign, command_lines, kills, readers, small, surroundings
from tests.conftest import undrawn_figures


def failures(case, numbers, prepared):
    found = (case(np.random.default_rng((0, number)), prepared) for number in numbers)
    return [failure for failure in found if failure]


@pytest.mark.parametrize("name", readers.LOADERS)
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path, name):
    loader, rng = readers.LOADERS[name], np.random.default_rng(0)
    intact = loader.intact(tmp_path)
    with loader.reader(tmp_path) as read:
        for content in [*intact, b"", *(readers.mutated(rng, intact) for _ in range(60))]:
            read(content)


FOUND = {
    "an error of two lines": ("parquet", b"\x15\x00", b"\xff\xff"),
    "letters beyond Unicode": ("labels", b"0\0\0\0", b"\xff\xff\xff\xff"),
    "half a pair of surrogates": ("labels", b"0\0\0\0", b"\0\xd8\0\0"),
    "a header that ends too soon": ("model_npz", b"), }", b"(, {"),
}


@pytest.mark.parametrize(("name", "old", "new"), FOUND.values(), ids=FOUND)
def test_what_was_found_is_refused(tmp_path, name, old, new):
    with readers.LOADERS[name].reader(tmp_path) as read:
        for content in readers.LOADERS[name].intact(tmp_path):
            read(content.replace(old, new))


def test_any_text_of_a_flag_is_a_value_or_one_line_that_names_the_flag(tmp_path):
    assert not failures(command_lines.parsed, range(150), tmp_path)


def test_any_text_of_an_axis_is_values_or_one_line(tmp_path):
    assert not failures(command_lines.axes, range(60), tmp_path)


@pytest.mark.slow
def test_a_signal_at_any_call_has_its_exit_code_and_costs_nothing(tmp_path):
    with kills.counted_runs(tmp_path) as runs:
        assert not failures(kills.signalled, range(4), runs)


@pytest.mark.slow
def test_a_process_survives_signals_at_any_time(tmp_path):
    name = "experiments.sweep"
    runs = {name: kills.run_uninterrupted(name, tmp_path / "run")}
    assert not failures(kills.process_killed, range(1), runs)


@pytest.mark.slow
def test_records_are_whole_in_any_surroundings(tmp_path):
    assert not failures(surroundings.surrounded, range(2), tmp_path)


def test_the_campaign_says_what_failed_and_how_to_repeat_it(monkeypatch, capsys):
    def case(rng, folder):
        assert folder.is_dir()
        assert rng.random() < 0.5, "too large"

    monkeypatch.setattr(campaign, "PARTS", {"numbers": campaign.Part(case)})
    numbers = [n for n in range(9) if np.random.default_rng((0, n)).random() >= 0.5]
    tried = dict(campaign.trials(campaign.PARTS["numbers"], 0, range(9)))
    assert [n for n, failure in tried.items() if failure] == numbers
    assert campaign.main(["--only=numbers", f"--case={numbers[0]}"]) == 1
    shown = capsys.readouterr().out
    assert "too large" in shown
    assert f"--only=numbers --seed=0 --case={numbers[0]}\n" in shown


def test_an_uninterrupted_run_is_equal_to_itself_only(tmp_path):
    """The campaign's comparison of folders finds a changed number, and a file too many."""
    from tests.campaign import folders

    with undrawn_figures():
        whole = small.run_uninterrupted("experiments.baseline", tmp_path / "run").whole
    assert folders.difference(whole, whole) is None
    name = "result.json"
    changed = {**whole, name: whole[name].replace(b'"n_epochs": 2', b'"n_epochs": 3')}
    assert name in folders.difference(changed, whole)
    assert "mine" in folders.difference({**whole, "mine": b""}, whole)
    assert "params.npz" in folders.difference({**whole, "params.npz": b""}, whole)
