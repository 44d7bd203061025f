"""Searches for a damaged file that breaks a loader, guided by the code that each file reaches.

    pip install atheris  # for Linux and macOS; the tests don't need it
    python -m tests.fuzz LOADER [--seconds=N]

The loaders are in tests/loaders.py, and their undamaged files are what the search starts from. A
file that is neither read nor refused ends it with a traceback, and stays here as crash-…; add its
fault to the examples in tests/test_damaged_files.py. One that takes more than 2 GB stays as oom-….
"""

import argparse
import sys
import tempfile
from pathlib import Path

READERS = ("linear_cifar", "gzip", "numpy.lib", "safetensors", "tarfile", "zipfile")


def main() -> None:
    """Fuzzes one loader."""
    import atheris

    with atheris.instrument_imports(include=READERS):
        import tests.conftest  # noqa: F401 (its settings of JAX)
        from tests import loaders

    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("loader", choices=loaders.FILES)
    parser.add_argument("--seconds", type=int, default=600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus, place = Path(folder) / "corpus", Path(folder) / "file"
        corpus.mkdir()
        place.mkdir()
        for i, content in enumerate(loaders.FILES[args.loader]):
            (corpus / str(i)).write_bytes(content)

        def check(content: bytes) -> None:
            loaders.check_read_or_refused(place, args.loader, content)

        options = [f"-max_total_time={args.seconds}", "-max_len=20000", str(corpus)]
        atheris.Setup([sys.argv[0], *options], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
