"""Damaged files of every kind: the data that they are meant to hold, or one line that refuses."""

import contextlib
import zipfile

import pytest
from hypothesis import example, given, settings, strategies as st

from linear_cifar import InputError, load_features
from tests.loaders import FILES, check_read_or_refused, read, undamaged


@st.composite
def damaged_files(draw):
    """A file's name, and its content after a few changes, mostly to its headers."""
    name = draw(st.sampled_from(list(FILES)))
    content = draw(st.sampled_from(FILES[name]))
    for _ in range(draw(st.integers(1, 3))):
        size = len(content)
        place = st.integers(0, min(size, 200))
        start = draw(place | place.map(lambda i, size=size: size - i) | st.integers(0, size))
        old = content[start : start + draw(st.integers(1, 40))]
        flipped = bytes([old[0] ^ 1 << draw(st.integers(0, 7))]) + old[1:] if old else b""
        changes = [flipped, b"", bytes(len(old)), b"\xff" * len(old), old * 2]
        new = draw(st.sampled_from(changes) | st.binary(max_size=40))
        rest = content[start + len(old) :]
        content = content[:start] + new + draw(st.sampled_from([rest] * 9 + [b""]))
    return name, draw(st.sampled_from([content] * 9 + [b"", bytes(len(content))]))


def known_fault(name, old, new):
    """Adds each file of this name that has `old`, with `new`, which once broke a loader."""
    damaged = [content.replace(old, new) for content in FILES[name] if old in content]
    assert damaged, f"no {name} has {old}"

    def with_examples(test):
        for content in damaged:
            test = example((name, content))(test)
        return test

    return with_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@settings(max_examples=15 * settings().max_examples)
@given(damaged_files())
@known_fault("a.parquet", b"\x15\x00", b"\xff\xff")  # an error of two lines
@known_fault("y.npy", b"0\0\0\0", b"\xff\xff\xff\xff")  # letters beyond Unicode
@known_fault("y.npy", b"0\0\0\0", b"\0\xd8\0\0")  # half a pair of surrogates
@known_fault("m.npz", b"), }", b"(, {")  # a header that ends too soon
@known_fault("a.npz", b"(120, 13)", b"(120, 12)")  # a header that says that the array is smaller
def test_a_damaged_file_is_read_or_refused_in_one_line_and_checksums_catch_changes(folder, file):
    check_read_or_refused(folder, *file)


@pytest.mark.parametrize("name", [name for name in FILES if name != "a.csv"])  # it has no length
def test_a_file_that_is_cut_short_is_refused_or_read_in_full(folder, name):
    for content, data in zip(FILES[name], undamaged(folder, name), strict=True):
        for size in (0, 1, len(content) // 2, *range(len(content) - 9, len(content))):
            with contextlib.suppress(InputError):
                assert read(name, folder, content[:size]) == data


@pytest.mark.parametrize("name", ["x.npy", "a.npz"])
def test_an_array_longer_than_its_header_says_is_refused(tmp_path, name):
    content = FILES["x.npy"][0].replace(b"(120, 13)", b"(120, 12)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:  # whose checksums fit
        for array, member in (("x.npy", content), ("y.npy", FILES["y.npy"][0])):
            archive.writestr(array, member)
            (tmp_path / array).write_bytes(member)
    with pytest.raises(InputError, match="cannot be read"):
        load_features(tmp_path / name)
