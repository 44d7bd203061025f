"""A program that explains why JAX ended a process: see `distributed`.

Its standard input ends when that process does. A byte before the end means that all is well.
"""

import signal
import sys

LOST = (
    "another process was lost, can't be reached, or ended with an error of its own; finished "
    "work is kept, and --resume continues"
)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not sys.stdin.buffer.read():
        print(f"error: {LOST}", file=sys.stderr)
