"""The command that downloads CIFAR-10, where it isn't there, and reads all of it.

python -m linear_cifar.cifar10 [DATA_DIR]
"""

import sys
from pathlib import Path

from linear_cifar.data.cifar10 import BATCH_MD5, default_data_dir, find, load_batches
from linear_cifar.data.download import download
from linear_cifar.data.errors import DataError


def main(arguments: list[str]) -> int:
    """Downloads the archive into the folder given, or the default one; returns an exit code.

    What is there already is read, for it may be anything.
    """
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print("usage: python -m linear_cifar.cifar10 [DATA_DIR]", file=sys.stderr)
        return 0 if arguments in (["--help"], ["-h"]) else 1
    data_dir = Path(arguments[0]) if arguments else default_data_dir()
    try:
        source = find(data_dir) or download(data_dir, progress=True)
        _, _, notice = load_batches(tuple(BATCH_MD5), source)
        print(source)
        if notice:
            print(f"note: {notice}", file=sys.stderr)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
