"""The program that has the last word of a process which JAX ends: see `distributed`.

Its standard input ends when that process does; without a byte before that, it has something to say.
"""

import signal
import sys

LOST = (
    "another process was lost, can't be reached, or has ended with an error of its own; what is "
    "finished is kept, for --resume"
)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not sys.stdin.buffer.read():
        print(f"error: {LOST}", file=sys.stderr)
