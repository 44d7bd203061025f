"""CIFAR-10: batches, archive and download; and the synthetic images."""

import gzip
import hashlib
import http.server
import pickle
import runpy
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from linear_cifar import DataError, load_dataset
from linear_cifar.data import UnavailableError, cifar10, default_data_dir, synthetic
from tests.commands import few_images
from tests.loaders import Bomb, archive, python_2_pickle

NAMES = tuple(cifar10.BATCH_MD5)
N = 300  # images of a batch here, so that five batches have more than the 1,000 that validate
RNG = np.random.default_rng(0)
BATCHES = {
    name: (RNG.integers(0, 256, (N, 3072), np.uint8), RNG.integers(0, 10, N)) for name in NAMES
}
PICKLED = {name: python_2_pickle(*batch) for name, batch in BATCHES.items()}
ONE, TWO, *_, TEST = BATCHES.values()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH_ROWS", N)
    (tmp_path / cifar10.FOLDER).mkdir()
    for name, content in PICKLED.items():
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
    return tmp_path / cifar10.FOLDER


def assert_split(split, images, labels):
    assert np.array_equal(split.inputs, images)
    assert np.array_equal(split.labels, labels)
    assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("form", ["data folder", "folder", "archive"])
def test_a_users_own_copy_is_read_from_any_of_its_forms(folder, tmp_path, form):
    (tmp_path / "downloaded").mkdir()
    members = {name: PICKLED[name] for name in ("test_batch", "data_batch_2", "data_batch_1")}
    (tmp_path / "downloaded" / cifar10.ARCHIVE).write_bytes(gzip.compress(archive(members), 1))
    places = {"data folder": tmp_path, "folder": folder, "archive": tmp_path / "downloaded"}
    data = load_dataset("cifar10", places[form])
    assert_split(data.train, *ONE)
    assert_split(data.validation, *TWO)
    assert_split(data.test, *TEST)
    assert not data.official
    assert str(tmp_path) in data.notice


def test_the_full_split_trains_on_all_but_the_last_thousand_images(folder):
    data = load_dataset("cifar10", folder, split="full")
    images, labels = map(np.concatenate, zip(*list(BATCHES.values())[:5], strict=True))
    assert_split(data.train, images[:-1000], labels[:-1000])
    assert_split(data.validation, images[-1000:], labels[-1000:])
    assert_split(data.test, *TEST)


def test_an_image_is_its_red_green_and_blue_planes_row_by_row(folder):
    planes = np.zeros((N, 3072), np.uint8)
    planes[0, 5 * 32 + 7], planes[0, 2 * 1024] = 255, 100  # red in row 5, column 7; blue in 0, 0
    (folder / NAMES[0]).write_bytes(python_2_pickle(planes, [0] * N))
    data = load_dataset("cifar10", folder)
    image = data.train.inputs[0].reshape(data.image_shape)
    assert np.argwhere(image == 255).tolist() == [[0, 5, 7]]
    assert np.argwhere(image == 100).tolist() == [[2, 0, 0]]
    assert (data.class_names[0], data.class_names[9]) == ("airplane", "truck")


def test_official_means_that_every_checksum_matches(folder, monkeypatch):
    digests = {name: hashlib.md5(content).hexdigest() for name, content in PICKLED.items()}
    monkeypatch.setattr(cifar10, "BATCH_MD5", digests)
    data = load_dataset("cifar10", folder)
    assert (data.official, data.notice) == (True, "")
    (folder / "test_batch").write_bytes(PICKLED["test_batch"] + b"\0")
    assert not load_dataset("cifar10", folder).official


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder):
    batch = {b"labels": LABELS, b"data": np.array([Bomb(folder / "mark")], object)}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match="data_batch_1"):
        load_dataset("cifar10", folder)
    assert not (folder / "mark").exists()


IMAGES, LABELS = np.zeros((N, 3072), np.uint8), [7] * N
BAD_BATCHES = {
    "label 10": ({b"labels": [10, *LABELS[1:]], b"data": IMAGES}, "labels .* from 0 to 9"),
    "label -1": ({b"labels": [*LABELS[1:], -1], b"data": IMAGES}, "labels .* from 0 to 9"),
    "too few labels": ({b"labels": LABELS[1:], b"data": IMAGES}, "labels"),
    "another shape": ({b"labels": LABELS, b"data": IMAGES[:, 1:]}, "images"),
    "images of int8": ({b"labels": LABELS, b"data": IMAGES.view(np.int8)}, "images .*uint8"),
}


