import gzip
import io
import os
import pickle
import tarfile
import time
import tracemalloc

import numpy as np
import pytest

from linear_cifar import cifar10 as command
from linear_cifar.data import DataError, cifar10

NAMES = ("data_batch_1", "data_batch_2", "test_batch")


def batch(**changes):
    rng = np.random.default_rng(0)
    content = {
        b"batch_label": b"a batch",
        b"labels": rng.integers(0, 10, 10000).tolist(),
        b"data": rng.integers(0, 256, (10000, 3072), dtype=np.uint8),
    }
    return content | {key.encode(): value for key, value in changes.items()}


def dumped(content, protocol=3):
    # From protocol 3 on, bytes are bytes, and need no function to rebuild them.
    return pickle.dumps(content, protocol=protocol)


@pytest.fixture(scope="module")
def good():
    return dumped(batch())


@pytest.fixture
def folder(tmp_path, good):
    target = tmp_path / "cifar-10-batches-py"
    target.mkdir()
    for name in NAMES:
        (target / name).write_bytes(good)
    return target


def test_a_folder_of_one_s_own_is_read_and_said_not_to_be_official(folder):
    for place in (folder.parent, folder):
        batches, official, notice = cifar10.load_batches(NAMES, place)
        assert len(batches) == 3
        assert np.array_equal(batches[0][0], batch()[b"data"])
        assert batches[0][1].dtype == np.int32
        assert not official
        assert str(folder) in notice


@pytest.mark.slow
def test_the_archive_is_read_as_it_is(folder, tmp_path):
    archive = tmp_path / "elsewhere" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(folder, "cifar-10-batches-py")
    for place in (archive, archive.parent):
        batches, official, _ = cifar10.load_batches(NAMES, place)
        assert np.array_equal(batches[2][0], batch()[b"data"])
        assert not official
    assert list(archive.parent.iterdir()) == [archive]


def test_official_means_that_every_checksum_is_the_published_one(folder, good, monkeypatch):
    import hashlib

    digest = hashlib.md5(good).hexdigest()
    monkeypatch.setattr(cifar10, "BATCH_MD5", dict.fromkeys(cifar10.BATCH_MD5, digest))
    assert cifar10.load_batches(NAMES, folder)[1:] == (True, "")
    (folder / "test_batch").write_bytes(dumped(batch(batch_label=b"changed")))
    assert cifar10.load_batches(NAMES, folder)[1] is False


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder, tmp_path):
    mark = tmp_path / "mark"
    for protocol in (2, 3, 4):
        content = {"extra": Runs(str(mark))} if protocol == 2 else batch(extra=Runs(str(mark)))
        (folder / "data_batch_1").write_bytes(dumped(content, protocol))
        with pytest.raises(DataError, match=r"data_batch_1 is not a readable batch: it asks for"):
            cifar10.load_batches(NAMES, folder)
        assert not mark.exists()


def test_code_inside_an_array_of_objects_is_refused(folder, tmp_path):
    mark = tmp_path / "mark"
    array = np.array([Runs(str(mark))], dtype=object)
    (folder / "data_batch_1").write_bytes(dumped(batch(data=array)))
    with pytest.raises(DataError, match="asks for"):
        cifar10.load_batches(NAMES, folder)
    assert not mark.exists()


