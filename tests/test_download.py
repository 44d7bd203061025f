import hashlib
import http.server
import ssl
import threading
import time

import pytest
import trustme

from linear_cifar import cifar10 as command
from linear_cifar.data import UnavailableError, cifar10, download
from linear_cifar.data.cifar10 import find

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the archive by the first part of the path: whole, or badly in one of the ways."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        way = self.path.split("/")[1]
        self.server.asked.append(way)
        if way == "missing":
            self.send_error(404)
            return
        if way == "redirect":
            self.send_response(302)
            self.send_header("Location", "/whole/cifar-10-python.tar.gz")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        try:
            if way == "whole":
                self.wfile.write(CONTENT)
            elif way == "wrong":
                self.wfile.write(CONTENT[::-1])
            elif way == "truncated":
                self.wfile.write(CONTENT[:1000])
            elif way == "stalled":
                self.wfile.write(CONTENT[:1000])
                self.server.released.wait(10)
            elif way == "trickle":
                for i in range(200):
                    self.wfile.write(CONTENT[i * 100 : i * 100 + 100])
                    if self.server.released.wait(0.05):
                        break
        except OSError:
            pass  # the client has had enough, as it should

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
    httpd.asked, httpd.released, httpd.bundle = [], threading.Event(), bundle
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.released.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Downloads from the server's ways, in turn, with time-outs for a test."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.bundle))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(download, "READ_SECONDS", 0.5)
    monkeypatch.setattr(download, "PATIENCE_SECONDS", 0.5)
    server.asked.clear()

    def fetch(*ways):
        urls = tuple(
            way
            if "://" in way
            else f"https://127.0.0.1:{server.server_port}/{way}/cifar-10-python.tar.gz"
            for way in ways
        )
        return download.download(tmp_path / "data", urls, SHA256)

    fetch.folder = tmp_path / "data"
    return fetch


def test_the_file_arrives_whole_and_alone(fetch, server, capfd):
    path = fetch("whole", "missing")
    assert path.read_bytes() == CONTENT
    assert list(fetch.folder.iterdir()) == [path]
    assert server.asked == ["whole"]
    assert capfd.readouterr() == ("", "")
    assert cifar10.find(fetch.folder) == path


@pytest.mark.parametrize("bad", ["missing", "wrong", "truncated", "stalled", "trickle", "redirect"])
def test_the_next_mirror_is_tried_after_a_bad_one(fetch, server, bad):
    assert fetch(bad, "whole").read_bytes() == CONTENT
    assert server.asked == [bad, "whole"]


def test_each_mirror_s_reason_is_given_and_nothing_left(fetch):
    with pytest.raises(UnavailableError) as caught:
        fetch("missing", "wrong", "truncated", "trickle", "https://127.0.0.1:1/a.tar.gz")
    message = str(caught.value)
    assert "\n" not in message
    for reason in ("status 404", "wrong checksum", "failed", "slower than", "127.0.0.1:1 does not"):
        assert reason in message
    assert not list(fetch.folder.iterdir())


def test_only_https_is_spoken(fetch, server):
    with pytest.raises(ValueError, match="have to be https"):
        fetch(f"http://127.0.0.1:{server.server_port}/whole/x.tar.gz")
    assert server.asked == []


def test_a_certificate_that_nobody_vouches_for_is_refused(fetch, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(UnavailableError, match="does not answer"):
        fetch("whole")


def test_mirrors_that_never_answer_are_given_up_together(fetch, monkeypatch):
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.5)
    import requests

    monkeypatch.setattr(requests, "head", lambda *_, **__: time.sleep(5))
    start = time.monotonic()
    with pytest.raises(UnavailableError):
        fetch("whole", "whole", "whole")
    assert time.monotonic() - start < 4


def test_an_unwritable_folder_is_an_error_of_one_line(fetch):
    fetch.folder.write_text("a file where the folder should be")
    with pytest.raises(UnavailableError, match="cannot write to"):
        fetch("whole")


def test_the_module_run_as_a_command_finds_what_is_there(real_dir, capsys):
    assert command.main([str(real_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(find(real_dir))
    assert command.main(["--bogus"]) == 1
