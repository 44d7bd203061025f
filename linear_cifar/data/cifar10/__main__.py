"""Downloads CIFAR-10 if it isn't there, reads every batch and prints the path.

python -m linear_cifar.data.cifar10 [DATA_DIR]
"""

import sys

from linear_cifar.data.cifar10 import BATCH_MD5, find_or_download, load_batches
from linear_cifar.errors import DataError

if __name__ == "__main__":
    data_dir = sys.argv[1] if len(sys.argv) == 2 else None
    if len(sys.argv) > 2 or str(data_dir).startswith("-"):
        sys.exit("usage: python -m linear_cifar.data.cifar10 [DATA_DIR]")
    try:
        source = find_or_download(data_dir, progress=True)
        _, official = load_batches(source, tuple(BATCH_MD5))
    except DataError as error:
        sys.exit(f"error: {error}")
    print(source)
    if not official:
        print("note: it is not the official CIFAR-10: checksums differ", file=sys.stderr)