BAD = {
    "label 10": (batch(labels=[10] + [0] * 9999), "label 10 is not in 0 … 9"),
    "label -1": (batch(labels=[0] * 9999 + [-1]), "label -1 is not in"),
    "too few labels": (batch(labels=[0] * 9999), "not 10000 integers"),
    "labels of floats": (batch(labels=[0.5] * 10000), "not 10000 integers"),
    "ragged labels": (batch(labels=[[0], [0, 1]] * 5000), "not 10000 integers"),
    "wrong shape": (batch(data=np.zeros((10000, 3071), np.uint8)), r"shape \(10000, 3071\)"),
    "too few images": (batch(data=np.zeros((9999, 3072), np.uint8)), r"shape \(9999, 3072\)"),
    "images of floats": (batch(data=np.zeros((1, 1))), "not an array of uint8"),
    "no images": ({b"labels": [0] * 10000}, "no b'data'"),
    "a list": ([1, 2], "no b'data'"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_named(folder, content, message):
    (folder / "data_batch_2").write_bytes(dumped(content))
    with pytest.raises(DataError, match=message) as caught:
        cifar10.load_batches(NAMES, folder)
    assert "data_batch_2" in str(caught.value)
    assert "\n" not in str(caught.value)


def of_memory_only():
    """A pickle that asks numpy for an array of images, and says nothing of what is in it."""
    shape = pickle.dumps((10000, 3072), 2)[2:-1]
    labels = pickle.dumps([0] * 10000, 3)[2:-1]
    array = b"cnumpy\nndarray\n" + shape + b"X\x02\x00\x00\x00u1\x86R"
    return b"\x80\x03}(C\x04data" + array + b"C\x06labels" + labels + b"u."


def nested(depth=30):
    value = [0, 1]
    for _ in range(depth):
        value = [value, value]
    return value


HOSTILE = {
    "memory and no images": lambda good: of_memory_only(),
    "a place of the memo far away": lambda good: good[:2] + b"Nr\xff\xff\xff\x7f0" + good[2:],
    "a million dictionaries": lambda good: b"\x80\x03" + b"}" * 1_000_000 + b".",
    "labels that unfold": lambda good: dumped(batch(labels=nested())),
    "bytes that are not there": lambda good: b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",
    "a batch and megabytes": lambda good: good + bytes(10_000_000),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_batch_takes_no_more_memory_and_time_than_an_honest_one(folder, good, make):
    (folder / "test_batch").write_bytes(make(good))
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with pytest.raises(DataError, match=r"test_batch.*: .") as caught:
            cifar10.load_batches(("test_batch",), folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 150e6
    assert time.monotonic() - begun < 30  # under tracemalloc


def test_a_pipe_is_not_waited_for(folder):
    (folder / "test_batch").unlink()
    os.mkfifo(folder / "test_batch")
    with pytest.raises(DataError, match="test_batch cannot be read: it is no file"):
        cifar10.load_batches(NAMES, folder)


@pytest.mark.parametrize("inside", ["data_batch_1", "other"])
def test_an_archive_that_unpacks_to_more_than_cifar10_is_refused(tmp_path, inside):
    archive = tmp_path / "cifar-10-python.tar.gz"
    info = tarfile.TarInfo(inside)
    info.size = 400_000_000
    block = bytes(10_000_000)
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(40):
            file.write(block)
    with pytest.raises(DataError, match="more than"):
        cifar10.load_batches(NAMES, archive)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_the_command_reads_what_it_finds(tmp_path, content, capsys):
    (tmp_path / "file").write_bytes(content)
    assert command.main([str(tmp_path / "file")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")


@pytest.mark.parametrize("keep", [0, 1, 100, 20_000_000])
def test_a_truncated_batch_is_named(folder, good, keep):
    (folder / "test_batch").write_bytes(good[:keep])
    with pytest.raises(DataError, match="test_batch is not a readable batch"):
        cifar10.load_batches(NAMES, folder)


def test_noise_is_refused_whatever_it_unpickles_to(folder, good):
    rng = np.random.default_rng(0)
    for _ in range(200):
        header = bytearray(good[:400])
        for place in rng.integers(0, len(header), 3):
            header[place] = rng.integers(256)
        try:
            cifar10.parse_batch(bytes(header) + good[400:], "noise")
        except DataError as error:
            assert "noise" in str(error)


def test_a_missing_batch_is_named(folder):
    (folder / "data_batch_2").unlink()
    with pytest.raises(DataError, match="lacks data_batch_2"):
        cifar10.load_batches(NAMES, folder)


def test_a_corrupt_archive_is_named(folder, tmp_path):
    archive = tmp_path / "other" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, "cifar-10-batches-py")
    whole = buffer.getvalue()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 64])
    for content in (b"", b"not a gzip file", whole[:middle], flipped + whole[middle + 64 :]):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz"):
            cifar10.load_batches(NAMES, archive)


def test_an_archive_without_the_batches_is_named(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(DataError, match="lacks data_batch_1, data_batch_2, test_batch"):
        cifar10.load_batches(NAMES, archive)


def test_the_data_folder_is_that_of_the_environment_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    assert cifar10.default_data_dir() == tmp_path
    monkeypatch.delenv("LINEAR_CIFAR_DATA")
    assert cifar10.default_data_dir().name == "linear_cifar"
