"""CIFAR-10: batches, archive and download; and the synthetic images."""

import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import ssl
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pooch
import pytest
import trustme

from linear_cifar.data import DataError, UnavailableError, cifar10, load_dataset, synthetic
from linear_cifar.data.cifar10 import default_data_dir, download
from linear_cifar.errors import InputError

NAMES = tuple(cifar10.BATCH_MD5)


def content(**changes):
    rng = np.random.default_rng(0)
    batch = {
        b"batch_label": b"a batch",
        b"labels": rng.integers(0, 10, 10000).tolist(),
        b"data": rng.integers(0, 256, (10000, 3072), dtype=np.uint8),
    }
    return batch | {key.encode(): value for key, value in changes.items()}


@pytest.fixture(scope="module")
def good():
    return pickle.dumps(content(), protocol=3)


@pytest.fixture
def folder(tmp_path, good):
    target = tmp_path / "cifar-10-batches-py"
    target.mkdir()
    (target / NAMES[0]).write_bytes(good)
    for name in NAMES[1:]:
        (target / name).hardlink_to(target / NAMES[0])
    return target


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails at once."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")


def replace(path, data):
    path.unlink()
    path.write_bytes(data)


@pytest.fixture(scope="module")
def archive(good):
    """The archive's bytes, with the batches of the assignment."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as tar:
        for name in ("data_batch_1", "data_batch_2", "test_batch"):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(good)
            tar.addfile(member, io.BytesIO(good))
    return content.getvalue()


@pytest.mark.parametrize("form", ["data folder", "folder", "archive"])
def test_a_user_s_own_copy_is_read_from_any_of_its_forms(folder, tmp_path, archive, form):
    (tmp_path / "downloaded").mkdir()
    (tmp_path / "downloaded" / "cifar-10-python.tar.gz").write_bytes(archive)
    places = {"data folder": tmp_path, "folder": folder, "archive": tmp_path / "downloaded"}
    data = load_dataset("cifar10", places[form])
    assert np.array_equal(data.validation.inputs, content()[b"data"])
    assert data.test.labels.tolist() == content()[b"labels"]
    assert data.test.labels.dtype == np.int32
    assert not data.official
    assert str(tmp_path) in data.notice


def test_official_means_that_every_checksum_matches(folder, good, monkeypatch):
    digest = hashlib.md5(good).hexdigest()
    monkeypatch.setattr(cifar10, "BATCH_MD5", dict.fromkeys(NAMES, digest))
    data = load_dataset("cifar10", folder)
    assert (data.official, data.notice) == (True, "")
    replace(folder / "test_batch", pickle.dumps(content(batch_label=b"changed")))
    assert not load_dataset("cifar10", folder).official


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("inside", ["dictionary", "array"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    folder, tmp_path, protocol, inside
):
    bomb = Runs(str(tmp_path / "mark"))
    batch = {b"data": np.array([bomb], object) if inside == "array" else bomb, b"labels": []}
    replace(folder / "data_batch_1", pickle.dumps(batch, protocol))
    with pytest.raises(DataError, match="data_batch_1 is not a readable batch"):
        load_dataset("cifar10", folder)
    assert not (tmp_path / "mark").exists()


IMAGES = np.zeros((10000, 3072), np.uint8)
BAD_BATCHES = {
    "label 10": (content(labels=[10] + [0] * 9999), "labels .* from 0 to 9"),
    "label -1": (content(labels=[0] * 9999 + [-1]), "labels .* from 0 to 9"),
    "too few labels": (content(labels=[0] * 9999), "10000 integers"),
    "labels of floats": (content(labels=[0.5] * 10000), "10000 integers"),
    "ragged labels": (content(labels=[[0], [0, 1]] * 5000), "not a readable batch"),
    "wrong shape": (content(data=IMAGES[:, 1:]), r"images .*\[10000, 3072\]"),
    "too few images": (content(data=IMAGES[1:]), r"images .*\[10000, 3072\]"),
    "images of int8": (content(data=IMAGES.view(np.int8)), "uint8"),
    "no images": ({b"labels": [0] * 10000}, "not a readable batch"),
    "a list": ([1, 2], "not a readable batch"),
}


@pytest.mark.parametrize(("batch", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_a_file_that_is_no_batch_is_named(folder, batch, message):
    replace(folder / "data_batch_2", pickle.dumps(batch))
    with pytest.raises(DataError, match=rf"data_batch_2.*{message}") as caught:
        load_dataset("auto", folder)
    assert "\n" not in str(caught.value)


def python_2_pickle(images, shape=(10000, 3072), kind=b"u1", global_name=b"numpy\ndtype"):
    """A batch of labels 7 as Python 2 pickles it: strings are bytes, and NumPy is version 1."""
    rows, columns = (b"M" + n.to_bytes(2, "little") for n in shape)
    fortran = b"\x88" if images.flags.f_contiguous else b"\x89"
    pixels = images.tobytes("A")
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"c" + global_name + b"\nU\x02" + kind + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + rows + columns + b"\x86" + dtype + fortran
    state += b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    labels = b"](" + 10000 * b"K\x07" + b"e"
    return b"\x80\x02}(U\x06labels" + labels + b"U\x04data" + array + state + b"u."


def python_3_pickle(images, protocol, labels_dtype):
    labels = np.arange(10000, dtype=labels_dtype) % 10
    return pickle.dumps({b"labels": labels, b"data": images}, protocol)


WRITERS = {
    "Python 2": python_2_pickle,
    "Python 3, protocol 3": lambda images: python_3_pickle(images, 3, "<i8"),
    "Python 3, protocol 4, big-endian labels": lambda images: python_3_pickle(images, 4, ">i4"),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_batch_is_read_as_numpy_unpickles_it(write, order):
    images = content()[b"data"].copy(order)
    pickled = write(images)
    expected = pickle.loads(pickled, encoding="bytes")
    batch = cifar10.parse_batch(pickled, "batch")
    assert np.array_equal(batch.inputs, images)
    assert np.array_equal(batch.inputs, expected[b"data"])
    assert np.array_equal(batch.labels, expected[b"labels"])
    assert (batch.inputs.dtype, batch.labels.dtype) == (np.uint8, np.int32)
    assert batch.inputs.flags.c_contiguous
    assert batch.inputs.flags.writeable


BAD_ARRAYS = {
    "another shape": (IMAGES, {"shape": (10000, 3071)}),
    "too few bytes": (IMAGES[:-1], {}),
    "objects": (IMAGES, {"kind": b"O8"}),
    "another global": (IMAGES, {"global_name": b"numpy\nmemmap"}),
}


@pytest.mark.parametrize(("images", "changes"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_an_array_that_contradicts_itself_is_refused(images, changes):
    with pytest.raises(DataError, match=r"^batch is not a readable batch"):
        cifar10.parse_batch(python_2_pickle(images, **changes), "batch")


def test_a_truncated_or_absurdly_large_batch_is_named(folder, good):
    for n_bytes in (0, 1, 100, 20_000_000, 10**10):
        replace(folder / "test_batch", good[:n_bytes] if n_bytes < len(good) else b"")
        os.truncate(folder / "test_batch", n_bytes)
        with pytest.raises(DataError, match="test_batch is not a readable batch"):
            load_dataset("cifar10", folder)


def test_changed_bytes_give_a_batch_or_a_one_line_error(good):
    rng = np.random.default_rng(0)
    for _ in range(200):
        header = bytearray(good[:400])
        header[rng.integers(len(header))] = rng.integers(256)
        try:
            batch = cifar10.parse_batch(bytes(header) + good[400:], "noise")
            assert batch.inputs.shape == IMAGES.shape
        except DataError as error:
            assert "noise" in str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize("make", [os.unlink, lambda path: (path.unlink(), os.mkfifo(path))])
def test_a_missing_batch_is_named_and_a_pipe_is_not_waited_for(folder, make):
    make(folder / "data_batch_2")
    with pytest.raises(DataError, match="lacks data_batch_2"):
        load_dataset("cifar10", folder)


def test_a_corrupt_archive_is_named(archive, tmp_path):
    path, middle = tmp_path / "cifar-10-python.tar.gz", len(archive) // 2
    damage = {
        "empty": b"",
        "text": b"not a gzip file",
        "truncated": archive[:middle],
        "flipped": archive[:middle] + bytes(64) + archive[middle + 64 :],
        "the checksum differs": archive[:-8] + bytes(4) + archive[-4:],
        "no batches": gzip.compress(bytes(10240)),
    }
    for damaged in damage.values():
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"python\.tar\.gz (is corrupt|lacks data_batch_1)"):
            load_dataset("cifar10", path)


@pytest.mark.usefixtures("no_network")
def test_auto_without_data_is_synthetic_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load_dataset("auto", tmp_path)
    assert data.name == "synthetic"
    assert not data.official
    assert "SYNTHETIC" in data.notice
    with pytest.raises(UnavailableError, match=r"no CIFAR-10 in .* by hand"):
        load_dataset("cifar10", tmp_path)


def test_splits_are_those_of_the_assignment_and_of_the_full_data(synthetic_batches):
    one, two, *_, five, test = synthetic_batches
    small, full = (load_dataset("synthetic", split=split) for split in ("assignment", "full"))
    assert np.array_equal(small.train.inputs, one[0])
    assert np.array_equal(small.validation.labels, two[1])
    assert [len(s.labels) for s in (full.train, full.validation, full.test)] == [49000, 1000, 10000]
    assert np.array_equal(full.train.inputs[:10000], one[0])
    assert np.array_equal(full.validation.inputs, five[0][-1000:])
    assert np.array_equal(full.test.inputs, test[0])


@pytest.fixture(scope="module")
def synthetic_batches():
    return [synthetic.batch(name) for name in NAMES]


def test_synthetic_images_are_the_same_bytes_everywhere(synthetic_batches):
    images, labels = synthetic_batches[0]
    assert np.bincount(labels, minlength=10).min() > 900
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "5da9b5a57a4fee6b9d5423691f442912e97c1ff29c29e58d466c30b99907763d"
    assert len({batch[0].tobytes() for batch in synthetic_batches}) == 6
    assert not np.array_equal(images, synthetic.batch(NAMES[0], seed=1)[0])


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"name is 'imagenet'.*auto, cifar10, synthetic"):
        load_dataset("imagenet")
    with pytest.raises(InputError, match="split is 'half'"):
        load_dataset("synthetic", split="half")


def test_real_images_are_read(real):
    assert (real.name, real.n_features, real.n_classes) == ("cifar10", 3072, 10)
    assert real.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.bincount(real.test.labels).tolist() == [1000] * 10
    assert real.official == (not real.notice)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "linear_cifar.data.cifar10", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_path_of_the_batches(folder):
    done = command(folder.parent)
    assert (done.returncode, done.stdout) == (0, f"{folder}\n")
    assert done.stderr.startswith("note: ")
    replace(folder / "data_batch_5", b"text")
    done = command(folder.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert command("--bogus").returncode == 1


def test_the_data_folder_comes_from_the_environment_or_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("LINEAR_CIFAR_DATA")
    assert default_data_dir().name == "linear_cifar"


CONTENT = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the archive whole or badly, as the first part of the path says."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(kind)
        if kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = {"whole": CONTENT, "wrong": CONTENT[::-1]}.get(kind, CONTENT[:1000])
        self.wfile.write(body)
        if kind == "stalled":
            self.server.released.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    authority = trustme.CA()
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.requests, httpd.released, httpd.bundle = [], threading.Event(), bundle
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.released.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Downloads from the server in some of its ways, or from other addresses, in turn."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.bundle))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(cifar10, "TIMEOUT", (4, 0.5))
    server.requests.clear()

    def fetch(*kinds):
        urls = [
            kind if "://" in kind else f"https://127.0.0.1:{server.server_port}/{kind}/a.tar.gz"
            for kind in kinds
        ]
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        return download(tmp_path / "data", urls, sha256)

    fetch.folder = tmp_path / "data"
    return fetch


def test_a_download_arrives_whole_alone_and_silently(fetch, server, capfd, caplog, monkeypatch):
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    pooch.get_logger().setLevel(logging.DEBUG)
    path = fetch("whole", "missing")
    assert path.read_bytes() == CONTENT
    assert list(fetch.folder.iterdir()) == [path]
    assert server.requests == ["whole"]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert cifar10.find_or_download(fetch.folder) == path


@pytest.mark.parametrize("bad", ["missing", "wrong", "truncated", "stalled"])
def test_the_next_mirror_is_tried_after_a_bad_one(fetch, server, bad):
    assert fetch(bad, "whole").read_bytes() == CONTENT
    assert server.requests == [bad, "whole"]


def test_the_error_names_each_mirror_and_its_reason(fetch):
    with pytest.raises(UnavailableError) as caught:
        fetch("missing", "wrong", "truncated", "stalled", "https://127.0.0.1:1/a.tar.gz")
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("127.0.0.1:") == 5
    for words in ("404", "wrong checksum", "127.0.0.1:1: the connection failed"):
        assert words in message
    assert not list(fetch.folder.iterdir())


def test_unknown_certificates_are_refused(fetch, server, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(UnavailableError, match="the connection failed"):
        fetch("whole")
    assert server.requests == []


def test_an_unwritable_folder_is_a_one_line_error(fetch):
    fetch.folder.write_text("a file in place of the folder")
    with pytest.raises(UnavailableError, match="cannot write to"):
        fetch("whole")
