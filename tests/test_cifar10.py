"""CIFAR-10: batches, archive and download; and the synthetic images."""

import gzip
import hashlib
import http.server
import logging
import os
import pickle
import runpy
import sys
import threading

import numpy as np
import pooch
import pytest

from linear_cifar import DataError, load_dataset
from linear_cifar.data import UnavailableError, cifar10, default_data_dir, synthetic
from tests.commands import few_images
from tests.loaders import Bomb, archive, python_2_pickle

NAMES = tuple(cifar10.BATCH_MD5)
N = 300  # images of a batch here, so that five batches have more than the 1,000 that validate


def draw(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (N, 3072), dtype=np.uint8), rng.integers(0, 10, N)


BATCHES = {name: draw(number) for number, name in enumerate(NAMES)}
PICKLED = {
    name: python_2_pickle(images, labels.tolist()) for name, (images, labels) in BATCHES.items()
}
ONE, TWO, *_, FIVE, TEST = BATCHES.values()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH_ROWS", N)
    (tmp_path / cifar10.FOLDER).mkdir()
    for name, content in PICKLED.items():
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
    return tmp_path / cifar10.FOLDER


def assert_split(split, images, labels):
    assert np.array_equal(split.inputs, images)
    assert split.labels.tolist() == labels.tolist()
    assert (split.inputs.dtype, split.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("form", ["data folder", "folder", "archive"])
def test_a_user_s_own_copy_is_read_from_any_of_its_forms(folder, tmp_path, form):
    (tmp_path / "downloaded").mkdir()
    members = {name: PICKLED[name] for name in ("test_batch", "data_batch_2", "data_batch_1")}
    (tmp_path / "downloaded" / cifar10.ARCHIVE).write_bytes(gzip.compress(archive(members), 1))
    places = {"data folder": tmp_path, "folder": folder, "archive": tmp_path / "downloaded"}
    data = load_dataset("cifar10", places[form])
    for split, batch in zip(
        (data.train, data.validation, data.test), (ONE, TWO, TEST), strict=True
    ):
        assert_split(split, *batch)
    assert not data.official
    assert str(tmp_path) in data.notice


def test_the_full_data_train_on_five_batches_but_the_last_thousand_images(folder):
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
    assert {tuple(place): image[tuple(place)] for place in np.argwhere(image).tolist()} == {
        (0, 5, 7): 255,
        (2, 0, 0): 100,
    }
    assert data.class_names[0] == "airplane"
    assert data.class_names[9] == "truck"


def test_official_means_that_every_checksum_matches(folder, monkeypatch):
    digests = {name: hashlib.md5(content).hexdigest() for name, content in PICKLED.items()}
    monkeypatch.setattr(cifar10, "BATCH_MD5", digests)
    data = load_dataset("cifar10", folder)
    assert (data.official, data.notice) == (True, "")
    (folder / "test_batch").write_bytes(PICKLED["test_batch"] + b"\0")
    assert not load_dataset("cifar10", folder).official


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("inside", ["dictionary", "array"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder, protocol, inside):
    bomb = Bomb(folder / "mark")
    batch = {b"data": np.array([bomb], object) if inside == "array" else bomb, b"labels": []}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(DataError, match="data_batch_1"):
        load_dataset("cifar10", folder)
    assert not (folder / "mark").exists()


IMAGES, LABELS = np.zeros((N, 3072), np.uint8), [7] * N


def pickled(labels=LABELS, data=IMAGES):
    return pickle.dumps({b"labels": labels, b"data": data}, 4)


BAD_BATCHES = {
    "label 10": (pickled([10, *LABELS[1:]]), "labels .* from 0 to 9"),
    "label -1": (pickled([*LABELS[1:], -1]), "labels .* from 0 to 9"),
    "too few labels": (pickled(LABELS[1:]), "labels"),
    "labels of floats": (pickled([0.5] * N), "labels"),
    "another shape": (pickled(data=IMAGES[:, 1:]), "images"),
    "images of int8": (pickled(data=IMAGES.view(np.int8)), "images .*uint8"),
    "an object's number beyond memory": (pickled().replace(b"\x94", b"r\xff\xff\xff\x0f", 1), ""),
    "no images": (pickle.dumps({b"labels": LABELS}), ""),
    "an array of another shape than its bytes": (
        python_2_pickle(IMAGES[1:], LABELS, IMAGES.shape),
        "",
    ),
    "objects": (python_2_pickle(IMAGES, LABELS, kind=b"O8"), ""),
    "another class of NumPy": (python_2_pickle(IMAGES, LABELS, global_name=b"numpy\nmemmap"), ""),
}


@pytest.mark.parametrize(("content", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_file_that_is_no_batch_is_named(folder, content, words):
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match=rf"data_batch_2.*{words}") as caught:
        load_dataset("auto", folder)
    assert "\n" not in str(caught.value)


WRITERS = {
    "Python 2": lambda images, labels: python_2_pickle(images, labels.tolist()),
    "protocol 3": lambda x, y: pickle.dumps({b"labels": y.astype("<i8"), b"data": x}, 3),
    "protocol 4": lambda x, y: pickle.dumps({b"labels": y.astype(">i4"), b"data": x}, 4),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_batch_is_read_as_numpy_unpickles_it(folder, write, order):
    content = write(ONE[0].copy(order), ONE[1])
    (folder / NAMES[0]).write_bytes(content)
    expected = pickle.loads(content, encoding="bytes")
    assert np.array_equal(expected[b"data"], ONE[0])
    train = load_dataset("cifar10", folder).train
    assert_split(train, expected[b"data"], np.array(expected[b"labels"]))
    assert train.inputs.flags.c_contiguous


def test_an_absurdly_large_batch_is_refused_without_reading_it(folder):
    (folder / "test_batch").write_bytes(b"")
    os.truncate(folder / "test_batch", 10**10)
    with pytest.raises(DataError, match="test_batch"):
        load_dataset("cifar10", folder)


@pytest.mark.parametrize("replacement", [lambda path: None, os.mkfifo], ids=["nothing", "a pipe"])
def test_a_missing_batch_is_named_and_a_pipe_is_not_waited_for(folder, replacement):
    (folder / "data_batch_2").unlink()
    replacement(folder / "data_batch_2")
    with pytest.raises(DataError, match="lacks data_batch_2"):
        load_dataset("cifar10", folder)


def test_auto_without_data_is_synthetic_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # every download fails at once
    with few_images(), pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load_dataset("auto", tmp_path)
    assert (data.name, data.official) == ("synthetic", False)
    assert "SYNTHETIC" in data.notice
    with pytest.raises(UnavailableError, match=r"no CIFAR-10 in .* by hand"):
        load_dataset("cifar10", tmp_path)


def test_synthetic_images_are_the_same_bytes_everywhere():
    images, labels = synthetic.batch(NAMES[0])
    assert np.bincount(labels, minlength=10).min() > 900
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "5da9b5a57a4fee6b9d5423691f442912e97c1ff29c29e58d466c30b99907763d"
    for other in (synthetic.batch("test_batch"), synthetic.batch(NAMES[0], seed=1)):
        assert not np.array_equal(images, other[0])


def test_real_images_are_read(real, real_dir):
    with (cifar10.find_or_download(real_dir) / NAMES[0]).open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    assert_split(real.train, batch[b"data"], np.array(batch[b"labels"]))
    assert real.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(real.test.labels).tolist() == [1000] * 10
    assert real.official == (not real.notice)


def test_the_command_prints_the_path_of_the_batches(folder, monkeypatch, capsys):
    def command(argument):
        monkeypatch.setattr(sys, "argv", ["cifar10", str(argument)])
        runpy.run_module("linear_cifar.data.cifar10", run_name="__main__")

    command(folder.parent)
    out, errors = capsys.readouterr()
    assert out == f"{folder}\n"
    assert errors.startswith("note: ")
    (folder / "data_batch_5").write_bytes(b"text")
    with pytest.raises(SystemExit, match=r"^error: .*data_batch_5"):
        command(folder.parent)
    with pytest.raises(SystemExit, match=r"^usage: "):
        command("--bogus")


def test_the_data_folder_comes_from_the_environment_or_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("LINEAR_CIFAR_DATA")
    assert default_data_dir().name == "linear_cifar"


CONTENT = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the archive undamaged or badly, as the first part of the path says."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(kind)
        self.send_response(404 if kind == "missing" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"good": CONTENT, "wrong": CONTENT[::-1]}.get(kind, CONTENT[:1000]))
        if kind == "stalled":
            self.server.released.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.released = [], threading.Event()
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.released.set()
        httpd.shutdown()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Downloads from the server in some of its ways, or from other addresses, in turn."""
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(cifar10, "TIMEOUT", (4, 0.5))
    server.requests.clear()

    def fetch(*kinds):
        local = f"http://127.0.0.1:{server.server_port}"
        urls = [kind if "://" in kind else f"{local}/{kind}/a.tar.gz" for kind in kinds]
        return cifar10.download(fetch.folder, urls, hashlib.sha256(CONTENT).hexdigest())

    fetch.folder = tmp_path / "data"
    return fetch


def test_a_download_arrives_undamaged_alone_and_silently(fetch, server, capfd, caplog, monkeypatch):
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    pooch.get_logger().setLevel(logging.DEBUG)
    path = fetch("good", "missing")
    assert path.read_bytes() == CONTENT
    assert list(fetch.folder.iterdir()) == [path]
    assert server.requests == ["good"]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert cifar10.find_or_download(fetch.folder) == path


@pytest.mark.parametrize("bad", ["missing", "wrong", "truncated", "stalled"])
def test_the_next_mirror_is_tried_after_a_bad_one(fetch, server, bad):
    assert fetch(bad, "good").read_bytes() == CONTENT
    assert server.requests == [bad, "good"]


def test_the_error_names_each_mirror_and_its_reason(fetch):
    with pytest.raises(UnavailableError) as caught:
        fetch("missing", "wrong", "truncated", "http://127.0.0.1:1/a.tar.gz")
    for words in ("404", "wrong checksum", "127.0.0.1:1: the connection failed"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(fetch.folder.iterdir())


def test_an_unwritable_folder_is_a_one_line_error(fetch):
    fetch.folder.write_text("a file in place of the folder")
    with pytest.raises(UnavailableError, match="cannot write to"):
        fetch("good")
