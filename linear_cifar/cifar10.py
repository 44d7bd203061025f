"""The command that downloads CIFAR-10 and does nothing else.

python -m linear_cifar.cifar10 [DATA_DIR]
"""

import sys
from pathlib import Path

from linear_cifar.data.cifar10 import default_data_dir, find
from linear_cifar.data.download import download
from linear_cifar.data.errors import DataError


def main(arguments: list[str]) -> int:
    """Downloads the archive into the folder given, or the default one; returns an exit code."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print("usage: python -m linear_cifar.cifar10 [DATA_DIR]", file=sys.stderr)
        return 0 if arguments in (["--help"], ["-h"]) else 1
    data_dir = Path(arguments[0]) if arguments else default_data_dir()
    try:
        print(find(data_dir) or download(data_dir, progress=True))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