def test_a_damaged_object_number_takes_no_memory(folder):
    batch = pickle.dumps({b"labels": [], b"data": []}, 4)
    damaged = batch.replace(b"\x94", b"r" + (2**27).to_bytes(4, "little"), 1)  # a list of 1 GB
    assert damaged != batch
    (folder / "data_batch_1").write_bytes(damaged)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="data_batch_1"):
            load_dataset("cifar10", folder)
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("batch", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_file_that_is_no_batch_is_named(folder, batch, words):
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=rf"data_batch_2.*{words}") as caught:
        load_dataset("auto", folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("protocol", "dtype"), [(2, "u1"), (3, "<i8"), (4, ">i4")])
def test_a_batch_is_read_as_numpy_unpickles_it(folder, protocol, dtype, order):
    images, labels = ONE[0].copy(order), ONE[1].astype(dtype)
    content = pickle.dumps({b"labels": labels, b"data": images}, protocol)
    content = python_2_pickle(images, labels) if protocol == 2 else content
    expected = pickle.loads(content, encoding="bytes")
    assert np.array_equal(expected[b"data"], images)
    (folder / NAMES[0]).write_bytes(content)
    assert_split(load_dataset("cifar10", folder).train, expected[b"data"], expected[b"labels"])


@pytest.mark.usefixtures("offline")
def test_auto_without_data_is_synthetic_with_a_warning(tmp_path):
    with few_images(), pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load_dataset("auto", tmp_path)
    assert (data.name, data.official) == ("synthetic", False)
    assert "SYNTHETIC" in data.notice
    with pytest.raises(UnavailableError, match=r"no CIFAR-10 in .* by hand"):
        load_dataset("cifar10", tmp_path)


def test_synthetic_images_are_the_same_bytes_everywhere():
    images, labels = synthetic.batch(NAMES[0])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "5da9b5a57a4fee6b9d5423691f442912e97c1ff29c29e58d466c30b99907763d"
    for other in (synthetic.batch("test_batch"), synthetic.batch(NAMES[0], seed=1)):
        assert not np.array_equal(images, other[0])


def test_real_images_are_read(real, real_dir):
    with (cifar10.find_or_download(real_dir) / NAMES[0]).open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    assert_split(real.train, batch[b"data"], batch[b"labels"])
    assert real.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(real.test.labels).tolist() == [1000] * 10


def test_the_command_prints_the_path_of_the_batches_or_names_the_missing_one(
    folder, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["cifar10", str(folder.parent)])
    runpy.run_module("linear_cifar.data.cifar10", run_name="__main__")
    assert capsys.readouterr().out == f"{folder}\n"
    (folder / "data_batch_5").unlink()
    with pytest.raises(SystemExit, match=r"^error: .* lacks data_batch_5"):
        runpy.run_module("linear_cifar.data.cifar10", run_name="__main__")


def test_the_data_folder_comes_from_the_environment_or_is_in_the_cache(monkeypatch):
    monkeypatch.setenv("LINEAR_CIFAR_DATA", "data")
    assert str(default_data_dir()) == "data"
    monkeypatch.delenv("LINEAR_CIFAR_DATA")
    assert default_data_dir().name == "linear_cifar"


CONTENT = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the archive, or fails in the way that the path names."""

    def do_GET(self):
        kind = self.path[1:]
        self.send_response(404 if kind == "missing" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"good": CONTENT, "wrong": CONTENT[::-1]}.get(kind, CONTENT[:1000]))
        time.sleep(1 if kind == "stalled" else 0)

    def log_message(self, *_):
        pass


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Downloads from mirrors that behave as named, one after the other."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "TIMEOUT", (4, 0.5))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        place, digest = f"http://127.0.0.1:{server.server_port}", hashlib.sha256(CONTENT)
        yield lambda *kinds: cifar10.download(
            tmp_path / "data", [f"{place}/{kind}" for kind in kinds], digest.hexdigest()
        )
        server.shutdown()


@pytest.mark.parametrize("bad", ["missing", "wrong", "truncated", "stalled"])
def test_a_download_after_a_bad_mirror_arrives_undamaged_alone_and_silently(
    fetch, tmp_path, capfd, bad
):
    path = fetch(bad, "good")
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")
    assert cifar10.find_or_download(tmp_path / "data") == path


def test_a_failed_download_names_each_mirrors_fault_in_one_line_and_leaves_no_file(fetch, tmp_path):
    faults = r"404.* wrong checksum.* connection failed"
    with pytest.raises(UnavailableError, match=faults) as caught:
        fetch("missing", "wrong", "truncated")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").iterdir())


def test_a_download_folder_that_cannot_be_written_is_an_error(fetch, tmp_path):
    (tmp_path / "data").write_text("a file in place of the folder")
    with pytest.raises(UnavailableError, match="cannot write to"):
        fetch("good")
