"""Damaged files of every kind: the data that they are meant to hold, or one line that refuses."""

import contextlib

import pytest
from hypothesis import example, given, settings, strategies as st

from linear_cifar import InputError
from tests.loaders import LOADERS, check_read_or_refused, undamaged


@st.composite
def damaged(draw, files):
    """One of the files after a few changes, most of them near its ends, where its headers are."""
    content = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 3))):
        size = len(content)
        near_an_end = st.integers(0, min(size, 200)) | st.integers(max(0, size - 200), size)
        start = draw(near_an_end | st.integers(0, size))
        old = content[start : start + draw(st.integers(1, 40))]
        flips = st.integers(0, 8 * len(old)).map(lambda bit, old=old: flipped(old, bit))
        new = st.sampled_from([b"", bytes(len(old)), b"\xff" * len(old), old * 2])
        after = draw(st.sampled_from([content[start + len(old) :]] * 9 + [b""]))
        content = content[:start] + draw(flips | st.binary(max_size=40) | new) + after
    return draw(st.sampled_from([content] * 9 + [b"", bytes(len(content))]))


def flipped(content, bit):
    number = int.from_bytes(content, "little") ^ (1 << bit)
    return number.to_bytes(len(content) + 1, "little")[: len(content)]


# Bytes that once broke a loader: an error of two lines; letters beyond Unicode; half a pair of
# surrogates; a header that ends too soon; a shape that is smaller than the array.
FOUND = (
    ("a.parquet", b"\x15\x00", b"\xff\xff"),
    ("y.npy", b"0\0\0\0", b"\xff\xff\xff\xff"),
    ("y.npy", b"0\0\0\0", b"\0\xd8\0\0"),
    ("m.npz", b"), }", b"(, {"),
    ("names in m.npz", b"), }", b"(, {"),
    ("x.npy", b"(120, 13)", b"(120, 12)"),
    ("a.npz", b"(120, 13)", b"(120, 12)"),
    ("x in a.npz", b"(120, 13)", b"(120, 12)"),
)


def with_found(test):
    for name, old, new in FOUND:
        for content in LOADERS[name].files:
            test = example((name, content.replace(old, new)))(test)
    return test


@st.composite
def damaged_files(draw):
    name = draw(st.sampled_from(list(LOADERS)))
    return name, draw(damaged(LOADERS[name].files))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@settings(max_examples=15 * settings().max_examples)
@given(damaged_files())
@with_found
def test_a_damaged_file_is_read_or_refused_in_one_line_and_a_checksum_is_believed(folder, file):
    check_read_or_refused(folder, *file)


@pytest.mark.parametrize(
    "name", sorted(LOADERS.keys() - {"a.csv"})
)  # a table without some rows is one
def test_an_undamaged_file_is_read_and_one_that_is_cut_is_never_read_short(folder, name):
    for content, data in zip(LOADERS[name].files, undamaged(folder, name), strict=True):
        for size in (0, 1, len(content) // 2, *range(len(content) - 9, len(content))):
            with contextlib.suppress(InputError):
                assert LOADERS[name].read(folder, content[:size]) == data
